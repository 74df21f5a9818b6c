package failover

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// absentCosts is the most that a proxy which is gone may cost an operation after the
// first.
const absentCosts = 50 * time.Millisecond

// held is how long a switchover waited for proxies, and shut them out.
func held(r *pb.Report) (d time.Duration) {
	for _, p := range r.GetPhases() {
		if p.GetName() == "freezing" || p.GetName() == "fencing" {
			d += p.GetDuration().AsDuration()
		}
	}
	return d
}

// proxyConns are the ids of the connections of proxies to each server, by the server
// and their user.
func proxyConns(t *testing.T, c *harness.Cluster) map[string]map[string][]string {
	t.Helper()
	conns := map[string]map[string][]string{}
	for _, sh := range c.Topology(t).GetShards() {
		for _, n := range sh.GetNodes() {
			conns[n.GetId()] = map[string][]string{}
			for line := range strings.Lines(string(do(t, c.Admin(t, n.GetAddress()), "CLIENT", "LIST").Text)) {
				fields := map[string]string{}
				for field := range strings.FieldsSeq(line) {
					name, value, _ := strings.Cut(field, "=")
					fields[name] = value
				}
				if user := fields["user"]; strings.HasPrefix(user, "basalt-proxy-") {
					conns[n.GetId()][user] = append(conns[n.GetId()][user], fields["id"])
				}
			}
		}
	}
	return conns
}

// proxyUsers are the ACL users of proxies at a server.
func proxyUsers(t *testing.T, c *harness.Cluster, n *pb.Node) (users []string) {
	t.Helper()
	for _, u := range do(t, c.Admin(t, n.GetAddress()), "ACL", "USERS").Array {
		if strings.HasPrefix(string(u.Text), "basalt-proxy-") {
			users = append(users, string(u.Text))
		}
	}
	return users
}

// nodeOf is a node of a shard.
func nodeOf(t *testing.T, sh *pb.Shard, id string) *pb.Node {
	t.Helper()
	i := slices.IndexFunc(sh.GetNodes(), func(n *pb.Node) bool { return n.GetId() == id })
	if i < 0 {
		t.Fatalf("%s has no node %s", sh.GetId(), id)
	}
	return sh.GetNodes()[i]
}

// requireShutOut fails the test for every server that knows one of these users.
func requireShutOut(t *testing.T, c *harness.Cluster, users []string) {
	t.Helper()
	for _, sh := range c.Topology(t).GetShards() {
		for _, n := range sh.GetNodes() {
			for _, u := range proxyUsers(t, c, n) {
				if slices.Contains(users, u) {
					t.Errorf("%s still lets %s in", n.GetId(), u)
				}
			}
		}
	}
}

// requireKept fails the test when a proxy has not all the connections that it had.
func requireKept(t *testing.T, before, now map[string]map[string][]string, user string, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		for _, id := range before[node][user] {
			if !slices.Contains(now[node][user], id) {
				t.Errorf("%s: connection %s of %s was made anew: %v", node, id, user, now[node])
			}
		}
	}
}

