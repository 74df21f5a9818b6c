package reactor_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// all reads what comes until nothing comes for a while.
func (c *client) all(while time.Duration) string {
	c.t.Helper()
	var got []byte
	b := make([]byte, 64<<10)
	for !strings.HasSuffix(string(got), "EOF") {
		if err := c.SetReadDeadline(time.Now().Add(while)); err != nil {
			c.t.Fatal(err)
		}
		n, err := c.r.Read(b)
		got = append(got, b[:n]...)
		if err != nil {
			if e, ok := err.(net.Error); !ok || !e.Timeout() {
				got = append(got, "EOF"...)
			}
			break
		}
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	return string(got)
}

var clientID = regexp.MustCompile("id\r\n:[0-9]+")

// TestSubscriberAsAtAServer: what one client sees is, byte for byte, what it
// sees at a plain server.
func TestSubscriberAsAtAServer(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t, redistest.Options{Open: true})
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{}, shards...)
	for _, script := range []string{
		"SUBSCRIBE a|SUBSCRIBE b c a|PING|PING x|PING x y|GET a|NOSUCH|GET|PUBLISH a|CLIENT LIST|HELLO 3|UNSUBSCRIBE b zz|UNSUBSCRIBE a|UNSUBSCRIBE c|GET a|PING",
		"UNSUBSCRIBE|PUNSUBSCRIBE|SUNSUBSCRIBE|UNSUBSCRIBE x y|PUNSUBSCRIBE x|SUNSUBSCRIBE x|PING",
		"SUBSCRIBE a|PSUBSCRIBE p*|SSUBSCRIBE s|SSUBSCRIBE {s}2 t u|UNSUBSCRIBE|PUNSUBSCRIBE|SUNSUBSCRIBE s|SUNSUBSCRIBE t u|SUNSUBSCRIBE {s}2|SUNSUBSCRIBE|ECHO done",
		"HELLO 3|SUBSCRIBE a a|PSUBSCRIBE ?|SSUBSCRIBE a|PUBLISH a 1|SPUBLISH a 2|SET k v|GET k|PUBLISH b 2|UNSUBSCRIBE a|PUBLISH a 3|PUNSUBSCRIBE|PUBLISH a 5|SUNSUBSCRIBE|UNSUBSCRIBE|PUNSUBSCRIBE|SPUBLISH a 6",
		"HELLO 3|SUBSCRIBE x|PING|PING y|PUBSUB CHANNELS|PUBSUB NUMSUB x y|PUBSUB NUMSUB|PUBSUB NUMPAT|PSUBSCRIBE q|PUBSUB NUMPAT|PUBSUB SHARDCHANNELS|PUBSUB SHARDNUMSUB x|PUBSUB CHANNELS y*|PUBSUB CHANNELS a b|PUBSUB nosuch|PUBSUB HELP",
		"PUBSUB CHANNELS|PUBSUB NUMSUB a b|PUBSUB NUMPAT|PUBSUB SHARDCHANNELS x|PUBSUB SHARDNUMSUB|PUBSUB|PUBSUB HELP|PUBLISH nobody x|SPUBLISH nobody x|PUBLISH a|SUBSCRIBE|PUBLISH a b c",
		"SUBSCRIBE a|RESET|PING|SUBSCRIBE b|RESET|GET k|SUBSCRIBE c|QUIT",
		"HELLO 3|SUBSCRIBE a|HELLO 2|GET a|PING|UNSUBSCRIBE|GET nokey",
		"CLIENT REPLY OFF|SUBSCRIBE a|PING|GET a|UNSUBSCRIBE|CLIENT REPLY ON|PING",
		"HELLO 3|CLIENT REPLY OFF|SUBSCRIBE a|PUBLISH a hidden-reply|PING|CLIENT REPLY ON|PING|CLIENT REPLY SKIP|PUBLISH a 2|PUBLISH a 3",
		"CLIENT REPLY SKIP|SUBSCRIBE a|PING",
		"WATCH k|SUBSCRIBE a|EXEC|MULTI|EXEC x|UNSUBSCRIBE a|EXEC|MULTI|PUBLISH nobody x|SPUBLISH nobody x|PUBSUB NUMPAT|PUBSUB NUMSUB a|EXEC|SUBSCRIBE a|RESET|EXEC",
		"SSUBSCRIBE a|GET a|SUNSUBSCRIBE a|GET a|PSUBSCRIBE a|GET a|MULTI x",
	} {
		t.Run("", func(t *testing.T) {
			for _, pipelined := range []bool{false, true} {
				if pipelined && strings.Contains(script, "PUBLISH a 3") {
					continue // its own messages may come before replies to what it sent earlier
				}
				here, there := dial(t, plain.Address), dial(t, p.address)
				var seen [2]string
				var raw strings.Builder
				step := func(quiet time.Duration) bool {
					here.write(raw.String())
					there.write(raw.String())
					raw.Reset()
					seen[0] = clientID.ReplaceAllString(seen[0]+here.all(quiet), "id :n")
					// What the server said, the proxy may take its time to say.
					for begin := time.Now(); seen[0] != seen[1] && time.Since(begin) < 3*time.Second; {
						seen[1] = clientID.ReplaceAllString(seen[1]+there.all(time.Millisecond), "id :n")
					}
					return seen[0] == seen[1]
				}
				same := true
				for line := range strings.SplitSeq(script, "|") {
					raw.WriteString(encode(strings.Fields(line)...))
					same = same && (pipelined || step(25*time.Millisecond))
				}
				if same = same && step(100*time.Millisecond); same && !strings.HasSuffix(seen[1], "EOF") {
					seen[1] += clientID.ReplaceAllString(there.all(50*time.Millisecond), "id :n")
				}
				here.Close()
				there.Close()
				time.Sleep(20 * time.Millisecond)
				if seen[0] != seen[1] {
					t.Errorf("%s (pipelined %v)\nserver %q\nproxy  %q", script, pipelined, seen[0], seen[1])
				}
			}
		})
	}
}

