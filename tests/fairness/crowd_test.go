package fairness

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
)

const (
	// crowdSize is how many ordinary clients there are, pace how long each waits
	// between two requests, crowdKeys how many keys they share, ordinary the
	// size of a value in bytes.
	crowdSize = 15
	pace      = 5 * time.Millisecond
	crowdKeys = 500
	ordinary  = 64
)

// sample is one request: when it was sent, and how long its reply took.
type sample struct {
	at   time.Time
	took time.Duration
}

// crowd is a number of ordinary clients of one server.
type crowd struct {
	stopped atomic.Bool
	group   sync.WaitGroup
	keys    []string
	samples [][]sample
	errs    []error
}

// gather connects clients that share keys; they begin at once.
func gather(t *testing.T, addr string, keys []string) *crowd {
	t.Helper()
	c := &crowd{keys: keys, samples: make([][]sample, crowdSize), errs: make([]error, crowdSize)}
	for i := range crowdSize {
		conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		c.group.Go(func() {
			defer conn.Close()
			c.errs[i] = c.client(i, conn)
		})
	}
	return c
}

// client reads and writes until the crowd is stopped.
func (c *crowd) client(i int, conn net.Conn) error {
	r := rand.New(rand.NewPCG(uint64(i), 11))
	replies := bufio.NewReader(conn)
	value := strings.Repeat("v", ordinary)
	var request []byte
	for !c.stopped.Load() {
		k := c.keys[r.IntN(len(c.keys))]
		request = consistency.AppendCommand(request[:0], "GET", k)
		get := r.IntN(2) == 0
		if !get {
			request = consistency.AppendCommand(request[:0], "SET", k, value)
		}
		sent := time.Now()
		if _, err := conn.Write(request); err != nil {
			return err
		}
		line, err := replies.ReadString('\n')
		switch {
		case err != nil:
			return err
		case get && line == fmt.Sprintf("$%d\r\n", ordinary):
			if _, err := replies.Discard(ordinary + 2); err != nil {
				return err
			}
		case get && line == "$-1\r\n", !get && line == "+OK\r\n":
		default:
			return fmt.Errorf("%q was answered with %q", request, line)
		}
		c.samples[i] = append(c.samples[i], sample{sent, time.Since(sent)})
		time.Sleep(pace/2 + rand.N(pace))
	}
	return nil
}

// stop ends the crowd; its samples may be read after it.
func (c *crowd) stop(t *testing.T) {
	t.Helper()
	c.stopped.Store(true)
	c.group.Wait()
	for i, err := range c.errs {
		if err != nil && err != io.EOF {
			t.Errorf("ordinary client %d: %v", i, err)
		} else if err != nil {
			t.Errorf("ordinary client %d was hung up on", i)
		}
	}
}

// felt are the latencies of the requests that were under way at some time
// between two.
type felt []time.Duration

func (c *crowd) felt(from, to time.Time) (f felt) {
	for _, samples := range c.samples {
		for _, s := range samples {
			if s.at.Add(s.took).After(from) && s.at.Before(to) {
				f = append(f, s.took)
			}
		}
	}
	slices.Sort(f)
	return f
}

// join is the latencies of two crowds.
func join(a, b felt) felt {
	f := slices.Concat(a, b)
	slices.Sort(f)
	return f
}

// quantile of the latencies; 0 when there are none.
func (f felt) quantile(q float64) time.Duration {
	if len(f) == 0 {
		return 0
	}
	return f[min(int(q*float64(len(f))), len(f)-1)]
}