// TestKilledProxyIsWaitedForOnce kills one of two proxies, and switches every shard
// over: the first one waits for it, nobody after that, and the other proxy keeps its
// connections and its clients notice nothing. It is forgotten, and its place is free
// for the next one.
func TestKilledProxyIsWaitedForOnce(t *testing.T) {
	c := harness.Start(t, harness.Options{Proxies: 2})
	l := c.StartLoad(t, consistency.Config{Addresses: c.Proxies[:1], Connections: 20})
	for i := range c.Shards(t) {
		pingShard(t, c, c.Proxies[1], i)
	}
	time.Sleep(betweenIncidents)
	all := proxyConns(t, c)
	before := c.Topology(t)
	killed := c.Process(t, "proxy-1")
	harness.Signal(t, killed, syscall.SIGKILL)
	harness.Eventually(t, 10*time.Second, "its stream ends", func() error {
		for _, p := range c.Status(t).GetProxies() {
			if p.GetAddress() == killed.Address && p.GetConnected() {
				return errors.New("it is connected")
			}
		}
		return nil
	})
	alive := proxyConns(t, c)
	master := before.GetShards()[0].GetMaster()
	gone := slices.DeleteFunc(slices.Collect(maps.Keys(all[master])), func(u string) bool { return len(alive[master][u]) > 0 })
	if len(gone) != 1 || len(all[master]) != 2 {
		t.Fatalf("the two proxies are not told apart: %v, then %v", all[master], alive[master])
	}
	survivor := slices.Collect(maps.Keys(alive[master]))[0]
	for i, sh := range before.GetShards() {
		r, err := c.Switchover(t.Context(), sh.GetId())
		if err != nil {
			t.Fatal(err)
		}
		t.Log(harness.ReportLine(r))
		if i == 0 && (!r.GetFenced() || len(r.GetUnackedProxies()) != 1) {
			t.Errorf("%s: fenced %t, unacked %v; want one proxy that is shut out", sh.GetId(), r.GetFenced(), r.GetUnackedProxies())
		}
		if i > 0 && held(r) > absentCosts {
			t.Errorf("%s: held requests for %s because of a proxy that is gone", sh.GetId(), held(r))
		}
		now := proxyConns(t, c)
		for _, other := range before.GetShards()[i+1:] {
			for _, n := range other.GetNodes() {
				requireKept(t, all, now, survivor, n.GetId())
			}
		}
	}
	harness.Eventually(t, 5*time.Second, "it is a member no more", func() error {
		if st := c.Status(t).GetProxies(); len(st) != 1 {
			return fmt.Errorf("members %v", st)
		}
		return nil
	})
	requireShutOut(t, c, gone)
	for i, sh := range c.Topology(t).GetShards() {
		if was := before.GetShards()[i]; sh.GetGeneration() != was.GetGeneration() {
			t.Errorf("%s: generation %d after %d, so that every proxy connected anew", sh.GetId(), sh.GetGeneration(), was.GetGeneration())
		}
		for user := range proxyConns(t, c)[sh.GetMaster()] {
			if user != survivor {
				t.Errorf("%s: a connection of %s", sh.GetMaster(), user)
			}
		}
	}
	c.StartProcess(t, "proxy-1")
	c.WaitHealthy(t, 10*time.Second)
	for i := range c.Shards(t) {
		pingShard(t, c, c.Proxies[1], i)
	}
	requireShutOut(t, c, gone)
	if final := l.Judge(t); final.Behind > 0 {
		t.Errorf("%d keys lost acknowledged writes: %s", final.Behind, final.Examples)
	}
	requireNoErrors(t, l.Timeline())
	t.Logf("longest stall %s", l.Timeline().Longest().Latency)
}

// pingShard writes to a shard through a proxy.
func pingShard(t *testing.T, c *harness.Cluster, address string, shard int) {
	t.Helper()
	conn, err := consistency.Dial(t.Context(), address, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for first := range c.Shards(t)[shard].Slots.Ranges {
		do(t, conn, "SET", consistency.KeyInSlot("ping", first), "x")
		break
	}
}

// TestKilledProxyAndMaster kills a proxy and a master at the same time: the failover
// waits for the proxy, and nothing after it does.
func TestKilledProxyAndMaster(t *testing.T) {
	c := harness.Start(t, harness.Options{Proxies: 2})
	l := c.StartLoad(t, consistency.Config{Addresses: c.Proxies[:1], Connections: 20})
	time.Sleep(betweenIncidents)
	before := c.Topology(t)
	events := c.LastEvent(t)
	old := c.Master(t, 0)
	process := c.Process(t, old.GetId())
	l.LossBegins(0)
	harness.Signal(t, c.Process(t, "proxy-1"), syscall.SIGKILL)
	harness.Signal(t, process, syscall.SIGKILL)
	took := waitNewMaster(t, c, 0, old.GetId(), 5*time.Second)
	l.LossEnds(0)
	t.Logf("new master after %s", took.Round(time.Millisecond))
	for _, r := range c.Reports(t, events) {
		t.Log(harness.ReportLine(r))
	}
	for i, sh := range before.GetShards()[1:] {
		r, err := c.Switchover(t.Context(), sh.GetId())
		if err != nil {
			t.Fatal(err)
		}
		t.Log(harness.ReportLine(r))
		if held(r) > absentCosts {
			t.Errorf("%s: held requests for %s because of a proxy that is gone", sh.GetId(), held(r))
		}
		if now := c.Topology(t).GetShards()[i+1].GetGeneration(); now != sh.GetGeneration() {
			t.Errorf("%s: generation %d after %d", sh.GetId(), now, sh.GetGeneration())
		}
	}
	c.StartProcess(t, old.GetId())
	c.StartProcess(t, "proxy-1")
	c.WaitHealthy(t, 20*time.Second)
	l.Judge(t)
}