// message is how a message reads.
func message(channel, text string) string { return "[message " + channel + " " + text + "]" }

// subscribe subscribes to channels and reads the confirmations.
func (c *client) subscribe(channels ...string) {
	c.t.Helper()
	c.send(append([]string{"SUBSCRIBE"}, channels...)...)
	for i, channel := range channels {
		c.wantNext(fmt.Sprintf("[subscribe %s %d]", channel, i+1))
	}
}

// twoProxies starts two engines over the same servers.
func twoProxies(t *testing.T, n int, cfg reactor.Config) (a, b *proxy, servers []*redistest.Server) {
	shards, servers := realShards(t, n)
	return startProxy(t, cfg, shards...), startProxy(t, cfg, append([]routing.Shard(nil), shards...)...), servers
}

// TestMessagesOfAllProxies: what is published through any proxy, or at any
// server, reaches the subscribers of every proxy once, in the order of its
// channel.
func TestMessagesOfAllProxies(t *testing.T) {
	t.Parallel()
	a, b, servers := twoProxies(t, 3, reactor.Config{})
	const channels, messages = 8, 200
	var names []string
	for i := range channels {
		names = append(names, fmt.Sprintf("ch%d", i))
	}
	var subscribers []*client
	for _, p := range []*proxy{a, b, a, b, a} {
		c := p.dial()
		c.subscribe(names...)
		subscribers = append(subscribers, c)
	}
	pattern := b.dial()
	pattern.want("[psubscribe ch? 1]", "PSUBSCRIBE", "ch?")
	var publishers sync.WaitGroup
	for i, name := range names {
		c := []*proxy{a, b}[i%2].dial()
		publishers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for n := 0; n < messages; {
				batch := min(1+r.IntN(20), messages-n)
				var raw strings.Builder
				for range batch {
					raw.WriteString(encode("PUBLISH", name, fmt.Sprint(n)))
					n++
				}
				c.write(raw.String())
				for range batch {
					if got := c.read(); got == "0" || got[0] == '-' {
						t.Errorf("PUBLISH: %s", got)
					}
				}
			}
		})
	}
	publishers.Wait()
	for i, c := range append(subscribers, pattern) {
		next := map[string]int{}
		for range channels * messages {
			f := strings.Fields(strings.Trim(c.read(), "[]"))
			channel := f[len(f)-2]
			if want := fmt.Sprint(next[channel]); f[len(f)-1] != want {
				t.Fatalf("subscriber %d: %v, want %s of %s", i, f, want, channel)
			}
			next[channel]++
		}
		c.silent(20 * time.Millisecond)
	}
	// A script publishes at the shard of its keys, whatever the channel.
	p := b.dial()
	for key := range 6 {
		p.do("EVAL", "return redis.call('PUBLISH', ARGV[1], ARGV[2])", "1", fmt.Sprintf("key%d", key), "ch0", fmt.Sprint("s", key))
		for _, c := range subscribers {
			c.wantNext(message("ch0", fmt.Sprint("s", key)))
		}
	}
	servers[1].MustDo("PUBLISH", "ch0", "direct")
	for _, c := range subscribers {
		c.wantNext(message("ch0", "direct"))
	}
}

