package reactor_test

import (
	"fmt"
	"testing"

	"github.com/basalt-redis/basalt/proxy/reactor"
)

// TestVeryManyChannels: a client that begins and ends to listen to very many
// channels is confirmed each, in order, and nothing of it is left when it is gone.
func TestVeryManyChannels(t *testing.T) {
	const n = 5000
	shards, servers := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c, other := p.dial(), p.dial()
	subscribed := func(c *client, verb string) {
		t.Helper()
		c.write(longRequest(verb, n, longKey))
		for i := range n {
			c.wantNext(fmt.Sprintf("[%s %s %d]", verb, longKey(i), i+1))
		}
	}
	subscribed(c, "subscribe")
	other.want("1", "PUBLISH", longKey(n-1), "x")
	c.wantNext(message(longKey(n-1), "x"))
	c.want(fmt.Sprintf("[unsubscribe %s %d]", longKey(7), n-1), "UNSUBSCRIBE", longKey(7))

	// A client that is reset, and one that leaves, hear nothing more.
	c.want("RESET", "RESET")
	c.want("[subscribe own 1]", "SUBSCRIBE", "own")
	other.do("PUBLISH", longKey(3), "x")
	other.want("1", "PUBLISH", "own", "x")
	c.wantNext(message("own", "x"))
	leaver := p.dial()
	subscribed(leaver, "ssubscribe")
	leaver.Close()
	c.Close()
	p.wait("nobody listens", func() bool {
		s := p.Stats().PubSub
		return s.Subscribers == 0 && s.Subscriptions == 0 && s.Channels == 0 && s.ShardChannels == 0
	})
	for _, s := range servers {
		at := dial(t, s.Address)
		p.wait("no server is asked for anything", func() bool {
			return at.do("PUBSUB", "CHANNELS") == "[]" && at.do("PUBSUB", "SHARDCHANNELS") == "[]"
		})
	}
}
