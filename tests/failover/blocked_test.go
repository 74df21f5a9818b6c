package failover

import (
	"context"
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

// queues are the queues of one shard, each with a producer, and consumers that
// block until there is something: two BLPOP on a list, a BLMOVE from another one,
// an XREAD on a stream.
type queues struct {
	t                     *testing.T
	address               string
	list, from, to, other string

	mu sync.Mutex
	// delivered are the times at which each element arrived, by queue; confirmed
	// elements were acknowledged and then seen by a replica.
	delivered map[string][]time.Time
	confirmed map[string]bool
	errors    []string
	stop      context.CancelFunc
	producers sync.WaitGroup
	consumers sync.WaitGroup
}

// endOfQueue tells a consumer that nothing more comes.
const endOfQueue = "end"

// startQueues begins to produce and consume in a slot of a shard. With confirm,
// producers WAIT for a replica.
func startQueues(t *testing.T, address string, slot int, confirm bool) *queues {
	q := &queues{
		t: t, address: address, delivered: map[string][]time.Time{}, confirmed: map[string]bool{},
		list: consistency.KeyInSlot("list", slot), from: consistency.KeyInSlot("from", slot),
		to: consistency.KeyInSlot("to", slot), other: consistency.KeyInSlot("stream", slot),
	}
	q.consume(q.list, "BLPOP", q.list, "0")
	q.consume(q.list, "BLPOP", q.list, "0")
	q.consume(q.from, "BLMOVE", q.from, q.to, "LEFT", "RIGHT", "0")
	q.read()
	ctx, stop := context.WithCancel(t.Context())
	q.stop = stop
	q.produce(ctx, confirm, q.list, "RPUSH", q.list)
	q.produce(ctx, confirm, q.from, "RPUSH", q.from)
	q.produce(ctx, confirm, q.other, "XADD", q.other, "*", "element")
	return q
}

func (q *queues) dial() *consistency.Conn {
	conn, err := consistency.Dial(q.t.Context(), q.address, "", "")
	if err != nil {
		q.t.Error(err)
		return nil
	}
	conn.Timeout = time.Minute
	return conn
}

// failed notes an error and tells if there was one.
func (q *queues) failed(who string, r consistency.Reply, err error) bool {
	if err == nil {
		err = r.Err
	}
	if err == nil {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.errors = append(q.errors, fmt.Sprintf("%s: %v", who, err))
	return true
}

func (q *queues) arrived(queue, element string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.delivered[queue+" "+element] = append(q.delivered[queue+" "+element], time.Now())
}

// consume runs a consumer until the end of its queue.
func (q *queues) consume(queue string, command ...string) {
	conn := q.dial()
	q.consumers.Go(func() {
		defer conn.Close()
		for {
			r, err := conn.Do(command...)
			if q.failed(command[0], r, err) {
				if err != nil {
					return
				}
				continue
			}
			element := string(r.Text)
			if len(r.Array) == 2 {
				element = string(r.Array[1].Text)
			}
			if element == endOfQueue {
				return
			}
			q.arrived(queue, element)
		}
	})
}

// read runs a consumer of the stream.
func (q *queues) read() {
	conn := q.dial()
	q.consumers.Go(func() {
		defer conn.Close()
		for last := "0"; ; {
			r, err := conn.Do("XREAD", "BLOCK", "0", "STREAMS", q.other, last)
			if q.failed("XREAD", r, err) {
				if err != nil {
					return
				}
				continue
			}
			for _, entry := range r.Array[0].Array[1].Array {
				last = string(entry.Array[0].Text)
				element := string(entry.Array[1].Array[1].Text)
				if element == endOfQueue {
					return
				}
				q.arrived(q.other, element)
			}
		}
	})
}

// produce adds an element now and then, so that consumers are blocked most of the
// time.
func (q *queues) produce(ctx context.Context, confirm bool, queue string, command ...string) {
	conn := q.dial()
	q.producers.Go(func() {
		defer conn.Close()
		for n := 0; ctx.Err() == nil; n++ {
			time.Sleep(10 * time.Millisecond)
			element := strconv.Itoa(n)
			r, err := conn.Do(append(command[:len(command):len(command)], element)...)
			if q.failed(command[0], r, err) {
				continue
			}
			if confirm {
				if r, err = conn.Do("WAIT", "1", "1000"); q.failed("WAIT", r, err) || r.Int < 1 {
					continue
				}
			}
			q.mu.Lock()
			q.confirmed[queue+" "+element] = true
			q.mu.Unlock()
		}
	})
}

// end stops the producers, and the consumers when they have everything.
func (q *queues) end() {
	q.stop()
	q.producers.Wait()
	conn := q.dial()
	defer conn.Close()
	for _, command := range [][]string{
		{"RPUSH", q.list, endOfQueue, endOfQueue}, {"RPUSH", q.from, endOfQueue}, {"XADD", q.other, "*", "element", endOfQueue},
	} {
		do(q.t, conn, command...)
	}
	q.consumers.Wait()
}

// TestBlockedClientsThroughSwitchovers: clients that are blocked when masters are
// switched over and credentials rotated get every element once, nobody sees an
// error, and who waited from before the first switchover gets what is pushed
// after the last.
func TestBlockedClientsThroughSwitchovers(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Shards: 2})
	var all []*queues
	for _, sh := range c.Shards(t) {
		for first := range sh.Slots.Ranges {
			all = append(all, startQueues(t, c.Proxies[0], first, false))
			break
		}
	}
	patient := all[0].dial()
	got := make(chan string, 1)
	go func() {
		r, err := patient.Do("BZPOPMIN", "patient", "0")
		got <- fmt.Sprint(len(r.Array), r.Err, err)
	}()
	time.Sleep(betweenIncidents)
	for i := range 8 {
		r, err := c.Switchover(t.Context(), shardName(i%2))
		if err != nil || !r.GetSucceeded() {
			t.Fatalf("switchover %d: %v, %s", i, err, harness.ReportLine(r))
		}
		t.Log(harness.ReportLine(r))
		time.Sleep(100 * time.Millisecond)
	}
	newSecret(t, c, "cluster-secret", "rotated-cluster-secret-0123456789abcdef")
	c.CLI(t, "credentials", "rotate", c.Name)
	time.Sleep(betweenIncidents)
	do(t, all[0].dial(), "ZADD", "patient", "1", "m")
	if text := <-got; text != "3 <nil> <nil>" {
		t.Errorf("who waited all the time got %s", text)
	}
	elements := 0
	for _, q := range all {
		q.end()
		if len(q.errors) > 0 {
			t.Errorf("%d errors: %q", len(q.errors), q.errors[0])
		}
		for element := range q.confirmed {
			if times := q.delivered[element]; len(times) != 1 {
				t.Errorf("%q arrived %d times", element, len(times))
			}
		}
		elements += len(q.confirmed)
	}
	if elements < 300 {
		t.Errorf("only %d elements were produced", elements)
	}
	t.Logf("%d elements arrived once each", elements)
}

