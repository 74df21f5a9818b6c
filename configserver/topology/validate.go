package topology

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/basalt-redis/basalt/internal/slot"
)

// Limits of a cluster.
const (
	MaxShards = 1024
	MaxNodes  = 6
	// MaxHistories is how many replication histories of a shard are remembered. They
	// are random, so they do not get smaller when the record is compressed, and with
	// more of them that of MaxShards would be more than etcd takes.
	MaxHistories = 4
	// MaxUnacked is how many proxies that did not ack an operation names.
	MaxUnacked = 16
)

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ValidName checks a name of a cluster, shard or node: lower case letters,
// digits and "-" inside, at most 63 bytes, so that it is also a DNS label and
// a path element. The error is an *InvalidError about field.
func ValidName(field, name string) error {
	if !nameForm.MatchString(name) {
		return Invalidf(field, "%q must be 1 to 63 lower case letters, digits or inner \"-\"", name)
	}
	return nil
}

// ValidAddress checks a "host:port" with a port from 1 to 65535. The error is
// an *InvalidError about field.
func ValidAddress(field, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return Invalidf(field, "%q is not host:port: %v", address, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return Invalidf(field, "%q must have a host and a port from 1 to 65535", address)
	}
	return nil
}

// Validate checks every threshold; the error is an *InvalidError that names
// the field as the API does.
func (p Policy) Validate() error {
	if p.ReadPolicy != ReadMaster && p.ReadPolicy != ReadReadSet {
		return Invalidf("policy.read_policy", "%q must be %q or %q", p.ReadPolicy, ReadMaster, ReadReadSet)
	}
	if p.PubSub != PubSubOrdered && p.PubSub != PubSubSpread {
		return Invalidf("policy.pubsub", "%q must be %q or %q", p.PubSub, PubSubOrdered, PubSubSpread)
	}
	if p.Prefer != PreferData && p.Prefer != PreferAvailability {
		return Invalidf("policy.prefer", "%q must be %q or %q", p.Prefer, PreferData, PreferAvailability)
	}
	if p.CrossSlot != CrossOneShard && p.CrossSlot != CrossRefuse {
		return Invalidf("policy.cross_slot", "%q must be %q or %q", p.CrossSlot, CrossOneShard, CrossRefuse)
	}
	for _, d := range []struct {
		field         string
		is, low, high time.Duration
	}{
		{"probe_interval", p.ProbeInterval, 10 * time.Millisecond, time.Minute},
		{"hung_after", p.HungAfter, 100 * time.Millisecond, time.Hour},
		{"max_busy", p.MaxBusy, 0, time.Hour},
		{"ack_timeout", p.AckTimeout, 10 * time.Millisecond, time.Minute},
		{"failover_period", p.FailoverPeriod, time.Second, 30 * 24 * time.Hour},
		{"max_replica_age", p.MaxReplicaAge, time.Second, 30 * 24 * time.Hour},
		{"restart_grace", p.RestartGrace, 0, time.Hour},
		{"election_wait", p.ElectionWait, 0, time.Hour},
		{"keep_diverged", p.KeepDiverged, 0, 30 * 24 * time.Hour},
	} {
		if d.is < d.low || d.is > d.high {
			return Invalidf("policy."+d.field, "%v must be from %v to %v", d.is, d.low, d.high)
		}
	}
	for _, n := range []struct {
		field         string
		is, low, high int64
	}{
		{"refused_probes", int64(p.RefusedProbes), 1, 1000},
		{"max_failovers", int64(p.MaxFailovers), 0, 1000},
		{"min_replicas_to_write", int64(p.MinReplicasToWrite), 0, MaxNodes - 1},
		{"max_read_lag", p.MaxReadLag, 0, 1 << 50},
		{"max_replica_lag", p.MaxReplicaLag, 0, 1 << 50},
	} {
		if n.is < n.low || n.is > n.high {
			return Invalidf("policy."+n.field, "%d must be from %d to %d", n.is, n.low, n.high)
		}
	}
	if p.HungAfter < p.ProbeInterval {
		return Invalidf("policy.hung_after", "%v must not be less than probe_interval, %v", p.HungAfter, p.ProbeInterval)
	}
	return nil
}

