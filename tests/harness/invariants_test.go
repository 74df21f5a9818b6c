package harness

import (
	"strings"
	"testing"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func shardAt(master string, generation uint64, change func(*pb.Shard)) *pb.Shard {
	sh := &pb.Shard{
		Id: "shard-0", Master: master, Generation: generation,
		Slots: []*pb.SlotRange{{Start: 0, End: 16383}},
		Nodes: []*pb.Node{{Id: "a", Incarnation: "x", InReadSet: true}, {Id: "b", Incarnation: "y"}},
	}
	if change != nil {
		change(sh)
	}
	return sh
}

func frozen(sh *pb.Shard) { sh.Frozen = true }

func failing(sh *pb.Shard) { sh.Operation = &pb.Operation{Id: "1"} }

func TestCheckHistoryFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		shards []*pb.Shard
		want   string
	}{
		"Failover":              {[]*pb.Shard{shardAt("a", 1, nil), shardAt("", 1, failing), shardAt("b", 2, nil)}, ""},
		"Switchover":            {[]*pb.Shard{shardAt("a", 1, nil), shardAt("a", 1, frozen), shardAt("b", 1, nil)}, ""},
		"SwitchoverRolledBack":  {[]*pb.Shard{shardAt("a", 1, nil), shardAt("a", 1, frozen), shardAt("a", 1, nil)}, ""},
		"TwoWriters":            {[]*pb.Shard{shardAt("a", 1, nil), shardAt("b", 2, nil)}, "could still write"},
		"SameGeneration":        {[]*pb.Shard{shardAt("a", 1, nil), shardAt("", 1, failing), shardAt("b", 1, nil)}, "the generation stayed"},
		"GenerationBack":        {[]*pb.Shard{shardAt("a", 2, nil), shardAt("a", 1, nil)}, "generation went"},
		"NoOperation":           {[]*pb.Shard{shardAt("a", 1, nil), shardAt("", 1, nil)}, "no operation"},
		"ForeignMaster":         {[]*pb.Shard{shardAt("c", 1, nil)}, "no node of the shard"},
		"NotAdmitted":           {[]*pb.Shard{shardAt("b", 1, func(sh *pb.Shard) { sh.Nodes[1].Incarnation = "" })}, "no admitted incarnation"},
		"ReadSet":               {[]*pb.Shard{shardAt("b", 1, func(sh *pb.Shard) { sh.Nodes[0].Incarnation = "" })}, "in the read set"},
		"RestartedUnderProxies": {[]*pb.Shard{shardAt("a", 1, nil), shardAt("a", 2, func(sh *pb.Shard) { sh.Nodes[0].Incarnation = "z" })}, "incarnation"},
		"SlotTwice":             {[]*pb.Shard{shardAt("a", 1, func(sh *pb.Shard) { sh.Slots = append(sh.Slots, &pb.SlotRange{Start: 5, End: 5}) })}, "slot 5 has owners"},
		"SlotMissing":           {[]*pb.Shard{shardAt("a", 1, func(sh *pb.Shard) { sh.Slots[0].Start = 7 })}, "slot 0 has owners"},
	} {
		t.Run(name, func(t *testing.T) {
			var epochs []*pb.Topology
			for i, sh := range c.shards {
				epochs = append(epochs, &pb.Topology{Epoch: uint64(i + 1), Phase: pb.ClusterPhase_CLUSTER_PHASE_SERVING, Shards: []*pb.Shard{sh}})
			}
			wrong := strings.Join(CheckHistory(epochs), "\n")
			if c.want == "" && wrong != "" || !strings.Contains(wrong, c.want) {
				t.Errorf("found %q, want %q", wrong, c.want)
			}
		})
	}
	gap := []*pb.Topology{{Epoch: 1}, {Epoch: 3}}
	if wrong := CheckHistory(gap); len(wrong) != 1 {
		t.Errorf("a gap of epochs: %q", wrong)
	}
}