// TestNumbers are those of a single server.
func TestNumbers(t *testing.T) {
	t.Parallel()
	a, b, _ := twoProxies(t, 3, reactor.Config{Loops: 2})
	c := a.dial()
	var subscribers []*client
	for range 7 {
		s := a.dial()
		s.subscribe("x")
		subscribers = append(subscribers, s)
	}
	s := a.dial()
	s.want("[psubscribe x* 1]", "PSUBSCRIBE", "x*")
	s.want("[psubscribe [a-z] 2]", "PSUBSCRIBE", "[a-z]")
	s.want("[ssubscribe sh 1]", "SSUBSCRIBE", "sh")
	c.want("9", "PUBLISH", "x", "1")
	c.want("1", "PUBLISH", "xy", "1")
	c.want("1", "SPUBLISH", "sh", "1")
	c.want("0", "SPUBLISH", "x", "1")
	c.want("[x 7 y 0]", "PUBSUB", "NUMSUB", "x", "y")
	c.want("[sh 1]", "PUBSUB", "SHARDNUMSUB", "sh")
	c.want("[x]", "PUBSUB", "CHANNELS")
	c.want("[sh]", "PUBSUB", "SHARDCHANNELS")
	c.want("2", "PUBSUB", "NUMPAT")
	if got := a.Stats().PubSub; got.Subscribers != 8 || got.Subscriptions != 10 || got.Channels != 1 || got.Patterns != 2 || got.ShardChannels != 1 {
		t.Errorf("%+v", got)
	}
	if got := c.do("CLIENT", "LIST", "TYPE", "pubsub"); strings.Count(got, " flags=P db=0 sub=1 psub=0 ssub=0 ") != 7 || strings.Count(got, " sub=0 psub=2 ssub=1 ") != 1 || strings.Count(got, "id=") != 8 {
		t.Errorf("CLIENT LIST TYPE pubsub: %s", got)
	}
	if got := c.do("CLIENT", "LIST", "TYPE", "normal"); strings.Count(got, "id=") != 1 {
		t.Errorf("CLIENT LIST TYPE normal: %s", got)
	}
	other := b.dial()
	other.want("9", "PUBLISH", "x", "1")
	other.want("[x 7 y 0]", "PUBSUB", "NUMSUB", "x", "y")
	other.want("[sh 1]", "PUBSUB", "SHARDNUMSUB", "sh")
	other.want("[x]", "PUBSUB", "CHANNELS")
	other.want("2", "PUBSUB", "NUMPAT")
	for i, s := range subscribers {
		if i%2 == 0 {
			s.read()
			s.read()
			s.want("[unsubscribe x 0]", "UNSUBSCRIBE", "x")
			c.want(fmt.Sprintf("[x %d]", 6-i/2), "PUBSUB", "NUMSUB", "x")
		}
	}
	for _, s := range append(subscribers, s) {
		s.Close()
	}
	waitFor(t, "nobody", func() bool { return a.Stats().PubSub.Subscribers == 0 && c.do("PUBSUB", "CHANNELS") == "[]" })
	c.want("0", "PUBLISH", "x", "1")
	c.want("0", "PUBSUB", "NUMPAT")
}

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// TestKeyspaceNotifications come from the servers that hold the keys.
func TestKeyspaceNotifications(t *testing.T) {
	t.Parallel()
	a, b, servers := twoProxies(t, 3, reactor.Config{})
	for _, s := range servers {
		s.MustDo("CONFIG", "SET", "notify-keyspace-events", "KEA")
	}
	events, keys, third := a.dial(), b.dial(), b.dial()
	events.want("[subscribe __keyevent@0__:set 1]", "SUBSCRIBE", "__keyevent@0__:set")
	keys.want("[psubscribe __keyspace@0__:k* 1]", "PSUBSCRIBE", "__keyspace@0__:k*")
	third.want("[subscribe __keyevent@3__:set 1]", "SUBSCRIBE", "__keyevent@3__:set")
	c := a.dial()
	for i := range 30 {
		key := fmt.Sprintf("k%d", i)
		c.want("OK", "SET", key, "v")
		events.wantNext(message("__keyevent@0__:set", key))
		keys.wantNext(fmt.Sprintf("[pmessage __keyspace@0__:k* __keyspace@0__:%s set]", key))
	}
	c.want("OK", "SELECT", "3") // the channels carry the number of the database
	for i := range 30 {
		key := fmt.Sprintf("k%d", i)
		c.want("OK", "SET", key, "v")
		third.wantNext(message("__keyevent@3__:set", key))
	}
	events.silent(20 * time.Millisecond)
	keys.silent(20 * time.Millisecond)
	third.silent(20 * time.Millisecond)
}

