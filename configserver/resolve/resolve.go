// Package resolve finds out what the address of a node means, and where to connect to
// it.
//
// A host name is looked up here and nowhere else. What it meant when a server was
// admitted is committed with its run_id (topology.Node.Resolved): replicas follow, and
// proxies connect to, just that. So what a name means changes for all of them at once,
// by an epoch, after it was judged who answers there.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

const (
	// timeout bounds one look-up.
	timeout = time.Second
	// keep is how long an answer, or that there was none, counts: a server that is
	// dead is dialed many times a second, and not all of them are worth a question.
	keep = time.Second
	// maxKept bounds the number of answers that are kept.
	maxKept = 1 << 14
)

// Func looks up what an address, "host:port", means now: one "ip:port" or more. An
// "ip:port" means itself.
type Func func(ctx context.Context, address string) ([]string, error)

// System asks the resolver of this machine.
func System(ctx context.Context, address string) ([]string, error) {
	if topology.Literal(address) {
		return []string{address}, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	answers := make([]string, 0, len(ips))
	for _, ip := range ips {
		answers = append(answers, netip.AddrPortFrom(ip.Unmap(), uint16(number)).String())
	}
	if len(answers) == 0 {
		return nil, fmt.Errorf("look up %s: %w", host, errNoAddress)
	}
	return answers, nil
}

var errNoAddress = errors.New("it has no address")

// Cached is f with answers, and failures, that count for a moment.
func Cached(f Func) Func {
	type answer struct {
		until   time.Time
		answers []string
		err     error
	}
	var (
		mu   sync.Mutex
		kept = map[string]answer{}
	)
	return func(ctx context.Context, address string) ([]string, error) {
		mu.Lock()
		a, ok := kept[address]
		mu.Unlock()
		if ok && time.Now().Before(a.until) {
			return a.answers, a.err
		}
		a.answers, a.err = f(ctx, address)
		if errors.Is(ctx.Err(), context.Canceled) {
			return a.answers, a.err // the asker went away, which says nothing of the name
		}
		a.until = time.Now().Add(keep)
		mu.Lock()
		defer mu.Unlock()
		if len(kept) >= maxKept {
			clear(kept)
		}
		kept[address] = a
		return a.answers, a.err
	}
}
