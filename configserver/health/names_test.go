package health

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// TestProberFollowsTheName: the process stays where it is, and its name leads to
// another of its addresses, to another server, to nobody who can be asked.
func TestProberFollowsTheName(t *testing.T) {
	t.Parallel()
	port := redistest.FreePort(t)
	at := func(i int) string { return fmt.Sprintf("127.0.0.%d:%d", i, port) }
	w := &watched{t: t, Server: redistest.Start(t, redistest.Options{Address: at(2), Config: []string{"bind 127.0.0.2 127.0.0.3"}})}
	redistest.Start(t, redistest.Options{Address: at(4)})
	var leads atomic.Int64
	leads.Store(2)
	n := topology.Node{ID: "n", Address: fmt.Sprint("db.test:", port), Resolved: at(2), Incarnation: w.Info("run_id")}
	w.run(ProberConfig{Address: n.Address, Record: func() topology.Node { return n },
		Resolve: func(context.Context, string) ([]string, error) {
			if i := int(leads.Load()); i > 0 {
				return []string{at(i)}, nil
			}
			return nil, &net.DNSError{Err: "no answer", IsTimeout: true}
		}}, w.AdminPassword)
	well := func(p Probe) bool { return ok(p) && p.Info.RunID == n.Incarnation && p.Refused == 0 }
	w.until("seen", 2*time.Second, func(p Probe) bool { return well(p) && p.Endpoint == at(2) && p.Astray == "" })
	leads.Store(3)
	w.until("followed", 2*lookEvery, func(p Probe) bool { return well(p) && p.Endpoint == at(3) })
	leads.Store(4)
	w.until("astray", 2*lookEvery, func(p Probe) bool { return well(p) && p.Endpoint == at(2) && p.Astray == at(4) })
	leads.Store(0)
	w.MustDo("CLIENT", "KILL", "USER", redistest.AdminUser)
	time.Sleep(300 * time.Millisecond)
	w.until("seen without a DNS", 2*time.Second, func(p Probe) bool { return well(p) && p.Endpoint == at(2) })
}