// Validate checks every invariant of a committed record. What an admin may
// have got wrong (name, sizes, policy, ids, addresses) is an *InvalidError;
// the rest says which invariant a caller broke.
func (c Cluster) Validate() error {
	if err := c.validateWants(); err != nil {
		return err
	}
	switch c.Phase {
	case Forming, Serving, Deleting:
	default:
		return fmt.Errorf("cluster %s: phase %q is none of forming, serving, deleting", c.Name, c.Phase)
	}
	if c.Epoch == 0 {
		return fmt.Errorf("cluster %s: epoch 0, the first is 1", c.Name)
	}
	if err := c.validateUsers(); err != nil {
		return err
	}
	if err := c.validateSeats(); err != nil {
		return err
	}
	var (
		owned        slot.Set
		nodes        = map[string]string{}
		addresses    = map[string]string{}
		incarnations = map[string]string{}
	)
	for i := range c.Shards {
		s := &c.Shards[i]
		if err := ValidName("shard", s.ID); err != nil {
			return err
		}
		if i > 0 && CompareIDs(c.Shards[i-1].ID, s.ID) >= 0 {
			return fmt.Errorf("cluster %s: shard %s does not come after %s (see CompareIDs; AddShard keeps the order)",
				c.Name, s.ID, c.Shards[i-1].ID)
		}
		if owned.Intersects(&s.Slots) {
			return fmt.Errorf("shard %s: owns slots that another shard owns too", s.ID)
		}
		owned.Union(&s.Slots)
		for _, n := range s.Nodes {
			if err := n.validate(); err != nil {
				return err
			}
			if other, ok := nodes[n.ID]; ok {
				return Invalidf("node", "%s is in shard %s already", n.ID, other)
			}
			if other, ok := addresses[n.Address]; ok {
				return Invalidf("address", "%s of node %s is the address of node %s already", n.Address, n.ID, other)
			}
			if other, ok := incarnations[n.Incarnation]; ok && n.Incarnation != "" {
				return Invalidf("address", "node %s and node %s are one and the same server, incarnation %s",
					n.ID, other, n.Incarnation)
			}
			nodes[n.ID], addresses[n.Address], incarnations[n.Incarnation] = s.ID, n.ID, n.ID
		}
		if err := s.validate(c.Phase); err != nil {
			return err
		}
	}
	if c.Phase == Serving && owned.Len() != slot.Count {
		return fmt.Errorf("cluster %s: serving with %d of %d slots owned", c.Name, owned.Len(), slot.Count)
	}
	return nil
}

// validateWants checks what an admin asked for.
func (c Cluster) validateWants() error {
	if err := ValidName("name", c.Name); err != nil {
		return err
	}
	if c.WantShards < 1 || c.WantShards > MaxShards {
		return Invalidf("shards", "%d must be from 1 to %d", c.WantShards, MaxShards)
	}
	if c.WantNodes < 1 || c.WantNodes > MaxNodes {
		return Invalidf("nodes_per_shard", "%d must be from 1 to %d", c.WantNodes, MaxNodes)
	}
	if err := validateSettings(c.Settings); err != nil {
		return err
	}
	return c.Policy.Validate()
}

func (n *Node) validate() error {
	if err := ValidName("node", n.ID); err != nil {
		return err
	}
	if err := ValidAddress("address", n.Address); err != nil {
		return err
	}
	if n.Priority < 0 {
		return Invalidf("priority", "%d of node %s must not be negative", n.Priority, n.ID)
	}
	if n.Resolved != "" && !Literal(n.Resolved) {
		return fmt.Errorf("node %s: its endpoint %q is not ip:port", n.ID, n.Resolved)
	}
	if n.InSync && n.Incarnation == "" {
		return fmt.Errorf("node %s: in sync without an admitted incarnation", n.ID)
	}
	if n.InReadSet && n.Incarnation == "" {
		return fmt.Errorf("node %s: in the read set without an admitted incarnation", n.ID)
	}
	return nil
}

