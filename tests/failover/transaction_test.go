package failover

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// outcome of an EXEC, as its client can know it.
type outcome int

const (
	executed outcome = iota
	maybe            // the error says that it may have been executed
	notExecuted
	watchFailed // null
	outcomes
)

// outcomeOf judges the reply to EXEC.
func outcomeOf(r consistency.Reply) outcome {
	switch {
	case r.Null:
		return watchFailed
	case r.Err == nil:
		return executed
	case strings.Contains(r.Err.Error(), "may or may not have been executed"):
		return maybe
	}
	return notExecuted
}

// transactions run until stopped: in each shard, writers that increase two
// counters and one of their own together, writers that increase a counter by
// WATCH, and readers that require the two counters to be equal.
type transactions struct {
	t    *testing.T
	stop chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	// own counts the outcomes of each writer, set those of all that WATCH, by the
	// key they increase.
	own, set map[string]*[outcomes]int
	errors   map[string]int
	reads    int
}

const (
	pairWriters  = 2 // of each shard
	watchWriters = 2
)

func startTransactions(t *testing.T, c *harness.Cluster) *transactions {
	x := &transactions{t: t, stop: make(chan struct{}), own: map[string]*[outcomes]int{}, set: map[string]*[outcomes]int{}, errors: map[string]int{}}
	n := 0
	each := func(work func(conn *consistency.Conn) error) {
		conn, err := consistency.Dial(t.Context(), c.Proxies[n%len(c.Proxies)], "", "")
		if err != nil {
			t.Fatal(err)
		}
		n++
		x.wg.Go(func() {
			defer conn.Close()
			for {
				select {
				case <-x.stop:
					return
				default:
				}
				if err := work(conn); err != nil {
					t.Errorf("a connection to the proxy broke: %v", err)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	for _, sh := range c.Shards(t) {
		tag := tagOf(sh)
		for w := range pairWriters {
			own := fmt.Sprint(tag, "own-", w)
			x.own[own] = &[outcomes]int{}
			each(func(conn *consistency.Conn) error { return x.increasePair(conn, tag, own) })
		}
		x.set[tag+"set"] = &[outcomes]int{}
		for range watchWriters {
			each(func(conn *consistency.Conn) error { return x.increaseWatched(conn, tag+"set") })
		}
		each(func(conn *consistency.Conn) error { return x.comparePair(conn, tag) })
	}
	return x
}

// tagOf begins keys of one slot of a shard: "tx:{…}".
func tagOf(sh consistency.Shard) string {
	for first := range sh.Slots.Ranges {
		return consistency.KeyInSlot("tx", first)
	}
	return ""
}

func (x *transactions) count(of *[outcomes]int, r consistency.Reply) {
	x.mu.Lock()
	defer x.mu.Unlock()
	of[outcomeOf(r)]++
	if r.Err != nil {
		x.errors[r.Err.Error()]++
	}
}

// increasePair increases three counters in one transaction.
func (x *transactions) increasePair(conn *consistency.Conn, tag, own string) error {
	replies, err := conn.Pipeline([]string{"MULTI"}, []string{"INCR", tag + "a"}, []string{"INCR", tag + "b"}, []string{"INCR", own}, []string{"EXEC"})
	if err != nil {
		return err
	}
	exec := replies[len(replies)-1]
	if exec.Err == nil && (len(exec.Array) != 3 || exec.Array[0].Int != exec.Array[1].Int) {
		x.t.Errorf("%s: EXEC returned %v", own, exec)
	}
	x.count(x.own[own], exec)
	return nil
}

// increaseWatched increases a counter by reading and setting it.
func (x *transactions) increaseWatched(conn *consistency.Conn, key string) error {
	replies, err := conn.Pipeline([]string{"WATCH", key}, []string{"GET", key})
	if err != nil {
		return err
	}
	if replies[0].Err != nil || replies[1].Err != nil {
		_, err = conn.Do("UNWATCH")
		return err
	}
	n := 0
	if !replies[1].Null {
		if n, err = strconv.Atoi(string(replies[1].Text)); err != nil {
			return err
		}
	}
	replies, err = conn.Pipeline([]string{"MULTI"}, []string{"SET", key, strconv.Itoa(n + 1)}, []string{"EXEC"})
	if err == nil {
		x.count(x.set[key], replies[2])
	}
	return err
}

// comparePair reads both counters of a pair at once.
func (x *transactions) comparePair(conn *consistency.Conn, tag string) error {
	replies, err := conn.Pipeline([]string{"MULTI"}, []string{"GET", tag + "a"}, []string{"GET", tag + "b"}, []string{"EXEC"})
	if err != nil {
		return err
	}
	exec := replies[3]
	if exec.Err != nil {
		return nil
	}
	x.mu.Lock()
	x.reads++
	x.mu.Unlock()
	if len(exec.Array) != 2 || string(exec.Array[0].Text) != string(exec.Array[1].Text) {
		x.t.Errorf("%s: half a transaction: %q and %q", tag, exec.Array[0].Text, exec.Array[1].Text)
	}
	return nil
}

// judge stops the load and compares what the clients know with what is stored.
// With lossless, no acknowledged transaction may be missing.
func (x *transactions) judge(c *harness.Cluster, lossless bool) {
	t := x.t
	t.Helper()
	close(x.stop)
	x.wg.Wait()
	conn, err := consistency.Dial(t.Context(), c.Proxies[0], "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	value := func(key string) int {
		r := do(t, conn, "GET", key)
		n, _ := strconv.Atoi(string(r.Text))
		return n
	}
	var sum [outcomes]int
	check := func(key string, of *[outcomes]int) {
		n := value(key)
		if n > of[executed]+of[maybe] {
			t.Errorf("%s: %d, but %d were executed and %d may have been: something ran twice", key, n, of[executed], of[maybe])
		}
		if lossless && n < of[executed] {
			t.Errorf("%s: %d, but %d were executed: a change was overwritten or lost", key, n, of[executed])
		}
		if of[executed] == 0 {
			t.Errorf("%s: no transaction was executed", key)
		}
		for i := range of {
			sum[i] += of[i]
		}
	}
	for key, of := range x.own {
		check(key, of)
	}
	for key, of := range x.set {
		check(key, of)
	}
	for _, sh := range c.Shards(t) {
		if a, b := value(tagOf(sh)+"a"), value(tagOf(sh)+"b"); a != b {
			t.Errorf("%s: %d and %d", sh.ID, a, b)
		}
	}
	t.Logf("%d executed, %d maybe, %d not, %d found a change; %d reads; errors %v", sum[executed], sum[maybe], sum[notExecuted], sum[watchFailed], x.reads, x.errors)
	if lossless && sum[maybe]+sum[notExecuted] > 0 {
		t.Errorf("planned changes cost errors: %v", x.errors)
	}
	if sum[watchFailed] == 0 || x.reads == 0 {
		t.Error("no WATCH found a change, or nothing was read: the load shows nothing")
	}
}

// TestTransactionsThroughSwitchovers: all or nothing, exactly once, and no WATCH
// misses a change; and no client sees an error.
func TestTransactionsThroughSwitchovers(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 2, Proxies: 2})
	x := startTransactions(t, c)
	for i := range 6 {
		time.Sleep(200 * time.Millisecond)
		if _, err := c.Switchover(t.Context(), shardName(i%2)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(200 * time.Millisecond)
	x.judge(c, true)
}

// TestTransactionsThroughKills: all or nothing, and never twice, when masters are
// killed with -9. What was acknowledged and not replicated may be lost.
func TestTransactionsThroughKills(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 2, Proxies: 2})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	x := startTransactions(t, c)
	for i := range 2 {
		time.Sleep(300 * time.Millisecond)
		old := c.Master(t, i).GetId()
		harness.Signal(t, c.Process(t, old), syscall.SIGKILL)
		waitNewMaster(t, c, i, old, 10*time.Second)
		time.Sleep(300 * time.Millisecond)
		c.StartProcess(t, old)
		c.WaitHealthy(t, 20*time.Second)
	}
	x.judge(c, false)
}

// TestWatchAcrossMasters: a WATCH at one master never lets EXEC through at the
// next, whether the key was changed there or not.
func TestWatchAcrossMasters(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 1})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	dial := func() *consistency.Conn {
		conn, err := consistency.Dial(t.Context(), c.Proxies[0], "", "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		return conn
	}
	other := dial()
	for _, incident := range []struct {
		name   string
		happen func()
	}{
		{"switchover", func() {
			if _, err := c.Switchover(t.Context(), shardName(0)); err != nil {
				t.Fatal(err)
			}
		}},
		{"kill", func() {
			old := c.Master(t, 0).GetId()
			harness.Signal(t, c.Process(t, old), syscall.SIGKILL)
			waitNewMaster(t, c, 0, old, 10*time.Second)
		}},
	} {
		changed, same := dial(), dial()
		do(t, other, "SET", "k", "1")
		do(t, changed, "WATCH", "k")
		do(t, same, "WATCH", "{k}j")
		incident.happen()
		do(t, other, "SET", "k", "2")
		for name, conn := range map[string]*consistency.Conn{"changed": changed, "unchanged": same} {
			do(t, conn, "MULTI")
			do(t, conn, "SET", "k", "mine")
			if r := do(t, conn, "EXEC"); !r.Null {
				t.Errorf("%s, key %s: EXEC returned %v, want null", incident.name, name, r)
			}
			do(t, conn, "MULTI")
			do(t, conn, "GET", "k")
			if r := do(t, conn, "EXEC"); len(r.Array) != 1 || string(r.Array[0].Text) != "2" {
				t.Errorf("%s: the next transaction returned %v", incident.name, r)
			}
		}
	}
}

// TestSubscribersThroughFailover: subscribers of two proxies, keyspace
// notifications and MONITOR go on through a switchover and a kill -9, messages
// come in order and never twice, also those published in a transaction.
func TestSubscribersThroughFailover(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 2, Proxies: 2})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	for _, node := range c.Processes(t, "node") {
		do(t, c.Admin(t, node.Address), "CONFIG", "SET", "notify-keyspace-events", "K$")
	}
	tags := []string{}
	for _, sh := range c.Shards(t) {
		tags = append(tags, tagOf(sh))
	}
	var subscribers []*subscriber
	for _, proxy := range c.Proxies {
		subscribers = append(subscribers,
			subscribe(t, proxy, "PSUBSCRIBE", "tx:*news"), subscribe(t, proxy, "PSUBSCRIBE", "__keyspace@0__:*seq"), subscribe(t, proxy, "MONITOR", ""))
	}
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	for i, tag := range tags {
		conn, err := consistency.Dial(t.Context(), c.Proxies[i], "", "")
		if err != nil {
			t.Fatal(err)
		}
		publishing.Go(func() {
			defer conn.Close()
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				number := strconv.Itoa(n)
				commands := [][]string{{"PUBLISH", tag + "news", number}, {"SET", tag + "seq", number}}
				if n%2 == 0 {
					commands = [][]string{{"MULTI"}, {"PUBLISH", tag + "news", number}, {"SET", tag + "seq", number}, {"EXEC"}}
				}
				if _, err := conn.Pipeline(commands...); err != nil {
					t.Errorf("a connection to the proxy broke: %v", err)
					return
				}
			}
		})
	}
	defer func() {
		close(stop)
		publishing.Wait()
	}()
	goOn := func(when string) {
		t.Helper()
		for i, s := range subscribers {
			for _, tag := range tags {
				before := s.received(tag)
				harness.Eventually(t, 10*time.Second, fmt.Sprintf("%s: subscriber %d hears of %s", when, i, tag), func() error {
					if n := s.received(tag) - before; n < 20 {
						return fmt.Errorf("%d more", n)
					}
					return s.failure()
				})
			}
		}
	}
	goOn("at first")
	for i := range tags {
		if _, err := c.Switchover(t.Context(), shardName(i)); err != nil {
			t.Fatal(err)
		}
	}
	goOn("after switchovers")
	old := c.Master(t, 0).GetId()
	harness.Signal(t, c.Process(t, old), syscall.SIGKILL)
	waitNewMaster(t, c, 0, old, 10*time.Second)
	goOn("after a kill")
	for i, s := range subscribers {
		if err := s.failure(); err != nil {
			t.Errorf("subscriber %d: %v", i, err)
		}
	}
}

