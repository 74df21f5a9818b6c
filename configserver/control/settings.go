package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/parameters"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/lifecycle"
)

// Settings: parameters of the servers' configuration that an admin set, with
// CONFIG SET at a proxy or with basaltctl.
//
// Goal: every node has them, now, after it started again, after a failover, and
// when it joins later; a value that the servers do not take is refused in their
// own words and leaves no trace.
//
//  1. What the Configserver manages is refused (package parameters). A parameter
//     of that kind that has the value already is left out: tools that write back
//     what CONFIG GET showed them mean no harm.
//  2. One master gets the parameters, in one CONFIG SET, which is atomic. Its
//     error is the answer, and nothing else happens.
//  3. They are committed with the cluster's record, in the one transaction that
//     compares the epoch and the lease. When that fails, the master gets its old
//     values back.
//  4. All other nodes get them, at the same time. Nobody waits for a node that
//     does not answer.
//  5. Whoever runs the cluster compares what each admitted incarnation was given
//     with the record (renewSettings): a node that was away, one that a
//     Configserver died over, and one that was admitted meanwhile get all of
//     them again. At its admission a node gets them before anybody may log in.
//     The same way all nodes answer BUSY earlier when policy.HungAfter is lowered,
//     also where a longer busy-reply-threshold was kept before.
//
// Calls take turns, so that all nodes see them in the order of the commits.
//
// What may be lost: a Configserver that dies between 2 and 3 leaves one master
// with values that nobody keeps, until it starts again; the caller gets an error
// that says that it may or may not be done. Parameters that are not kept at all
// (parameters.Momentary) are set on the nodes that answer now.
//
// Why level-triggered (5) and not only by events: a node misses a CONFIG SET in
// too many ways, and to set a value again costs nothing.

// setTimeout bounds one call.
const setTimeout = 8 * time.Second

// settingsOf is what a node was given: the settings of an epoch, and how long at
// most a script may run before it answers BUSY.
type settingsOf struct {
	incarnation string
	epoch       uint64
	busy        time.Duration
}

// settingsFor is what a node should have been given.
func settingsFor(c *topology.Cluster, n *topology.Node) settingsOf {
	return settingsOf{n.Incarnation, c.SettingsEpoch, failover.BusyLimit(c.Policy)}
}

// SetConfig implements API.
func (l *Loop) SetConfig(ctx context.Context, asked []topology.Setting) (topology.Cluster, error) {
	return l.inTurn(ctx, func(ctx context.Context) (topology.Cluster, error) { return l.setConfig(ctx, asked) })
}

// UnsetConfig implements API.
func (l *Loop) UnsetConfig(ctx context.Context, names []string) (topology.Cluster, error) {
	return l.inTurn(ctx, func(ctx context.Context) (topology.Cluster, error) {
		names = slices.Clone(names)
		for i, name := range names {
			names[i] = parameters.Canonical(name)
			if !slices.ContainsFunc(l.Topology().Settings, func(s topology.Setting) bool { return s.Name == names[i] }) {
				return topology.Cluster{}, topology.Preconditionf("%s is not set for this cluster; `basaltctl cluster config get` shows what is", name)
			}
		}
		return l.Commit(ctx, "configuration without "+strings.Join(names, ", "), func(c *topology.Cluster) ([]topology.Event, error) {
			c.Settings = slices.DeleteFunc(c.Settings, func(s topology.Setting) bool { return slices.Contains(names, s.Name) })
			return nil, nil
		})
	})
}

// inTurn runs f while no other call about settings runs. The caller may go away;
// f goes on.
func (l *Loop) inTurn(ctx context.Context, f func(ctx context.Context) (topology.Cluster, error)) (topology.Cluster, error) {
	select {
	case l.settingTurn <- struct{}{}:
	case <-ctx.Done():
		return topology.Cluster{}, ctx.Err()
	case <-l.stopped:
		return topology.Cluster{}, l.why()
	}
	type result struct {
		c   topology.Cluster
		err error
	}
	done := make(chan result, 1)
	if err := l.do(ctx, func() {
		l.spawn(func() {
			bounded, cancel := context.WithTimeout(AskedBy(l.life, Asker(ctx)), setTimeout)
			defer cancel()
			c, err := f(bounded)
			<-l.settingTurn
			done <- result{c, err}
		})
	}); err != nil {
		<-l.settingTurn
		return topology.Cluster{}, err
	}
	select {
	case r := <-done:
		return r.c, r.err
	case <-ctx.Done():
		return topology.Cluster{}, ctx.Err()
	}
}

