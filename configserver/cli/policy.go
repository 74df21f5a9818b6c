package cli

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/basalt-redis/basalt/internal/settings"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// policyFlags are the flags that set fields of a policy, named as they are.
type policyFlags struct {
	readPolicy                                           string
	probeInterval, hungAfter, ackTimeout, failoverPeriod time.Duration
	maxReplicaAge, restartGrace                          time.Duration
	electionWait, keepDiverged, maxBusy                  time.Duration
	refusedProbes, maxFailovers, minReplicasToWrite      uint32
	maxReadLag, maxReplicaLag                            int64
	prefer, crossSlot, pubsub                            string
}

func (p *policyFlags) names() []string {
	return []string{
		"read-policy", "probe-interval", "refused-probes", "hung-after", "ack-timeout", "max-failovers",
		"failover-period", "max-replica-age", "min-replicas-to-write", "max-read-lag", "restart-grace",
		"prefer", "election-wait", "max-replica-lag", "keep-diverged", "cross-slot", "max-busy", "pubsub",
	}
}

func (p *policyFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&p.readPolicy, "read-policy", "", "who answers reads: master, or read-set (replicas too; may be stale)")
	fs.DurationVar(&p.probeInterval, "probe-interval", 0, "interval of probes (default 100ms)")
	fs.Uint32Var(&p.refusedProbes, "refused-probes", 0, "refused connections that make a master suspect (default 3)")
	fs.DurationVar(&p.hungAfter, "hung-after", 0, "a master that answers nobody for this long is hung (default 4s)")
	fs.DurationVar(&p.maxBusy, "max-busy", 0, "a master that is silent behind a command that may take long (SORT, KEYS …) is hung after this (default 30s)")
	fs.DurationVar(&p.ackTimeout, "ack-timeout", 0, "how long proxies get to ack before the server is fenced (default 500ms)")
	fs.Uint32Var(&p.maxFailovers, "max-failovers", 0, "automatic failovers per shard and period (default 3)")
	fs.DurationVar(&p.failoverPeriod, "failover-period", 0, "period of --max-failovers (default 10m)")
	fs.DurationVar(&p.maxReplicaAge, "max-replica-age", 0, "replicas that did not catch up with their master for longer leave the in-sync set (default 10s)")
	fs.Uint32Var(&p.minReplicasToWrite, "min-replicas-to-write", 0, "min-replicas-to-write of masters (default 0)")
	settings.BytesVar(fs, &p.maxReadLag, "max-read-lag", 0, "replicas that lag more `bytes` leave the read set (default 16MiB)")
	fs.DurationVar(&p.restartGrace, "restart-grace", 0, "how long a shard whose in-sync nodes all restarted waits for those that are not back (default 10s)")
	fs.StringVar(&p.prefer, "prefer", "", "when no in-sync node can be promoted: `data`, wait for one; or availability, promote the best that answers and lose what it lacks (default data)")
	fs.StringVar(&p.pubsub, "pubsub", "", "where messages of ordinary channels are published: `ordered`, at one master, so that all have one order; or spread, at the master of the channel's slot (default ordered)")
	fs.DurationVar(&p.electionWait, "election-wait", 0, "how long a failover waits for in-sync nodes that may be alive and do not answer (default 3s)")
	fs.StringVar(&p.crossSlot, "cross-slot", "", "requests over several slots: `one-shard`, served while one shard owns every slot; or refuse (default one-shard)")
	settings.BytesVar(fs, &p.maxReplicaLag, "max-replica-lag", 0, "replicas that are more `bytes` behind for a second leave the in-sync set (default 16MiB)")
	fs.DurationVar(&p.keepDiverged, "keep-diverged", 0, "how long the file with the writes that only an old master had is not written over, once it is in sync again; 0s: none is saved (default 10m)")
}

func (p *policyFlags) changed(fs *pflag.FlagSet) bool {
	for _, name := range p.names() {
		if fs.Changed(name) {
			return true
		}
	}
	return false
}

