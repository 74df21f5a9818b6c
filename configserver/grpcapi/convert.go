package grpcapi

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// This file is the one place where the model and the wire meet.

var phases = map[topology.Phase]basaltv1.ClusterPhase{
	topology.Forming:  basaltv1.ClusterPhase_CLUSTER_PHASE_FORMING,
	topology.Serving:  basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING,
	topology.Deleting: basaltv1.ClusterPhase_CLUSTER_PHASE_DELETING,
}

var pubSubs = map[topology.PubSub]basaltv1.PubSub{
	topology.PubSubOrdered: basaltv1.PubSub_PUB_SUB_ORDERED,
	topology.PubSubSpread:  basaltv1.PubSub_PUB_SUB_SPREAD,
}

var readPolicies = map[topology.ReadPolicy]basaltv1.ReadPolicy{
	topology.ReadMaster:  basaltv1.ReadPolicy_READ_POLICY_MASTER,
	topology.ReadReadSet: basaltv1.ReadPolicy_READ_POLICY_READ_SET,
}

var crossSlots = map[topology.CrossSlot]basaltv1.CrossSlot{
	topology.CrossOneShard: basaltv1.CrossSlot_CROSS_SLOT_ONE_SHARD,
	topology.CrossRefuse:   basaltv1.CrossSlot_CROSS_SLOT_REFUSE,
}

var preferences = map[topology.Preference]basaltv1.Preference{
	topology.PreferData:         basaltv1.Preference_PREFERENCE_DATA,
	topology.PreferAvailability: basaltv1.Preference_PREFERENCE_AVAILABILITY,
}

var operationKinds = map[topology.OperationKind]basaltv1.OperationKind{
	topology.Failover:   basaltv1.OperationKind_OPERATION_KIND_FAILOVER,
	topology.Switchover: basaltv1.OperationKind_OPERATION_KIND_SWITCHOVER,
	topology.Rotation:   basaltv1.OperationKind_OPERATION_KIND_ROTATION,
}

var sights = map[topology.Sight]basaltv1.Sight{
	topology.SightUnknown: basaltv1.Sight_SIGHT_UNSPECIFIED,
	topology.SightOK:      basaltv1.Sight_SIGHT_OK,
	topology.SightRefused: basaltv1.Sight_SIGHT_REFUSED,
	topology.SightTimeout: basaltv1.Sight_SIGHT_TIMEOUT,
	topology.SightFenced:  basaltv1.Sight_SIGHT_FENCED,
}

var severities = map[topology.Severity]basaltv1.Severity{
	topology.Info:     basaltv1.Severity_SEVERITY_INFO,
	topology.Warning:  basaltv1.Severity_SEVERITY_WARNING,
	topology.Critical: basaltv1.Severity_SEVERITY_CRITICAL,
}

var roles = map[string]basaltv1.NodeRole{
	"master":  basaltv1.NodeRole_NODE_ROLE_MASTER,
	"replica": basaltv1.NodeRole_NODE_ROLE_REPLICA,
	"fenced":  basaltv1.NodeRole_NODE_ROLE_FENCED,
}

func fromSight(s basaltv1.Sight) topology.Sight {
	for model, wire := range sights {
		if wire == s {
			return model
		}
	}
	return topology.SightUnknown
}

// timestamp leaves the zero time unset.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func clusterToProto(c *topology.Cluster, owner string) *basaltv1.Cluster {
	return &basaltv1.Cluster{
		Name:          c.Name,
		Shards:        uint32(c.WantShards),
		NodesPerShard: uint32(c.WantNodes),
		Policy:        policyToProto(c.Policy),
		Phase:         phases[c.Phase],
		Epoch:         c.Epoch,
		CreatedAt:     timestamp(c.CreatedAt),
		Owner:         owner,
		Config:        settingsToProto(c.Settings),
		Uid:           c.UID,
	}
}

func policyToProto(p topology.Policy) *basaltv1.Policy {
	return &basaltv1.Policy{
		ReadPolicy:         readPolicies[p.ReadPolicy],
		ProbeInterval:      durationpb.New(p.ProbeInterval),
		RefusedProbes:      uint32(p.RefusedProbes),
		HungAfter:          durationpb.New(p.HungAfter),
		MaxBusy:            durationpb.New(p.MaxBusy),
		AckTimeout:         durationpb.New(p.AckTimeout),
		MaxFailovers:       uint32(p.MaxFailovers),
		FailoverPeriod:     durationpb.New(p.FailoverPeriod),
		MaxReplicaAge:      durationpb.New(p.MaxReplicaAge),
		MinReplicasToWrite: uint32(p.MinReplicasToWrite),
		MaxReadLag:         uint64(p.MaxReadLag),
		RestartGrace:       durationpb.New(p.RestartGrace),
		Prefer:             preferences[p.Prefer],
		ElectionWait:       durationpb.New(p.ElectionWait),
		MaxReplicaLag:      uint64(p.MaxReplicaLag),
		KeepDiverged:       durationpb.New(p.KeepDiverged),
		CrossSlot:          crossSlots[p.CrossSlot],
		Pubsub:             pubSubs[p.PubSub],
	}
}

