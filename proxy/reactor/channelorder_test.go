package reactor_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
)

// channelsOf are names in slots of each of n shards.
func channelsOf(n int) (channels []string) {
	for i := 0; len(channels) < 2*n; i++ {
		name := "oc" + strconv.Itoa(i)
		if int(slot.Of([]byte(name)))*n/slot.Count == len(channels)%n {
			channels = append(channels, name)
		}
	}
	return channels
}

// TestOrderOfChannels: a subscriber gets messages of different channels in the order
// in which they were acknowledged: one after the other, in one pipeline, and by
// transactions beside others; through any proxy, while the shards are unequally busy.
func TestOrderOfChannels(t *testing.T) {
	t.Parallel()
	const count = 2400
	a, b, _ := twoProxies(t, 3, reactor.Config{Loops: 2})
	channels := channelsOf(3)
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	for _, p := range []*proxy{a, b} {
		load := p.dial()
		go func() {
			request := encode("EVAL", "for i = 1, 20000 do end", "1", channels[0]) + encode("EVAL", "for i = 1, 2000 do end", "1", channels[1])
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := load.Write([]byte(request)); err != nil {
					return
				}
				for range 2 {
					if _, err := load.reply(); err != nil {
						return
					}
				}
			}
		}()
	}
	for name, publish := range map[string]func(c *client, i int) (replies int){
		"one after the other": func(c *client, i int) int {
			c.send("PUBLISH", channels[i%len(channels)], fmt.Sprint(i))
			c.read()
			return 0
		},
		"pipeline": func(c *client, i int) int {
			c.send("PUBLISH", channels[i%len(channels)], fmt.Sprint(i))
			return 1
		},
		"transactions": func(c *client, i int) int {
			if i%2 == 1 {
				c.send("PUBLISH", channels[i%len(channels)], fmt.Sprint(i))
				c.read()
				return 0
			}
			key := channels[i/2%len(channels)]
			c.write(encode("MULTI") + encode("SET", key, "v") + encode("PUBLISH", channels[(i+1)%len(channels)], fmt.Sprint(i)) + encode("EXEC"))
			for range 3 {
				c.read()
			}
			if got := c.read(); !strings.HasPrefix(got, "[OK ") {
				c.t.Errorf("EXEC: %s", got)
			}
			return 0
		},
	} {
		publisher := a.dial()
		subscribers := []*client{a.dial(), b.dial()}
		for _, s := range subscribers {
			s.want("[psubscribe oc* 1]", "PSUBSCRIBE", "oc*")
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			replies := 0
			for i := range count {
				replies += publish(publisher, i)
			}
			for range replies {
				publisher.read()
			}
		}()
		for i, s := range subscribers {
			last, behind := -1, 0
			for range count {
				fields := strings.Fields(strings.Trim(s.read(), "[]"))
				n, err := strconv.Atoi(fields[len(fields)-1])
				if err != nil {
					t.Fatal(fields)
				}
				if n < last {
					behind++
				}
				last = max(last, n)
			}
			if behind > 0 {
				t.Errorf("%s, subscriber %d: %d of %d messages behind a later one", name, i, behind, count)
			}
			s.Close()
		}
		<-done
	}
}

// TestPublishInTransaction: messages of a transaction are published if it happens,
// and told of in its reply.
func TestPublishInTransaction(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 3} {
		a, b, _ := twoProxies(t, shards, reactor.Config{Loops: 1})
		channels := channelsOf(3)
		s := []*client{a.dial(), b.dial(), b.dial()}
		for _, s := range s {
			s.subscribe(channels...)
		}
		sharded := b.dial()
		sharded.want("["+"ssubscribe "+channels[0]+" 1]", "SSUBSCRIBE", channels[0])
		other := b.dial()
		other.want("["+"ssubscribe "+channels[0]+" 1]", "SSUBSCRIBE", channels[0])
		c, d := a.dial(), a.dial()
		c.want("OK", "MULTI")
		c.want("QUEUED", "SET", channels[0], "v")
		for _, channel := range channels {
			c.want("QUEUED", "PUBLISH", channel, "in")
		}
		c.want("QUEUED", "SPUBLISH", channels[0], "in")
		c.want("QUEUED", "PUBLISH", "nobody", "in")
		c.want("QUEUED", "GET", channels[0])
		c.want("[OK 3 3 3 3 3 3 2 0 v]", "EXEC")
		for _, s := range s {
			for _, channel := range channels {
				s.wantNext(message(channel, "in"))
			}
		}
		sharded.wantNext("[smessage " + channels[0] + " in]")
		// Nothing is published by a transaction that does not happen.
		c.want("OK", "WATCH", channels[0])
		d.want("OK", "SET", channels[0], "w")
		c.want("OK", "MULTI")
		c.want("QUEUED", "SET", channels[0], "v")
		c.want("QUEUED", "PUBLISH", channels[0], "not")
		c.want("[]", "EXEC") // null
		c.want("OK", "MULTI")
		c.want("QUEUED", "PUBLISH", channels[1], "alone")
		c.want("[3]", "EXEC")
		s[0].wantNext(message(channels[1], "alone"))
	}
}
