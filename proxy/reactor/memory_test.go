package reactor_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/capture"
	"github.com/basalt-redis/basalt/proxy/reactor"
)

// TestStalledGiants: clients that begin requests larger than all memory and
// stall are closed, soon and only they: others wait for a moment at most.
func TestStalledGiants(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d loops", loops), func(t *testing.T) {
			shards, _ := realShards(t, 1)
			var log capture.Buffer
			p := startProxy(t, reactor.Config{Loops: loops, MemoryBudgetBytes: 16 << 20, Logger: logger(&log)}, shards...)
			var good [2]*client
			for i := range good {
				good[i] = p.dial()
			}
			// Nobody would do without this one either: it sends a lot, and all of it.
			const size = 300 << 10
			busy := make(chan string, 1)
			uploads := p.dial()
			stop := make(chan struct{})
			go func() {
				defer close(busy)
				set := encode("SET", "big", strings.Repeat("x", size))
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := uploads.Write([]byte(set)); err != nil {
						busy <- err.Error()
						return
					}
					if got, err := uploads.reply(); got != "OK" {
						busy <- fmt.Sprint(got, err)
						return
					}
				}
			}()
			const giants = 8
			for range giants {
				c := p.dial()
				go func() {
					// It is closed in the middle.
					_, _ = c.Write([]byte("*3\r\n$3\r\nSET\r\n$1\r\ng\r\n$100000000\r\n" + strings.Repeat("x", 6<<20)))
				}()
			}
			// The wait without a proxy, meanwhile, is what the machine and the server
			// make of it.
			direct := dial(t, shards[0].Nodes[0].Address)
			var longest, noise time.Duration
			for begin := time.Now(); time.Since(begin) < 2*time.Second; {
				for _, c := range append(good[:], direct) {
					asked := time.Now()
					c.want("OK", "SET", "k", "v")
					if took := time.Since(asked); c == direct {
						noise = max(noise, took)
					} else {
						longest = max(longest, took)
					}
				}
			}
			close(stop)
			if failed := <-busy; failed != "" {
				t.Errorf("a client with complete requests: %s", failed)
			}
			s := p.Stats()
			t.Logf("longest wait %v, %d closed, %d bytes", longest, s.ClientsEvicted, s.MemoryBytes)
			if longest > max(400*time.Millisecond+4*noise, soon) {
				t.Errorf("others waited %v, and %v without a proxy", longest, noise)
			}
			if s.ClientsEvicted < giants/2 || s.ClientsEvicted > giants {
				t.Errorf("%d clients were closed for want of memory", s.ClientsEvicted)
			}
			if s.MemoryBytes > 16<<20 {
				t.Errorf("%d bytes are in use at the end", s.MemoryBytes)
			}
			if !strings.Contains(log.String(), "memory budget") {
				t.Errorf("the log says nothing of it: %s", log.String())
			}
		})
	}
}

// TestUnreadGiants: the same for clients that ask for a lot and take nothing.
func TestUnreadGiants(t *testing.T) {
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 1, MemoryBudgetBytes: 16 << 20}, shards...)
	good := p.dial()
	good.want("OK", "SET", "big", strings.Repeat("x", 9<<20))
	for range 6 {
		p.dial().write(encode("GET", "big"))
	}
	direct := dial(t, shards[0].Nodes[0].Address)
	var longest, noise time.Duration
	closed := func() bool { return p.Stats().ClientsEvicted > 0 }
	for begin := time.Now(); time.Since(begin) < 2*time.Second || time.Since(begin) < 10*time.Second && !closed(); {
		asked := time.Now()
		good.want("OK", "SET", "k", "v")
		longest = max(longest, time.Since(asked))
		asked = time.Now()
		direct.want("OK", "SET", "k", "v")
		noise = max(noise, time.Since(asked))
	}
	s := p.Stats()
	t.Logf("longest wait %v, %d closed, %d bytes", longest, s.ClientsEvicted, s.MemoryBytes)
	if longest > max(1500*time.Millisecond+4*noise, soon) {
		t.Errorf("others waited %v, and %v without a proxy", longest, noise)
	}
	if s.ClientsEvicted == 0 || s.ClientsEvicted > 6 {
		t.Errorf("%d clients were closed for want of memory", s.ClientsEvicted)
	}
}

// TestAnswersThatWaitForAShardCount: what some shards said to KEYS waits for the
// others as part of the budget, and a client whose answers are more than that is
// closed, and no other.
func TestAnswersThatWaitForAShardCount(t *testing.T) {
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1, MemoryBudgetBytes: 4 << 20}, shards...)
	greedy, other := p.dial(), p.dial()
	for i, s := range servers {
		s.MustDo("EVAL", "for i = 1, 80 do redis.call('SET', i .. string.rep('x', 100000), '') end", "0")
		greedy.want("OK", "SET", []string{"bar", "foo"}[i], "v")
	}
	servers[1].Pause()
	greedy.send("KEYS", "*")
	for begin := time.Now(); p.Stats().ClientsEvicted == 0; time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("nobody is closed; %d bytes are in use", p.Stats().MemoryBytes)
		}
	}
	if got := greedy.read(); got != "EOF" {
		t.Errorf("the greedy client got %.100q", got)
	}
	for begin := time.Now(); p.Stats().MemoryBytes > 1<<20; time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%d bytes are in use after it was closed", p.Stats().MemoryBytes)
		}
	}
	other.want("v", "GET", "bar")
	servers[1].Resume()
	other.want("v", "GET", "foo")
	if n := p.Stats().ClientsEvicted; n != 1 {
		t.Errorf("%d clients were closed", n)
	}
}