// policyFromProto fills what is unset with the defaults.
func policyFromProto(p *basaltv1.Policy) (topology.Policy, error) {
	policy := topology.DefaultPolicy()
	switch p.GetReadPolicy() {
	case basaltv1.ReadPolicy_READ_POLICY_UNSPECIFIED, basaltv1.ReadPolicy_READ_POLICY_MASTER:
		policy.ReadPolicy = topology.ReadMaster
	case basaltv1.ReadPolicy_READ_POLICY_READ_SET:
		policy.ReadPolicy = topology.ReadReadSet
	default:
		return policy, topology.Invalidf("policy.read_policy", "%d is not known here", p.GetReadPolicy())
	}
	switch p.GetCrossSlot() {
	case basaltv1.CrossSlot_CROSS_SLOT_UNSPECIFIED, basaltv1.CrossSlot_CROSS_SLOT_ONE_SHARD:
		policy.CrossSlot = topology.CrossOneShard
	case basaltv1.CrossSlot_CROSS_SLOT_REFUSE:
		policy.CrossSlot = topology.CrossRefuse
	default:
		return policy, topology.Invalidf("policy.cross_slot", "%d is not known here", p.GetCrossSlot())
	}
	switch p.GetPubsub() {
	case basaltv1.PubSub_PUB_SUB_UNSPECIFIED, basaltv1.PubSub_PUB_SUB_ORDERED:
		policy.PubSub = topology.PubSubOrdered
	case basaltv1.PubSub_PUB_SUB_SPREAD:
		policy.PubSub = topology.PubSubSpread
	default:
		return policy, topology.Invalidf("policy.pubsub", "%d is not known here", p.GetPubsub())
	}
	switch p.GetPrefer() {
	case basaltv1.Preference_PREFERENCE_UNSPECIFIED, basaltv1.Preference_PREFERENCE_DATA:
		policy.Prefer = topology.PreferData
	case basaltv1.Preference_PREFERENCE_AVAILABILITY:
		policy.Prefer = topology.PreferAvailability
	default:
		return policy, topology.Invalidf("policy.prefer", "%d is not known here", p.GetPrefer())
	}
	for _, d := range []struct {
		field string
		wire  *durationpb.Duration
		into  *time.Duration
	}{
		{"probe_interval", p.GetProbeInterval(), &policy.ProbeInterval},
		{"hung_after", p.GetHungAfter(), &policy.HungAfter},
		{"max_busy", p.GetMaxBusy(), &policy.MaxBusy},
		{"ack_timeout", p.GetAckTimeout(), &policy.AckTimeout},
		{"failover_period", p.GetFailoverPeriod(), &policy.FailoverPeriod},
		{"max_replica_age", p.GetMaxReplicaAge(), &policy.MaxReplicaAge},
		{"restart_grace", p.GetRestartGrace(), &policy.RestartGrace},
		{"election_wait", p.GetElectionWait(), &policy.ElectionWait},
		{"keep_diverged", p.GetKeepDiverged(), &policy.KeepDiverged},
	} {
		if d.wire == nil {
			continue
		}
		if err := d.wire.CheckValid(); err != nil {
			return policy, topology.Invalidf("policy."+d.field, "%v", err)
		}
		*d.into = d.wire.AsDuration()
	}
	if p.GetRefusedProbes() != 0 {
		policy.RefusedProbes = int(p.GetRefusedProbes())
	}
	if p.GetMaxFailovers() != 0 {
		policy.MaxFailovers = int(p.GetMaxFailovers())
	}
	if p.GetMaxReadLag() != 0 {
		policy.MaxReadLag = int64(p.GetMaxReadLag())
	}
	if p.GetMaxReplicaLag() != 0 {
		policy.MaxReplicaLag = int64(p.GetMaxReplicaLag())
	}
	policy.MinReplicasToWrite = int(p.GetMinReplicasToWrite())
	return policy, nil
}

