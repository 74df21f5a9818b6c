package reactor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

const tooManyOwn = "-ERR too many connections of this proxy to the servers serve single users or clients (see its max-pinned); retry later"

// trackers counts the connections to servers that track.
func trackers(servers []*redistest.Server) (n int) {
	for _, s := range servers {
		lines := fmt.Sprint(s.MustDo("CLIENT", "LIST", "TYPE", "normal"))
		n += strings.Count(lines, "flags=t") + strings.Count(lines, "flags=B")
	}
	return n
}

// TestFromAndToNoLoop: what was read over other connections than those of now is
// not kept too long, and connections are closed when they are not needed.
func TestFromAndToNoLoop(t *testing.T) {
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1, MaxPinned: 3}, shards...)
	const all = "[invalidate (nil)]"
	c, other := p.dial(), p.dial()
	near, far := "bar", "foo" // in the first shard, and in the second
	connections := func() (n int) { return trackers(servers) }
	c.do("HELLO", "3")
	c.want("OK", "CLIENT", "TRACKING", "on")
	c.want("[(nil) (nil)]", "MGET", near, far)
	shared := connections()
	c.want("OK", "CLIENT", "TRACKING", "on", "noloop")
	c.want("(nil)", "GET", far)
	other.want("OK", "MSET", near, "1", far, "1")
	// Both were read before, one of them again.
	pushes := []string{c.read(), c.read(), c.read()}
	slices.Sort(pushes)
	if got := strings.Join(pushes, " "); got != "[invalidate [bar]] [invalidate [foo]] [invalidate [foo]]" {
		t.Fatal(got)
	}
	c.want("[1 1]", "MGET", near, far)
	if n := connections(); n != shared+2 {
		t.Errorf("%d connections more", n-shared)
	}
	// There is no room for another client.
	d := p.dial()
	d.do("HELLO", "3")
	d.want(tooManyOwn, "CLIENT", "TRACKING", "on", "noloop")
	d.want("[flags [off] redirect -1 prefixes []]", "CLIENT", "TRACKINGINFO")
	gone := func() {
		t.Helper()
		waitFor(t, "the connections are gone", func() bool { return connections() == shared })
	}
	c.send("CLIENT", "TRACKING", "on")
	if a, b := c.read(), c.read(); a+b != all+"OK" && a+b != "OK"+all {
		t.Fatal(a, b)
	}
	gone()
	c.want("1", "GET", near)
	c.want("OK", "SET", near, "2")
	c.wantNext("[invalidate [" + near + "]]")
	// Off and on, and RESET.
	c.want("OK", "CLIENT", "TRACKING", "off")
	c.want("OK", "CLIENT", "TRACKING", "on", "noloop")
	c.want("2", "GET", near)
	for _, end := range [][]string{{"CLIENT", "TRACKING", "off"}, {"RESET"}} {
		c.do(end...)
		gone()
		c.do("HELLO", "3")
		c.send("CLIENT", "TRACKING", "on", "noloop")
		if a, b := c.read(), c.read(); a+b != all+"OK" && a+b != "OK"+all {
			t.Fatal(a, b)
		}
		c.want("2", "GET", near)
	}
	c.Close()
	gone()
	d.want("OK", "CLIENT", "TRACKING", "on", "noloop")
	d.want("2", "GET", near)
	d.want("OK", "SET", near, "3")
	d.silent(20 * time.Millisecond)
}