// TestSubscriptionsSurvive failover, switchover, a rotation of credentials, a
// restart and broken connections, without another confirmation or a message
// twice.
func TestSubscriptionsSurvive(t *testing.T) {
	t.Parallel()
	first, next := redistest.Start(t, redistest.Options{Open: true}), redistest.Start(t, redistest.Options{Open: true})
	other := redistest.Start(t, redistest.Options{Open: true})
	sh := twoNodes(first.Address, next.Address)
	sh.Slots = slot.Even(0, 2)
	p := startProxy(t, reactor.Config{}, sh, one(1, 2, other.Address))
	pub := p.dial()
	subscribers := []*client{p.dial(), p.dial(), p.dial()}
	for _, c := range subscribers {
		c.subscribe("bar") // slot 5061: the first shard
		c.want("[psubscribe ba* 2]", "PSUBSCRIBE", "ba*")
		c.want("[ssubscribe bar 1]", "SSUBSCRIBE", "bar")
	}
	n := 0
	// works waits until everything is subscribed at the servers given, and sees
	// that each message comes once.
	works := func(what string, count int, masters ...*redistest.Server) {
		t.Helper()
		waitFor(t, what, func() bool { return p.Stats().PubSub.Links == count })
		n++
		text := fmt.Sprint(what, n)
		pub.want("6", "PUBLISH", "bar", text)
		pub.want("3", "SPUBLISH", "bar", text)
		for _, c := range subscribers {
			got := map[string]bool{}
			for range 3 {
				got[c.read()] = true
			}
			for _, want := range []string{message("bar", text), "[pmessage ba* bar " + text + "]", "[smessage bar " + text + "]"} {
				if !got[want] {
					t.Fatalf("%s: %v lacks %s", what, got, want)
				}
			}
			c.silent(10 * time.Millisecond)
		}
		for _, s := range masters {
			s.MustDo("PUBLISH", "bar", what)
			for _, c := range subscribers {
				for range 2 {
					if got := c.read(); !strings.HasSuffix(got, " "+what+"]") {
						t.Fatalf("%s: %s", what, got)
					}
				}
			}
		}
	}
	links := 4 // two loops, two shards
	works("begin", links, first, other)

	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true }))
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[0].Master = false, "b" }))
	works("switchover", links, next, other)
	first.MustDo("PUBLISH", "bar", "nobody hears the old master")

	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	next.MustDo("PUBLISH", "bar", "nobody hears who was taken away")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "a" }))
	works("failover", links, first, other)

	for _, name := range []string{"pubsub", "normal"} {
		first.MustDo("CLIENT", "KILL", "TYPE", name, "SKIPME", "yes")
	}
	waitFor(t, "connections", func() bool { s := p.Stats(); return s.PubSub.Links == links && s.Nodes[0].Connections > 0 })
	works("broken", links, first)

	first.Restart()
	p.waitSight("a", reactor.SightOK)
	works("restart", links, first, other)

	// The channels' slot moves to the other shard, and that one's to this.
	p.waitAck(p.commit(func(c *routing.Cluster) {
		c.Shards[0].Slots, c.Shards[1].Slots = c.Shards[1].Slots, c.Shards[0].Slots
	}))
	works("moved", links, first, other)
	if got := fmt.Sprint(first.MustDo("PUBSUB", "SHARDCHANNELS"), other.MustDo("PUBSUB", "SHARDCHANNELS")); got != "[] [bar]" {
		t.Errorf("shard channels at the servers: %s", got)
	}

	// A shard comes, and one goes.
	third := redistest.Start(t, redistest.Options{Open: true})
	p.waitAck(p.commit(func(c *routing.Cluster) {
		s := one(2, 3, third.Address)
		s.Slots = c.Shards[0].Slots
		c.Shards = append(c.Shards[1:2:2], s)
	}))
	works("shards", links, other, third)
}