// subscriber counts what it receives, by hash tag.
type subscriber struct {
	mu    sync.Mutex
	count map[string]int
	last  map[string]int
	err   error
}

// subscribe starts a subscriber: of messages whose text is a rising number, of
// notifications, or of MONITOR.
func subscribe(t *testing.T, proxy, command, pattern string) *subscriber {
	t.Helper()
	conn, err := consistency.Dial(t.Context(), proxy, "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if command == "MONITOR" {
		do(t, conn, command)
	} else {
		do(t, conn, command, pattern)
	}
	s := &subscriber{count: map[string]int{}, last: map[string]int{}}
	go func() {
		for {
			r, err := conn.Receive(30 * time.Second)
			s.take(r, err)
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *subscriber) take(r consistency.Reply, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.err = err
	case len(r.Array) == 4: // pmessage, pattern, channel, text
		channel, text := string(r.Array[2].Text), string(r.Array[3].Text)
		s.count[channel[strings.Index(channel, "tx:"):strings.Index(channel, "}")+1]]++
		if n, err := strconv.Atoi(text); err == nil {
			if n <= s.last[channel] {
				s.err = fmt.Errorf("%s: message %d after %d", channel, n, s.last[channel])
			}
			s.last[channel] = n
		}
	case strings.Contains(string(r.Text), `"SET" "tx:`):
		_, rest, _ := strings.Cut(string(r.Text), `"SET" "`)
		s.count[rest[:strings.Index(rest, "}")+1]]++
	case strings.Contains(string(r.Text), `"PING"`) || strings.Contains(string(r.Text), `"INFO"`) || strings.Contains(string(r.Text), `"HELLO"`):
		s.err = fmt.Errorf("MONITOR shows what no application sent: %s", r.Text)
	}
}

// received is how many messages there were of a hash tag.
func (s *subscriber) received(tag string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[tag]
}

// failure is what the subscriber should not have seen.
func (s *subscriber) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