func (s *Shard) validate(phase Phase) error {
	if s.Generation == 0 {
		return fmt.Errorf("shard %s: generation 0, the first is 1", s.ID)
	}
	if s.Master != "" {
		m := s.MasterNode()
		if m == nil {
			return fmt.Errorf("shard %s: master %s is not one of its nodes", s.ID, s.Master)
		}
		if m.Incarnation == "" {
			return fmt.Errorf("shard %s: master %s has no admitted incarnation", s.ID, s.Master)
		}
		if !m.InSync {
			return fmt.Errorf("shard %s: master %s is not in the in-sync set", s.ID, s.Master)
		}
	}
	if phase == Serving && len(s.Members()) == 0 && slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Incarnation != "" }) {
		return fmt.Errorf("shard %s: serving with an empty in-sync set; the last member stays, for it had everything last", s.ID)
	}
	if len(s.Histories) > MaxHistories {
		return fmt.Errorf("shard %s: %d histories, at most %d are kept", s.ID, len(s.Histories), MaxHistories)
	}
	if s.Operation == nil {
		if s.Frozen {
			return fmt.Errorf("shard %s: frozen without an operation that will end it", s.ID)
		}
		if s.Master == "" && phase == Serving {
			return fmt.Errorf("shard %s: serving without a master and without an operation", s.ID)
		}
		return nil
	}
	o := s.Operation
	switch o.Kind {
	case Failover, Switchover, Rotation:
	default:
		return fmt.Errorf("shard %s: operation of unknown kind %q", s.ID, o.Kind)
	}
	if o.ID == "" || o.Phase == "" {
		return fmt.Errorf("shard %s: operation without an id or a phase", s.ID)
	}
	if o.Candidate != "" && s.Node(o.Candidate) == nil {
		return fmt.Errorf("shard %s: candidate %s of operation %s is not one of its nodes", s.ID, o.Candidate, o.ID)
	}
	return nil
}

// ValidateNext checks what must hold between a record and the one that is to
// replace it: same cluster, the next epoch, no way back out of serving or
// deleting, no generation or version of a seat that returns, and no second shard with slots
// while requests over several slots are served because there is one.
func (c Cluster) ValidateNext(next Cluster) error {
	if next.Epoch != c.Epoch+1 {
		return fmt.Errorf("cluster %s: epoch %d after epoch %d", c.Name, next.Epoch, c.Epoch)
	}
	return c.validateAfter(next)
}

// ValidateAdopted is ValidateNext for a record that is to replace an older one than
// servers and proxies obey: its epoch is above all of theirs.
func (c Cluster) ValidateAdopted(next Cluster) error {
	if next.Epoch <= c.Epoch+1 {
		return fmt.Errorf("cluster %s: epoch %d does not leave room for those that were lost after epoch %d", c.Name, next.Epoch, c.Epoch)
	}
	return c.validateAfter(next)
}

func (c Cluster) validateAfter(next Cluster) error {
	if next.Name != c.Name || next.UID != c.UID || !next.CreatedAt.Equal(c.CreatedAt) {
		return fmt.Errorf("cluster %s created %v: replaced by another cluster, %s created %v",
			c.Name, c.CreatedAt, next.Name, next.CreatedAt)
	}
	rank := map[Phase]int{Forming: 0, Serving: 1, Deleting: 2}
	if rank[next.Phase] < rank[c.Phase] {
		return fmt.Errorf("cluster %s: phase %s after phase %s", c.Name, next.Phase, c.Phase)
	}
	for i := range c.Shards {
		was := &c.Shards[i]
		if is := next.Shard(was.ID); is != nil && is.Generation < was.Generation {
			return fmt.Errorf("shard %s: generation %d after generation %d", was.ID, is.Generation, was.Generation)
		}
		if is := next.Shard(was.ID); is != nil && is.Term < was.Term {
			return fmt.Errorf("shard %s: term %d after term %d", was.ID, is.Term, was.Term)
		}
	}
	if c.Phase == Serving && c.Policy.CrossSlot == CrossOneShard && c.owners() == 1 && next.owners() > 1 {
		return Invalidf("policy.cross_slot", "requests over several slots are served by the one shard of cluster %s and would fail with two: "+
			"see in \"basaltctl cluster status %s\" who sends them, and set \"basaltctl cluster update %s --cross-slot refuse\" first", c.Name, c.Name, c.Name)
	}
	return c.validateNextSeats(next)
}

// owners is how many shards own slots.
func (c Cluster) owners() (n int) {
	for i := range c.Shards {
		if c.Shards[i].Slots.Len() > 0 {
			n++
		}
	}
	return n
}
