package introspect

import (
	"strings"
	"testing"
)

func clusterReply(t *testing.T, proto int, v *ClusterView, words ...string) string {
	t.Helper()
	args := [][]byte{[]byte("cluster")}
	for _, w := range words {
		args = append(args, []byte(w))
	}
	return string(Cluster(nil, args, proto, v))
}

// TestClusterOfProxies: slots are shared out without a gap, in both protocol
// versions, whatever the number of proxies.
func TestClusterOfProxies(t *testing.T) {
	v := &ClusterView{Epoch: 9, Serving: true, Nodes: []ClusterNode{
		{ID: "a", Host: "10.0.0.1", Port: 6379}, {ID: "b", Host: "proxy-b.example", Port: 6380, Self: true}, {ID: "c", Host: "::1", Port: 6381},
	}}
	const idA, idB, idC = "ca978112ca1bbdcafac231b39a23dc4da786eff8", "3e23e8160039594a33894f6564e1b1348bbd7a00", "2e7d2c03a9507ae265ecf5b5356885a53393a202"
	bulk := func(s string) string { return string(appendBulk(nil, s)) }
	for _, c := range []struct {
		words string
		proto int
		want  string
	}{
		{"slots", 2, "*3\r\n*3\r\n:0\r\n:5460\r\n*4\r\n" + bulk("10.0.0.1") + ":6379\r\n" + bulk(idA) + "*0\r\n" +
			"*3\r\n:5461\r\n:10921\r\n*4\r\n" + bulk("proxy-b.example") + ":6380\r\n" + bulk(idB) + "*0\r\n" +
			"*3\r\n:10922\r\n:16383\r\n*4\r\n" + bulk("::1") + ":6381\r\n" + bulk(idC) + "*0\r\n"},
		{"nodes", 2, bulk(idA + " 10.0.0.1:6379@16379 master - 0 0 9 connected 0-5460\n" +
			idB + " proxy-b.example:6380@16380,proxy-b.example myself,master - 0 0 9 connected 5461-10921\n" +
			idC + " ::1:6381@16381 master - 0 0 9 connected 10922-16383\n")},
		{"myid", 3, bulk(idB)},
		{"keyslot foo", 2, ":12182\r\n"},
		{"keyslot {user}x", 2, ":5474\r\n"},
		{"links", 2, "*0\r\n"},
		{"replicas " + idA, 2, "*0\r\n"},
		{"replicas x", 2, "-ERR Unknown node x\r\n"},
		{"count-failure-reports " + idC, 2, ":0\r\n"},
		{"addslots 1", 2, "-ERR CLUSTER ADDSLOTS is not supported behind the proxy: the Configserver alone decides about nodes and slots, use basaltctl\r\n"},
	} {
		if got := clusterReply(t, c.proto, v, strings.Fields(c.words)...); got != c.want {
			t.Errorf("CLUSTER %s:\n%q, want\n%q", c.words, got, c.want)
		}
	}
	if got := clusterReply(t, 3, v, "slots"); !strings.HasSuffix(got, "%0\r\n") {
		t.Errorf("CLUSTER SLOTS in RESP3: %q", got)
	}
	if got := clusterReply(t, 3, v, "shards"); !strings.HasPrefix(got, "*3\r\n%2\r\n$5\r\nslots\r\n*2\r\n:0\r\n:5460\r\n$5\r\nnodes\r\n*1\r\n%7\r\n") ||
		!strings.Contains(got, "%8\r\n") || !strings.Contains(got, "$8\r\nhostname\r\n$15\r\nproxy-b.example\r\n") {
		t.Errorf("CLUSTER SHARDS: %q", got)
	}
	if got := clusterReply(t, 3, v, "info"); !strings.HasPrefix(got, "=") || !strings.Contains(got, "cluster_state:ok\r\n") || !strings.Contains(got, "cluster_known_nodes:3\r\n") {
		t.Errorf("CLUSTER INFO: %q", got)
	}
	v.Serving = false
	if got := clusterReply(t, 2, v, "info"); !strings.Contains(got, "cluster_state:fail\r\n") {
		t.Errorf("CLUSTER INFO of a cluster that forms: %q", got)
	}
}

func TestSlotsAreSharedOutWithoutAGap(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 1000, 16384, 20000} {
		next := 0
		for i := range n {
			first, last := slots(i, n)
			if last < first {
				continue
			}
			if first != next {
				t.Fatalf("%d proxies: proxy %d begins at %d, want %d", n, i, first, next)
			}
			next = last + 1
		}
		if next != 16384 {
			t.Errorf("%d proxies: slots end at %d", n, next)
		}
	}
}