func topologyToProto(c *topology.Cluster) *basaltv1.Topology {
	t := topologyHead(c)
	t.Shards = make([]*basaltv1.Shard, 0, len(c.Shards))
	for i := range c.Shards {
		t.Shards = append(t.Shards, shardToProto(&c.Shards[i]))
	}
	return t
}

// topologyHead is a topology without its shards.
func topologyHead(c *topology.Cluster) *basaltv1.Topology {
	return &basaltv1.Topology{
		Cluster:     c.Name,
		Epoch:       c.Epoch,
		CommittedAt: timestamp(c.CommittedAt),
		Reason:      strings.ToValidUTF8(c.Reason, "\uFFFD"),
		Phase:       phases[c.Phase],
		ReadPolicy:  readPolicies[c.Policy.ReadPolicy],
		Uid:         c.UID,
		CrossSlot:   crossSlots[c.Policy.CrossSlot],
		Pubsub:      pubSubs[c.Policy.PubSub],
	}
}

func slotsToProto(slots topology.SlotSet) (ranges []*basaltv1.SlotRange) {
	for first, last := range slots.Ranges {
		ranges = append(ranges, &basaltv1.SlotRange{Start: uint32(first), End: uint32(last)})
	}
	return ranges
}

func outagesToProto(outages []control.Outage) (list []*basaltv1.ShardOutage) {
	for i := range outages {
		o := &outages[i]
		list = append(list, &basaltv1.ShardOutage{Shard: o.Shard, Slots: slotsToProto(o.Slots), Since: timestamp(o.Since), Message: o.Why})
	}
	return list
}

func shardToProto(s *topology.Shard) *basaltv1.Shard {
	shard := &basaltv1.Shard{
		Id:         s.ID,
		Master:     s.Master,
		Generation: s.Generation,
		Frozen:     s.Frozen,
		Term:       s.Term,
	}
	shard.Slots = slotsToProto(s.Slots)
	for _, n := range s.Nodes {
		shard.Nodes = append(shard.Nodes, &basaltv1.Node{
			Id:          n.ID,
			Address:     n.Address,
			Incarnation: n.Incarnation,
			Readable:    n.Readable,
			InReadSet:   n.InReadSet,
			Priority:    uint32(n.Priority),
			InSync:      n.InSync,
			Endpoint:    n.Resolved,
		})
	}
	if op := s.Operation; op != nil {
		shard.Operation = &basaltv1.Operation{
			Id:        op.ID,
			Kind:      operationKinds[op.Kind],
			Phase:     op.Phase,
			Cause:     strings.ToValidUTF8(op.Cause, "\uFFFD"), // servers have their word in it
			StartedAt: timestamp(op.StartedAt),
			OldMaster: op.OldMaster,
			Candidate: op.Candidate,
		}
	}
	return shard
}

func reportToProto(r *topology.Report) *basaltv1.Report {
	if r == nil {
		return nil
	}
	report := &basaltv1.Report{
		Id:             r.ID,
		Kind:           operationKinds[r.Kind],
		Shard:          r.Shard,
		Cause:          r.Cause,
		OldMaster:      r.OldMaster,
		NewMaster:      r.NewMaster,
		OffsetGap:      r.OffsetGap,
		StartEpoch:     r.StartEpoch,
		EndEpoch:       r.EndEpoch,
		UnackedProxies: r.Unacked,
		MoreUnacked:    uint32(r.MoreUnacked),
		Fenced:         r.Fenced,
		Succeeded:      r.Succeeded,
		Error:          r.Error,
		Lost:           r.Lost,
	}
	for _, e := range r.Evidence {
		report.Evidence = append(report.Evidence, &basaltv1.Evidence{
			VantagePoint: e.VantagePoint, Sight: sights[e.Sight], Detail: e.Detail,
		})
	}
	for _, p := range r.Phases {
		report.Phases = append(report.Phases, &basaltv1.ReportPhase{
			Name: p.Name, StartedAt: timestamp(p.StartedAt), Duration: durationpb.New(p.Duration),
		})
	}
	for _, c := range r.Candidates {
		report.Candidates = append(report.Candidates, &basaltv1.Candidate{
			Node: c.Node, Offset: c.Offset, Priority: uint32(c.Priority), Chosen: c.Chosen, Refused: c.Refused,
		})
	}
	return report
}

func eventToProto(e *topology.Event) *basaltv1.Event {
	return &basaltv1.Event{
		Sequence: e.Sequence,
		Time:     timestamp(e.Time),
		Cluster:  e.Cluster,
		Kind:     e.Kind,
		Severity: severities[e.Severity],
		Shard:    e.Shard,
		Node:     e.Node,
		Message:  e.Message,
		Epoch:    e.Epoch,
		Report:   reportToProto(e.Report),
		AskedBy:  e.By,
	}
}

