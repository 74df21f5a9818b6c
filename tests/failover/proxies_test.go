package failover

import (
	"errors"
	"fmt"
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
// first, besides the noise of the machine.
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

// requireShutOut fails the test for every server that knows a user.
func requireShutOut(t *testing.T, c *harness.Cluster, user string) {
	t.Helper()
	for _, sh := range c.Topology(t).GetShards() {
		for _, n := range sh.GetNodes() {
			if slices.Contains(proxyUsers(t, c, n), user) {
				t.Errorf("%s still lets %s in", n.GetId(), user)
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

// killProxy kills the second of two proxies, and waits until the Configserver noticed.
// It returns the connections before, and the users of that proxy and of the other.
func killProxy(t *testing.T, c *harness.Cluster) (before map[string]map[string][]string, gone, survivor string) {
	t.Helper()
	before = proxyConns(t, c)
	master := c.Master(t, 0).GetId()
	killed := c.Process(t, "proxy-1")
	harness.Signal(t, killed, syscall.SIGKILL)
	harness.Eventually(t, 10*time.Second, "its stream and its connections end", func() error {
		for _, p := range c.Status(t).GetProxies() {
			if p.GetAddress() == killed.Address && p.GetConnected() {
				return errors.New("it is connected")
			}
		}
		if now := proxyConns(t, c)[master]; len(now) != 1 {
			return fmt.Errorf("connections %v", now)
		}
		return nil
	})
	left := proxyConns(t, c)[master]
	for user := range before[master] {
		if len(left[user]) > 0 {
			survivor = user
		} else {
			gone = user
		}
	}
	if gone == "" || survivor == "" || len(before[master]) != 2 {
		t.Fatalf("the two proxies are not told apart: %v, then %v", before[master], left)
	}
	return before, gone, survivor
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
	before := c.Topology(t)
	all, gone, survivor := killProxy(t, c)
	for i, sh := range before.GetShards() {
		begun := l.Now()
		r, err := c.Switchover(t.Context(), sh.GetId())
		if err != nil {
			t.Fatal(err)
		}
		t.Log(harness.ReportLine(r))
		if i == 0 && (!r.GetFenced() || len(r.GetUnackedProxies()) != 1) {
			t.Errorf("%s: fenced %t, unacked %v; want one proxy that is shut out", sh.GetId(), r.GetFenced(), r.GetUnackedProxies())
		}
		if i > 0 && held(r) > absentCosts+l.Noise(begun, l.Now()) {
			t.Errorf("%s: held requests for %s because of a proxy that is gone", sh.GetId(), held(r))
		}
		now := proxyConns(t, c)
		for _, other := range before.GetShards()[i+1:] {
			for _, n := range other.GetNodes() {
				requireKept(t, all, now, survivor, n.GetId())
			}
		}
	}
	waitForgotten(t, c)
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

// waitForgotten waits until one proxy of two is a member.
func waitForgotten(t *testing.T, c *harness.Cluster) {
	t.Helper()
	harness.Eventually(t, 10*time.Second, "the proxy that was killed is a member no more", func() error {
		st, err := c.TryStatus()
		if err == nil && len(st.GetProxies()) != 1 {
			err = fmt.Errorf("members %v", st.GetProxies())
		}
		return err
	})
}

// TestOwnerKilledWhileAProxyIsShutOut kills a proxy, and then the Configserver at each
// step of shutting it out. The other one finishes that.
func TestOwnerKilledWhileAProxyIsShutOut(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 2, Proxies: 2, Configservers: 2, Flags: []string{"--configserver-flag", "--lease-ttl=2s"}})
	l := c.StartLoad(t, consistency.Config{Addresses: c.Proxies[:1], Connections: 20})
	for _, point := range []string{"seats/committed", "seats/fenced"} {
		armed := c.ArmOwner(t, point+"=kill")
		for i := range c.Shards(t) {
			pingShard(t, c, c.Proxies[1], i)
		}
		_, gone, _ := killProxy(t, c)
		told := make(chan error, 1)
		go func() {
			_, err := c.Switchover(t.Context(), shardName(0))
			told <- err
		}()
		waitDead(t, c, armed, 10*time.Second)
		err := <-told
		waitForgotten(t, c)
		requireShutOut(t, c, gone)
		t.Logf("%s: %s died there; its caller was told: %v", point, armed, err)
		c.StartProcess(t, armed)
		c.StartProcess(t, "proxy-1")
		c.WaitHealthy(t, 20*time.Second)
	}
	if final := l.Judge(t); final.Behind > 0 {
		t.Errorf("%d keys lost acknowledged writes: %s", final.Behind, final.Examples)
	}
	requireNoErrors(t, l.Timeline())
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
		begun := l.Now()
		r, err := c.Switchover(t.Context(), sh.GetId())
		if err != nil {
			t.Fatal(err)
		}
		t.Log(harness.ReportLine(r))
		if held(r) > absentCosts+l.Noise(begun, l.Now()) {
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
