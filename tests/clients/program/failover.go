package program

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What a client does while masters and proxies are killed
//
// Three loops go on, each in the way an application would write it: one writes,
// reads and counts, one waits for items of a list, one is subscribed. Errors are
// counted and the loop goes on with the same client: it is the client's own
// reconnecting that is looked at. No value may be wrong:
//
//   - GET of a key returns what was once set to this very key, never a value from
//     the future and never a reply that belongs to another command;
//   - INCR never returns more than was asked for (and what the client sent twice
//     on its own), and goes back at most once per failover: what the dead master
//     had acknowledged and not yet replicated is lost;
//   - items and messages are of this list and this channel.
//
// When the test says so on the standard input, servers are whole again and from
// then on everything must be exact: each key holds what was set last, the counter
// counts by one, and a last item and a last message arrive.

// Subject is a client with its retries; every call ends within some seconds.
type Subject interface {
	Set(key, value string) error
	Get(key string) (string, error)
	Incr(key string) (int64, error)
	Push(list, item string) error
	Publish(channel, message string) error
	// Pop waits for an item for a second; "" means that none came.
	Pop(list string) (string, error)
	// Subscribe calls got for each message until the context ends; it returns
	// when the subscription is lost and the client does not restore it.
	Subscribe(ctx context.Context, channel string, got func(message string)) error
}

const (
	keys = 12
	// settle is how long a client may take to be whole again after the servers.
	settle = 10 * time.Second
	last   = "last"
)

type course struct {
	Subject
	name string

	calls, errors, back atomic.Int64
	// gap is the longest time without a success of the writer, held the longest
	// call of Pop.
	gap, held atomic.Int64

	mu    sync.Mutex
	wrong []string
	// said is the last error, for people.
	said string
}

func (c *course) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

func (c *course) failed(err error) {
	c.errors.Add(1)
	c.mu.Lock()
	c.said = oneLine(err.Error())
	c.mu.Unlock()
	time.Sleep(20 * time.Millisecond)
}

func failover(s Subject) error {
	c := &course{Subject: s, name: fmt.Sprintf("failover:%d:", os.Getpid())}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	arrived, popped := make(chan struct{}), make(chan struct{})
	go c.listen(ctx, arrived)
	go c.pop(ctx, popped)
	stop := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(stop)
	}()
	fmt.Println("# ready")
	c.write(stop)
	err := c.end(arrived, popped)
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Printf("# failover: %d calls, %d errors (last: %s), counter went back %d times, longest time without success %s, longest BLPOP of a second %s\n",
		c.calls.Load(), c.errors.Load(), c.said, c.back.Load(), time.Duration(c.gap.Load()).Round(time.Millisecond), time.Duration(c.held.Load()).Round(time.Millisecond))
	if len(c.wrong) > 0 {
		return fmt.Errorf("%d wrong values, the first: %s", len(c.wrong), c.wrong[0])
	}
	return err
}

// write sets, reads, counts, pushes and publishes until stop.
func (c *course) write(stop <-chan struct{}) {
	before, good := int64(0), time.Now()
	for i := 1; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		key := c.name + strconv.Itoa(i%keys)
		errs := []error{c.Set(key, key+"="+strconv.Itoa(i))}
		value, err := c.Get(key)
		errs = append(errs, err)
		if err == nil && value != "" {
			of, number, _ := strings.Cut(value, "=")
			if n, err := strconv.Atoi(number); of != key || err != nil || n > i {
				c.fault("GET %s: %q after %d were set", key, value, i)
			}
		}
		n, err := c.Incr(c.name + "counter")
		errs = append(errs, err)
		if err == nil {
			if n < 1 || n > int64(i)+100 {
				c.fault("INCR: %d after %d calls", n, i)
			}
			if n <= before {
				c.back.Add(1)
			}
			before = n
		}
		if i%10 == 0 {
			errs = append(errs, c.Push(c.name+"list", "item="+strconv.Itoa(i)), c.Publish(c.name+"channel", "news="+strconv.Itoa(i)))
		}
		c.calls.Add(int64(len(errs)))
		if err := errors.Join(errs...); err != nil {
			c.failed(err)
		} else {
			if gap := time.Since(good); int64(gap) > c.gap.Load() {
				c.gap.Store(int64(gap))
			}
			good = time.Now()
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// pop takes items until the last one.
func (c *course) pop(ctx context.Context, popped chan<- struct{}) {
	for ctx.Err() == nil {
		begin := time.Now()
		item, err := c.Pop(c.name + "list")
		took := time.Since(begin)
		c.held.Store(max(c.held.Load(), int64(took)))
		if took > settle/2 {
			c.fault("BLPOP for a second took %s and returned %q, %v", took, item, err)
		}
		switch {
		case err != nil:
			c.failed(err)
		case item == last:
			close(popped)
			return
		case item != "" && !strings.HasPrefix(item, "item="):
			c.fault("an item of the list: %q", item)
		}
	}
}

// listen is subscribed until the last message.
func (c *course) listen(ctx context.Context, arrived chan<- struct{}) {
	var once sync.Once
	for ctx.Err() == nil {
		err := c.Subscribe(ctx, c.name+"channel", func(message string) {
			switch {
			case message == last:
				once.Do(func() { close(arrived) })
			case !strings.HasPrefix(message, "news="):
				c.fault("a message of the channel: %q", message)
			}
		})
		if err != nil {
			c.failed(err)
		}
	}
}

// end requires that all is well now.
func (c *course) end(arrived, popped <-chan struct{}) error {
	deadline := time.Now().Add(settle)
	if err := c.until(deadline, "one SET, GET and INCR after another", c.exact); err != nil {
		return err
	}
	if err := c.until(deadline, "the last item arrives", func() error {
		return c.delivered(popped, func() error { return c.Push(c.name+"list", last) })
	}); err != nil {
		return err
	}
	if err := c.until(deadline, "the last message arrives", func() error {
		return c.delivered(arrived, func() error { return c.Publish(c.name+"channel", last) })
	}); err != nil {
		return err
	}
	if n := c.back.Load(); n > 3 {
		return fmt.Errorf("the counter went back %d times", n)
	}
	return nil
}

func (c *course) until(deadline time.Time, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s: %w", what, settle, err)
		}
	}
}

func (c *course) exact() error {
	for i := range keys {
		key := c.name + strconv.Itoa(i)
		if err := c.Set(key, key+"=end"); err != nil {
			return err
		}
	}
	for i := range keys {
		key := c.name + strconv.Itoa(i)
		value, err := c.Get(key)
		if err != nil {
			return err
		}
		if err := Want("GET "+key, value, key+"=end"); err != nil {
			return err
		}
	}
	n, err := c.Incr(c.name + "counter")
	if err != nil {
		return err
	}
	for range 10 {
		n++
		m, err := c.Incr(c.name + "counter")
		if err != nil {
			return err
		}
		if err := Want("INCR", m, n); err != nil {
			return err
		}
	}
	return nil
}

// delivered sends something and waits a little until it arrived.
func (c *course) delivered(done <-chan struct{}, send func() error) error {
	if err := send(); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-time.After(500 * time.Millisecond):
		return errors.New("it was sent, and did not arrive")
	}
}
