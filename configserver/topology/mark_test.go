package topology

import "testing"

// A mark names one node: none of another shard, or of another cluster, has the same.
func TestMarksDiffer(t *testing.T) {
	said := map[string][4]string{}
	for _, is := range [][4]string{
		{"c", "", "shard", "1-0"},
		{"c", "", "shard-1", "0"},
		{"prod", "", "eu-shard", "n"},
		{"prod-eu", "", "shard", "n"},
		{"c", "u", "a-b", "c"},
		{"c", "u", "a", "b-c"},
	} {
		mark := Mark(&Cluster{Name: is[0], UID: is[1]}, is[2], is[3])
		if other, ok := said[mark]; ok {
			t.Errorf("%q and %q are both marked %s", other, is, mark)
		}
		said[mark] = is
	}
}

func TestMarkedAs(t *testing.T) {
	c := &Cluster{Name: "blue", UID: "b1"}
	for mark, want := range map[string]string{
		Mark(c, "shard-0", "shard-0-1"):                   "shard-0-1 of shard-0",
		Mark(&Cluster{UID: "g2"}, "shard-0", "shard-0-1"): "shard-0-1 of shard-0 in another cluster (uid g2)",
		MarkPrefix + "what":                               "what",
	} {
		if got := MarkedAs(c, mark); got != want {
			t.Errorf("%s: %q, want %q", mark, got, want)
		}
	}
}
