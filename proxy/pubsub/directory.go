package pubsub

import (
	"sync"
	"sync/atomic"

	"github.com/basalt-redis/basalt/proxy/glob"
)

// Kind of a subscription.
type Kind uint8

// Kinds of subscriptions.
const (
	// Channel is SUBSCRIBE's, Pattern PSUBSCRIBE's, Shard SSUBSCRIBE's.
	Channel Kind = iota
	Pattern
	Shard
	kinds
)

// presence is who of one proxy listens to a name.
type presence struct {
	// clients that subscribed; loops that the servers see instead of them.
	clients, loops int
	// told is what the loops told the servers of clients beyond themselves.
	told int
}

// Directory is what all loops of a proxy subscribed. It turns numbers of
// servers, which see one subscriber per loop, into numbers of clients. All
// methods may be called by any goroutine.
//
// Invariant: a name is in it while a client or a loop is present.
type Directory struct {
	mu    sync.RWMutex
	names [kinds]map[string]presence
	count atomic.Int64 // of all names
	// listed are the patterns of all proxies with a surplus.
	listed listed
}

// NewDirectory makes an empty one.
func NewDirectory() *Directory {
	d := &Directory{}
	for k := range d.names {
		d.names[k] = map[string]presence{}
	}
	return d
}

// Empty tells if nobody listens to anything: then no number needs correction.
func (d *Directory) Empty() bool { return d.count.Load() == 0 }

// add changes who is present.
func (d *Directory) add(k Kind, name string, clients, loops, told int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, known := d.names[k][name]
	p.clients += clients
	p.loops += loops
	p.told += told
	if p == (presence{}) {
		delete(d.names[k], name)
	} else {
		d.names[k][name] = p
	}
	if _, kept := d.names[k][name]; kept != known {
		d.count.Store(int64(len(d.names[Channel]) + len(d.names[Pattern]) + len(d.names[Shard])))
	}
}

// Subscribers is the number of clients that listen to a channel, of which counted
// is the number a server tells. others tells if it counts others than this proxy's
// loops.
func (d *Directory) Subscribers(k Kind, name string, counted int64) (n int64, others bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	p := d.names[k][name]
	return max(counted+int64(p.clients-p.loops), 0), counted > int64(p.loops)
}

// Receivers is the number of clients that get a message, of which counted is
// what the server answered to PUBLISH or SPUBLISH. others tells if it counts others
// than this proxy's loops.
func (d *Directory) Receivers(k Kind, name []byte, counted int64) (n int64, others bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	p := d.names[k][string(name)]
	n, loops := counted+int64(p.clients-p.loops), int64(p.loops)
	if k == Channel && len(d.names[Pattern]) > 0 {
		channel := string(name)
		for pattern, p := range d.names[Pattern] {
			if glob.Match(pattern, channel) {
				n += int64(p.clients - p.loops)
				loops += int64(p.loops)
			}
		}
	}
	return max(n, 0), counted > loops
}

// Count is the number of names of a kind that have clients or loops.
func (d *Directory) Count(k Kind) int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.names[k])
}