// TestRotationLosesNothing: credentials change while messages come.
func TestRotationLosesNothing(t *testing.T) {
	t.Parallel()
	p, s := startFenced(t)
	c := p.dial()
	c.subscribe("x")
	stop, sent := make(chan struct{}), make(chan int, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				sent <- n
				return
			default:
				s.MustDo("PUBLISH", "x", fmt.Sprint(n))
			}
		}
	}()
	for g := uint64(2); g < 10; g++ {
		p.rotate(s, g)
		time.Sleep(20 * time.Millisecond)
		s.MustDo("ACL", "DELUSER", proxyName(g-1))
	}
	close(stop)
	for n := range <-sent {
		c.wantNext(message("x", fmt.Sprint(n)))
	}
	c.silent(20 * time.Millisecond)
}

// TestSubscribeWithoutMaster: who subscribes while a shard has no master waits
// for it a moment, and is subscribed there when it is back. Who subscribes to a shard
// channel of its own is refused when it does not come.
func TestSubscribeWithoutMaster(t *testing.T) {
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{HoldTimeout: 600 * time.Millisecond}, shards...)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	c, d := p.dial(), p.dial()
	c.send("SUBSCRIBE", "bar") // the first shard's
	d.send("SUBSCRIBE", "foo") // the second's
	c.silent(100 * time.Millisecond)
	p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "shard-0-0" })
	c.wantNext("[subscribe bar 1]")
	d.wantNext("[subscribe foo 1]")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	begin := time.Now()
	e := p.dial()
	e.want(down, "SSUBSCRIBE", "bar")
	e.want("[subscribe {bar}2 1]", "SUBSCRIBE", "{bar}2")
	e.want("[subscribe {foo}2 2]", "SUBSCRIBE", "{foo}2")
	e.want("[psubscribe *r 3]", "PSUBSCRIBE", "*r")
	if took := time.Since(begin); took < 400*time.Millisecond || took > 600*time.Millisecond+soon {
		t.Errorf("it took %v", took)
	}
	p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "shard-0-0" })
	waitFor(t, "all links", func() bool { return p.Stats().PubSub.Links >= 2 && p.dial().do("PUBLISH", "bar", "x") == "2" })
	c.wantNext(message("bar", "x"))
	e.wantNext("[pmessage *r bar x]")
	p.dial().want("1", "PUBLISH", "{bar}2", "y")
	e.wantNext(message("{bar}2", "y"))
	// A client that leaves while it waits leaves nothing behind.
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	f := p.dial()
	f.send("SUBSCRIBE", "{bar}3")
	time.Sleep(30 * time.Millisecond)
	for _, x := range []*client{c, d, e, f} {
		if err := x.Conn.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		x.Close()
	}
	waitFor(t, "nobody", func() bool { s := p.Stats().PubSub; return s.Subscriptions == 0 && s.Channels == 0 && s.Patterns == 0 })
}

// TestDeletingEndsSubscribe: nobody waits for a cluster that is being deleted.
func TestDeletingEndsSubscribe(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	c := p.dial()
	c.send("SUBSCRIBE", "x")
	c.silent(30 * time.Millisecond)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Phase, c.Shards = routing.Deleting, nil }))
	c.wantNext("-CLUSTERDOWN the cluster is being deleted")
	c.want("-CLUSTERDOWN the cluster is being deleted", "SUBSCRIBE", "x")
}

// TestSlowSubscriber: who does not read is cut at its limit; others get
// everything, and large messages are not copied for each.
func TestSlowSubscriber(t *testing.T) {
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 1, ClientPubSubBufferBytes: 8 << 20}, shards...)
	slow, good, pub := p.dial(), p.dial(), p.dial()
	slow.subscribe("x")
	good.subscribe("x")
	others := make([]*client, 20)
	for i := range others {
		others[i] = p.dial()
		others[i].subscribe("x")
	}
	text := strings.Repeat("m", 256<<10)
	const messages = 80 // 20 MiB: more than limit and socket buffers take
	var most int64
	for n := range messages {
		if got := pub.do("PUBLISH", "x", text); got[0] == '-' {
			t.Fatal(got)
		}
		for _, c := range slices.Concat(others, []*client{good}) {
			if got := c.read(); got != message("x", text) {
				t.Fatalf("message %d: %d bytes", n, len(got))
			}
		}
		if n%8 == 0 {
			most = max(most, p.Stats().MemoryBytes)
		}
	}
	pub.want("21", "PUBLISH", "x", "end")
	s := p.Stats()
	if s.PubSub.TooSlow != 1 || s.ClientsTooSlow != 1 || s.PubSub.Subscribers != 21 {
		t.Errorf("%d cut as too slow, %d subscribers left", s.PubSub.TooSlow, s.PubSub.Subscribers)
	}
	if most > 16<<20 {
		t.Errorf("%d bytes in use", most)
	}
	good.wantNext(message("x", "end"))
	waitFor(t, "memory", func() bool { return p.Stats().MemoryBytes < 4<<20 })
}