func (l *Loop) setConfig(ctx context.Context, asked []topology.Setting) (topology.Cluster, error) {
	record := l.Topology()
	if record.Phase == topology.Deleting {
		return record, topology.Preconditionf("cluster %s is being deleted", record.Name)
	}
	x := l.settingNodes
	if x == nil {
		x = failover.NewExecutor(l.life, l, "", l.log)
		l.settingNodes = x
	}
	x.Retain(&record)
	masters, rest := l.settingTargets(ctx, &record)
	wanted, err := mayBeSet(ctx, x, masters, asked, failover.BusyLimit(record.Policy))
	if err != nil {
		return record, err
	}
	kept := toKeep(wanted)
	if len(wanted) == 0 || len(kept) == len(wanted) && l.haveAll(ctx, &record, kept) {
		return record, nil
	}
	// What the record cannot hold is found out before any server has it.
	try := record.Clone()
	if try.Settings = topology.WithSettings(try.Settings, kept); try.Validate() != nil {
		return record, try.Validate()
	}
	first, before, err := l.setFirst(ctx, x, masters, wanted)
	if err != nil {
		return record, err
	}
	had := record.SettingsEpoch
	if len(kept) > 0 {
		names := make([]string, len(kept))
		for i, s := range kept {
			names[i] = s.Name
		}
		next, err := l.Commit(ctx, "configuration: "+strings.Join(names, ", "), func(c *topology.Cluster) ([]topology.Event, error) {
			if c.Phase == topology.Deleting {
				return nil, topology.Preconditionf("cluster %s is being deleted", c.Name)
			}
			c.Settings, c.SettingsEpoch = topology.WithSettings(c.Settings, kept), c.Epoch
			return nil, nil
		})
		if err != nil {
			if l.Owned() == nil {
				_, undo := x.SetParameters(context.WithoutCancel(ctx), first, before)
				l.log.Warn("configuration was not kept and is taken back", "node", first.ID, "parameters", names, "error", errors.Join(err, undo))
			}
			return record, err
		}
		record = next
		l.log.Info("configuration set", "parameters", names, "epoch", record.Epoch)
	}
	return record, l.setRest(ctx, x, first, append(masters, rest...), wanted, had, &record)
}

// settingTargets are the nodes that answer now: masters, in the order of their
// shards, and the others.
func (l *Loop) settingTargets(ctx context.Context, c *topology.Cluster) (masters, rest []topology.Node) {
	_ = l.do(ctx, func() {
		now := time.Now()
		for i := range c.Shards {
			s := &c.Shards[i]
			for _, n := range s.Nodes {
				switch {
				case !l.obs.Admitted(&n, now):
				case n.ID == s.Master:
					masters = append(masters, n)
				default:
					rest = append(rest, n)
				}
			}
		}
	})
	return masters, rest
}

// mayBeSet refuses what is not the admin's to set, and leaves out of it what
// has the value already. Names stay as they were given, for the servers' errors.
func mayBeSet(ctx context.Context, x *failover.Executor, masters []topology.Node, asked []topology.Setting, busy time.Duration) ([]topology.Setting, error) {
	var wanted []topology.Setting
	for _, s := range asked {
		reason := parameters.Refusal(s.Name, s.Value, busy)
		if reason == "" {
			wanted = append(wanted, s)
			continue
		}
		if parameters.KindOf(s.Name) != parameters.Secret && len(masters) > 0 {
			is, err := x.Parameters(ctx, &masters[0], []string{s.Name})
			if err == nil && is[0].Value == s.Value {
				continue
			}
		}
		return nil, &topology.RefusalError{Reply: parameters.RefusalReply(s.Name, reason)}
	}
	return wanted, nil
}

// toKeep are the settings that are kept, by their canonical names.
func toKeep(wanted []topology.Setting) (kept []topology.Setting) {
	for _, s := range wanted {
		if parameters.KindOf(s.Name) != parameters.Momentary {
			kept = append(kept, topology.Setting{Name: parameters.Canonical(s.Name), Value: s.Value})
		}
	}
	return kept
}

// haveAll tells if the record has settings already, and every node was given
// the record's.
func (l *Loop) haveAll(ctx context.Context, c *topology.Cluster, settings []topology.Setting) bool {
	for _, s := range settings {
		if !slices.Contains(c.Settings, s) {
			return false
		}
	}
	all := false
	err := l.do(ctx, func() {
		all = true
		for i := range c.Shards {
			for _, n := range c.Shards[i].Nodes {
				all = all && l.settingsAt[n.ID] == settingsFor(c, &n)
			}
		}
	})
	return err == nil && all
}