func statusToProto(s *control.Status, owner string) *basaltv1.ClusterStatus {
	out := &basaltv1.ClusterStatus{
		Cluster:  clusterToProto(&s.Cluster, owner),
		Topology: topologyToProto(&s.Cluster),
		Progress: s.Progress,
	}
	out.Cluster.NotServing, out.Cluster.ServingKnown = outagesToProto(s.Outages), true
	out.Topology.NotServing = out.Cluster.NotServing
	for _, n := range s.Nodes {
		out.Nodes = append(out.Nodes, &basaltv1.NodeStatus{
			Node:        n.Node.ID,
			Shard:       n.Shard,
			Address:     n.Node.Address,
			Role:        roles[n.Role],
			Incarnation: n.Incarnation,
			Offset:      n.Offset,
			Lag:         n.Lag,
			Sight:       sights[n.Sight],
			Health:      n.Health,
			InReadSet:   n.Node.InReadSet,
			InSync:      n.Node.InSync,
			Version:     n.Version,
			Keys:        n.Keys,
			UsedMemory:  n.UsedMemory,
			LinkUp:      n.LinkUp,
			LastOkAt:    timestamp(n.LastOK),
		})
	}
	for _, p := range s.Proxies {
		out.Proxies = append(out.Proxies, &basaltv1.ProxyStatus{
			Id:         p.ID,
			Address:    p.Address,
			AckedEpoch: p.AckedEpoch,
			Connected:  p.Connected,
			Clients:    p.Clients,
			Version:    p.Version,
			AwaySince:  timestamp(p.AwaySince),
			Serving:    p.Serving,
			ShutOut:    p.ShutOut,
			OpenShards: p.OpenTo,
		})
	}
	for _, p := range s.Problems {
		out.Problems = append(out.Problems, &basaltv1.Problem{
			Code: p.Code, Shard: p.Shard, Node: p.Node, Message: p.Message, Since: timestamp(p.Since),
		})
	}
	for _, k := range s.CrossSlot {
		out.CrossSlot = append(out.CrossSlot, &basaltv1.CrossSlotRequests{
			Command: k.Command, ClientName: k.ClientName, Requests: k.Requests, PerSecond: k.PerSecond,
		})
	}
	for i := range s.Cluster.Shards {
		shard := &s.Cluster.Shards[i]
		for j := range shard.Nodes {
			if n := &shard.Nodes[j]; n.Diverged != nil {
				out.Diverged = append(out.Diverged, divergedToProto(shard.ID, n))
			}
		}
	}
	return out
}

func divergedToProto(shard string, n *topology.Node) *basaltv1.Diverged {
	return &basaltv1.Diverged{
		Shard: shard, Node: n.ID, FoundAt: timestamp(n.Diverged.FoundAt), Bytes: n.Diverged.Bytes,
		File: n.Diverged.File, Error: n.Diverged.Error, Until: timestamp(n.Diverged.Until),
	}
}

// credentialToProto is how the proxy that has a seat logs in.
func credentialToProto(c *control.ShardCredential, seat credentials.Seat) *basaltv1.ShardCredential {
	username, password := c.Login(seat)
	return &basaltv1.ShardCredential{
		Shard: c.Shard, Generation: c.Generation, Username: username, Password: password,
		ScriptUsername: c.ScriptUsername, ScriptPassword: c.ScriptPassword,
	}
}

func sightsFromProto(r *basaltv1.NodeReport) []control.NodeSight {
	out := make([]control.NodeSight, 0, len(r.GetNodes()))
	for _, n := range r.GetNodes() {
		since := time.Duration(-1)
		if n.GetSinceReply() != nil {
			since = max(0, n.GetSinceReply().AsDuration())
		}
		out = append(out, control.NodeSight{
			Node:       n.GetNode(),
			Sight:      fromSight(n.GetSight()),
			SinceReply: since,
			Error:      n.GetError(),
			Behind:     n.GetBehind(), SinceBehind: max(0, n.GetSinceBehind().AsDuration()),
		})
	}
	return out
}

func loadFromProto(l *basaltv1.LoadReport) control.Load {
	load := control.Load{Clients: l.GetClients(), Commands: l.GetCommands(), Busy: l.GetBusy()}
	for _, k := range l.GetCrossSlot() {
		load.CrossSlot = append(load.CrossSlot, control.CrossSlotRequests{
			Command: k.GetCommand(), ClientName: k.GetClientName(), Requests: k.GetRequests(), PerSecond: k.GetPerSecond(),
		})
	}
	return load
}