// TestThousandSubscribers get every message.
func TestThousandSubscribers(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	const subscribers, messages = 1000, 50
	clients := make([]*client, subscribers)
	for i := range clients {
		clients[i] = p.dial()
		clients[i].send("SUBSCRIBE", "news")
	}
	for _, c := range clients {
		c.wantNext("[subscribe news 1]")
	}
	pub := p.dial()
	begin := time.Now()
	for n := range messages {
		pub.want(fmt.Sprint(subscribers), "PUBLISH", "news", fmt.Sprint(n))
	}
	for _, c := range clients {
		for n := range messages {
			c.wantNext(message("news", fmt.Sprint(n)))
		}
	}
	t.Logf("%d deliveries in %v", subscribers*messages, time.Since(begin))
	if got := p.Stats().PubSub; got.Messages > 2*messages || got.Deliveries != subscribers*messages {
		t.Errorf("%+v: a message must come once per loop", got)
	}
}

// TestMessagesDoNotTearReplies: while a large reply is on its way to a client
// that also subscribes, messages wait for its end.
func TestMessagesDoNotTearReplies(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1, ClientPubSubBufferBytes: 256 << 20}, shards...)
	c, pub := p.dial(), p.dial()
	c.do("HELLO", "3")
	value := strings.Repeat("0123456789abcdef", 1<<20)
	go c.send("SET", "big", value)
	c.wantNext("OK")
	c.send("SUBSCRIBE", "x")
	c.read()
	stop, sent := make(chan struct{}), make(chan int, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				sent <- n
				return
			default:
				pub.want("1", "PUBLISH", "x", fmt.Sprint(n))
			}
		}
	}()
	got, next, stopped := 0, 0, -1
	for range 4 {
		c.send("GET", "big")
	}
	for got < 4 || next != stopped {
		switch text := c.read(); {
		case text == value:
			if got++; got == 4 {
				close(stop)
				stopped = <-sent
			}
		case text == message("x", fmt.Sprint(next)):
			next++
		default:
			t.Fatalf("%.80q (%d bytes), want message %d", text, len(text), next)
		}
	}
}

// TestSubscribeNeedsAuthentication as everything does.
func TestSubscribeNeedsAuthentication(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.ClientPasswords = append(c.ClientPasswords, passwordSum("one")) }))
	c := p.dial()
	for _, command := range []string{"SUBSCRIBE x", "PSUBSCRIBE x", "SSUBSCRIBE x", "UNSUBSCRIBE", "PUBLISH x y", "SPUBLISH x y", "PUBSUB CHANNELS"} {
		c.want("-NOAUTH Authentication required.", strings.Fields(command)...)
	}
	c.want("OK", "AUTH", "one")
	c.subscribe("x")
	c.want("RESET", "RESET")
	c.want("-NOAUTH Authentication required.", "SUBSCRIBE", "x")
}

func passwordSum(password string) [sha256.Size]byte { return sha256.Sum256([]byte(password)) }

// TestUnsubscribeComesBehindMessages: what was published before a client
// unsubscribes is delivered, although it comes on another connection.
func TestUnsubscribeComesBehindMessages(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 2}, shards...)
	publisher := p.dial()
	for _, kind := range []struct{ on, off, name, publish string }{
		{"SUBSCRIBE", "UNSUBSCRIBE", "ch", "PUBLISH"}, {"PSUBSCRIBE", "PUNSUBSCRIBE", "c?", "PUBLISH"}, {"SSUBSCRIBE", "SUNSUBSCRIBE", "ch", "SPUBLISH"},
	} {
		c := p.dial()
		c.send(kind.on, kind.name)
		c.read()
		for i := range 100 {
			publisher.do(kind.publish, "ch", fmt.Sprint(i))
			c.send(kind.off, kind.name)
			c.send(kind.on, kind.name)
			if got := c.read(); !strings.HasSuffix(got, fmt.Sprintf(" ch %d]", i)) {
				t.Fatalf("%s: message %d was published before %s, first came %q", kind.on, i, kind.off, got)
			}
			c.read()
			c.read()
		}
		c.Close()
	}
}
