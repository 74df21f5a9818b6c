package harness

import (
	"fmt"

	"github.com/basalt-redis/basalt/internal/slot"
	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// CheckHistory holds every epoch ever committed against the invariants of the
// design and returns what is wrong. The epochs must be in order, oldest first:
//
//   - epochs have no gaps;
//   - in a serving cluster every slot has exactly one owner;
//   - a master is a node of its shard whose incarnation is admitted, only such
//     nodes are in the read set, and a shard without a master is being worked on;
//   - the generation never decreases, and grows when a master is replaced that
//     was not frozen before;
//   - no epoch replaces a serving master directly: proxies that still obey the
//     epoch before and proxies that obey this one would write to two servers.
func CheckHistory(epochs []*pb.Topology) (wrong []string) {
	last := map[string]*pb.Shard{}
	writers := map[string]served{}
	for i, e := range epochs {
		say := func(format string, args ...any) {
			wrong = append(wrong, fmt.Sprintf("epoch %d (%s): ", e.GetEpoch(), e.GetReason())+fmt.Sprintf(format, args...))
		}
		if i > 0 && e.GetEpoch() != epochs[i-1].GetEpoch()+1 {
			say("the epoch before is %d", epochs[i-1].GetEpoch())
		}
		owners := map[int][]string{}
		for _, sh := range e.GetShards() {
			for _, r := range sh.GetSlots() {
				for s := int(r.GetStart()); s <= int(r.GetEnd()); s++ {
					owners[s] = append(owners[s], sh.GetId())
				}
			}
			checkShard(e, sh, say)
			if before := last[sh.GetId()]; before != nil {
				checkStep(before, sh, say)
			}
			writers[sh.GetId()] = writers[sh.GetId()].next(sh, say)
			last[sh.GetId()] = sh
		}
		if e.GetPhase() == pb.ClusterPhase_CLUSTER_PHASE_SERVING {
			for s := range slot.Count {
				if len(owners[s]) != 1 {
					say("slot %d has owners %v", s, owners[s])
					break
				}
			}
		}
	}
	return wrong
}

func node(sh *pb.Shard, id string) *pb.Node {
	for _, n := range sh.GetNodes() {
		if n.GetId() == id {
			return n
		}
	}
	return nil
}

func checkShard(e *pb.Topology, sh *pb.Shard, say func(string, ...any)) {
	if m := sh.GetMaster(); m != "" {
		switch n := node(sh, m); {
		case n == nil:
			say("%s: master %s is no node of the shard", sh.GetId(), m)
		case n.GetIncarnation() == "":
			say("%s: master %s has no admitted incarnation", sh.GetId(), m)
		}
	} else if e.GetPhase() == pb.ClusterPhase_CLUSTER_PHASE_SERVING && sh.GetOperation() == nil {
		say("%s: no master and no operation", sh.GetId())
	}
	for _, n := range sh.GetNodes() {
		if n.GetInReadSet() && n.GetIncarnation() == "" {
			say("%s: node %s is in the read set without an admitted incarnation", sh.GetId(), n.GetId())
		}
	}
}

// checkStep compares a shard in two epochs that follow each other.
func checkStep(before, after *pb.Shard, say func(string, ...any)) {
	if after.GetGeneration() < before.GetGeneration() {
		say("%s: generation went from %d to %d", after.GetId(), before.GetGeneration(), after.GetGeneration())
	}
	a, b := before.GetMaster(), after.GetMaster()
	if a == "" || b == "" || before.GetFrozen() {
		return
	}
	if a != b {
		say("%s: master %s was replaced by %s while proxies could still write to it", after.GetId(), a, b)
	} else if x, y := node(before, a).GetIncarnation(), node(after, b).GetIncarnation(); x != y {
		say("%s: master %s went from incarnation %.8s to %.8s while proxies could still write to it", after.GetId(), a, x, y)
	}
}

// served is the last master that proxies could write to.
type served struct {
	master, incarnation string
	generation          uint64
	// frozen: it was frozen before it was taken away.
	frozen bool
}

func (s served) next(sh *pb.Shard, say func(string, ...any)) served {
	if sh.GetMaster() == "" {
		return s
	}
	now := served{sh.GetMaster(), node(sh, sh.GetMaster()).GetIncarnation(), sh.GetGeneration(), sh.GetFrozen()}
	changed := s.master != "" && (s.master != now.master || s.incarnation != now.incarnation)
	if changed && !s.frozen && now.generation <= s.generation {
		say("%s: master %s was replaced by %s without a freeze and the generation stayed %d", sh.GetId(), s.master, now.master, now.generation)
	}
	return now
}