// TestBlockedClientsThroughKills kills masters with -9 while clients are blocked.
// They see no error and stay blocked; every element that a replica had arrives.
// One may arrive again when no replica had seen that it was popped.
func TestBlockedClientsThroughKills(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Shards: 1})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	q := startQueues(t, c.Proxies[0], 0, true)
	var kills []time.Time
	for range 3 {
		time.Sleep(2 * betweenIncidents)
		old := c.Master(t, 0)
		process := c.Process(t, old.GetId())
		kills = append(kills, time.Now())
		harness.Signal(t, process, syscall.SIGKILL)
		took := waitNewMaster(t, c, 0, old.GetId(), 10*time.Second)
		time.Sleep(betweenIncidents)
		c.StartProcess(t, old.GetId())
		c.WaitHealthy(t, 20*time.Second)
		t.Logf("%s killed, replaced after %s", old.GetId(), took.Round(time.Millisecond))
	}
	q.end()
	nearKill := func(at time.Time) bool {
		for _, kill := range kills {
			if d := kill.Sub(at); d > -100*time.Millisecond && d < 500*time.Millisecond {
				return true
			}
		}
		return false
	}
	again := 0
	for element := range q.confirmed {
		times := q.delivered[element]
		switch {
		case len(times) == 0:
			t.Errorf("%q was seen by a replica and never arrived", element)
		case len(times) > 1 && !nearKill(times[0]):
			t.Errorf("%q arrived %d times, at first at %s", element, len(times), times[0])
		case len(times) > 1:
			again++
		}
	}
	for _, text := range q.errors {
		if name, _, _ := strings.Cut(text, ":"); name == "BLPOP" || name == "BLMOVE" || name == "XREAD" {
			t.Error(text)
		}
	}
	if len(q.confirmed) < 30 { // some for each master; how many depends on the machine
		t.Errorf("only %d elements were produced", len(q.confirmed))
	}
	t.Logf("%d elements, %d of them arrived again; errors of producers: %q", len(q.confirmed), again, q.errors)
}
