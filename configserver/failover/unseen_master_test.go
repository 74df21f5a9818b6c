package failover

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// A master that only proxies reach goes on acknowledging. A replica that was cut off
// from it with the Configserver lacks that, however the master ends.
func TestWhatProxiesWroteCountsAgainstAReplica(t *testing.T) {
	w := newWorld(2)
	w.cut["n0"] = true
	n1 := w.servers["n1"]
	n1.linkUp, n1.follows, n1.linkLost = false, "nowhere:1", w.now
	w.tick(100 * step)
	n1.follows = w.address("n0")
	w.servers["n0"].users = nil // n1 does not get through
	for range 60 {
		w.write(1 << 20)
		w.proxies["p"] = health.ProxySight{Sight: topology.SightOK, At: w.now, ReplyAt: w.now}
		w.tick(time.Second)
	}
	for _, p := range w.detect() {
		if p.Remedy == Replace {
			t.Fatalf("it was to be left alone: %+v", p)
		}
	}
	w.kill("n0")
	w.proxies["p"] = health.ProxySight{Sight: topology.SightRefused, At: w.now, ReplyAt: w.now, Detail: "connection refused"}
	delete(w.cut, "n0")
	w.tick(100 * step)
	for _, p := range w.detect() {
		if p.Remedy == Replace {
			t.Errorf("n1, whose link had been down for a minute in which proxies got replies from n0, takes its place: %s", p.Message)
		}
	}
}
