package topology

import "testing"

// TestTermsCountIncarnations: a term is that of one incarnation of one node.
func TestTermsCountIncarnations(t *testing.T) {
	c := Cluster{Shards: []Shard{
		{ID: "shard-0", Nodes: []Node{{ID: "a", Incarnation: "a1"}, {ID: "b", Incarnation: "b1"}}},
		{ID: "shard-1", Master: "c", Nodes: []Node{{ID: "c", Incarnation: "c1"}}},
	}}
	for _, step := range []struct {
		what   string
		change func(s *Shard)
		skip   uint64
		term   uint64
	}{
		{"no master yet", func(*Shard) {}, 0, 0},
		{"the first master", func(s *Shard) { s.Master = "a" }, 0, 1},
		{"something else", func(s *Shard) { s.Frozen = true }, 0, 1},
		{"a switchover", func(s *Shard) { s.Master, s.Frozen = "b", false }, 0, 2},
		{"a replica that restarted", func(s *Shard) { s.Nodes[0].Incarnation = "a2" }, 0, 2},
		{"a failover", func(s *Shard) { s.Master = "" }, 0, 2},
		{"its end", func(s *Shard) { s.Master = "a" }, 0, 3},
		{"a master that restarted", func(s *Shard) { s.Nodes[0].Incarnation = "a3" }, 0, 4},
		{"no master", func(s *Shard) { s.Master = "" }, 0, 4},
		{"the same one again", func(s *Shard) { s.Master = "a" }, 0, 5},
		{"an older record, adopted", func(s *Shard) { s.Master = "b" }, 100, 106},
	} {
		next := c.Clone()
		step.change(&next.Shards[0])
		next.RenewTerms(&c, step.skip)
		if next.Shards[0].Term != step.term {
			t.Fatalf("%s: term %d, want %d", step.what, next.Shards[0].Term, step.term)
		}
		if step.skip == 0 && next.Shards[1].Term != 1 {
			t.Fatalf("%s: the term of another shard is %d", step.what, next.Shards[1].Term)
		}
		c = next
	}
}