// apply sets what the user gave and leaves the rest.
func (p *policyFlags) apply(fs *pflag.FlagSet, policy *basaltv1.Policy) error {
	if fs.Changed("read-policy") {
		switch p.readPolicy {
		case "master":
			policy.ReadPolicy = basaltv1.ReadPolicy_READ_POLICY_MASTER
		case "read-set":
			policy.ReadPolicy = basaltv1.ReadPolicy_READ_POLICY_READ_SET
		default:
			return usagef("--read-policy %s: want master or read-set", p.readPolicy)
		}
	}
	if fs.Changed("prefer") {
		switch p.prefer {
		case "data":
			policy.Prefer = basaltv1.Preference_PREFERENCE_DATA
		case "availability":
			policy.Prefer = basaltv1.Preference_PREFERENCE_AVAILABILITY
		default:
			return usagef("--prefer %s: want data or availability", p.prefer)
		}
	}
	if fs.Changed("cross-slot") {
		switch p.crossSlot {
		case "one-shard":
			policy.CrossSlot = basaltv1.CrossSlot_CROSS_SLOT_ONE_SHARD
		case "refuse":
			policy.CrossSlot = basaltv1.CrossSlot_CROSS_SLOT_REFUSE
		default:
			return usagef("--cross-slot %s: want one-shard or refuse", p.crossSlot)
		}
	}
	if fs.Changed("pubsub") {
		switch p.pubsub {
		case "ordered":
			policy.Pubsub = basaltv1.PubSub_PUB_SUB_ORDERED
		case "spread":
			policy.Pubsub = basaltv1.PubSub_PUB_SUB_SPREAD
		default:
			return usagef("--pubsub %s: want ordered or spread", p.pubsub)
		}
	}
	for _, d := range []struct {
		name string
		from time.Duration
		into **durationpb.Duration
	}{
		{"probe-interval", p.probeInterval, &policy.ProbeInterval},
		{"hung-after", p.hungAfter, &policy.HungAfter},
		{"ack-timeout", p.ackTimeout, &policy.AckTimeout},
		{"failover-period", p.failoverPeriod, &policy.FailoverPeriod},
		{"max-replica-age", p.maxReplicaAge, &policy.MaxReplicaAge},
		{"restart-grace", p.restartGrace, &policy.RestartGrace},
		{"election-wait", p.electionWait, &policy.ElectionWait},
		{"keep-diverged", p.keepDiverged, &policy.KeepDiverged},
		{"max-busy", p.maxBusy, &policy.MaxBusy},
	} {
		if fs.Changed(d.name) {
			*d.into = durationpb.New(d.from)
		}
	}
	for _, n := range []struct {
		name string
		from uint32
		into *uint32
	}{
		{"refused-probes", p.refusedProbes, &policy.RefusedProbes},
		{"max-failovers", p.maxFailovers, &policy.MaxFailovers},
		{"min-replicas-to-write", p.minReplicasToWrite, &policy.MinReplicasToWrite},
	} {
		if fs.Changed(n.name) {
			*n.into = n.from
		}
	}
	if fs.Changed("max-read-lag") {
		policy.MaxReadLag = uint64(p.maxReadLag)
	}
	if fs.Changed("max-replica-lag") {
		policy.MaxReplicaLag = uint64(p.maxReplicaLag)
	}
	return nil
}

func policyTable(p *basaltv1.Policy) *table {
	t := newTable("SETTING", "VALUE")
	t.row("read-policy", enum(p.GetReadPolicy(), "READ_POLICY_"))
	t.row("probe-interval", p.GetProbeInterval().AsDuration().String())
	t.row("refused-probes", fmt.Sprint(p.GetRefusedProbes()))
	t.row("hung-after", p.GetHungAfter().AsDuration().String())
	t.row("max-busy", p.GetMaxBusy().AsDuration().String())
	t.row("ack-timeout", p.GetAckTimeout().AsDuration().String())
	t.row("max-failovers", fmt.Sprint(p.GetMaxFailovers()))
	t.row("failover-period", p.GetFailoverPeriod().AsDuration().String())
	t.row("max-replica-age", p.GetMaxReplicaAge().AsDuration().String())
	t.row("min-replicas-to-write", fmt.Sprint(p.GetMinReplicasToWrite()))
	t.row("max-read-lag", settings.FormatBytes(int64(p.GetMaxReadLag())))
	t.row("restart-grace", p.GetRestartGrace().AsDuration().String())
	t.row("prefer", enum(p.GetPrefer(), "PREFERENCE_"))
	t.row("election-wait", p.GetElectionWait().AsDuration().String())
	t.row("max-replica-lag", settings.FormatBytes(int64(p.GetMaxReplicaLag())))
	t.row("keep-diverged", p.GetKeepDiverged().AsDuration().String())
	t.row("cross-slot", enum(p.GetCrossSlot(), "CROSS_SLOT_"))
	t.row("pubsub", enum(p.GetPubsub(), "PUB_SUB_"))
	return t
}