// TestNoLoopInBroadcastMode: a client has a connection to each master from the
// beginning, of masters to come as well, and none afterwards.
func TestNoLoopInBroadcastMode(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1, MaxPinned: 3, HoldTimeout: 300 * time.Millisecond}, shards...)
	c, d, other := p.dial(), p.dial(), p.dial()
	near, far := "bar", "foo" // in the first shard, and in the second
	c.want("[(nil) (nil)]", "MGET", near, far)
	c.do("HELLO", "3")
	d.do("HELLO", "3")
	before := trackers(servers)
	on := []string{"CLIENT", "TRACKING", "on", "bcast", "noloop"}
	c.want("OK", on...)
	if n := trackers(servers); n != before+2 {
		t.Errorf("%d connections more", n-before)
	}
	d.want(tooManyOwn, on...)
	c.want("OK", "MSET", near, "1", far, "1")
	other.want("OK", "SET", far, "2")
	c.wantNext("[invalidate [" + far + "]]")
	other.want("OK", "SET", near, "2")
	c.wantNext("[invalidate [" + near + "]]")
	// A shard without a master does not keep a client for ever, and when it has one, the
	// client is told to forget what it may have missed.
	gone := func() {
		t.Helper()
		waitFor(t, "the connections are gone", func() bool { return trackers(servers) == before })
	}
	c.Close()
	gone()
	d.want("OK", on...)
	d.want("OK", "CLIENT", "TRACKING", "off")
	gone()
	var master string
	p.waitAck(p.commit(func(c *routing.Cluster) { master, c.Shards[1].Master = c.Shards[1].Master, "" }))
	begin := time.Now()
	d.want("OK", on...)
	if took := time.Since(begin); took < 250*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
	other.want("OK", "SET", near, "3")
	d.wantNext("[invalidate [" + near + "]]")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[1].Master = master }))
	d.wantNext("[invalidate (nil)]")
	d.want("OK", "SET", far, "3")
	other.want("OK", "SET", far, "4")
	d.wantNext("[invalidate [" + far + "]]")
	// From connections that are shared to those of its own, with other prefixes, and back.
	d.do("RESET")
	d.do("HELLO", "3")
	for i, words := range []string{"prefix x", "noloop prefix b", "noloop prefix f", "", "noloop"} {
		d.want("OK", strings.Fields("CLIENT TRACKING on bcast "+words)...)
		if i > 0 {
			d.wantNext("[invalidate (nil)]") // changes may have been missed meanwhile
		}
	}
	d.want("[flags [on bcast noloop] redirect 0 prefixes [ b f x]]", "CLIENT", "TRACKINGINFO")
	other.want("OK", "SET", near, "4")
	d.wantNext("[invalidate [" + near + "]]")
	d.wantNext("[invalidate [" + near + "]]") // it has two of the prefixes
	d.want("OK", "SET", near, "5")
	d.silent(20 * time.Millisecond)
	// The connections for subscriptions do not tell for it alone.
	own := trackers(servers)
	shared := p.dial()
	shared.do("HELLO", "3")
	shared.want("OK", "CLIENT", "TRACKING", "on", "bcast")
	both := trackers(servers)
	shared.Close()
	waitFor(t, "they are quiet", func() bool { return trackers(servers) < both })
	if own > both {
		t.Errorf("%d connections tracked, then %d", own, both)
	}
	// A client that leaves while it waits.
	d.do("RESET")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[1].Master = "" }))
	d.do("HELLO", "3")
	d.send(on...)
	waitFor(t, "a connection", func() bool { return trackers(servers[:1]) > 0 })
	d.Close()
	waitFor(t, "it is closed", func() bool { return trackers(servers[:1]) <= before })
	other.want("5", "GET", near)
}

// TestNoLoopOfManyKeys: what is taken apart goes the same way.
func TestNoLoopOfManyKeys(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c, other := p.dial(), p.dial()
	c.do("HELLO", "3")
	mset, mget := []string{"MSET"}, []string{"MGET"}
	for i := range 6000 {
		key := fmt.Sprint("k", i)
		mset, mget = append(mset, key, "v"), append(mget, key)
	}
	for _, mode := range []string{"", "bcast"} {
		c.want("OK", strings.Fields("CLIENT TRACKING on noloop "+mode)...)
		for range 2 {
			c.send(mget...)
			if got := c.read(); strings.Count(got, " ") != 5999 {
				t.Fatalf("%s: reply to MGET: %.100s", mode, got)
			}
			c.send(mset...)
			c.wantNext("OK")
		}
		c.want("v", "GET", "k5999")
		other.want("OK", "SET", "k5999", "w")
		c.wantNext("[invalidate [k5999]]")
		c.want("OK", "CLIENT", "TRACKING", "off")
	}
}