// setFirst sets parameters on one master, and returns it and what it had before.
func (l *Loop) setFirst(ctx context.Context, x *failover.Executor, masters []topology.Node, wanted []topology.Setting) (*topology.Node, []topology.Setting, error) {
	names := make([]string, len(wanted))
	for i, s := range wanted {
		names[i] = s.Name
	}
	var failed error
	for i := range masters {
		before, err := x.Parameters(ctx, &masters[i], names)
		refusal := ""
		if err == nil {
			refusal, err = x.SetParameters(ctx, &masters[i], wanted)
		}
		switch {
		case err != nil:
			failed = err
			if err := l.Owned(); err != nil {
				return nil, nil, err
			}
			continue
		case refusal != "":
			return nil, nil, &topology.RefusalError{Reply: refusal}
		}
		return &masters[i], before, nil
	}
	if failed == nil {
		failed = errors.New("no shard has one")
	}
	return nil, nil, topology.Preconditionf("nothing was set, for no master answers now (%v); try again when one does", failed)
}

// setRest sets parameters on all nodes but the first, which has them. A node
// that does not answer gets them when it does; one that refuses them is an error.
// before is the SettingsEpoch before, record that with the new settings.
func (l *Loop) setRest(ctx context.Context, x *failover.Executor, first *topology.Node, nodes []topology.Node, wanted []topology.Setting, before uint64, record *topology.Cluster) error {
	var (
		mu      sync.Mutex
		given   = map[string]settingsOf{}
		refused []string
	)
	lifecycle.Parallel(len(nodes), 0, func(i int) {
		n := &nodes[i]
		if n.ID != first.ID {
			reply, err := x.SetParameters(ctx, n, wanted)
			if err != nil || failover.Transient(reply) {
				l.log.Warn("node gets its configuration later", "node", n.ID, "error", err, "reply", reply)
				return
			}
			if reply != "" {
				mu.Lock()
				refused = append(refused, n.ID+" said "+reply)
				mu.Unlock()
			}
		}
		mu.Lock()
		given[n.ID] = settingsFor(record, n)
		mu.Unlock()
	})
	err := l.do(ctx, func() {
		for id, is := range given {
			l.minReplicasGiven(id, is.incarnation, wanted)
			// Only a node that had all the settings before has all of them now.
			if l.settingsAt[id] == (settingsOf{is.incarnation, before, is.busy}) {
				l.settingsAt[id] = is
			}
		}
	})
	if len(refused) > 0 {
		slices.Sort(refused)
		return &topology.RefusalError{Reply: "ERR CONFIG SET is done and kept, but not every server took it: " + strings.Join(refused, "; ")}
	}
	return err
}

// minReplicasGiven notes that a node was given settings: what the policy wants
// of min-replicas-to-write may be more (trimMinReplicas).
func (l *Loop) minReplicasGiven(node, incarnation string, settings []topology.Setting) {
	for _, s := range settings {
		if parameters.Canonical(s.Name) == parameters.MinReplicas {
			count, _ := strconv.Atoi(s.Value) // a server took it
			l.minSet[node] = minSetting{incarnation, count}
		}
	}
}

// renewSettings gives the settings of the record to the nodes of a shard that
// were not given them. It returns true when there is something to do.
func (l *Loop) renewSettings(c *topology.Cluster, s *topology.Shard, now time.Time) bool {
	if len(l.settingTurn) > 0 {
		return false
	}
	var nodes []topology.Node
	for _, n := range s.Nodes {
		if l.obs.Admitted(&n, now) && l.settingsAt[n.ID] != settingsFor(c, &n) {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == 0 {
		return false
	}
	shard := s.ID
	l.start(shard, "settings", true, func(ctx context.Context, x *failover.Executor) error {
		select {
		case l.settingTurn <- struct{}{}:
			defer func() { <-l.settingTurn }()
		default:
			return nil // looked at again when that has ended
		}
		record := l.Topology()
		var failed error
		for i := range nodes {
			n := &nodes[i]
			refused, err := x.ApplySettings(ctx, n, &record)
			if err != nil {
				failed = err
				continue
			}
			for _, r := range refused {
				l.Tell(ctx, topology.Event{Time: time.Now(), Kind: "ConfigRefused", Severity: topology.Warning, Shard: shard, Node: n.ID, Epoch: record.Epoch,
					Message: fmt.Sprintf("%s does not take %s of the cluster's configuration (%s): set another value, or `basaltctl cluster config unset %s`", n.ID, r.Name, r.Reply, r.Name)})
			}
			if err := l.do(ctx, func() {
				l.settingsAt[n.ID] = settingsFor(&record, n)
				l.minReplicasGiven(n.ID, n.Incarnation, record.Settings)
			}); err != nil {
				return err
			}
		}
		return failed
	})
	return true
}
