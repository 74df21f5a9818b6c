// Package fleet starts the servers and proxies that are compared, and reads
// the CPU time their processes use.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Target is one endpoint that takes the load.
type Target struct {
	// Name is what reports call it.
	Name string
	// Addr is where it listens.
	Addr netip.AddrPort
	// PIDs are the processes whose CPU time counts as the target's.
	PIDs []int
	// Backends are the redis-servers behind a proxy; empty when not known and
	// for a redis-server itself.
	Backends []int
}

// Fleet owns the processes it started; Close ends them.
type Fleet struct {
	dir       string
	processes []*process
}

// New makes a fleet that keeps its files below dir, which must exist.
func New(dir string) *Fleet { return &Fleet{dir: dir} }

// Close ends every process the fleet started, the last one first, and waits
// for each.
func (f *Fleet) Close() error {
	var errs []error
	for i := len(f.processes) - 1; i >= 0; i-- {
		errs = append(errs, f.processes[i].stop())
	}
	f.processes = nil
	return errors.Join(errs...)
}

// Peers parses "name=port:pid,…": proxies that run already on the loopback
// interface, added to a run by the user.
func Peers(list string) ([]Target, error) {
	var targets []Target
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		name, where, ok := strings.Cut(item, "=")
		portText, pidText, ok2 := strings.Cut(where, ":")
		port, err := strconv.ParseUint(portText, 10, 16)
		pid, err2 := strconv.Atoi(pidText)
		if !ok || !ok2 || name == "" || err != nil || err2 != nil || port == 0 || pid <= 0 {
			return nil, fmt.Errorf("peer %q: want name=port:pid", item)
		}
		if _, err := CPUTime(pid); err != nil {
			return nil, fmt.Errorf("peer %s: %w", name, err)
		}
		targets = append(targets, Target{Name: name, Addr: loopback(int(port)), PIDs: []int{pid}})
	}
	return targets, nil
}

func loopback(port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
}

// Redis starts one redis-server without persistence.
func (f *Fleet) Redis(ctx context.Context) (Target, error) {
	p, addr, err := f.redisServer(ctx)
	if err != nil {
		return Target{}, err
	}
	return Target{Name: "redis", Addr: addr, PIDs: []int{p.pid()}}, nil
}
