package failover

import (
	"errors"
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// TestStoppedProxyIsShutOut stops one of two proxies so that it cannot obey, and
// switches masters over: the servers shut it out instead of waiting for it, so
// that it cannot write by the old topology when it goes on. Only the first one waits.
func TestStoppedProxyIsShutOut(t *testing.T) {
	c := harness.Start(t, harness.Options{Proxies: 2})
	l := c.StartLoad(t, consistency.Config{})
	time.Sleep(betweenIncidents)
	before, conns := c.Topology(t), proxyConns(t, c)
	deaf := c.Process(t, "proxy-1")
	at := l.Now()
	harness.Signal(t, deaf, syscall.SIGSTOP)
	for i, sh := range before.GetShards() {
		begun := l.Now()
		r, err := c.Switchover(t.Context(), sh.GetId())
		if err != nil {
			t.Fatal(err)
		}
		t.Log(harness.ReportLine(r))
		if !r.GetSucceeded() || i == 0 && (!r.GetFenced() || len(r.GetUnackedProxies()) != 1) {
			t.Errorf("%s: succeeded %t, fenced %t, unacked %s; want a switchover that fenced one proxy",
				sh.GetId(), r.GetSucceeded(), r.GetFenced(), r.GetUnackedProxies())
		}
		if i > 0 && held(r) > absentCosts+l.Noise(begun, l.Now()) {
			t.Errorf("%s: held requests for %s because of a proxy that was shut out", sh.GetId(), held(r))
		}
		now := c.Topology(t).GetShards()[i]
		if now.GetGeneration() != sh.GetGeneration() {
			t.Errorf("%s: the generation is %d after %d", sh.GetId(), now.GetGeneration(), sh.GetGeneration())
		}
		// One of the two users that had connections is gone from the old master.
		left := proxyUsers(t, c, nodeOf(t, now, sh.GetMaster()))
		if users := slices.Collect(maps.Keys(conns[sh.GetMaster()])); len(users) != 2 || slices.Contains(left, users[0]) == slices.Contains(left, users[1]) {
			t.Errorf("%s: of the proxies %s it lets %s in", sh.GetId(), users, left)
		}
	}
	time.Sleep(time.Second)
	woken := l.Now()
	harness.Signal(t, deaf, syscall.SIGCONT)
	c.WaitHealthy(t, 15*time.Second)
	time.Sleep(betweenIncidents)
	if final := l.Judge(t); final.Behind > 0 {
		t.Errorf("%d keys lost acknowledged writes: %s", final.Behind, final.Examples)
	}
	perConn := map[int]int{}
	for _, r := range l.Timeline().Errors() {
		perConn[r.Conn]++
		if r.Conn%2 == 0 || r.Class != consistency.InFlight || perConn[r.Conn] > 1 || r.End() < at {
			t.Errorf("connection %d (proxy-%d) at %s, error number %d: [%s] %s", r.Conn, r.Conn%2, r.End(), perConn[r.Conn], r.Class, r.Text)
		}
	}
	late := l.Timeline().Where(func(r consistency.Record) bool { return r.Conn%2 == 1 && r.End() > woken })
	if len(late) == 0 {
		t.Error("the proxy that went on served nobody")
	}
	others := l.Timeline().Where(func(r consistency.Record) bool { return r.Conn%2 == 0 })
	t.Logf("clients of the other proxy: %s", others.Summary())
	t.Logf("clients of the stopped one had %d errors when it went on", len(l.Timeline().Errors()))
}

// TestStoppedProxyDoesNotDelayFailover: a proxy that cannot ack costs a failover
// no more than the ack timeout.
func TestStoppedProxyDoesNotDelayFailover(t *testing.T) {
	c := harness.Start(t, harness.Options{Proxies: 2})
	l := c.StartLoad(t, consistency.Config{})
	time.Sleep(betweenIncidents)
	deaf := c.Process(t, "proxy-1")
	harness.Signal(t, deaf, syscall.SIGSTOP)
	old := c.Master(t, 0)
	events := c.LastEvent(t)
	process := c.Process(t, old.GetId())
	l.LossBegins(0)
	o := outage{at: l.Now(), shard: 0}
	harness.Signal(t, process, syscall.SIGKILL)
	waitNewMaster(t, c, 0, old.GetId(), 5*time.Second)
	l.LossEnds(0)
	time.Sleep(betweenIncidents)
	o.until = l.Now()
	harness.Signal(t, deaf, syscall.SIGCONT)
	c.StartProcess(t, old.GetId())
	c.WaitHealthy(t, 20*time.Second)
	for _, r := range c.Reports(t, events) {
		t.Log(harness.ReportLine(r))
	}
	l.Judge(t)
	line := l.Timeline()
	resumed := o.resumed(t, line.Where(func(r consistency.Record) bool { return r.Conn%2 == 0 }))
	t.Logf("writes resumed %s after the kill", resumed.Round(time.Millisecond))
	if resumed >= medianResume {
		t.Errorf("writes resumed %s after the kill, want less than %s", resumed, medianResume)
	}
	o.requireOnlyInFlight(t, line, inFlightSlack)
}

// TestProxyStopsGracefully: SIGTERM for one of two proxies under load. What was
// sent before it is answered, and the clients of the other proxy notice nothing.
func TestProxyStopsGracefully(t *testing.T) {
	c := harness.Start(t, harness.Options{Proxies: 2})
	l := c.StartLoad(t, consistency.Config{})
	time.Sleep(betweenIncidents)
	leaving := c.Process(t, "proxy-0")
	at := l.Now()
	harness.Signal(t, leaving, syscall.SIGTERM)
	harness.Eventually(t, 10*time.Second, "the proxy is a member no more", func() error {
		if n := len(c.Status(t).GetProxies()); n != 1 {
			return errors.New("it still is")
		}
		return nil
	})
	ended := harness.Eventually(t, 10*time.Second, "the process ends", func() error {
		if p := c.Process(t, "proxy-0"); p.PID == leaving.PID {
			return errors.New(p.State)
		}
		return nil
	})
	c.StartProcess(t, "proxy-0")
	harness.Eventually(t, 10*time.Second, "it serves again", func() error {
		conn, err := consistency.Dial(t.Context(), leaving.Address, "", "")
		if err == nil {
			conn.Close()
		}
		return err
	})
	time.Sleep(betweenIncidents)
	again := l.Now()
	time.Sleep(betweenIncidents)
	if final := l.Judge(t); final.Behind > 0 {
		t.Errorf("%d keys lost acknowledged writes: %s", final.Behind, final.Examples)
	}
	cut := 0
	for _, r := range l.Timeline().Errors() {
		switch {
		case r.Conn%2 == 1:
			t.Errorf("the other proxy: [%s] %s", r.Class, r.Text)
		case r.Start < at:
			t.Errorf("sent before SIGTERM and not answered: [%s] %s", r.Class, r.Text)
		case r.Start > again:
			t.Errorf("after it was started again: [%s] %s", r.Class, r.Text)
		case r.Class == consistency.Disconnected:
			cut++
		case r.Class != consistency.Refused:
			t.Errorf("an error of its own: [%s] %s", r.Class, r.Text)
		}
	}
	t.Logf("the proxy ended %s after the members forgot it; %d of its 50 connections were closed while they sent", ended.Round(time.Millisecond), cut)
}
