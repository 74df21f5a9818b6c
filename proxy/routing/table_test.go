package routing

import (
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/slot"
)

func twoShards() Cluster {
	return Cluster{Name: "local", Epoch: 7, Phase: Serving, Shards: []Shard{
		{ID: "shard-0", Slots: slot.Even(0, 2), Master: "shard-0-0", Nodes: []Node{
			{ID: "shard-0-0", Address: "127.0.0.1:1"}, {ID: "shard-0-1", Address: "127.0.0.1:2", InReadSet: true},
		}},
		{ID: "shard-1", Slots: slot.Even(1, 2), Nodes: []Node{{ID: "shard-1-0", Address: "127.0.0.1:3"}}},
	}}
}

func TestBuild(t *testing.T) {
	table, err := Build(twoShards())
	if err != nil {
		t.Fatal(err)
	}
	if table.Owner[0] != 0 || table.Owner[slot.Count-1] != 1 {
		t.Fatalf("owners %d %d", table.Owner[0], table.Owner[slot.Count-1])
	}
	if s := &table.Shards[0]; s.MasterIndex != 0 || len(s.ReadSet) != 1 || s.ReadSet[0] != 1 || s.Held() {
		t.Fatalf("shard-0: %+v", s)
	}
	if s := &table.Shards[1]; s.MasterIndex != -1 || !s.Held() {
		t.Fatalf("shard-1: %+v", s)
	}
}

func TestBuildRefusesContradictions(t *testing.T) {
	for want, change := range map[string]func(*Cluster){
		"is owned by shard-0 and by shard-1": func(c *Cluster) { c.Shards[1].Slots.Add(3) },
		"is listed twice":                    func(c *Cluster) { c.Shards[1].Nodes[0].ID = "shard-0-1" },
		"is not one of its nodes":            func(c *Cluster) { c.Shards[1].Master = "shard-0-0" },
	} {
		c := twoShards()
		change(&c)
		if _, err := Build(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestUnownedSlots(t *testing.T) {
	c := twoShards()
	c.Shards = c.Shards[:1]
	table, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	if table.Owner[slot.Count-1] != NoShard {
		t.Fatal("an unowned slot has an owner")
	}
}
