package reactor_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/glob"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// TestNumbersOfAllProxies: PUBLISH, SPUBLISH, NUMSUB, SHARDNUMSUB, NUMPAT and
// CHANNELS tell, through any proxy, what one server would tell, as soon as a
// subscription was confirmed, whether channels have one master or are spread.
func TestNumbersOfAllProxies(t *testing.T) {
	t.Parallel()
	for _, spread := range []bool{false, true} {
		t.Run(fmt.Sprintf("spread %v", spread), func(t *testing.T) {
			t.Parallel()
			a, b, _ := twoProxies(t, 3, reactor.Config{Loops: 2})
			proxies := []*proxy{a, b}
			for _, p := range proxies {
				p.waitAck(p.commit(func(c *routing.Cluster) { c.SpreadChannels = spread }))
			}
			r := rand.New(rand.NewPCG(1, 2))
			channels, patterns := []string{"news", "nets", "{x}old"}, []string{"n*", "ne?s", "*", "[a-z]ews", "{x}*"}
			kinds := []struct {
				on, off string
				names   []string
			}{{"SUBSCRIBE", "UNSUBSCRIBE", channels}, {"PSUBSCRIBE", "PUNSUBSCRIBE", patterns}, {"SSUBSCRIBE", "SUNSUBSCRIBE", channels}}
			type subscriber struct {
				*client
				has [3]map[string]bool
			}
			var subscribers []*subscriber
			for range 14 {
				s := &subscriber{client: proxies[r.IntN(2)].dial()}
				for k := range s.has {
					s.has[k] = map[string]bool{}
				}
				subscribers = append(subscribers, s)
			}
			askers := []*client{a.dial(), b.dial(), a.dial(), b.dial()}
			listeners := func(k int, name string) (n int) {
				for _, s := range subscribers {
					if s.has[k][name] {
						n++
					}
				}
				return n
			}
			for range 250 {
				s := subscribers[r.IntN(len(subscribers))]
				k := r.IntN(3)
				kind := kinds[k]
				name := kind.names[r.IntN(len(kind.names))]
				verb, on := kind.on, !s.has[k][name]
				if !on {
					verb = kind.off
					delete(s.has[k], name)
				} else {
					s.has[k][name] = true
				}
				s.send(verb, name)
				s.readPast(verb)
				asker := askers[r.IntN(len(askers))]
				for _, channel := range channels {
					want := listeners(0, channel)
					numsub := want
					for _, pattern := range patterns {
						if glob.Match(pattern, channel) {
							want += listeners(1, pattern)
						}
					}
					asker.want(fmt.Sprint(want), "PUBLISH", channel, "m")
					asker.want(fmt.Sprintf("[%s %d]", channel, numsub), "PUBSUB", "NUMSUB", channel)
					asker.want(fmt.Sprint(listeners(2, channel)), "SPUBLISH", channel, "m")
					asker.want(fmt.Sprintf("[%s %d]", channel, listeners(2, channel)), "PUBSUB", "SHARDNUMSUB", channel)
				}
				unique, list := 0, ""
				for _, pattern := range patterns {
					if listeners(1, pattern) > 0 {
						unique++
					}
				}
				asker.want(fmt.Sprint(unique), "PUBSUB", "NUMPAT")
				if n := listeners(0, "news"); n > 0 {
					list = "news"
				}
				asker.want("["+list+"]", "PUBSUB", "CHANNELS", "news")
			}
		})
	}
}

// readPast reads up to the confirmation of a SUBSCRIBE or its kin.
func (c *client) readPast(verb string) {
	c.t.Helper()
	for {
		if strings.HasPrefix(c.read(), "["+strings.ToLower(verb)+" ") {
			return
		}
	}
}

// TestNumbersOutliveFaults: a proxy that dies is not counted any more, and after a
// change of the master all are again.
func TestNumbersOutliveFaults(t *testing.T) {
	t.Parallel()
	a, b, servers := twoProxies(t, 2, reactor.Config{Loops: 1})
	spare := redistest.Start(t, redistest.Options{Open: true})
	var subscribers []*client
	for i := range 8 {
		s := []*proxy{a, b}[i%2].dial()
		s.subscribe("x")
		s.want("[psubscribe x* 2]", "PSUBSCRIBE", "x*")
		subscribers = append(subscribers, s)
	}
	c, d := a.dial(), b.dial()
	all := func() {
		t.Helper()
		for _, c := range []*client{c, d} {
			c.want("16", "PUBLISH", "x", "1")
			c.want("[x 8]", "PUBSUB", "NUMSUB", "x")
		}
	}
	all()
	// The connections end, and are made again.
	servers[0].MustDo("CLIENT", "KILL", "TYPE", "pubsub")
	waitFor(t, "counted again", func() bool { return c.do("PUBLISH", "x", "1") == "16" && d.do("PUBLISH", "x", "1") == "16" })
	all()
	// Another master.
	for _, p := range []*proxy{a, b} {
		p.waitAck(p.commit(func(c *routing.Cluster) {
			c.Shards[0].Nodes[0].Address, c.Shards[0].Nodes[0].ID, c.Shards[0].Master = spare.Address, "new", "new"
		}))
	}
	waitFor(t, "counted at the new master", func() bool { return c.do("PUBLISH", "x", "1") == "16" && d.do("PUBLISH", "x", "1") == "16" })
	all()
	// None: channels have their master elsewhere.
	for _, p := range []*proxy{a, b} {
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	}
	waitFor(t, "counted elsewhere", func() bool { return c.do("PUBLISH", "x", "1") == "16" && d.do("PUBLISH", "x", "1") == "16" })
	all()
	// One of the proxies goes.
	for i, s := range subscribers {
		if i%2 == 1 {
			s.Close()
		}
	}
	waitFor(t, "half of them", func() bool { return c.do("PUBLISH", "x", "1") == "8" && d.do("PUBLISH", "x", "1") == "8" })
}
