package health

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/basalt-redis/basalt/configserver/resolve"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// A node that is registered by a host name is where that name led when it was admitted.
// A probe's connection lasts, so what the name means is looked up beside it, now and
// then, and the prober connects anew when the node is to be asked elsewhere now
// (resolve.Locate). Acting on it is for whoever reads the probes.

const (
	// lookEvery is about how often a name is looked up.
	lookEvery = 5 * time.Second
	// lookTimeout bounds that, and the looks at who answers.
	lookTimeout = 3 * time.Second
)

// errElsewhere ends a connection that is to be made to another place.
var errElsewhere = errors.New("the name of the node leads elsewhere now")

// locate says where to connect.
func (p *Prober) locate(ctx context.Context) (resolve.Place, error) {
	n := topology.Node{ID: p.cfg.Node, Address: p.cfg.Address}
	if !topology.Literal(n.Address) && p.cfg.Record != nil {
		n = p.cfg.Record()
	}
	connected, _ := p.connected.Load().(string)
	return resolve.Locate(ctx, p.cfg.Resolve, &n, p.Passwords(), n.Resolved, connected)
}

// followName looks up what the node's name means until ctx ends.
func (p *Prober) followName(ctx context.Context) {
	if topology.Literal(p.cfg.Address) {
		return
	}
	for {
		select {
		case <-time.After(lookEvery/2 + rand.N(lookEvery)): //nolint:gosec // so that not all names are looked up at once
		case <-p.again:
		case <-ctx.Done():
			return
		}
		p.lookUp(ctx)
	}
}

// LookAgain makes the prober look up the node's name now: what is committed about it
// may have changed.
func (p *Prober) LookAgain() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}

func (p *Prober) lookUp(ctx context.Context) {
	connected, _ := p.connected.Load().(string)
	if connected == "" {
		return // whoever connects looks it up
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	place, err := p.locate(ctx)
	if err != nil || place.Guess {
		return
	}
	p.astray.Store(place.Astray)
	if place.Endpoint != connected {
		select {
		case p.elsewhere <- struct{}{}:
		default:
		}
	}
}
