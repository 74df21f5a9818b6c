// Package faultpoint lets a test stop a running program at a named place in
// its code, to show that any process may die at any step. Nothing is armed
// unless the environment says so, and then a Hit costs one atomic load.
//
//	BASALT_FAULTPOINT=failover/promoted=kill            SIGKILL to itself
//	BASALT_FAULTPOINT=failover/promoted=pause:2s        sleep, then go on
//	BASALT_FAULTPOINT=failover/promoted=error           Hit returns ErrInjected
//	BASALT_FAULTPOINT=a=pause:1s,b=kill                 several
//	BASALT_FAULTPOINT=failover/promoted=kill@2          only at the second hit
package faultpoint

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Env is the environment variable that arms fault points.
const Env = "BASALT_FAULTPOINT"

// ErrInjected is what Hit returns at a point armed with "error".
var ErrInjected = errors.New("injected fault")

// Points are fault points that are armed together, apart from all others: tests
// that share a process arm points of their own. The zero value has none armed.
type Points struct {
	armed atomic.Pointer[points]
}

// process are the points that the environment arms.
var process Points

// Process returns the points of the whole process, which the environment arms.
func Process() *Points { return &process }

// points are the armed points by name.
type points struct {
	mu     sync.Mutex
	byName map[string]*point
}

type point struct {
	action string
	pause  time.Duration
	// at is the only hit that acts, counted from 1; 0 for every hit.
	at, hits int
}

func init() {
	if spec := os.Getenv(Env); spec != "" {
		if err := Arm(spec); err != nil {
			// A test that misspells a point must not pass because nothing happened.
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
}

// Arm replaces what is armed in the whole process by spec, in the form of the
// environment variable. An empty spec disarms all.
func Arm(spec string) error { return process.Arm(spec) }

// Hit marks a place. It returns nil at once unless the place is armed.
func Hit(name string) error { return process.Hit(name) }

// Arm replaces what is armed by spec, in the form of the environment variable.
// An empty spec disarms all.
func (f *Points) Arm(spec string) error {
	p := &points{byName: map[string]*point{}}
	for part := range strings.SplitSeq(spec, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, action, ok := strings.Cut(part, "=")
		if !ok || name == "" {
			return fmt.Errorf("%s: %q: want NAME=kill, NAME=error or NAME=pause:DURATION", Env, part)
		}
		one := &point{}
		if what, at, ok := strings.Cut(action, "@"); ok {
			n, err := strconv.Atoi(at)
			if err != nil || n < 1 {
				return fmt.Errorf("%s: %q: the hit after @ must be 1 or more", Env, part)
			}
			action, one.at = what, n
		}
		kind, length, _ := strings.Cut(action, ":")
		switch one.action = kind; {
		case (kind == "kill" || kind == "error") && length == "":
		case kind == "pause":
			d, err := time.ParseDuration(length)
			if err != nil || d < 0 {
				return fmt.Errorf("%s: %q: want pause:DURATION, like pause:2s", Env, part)
			}
			one.pause = d
		default:
			return fmt.Errorf("%s: %q: the action must be kill, error or pause:DURATION", Env, part)
		}
		p.byName[name] = one
	}
	if len(p.byName) == 0 {
		p = nil
	}
	f.armed.Store(p)
	return nil
}

// Hit marks a place. It returns nil at once unless the place is armed.
func (f *Points) Hit(name string) error {
	p := f.armed.Load()
	if p == nil {
		return nil
	}
	return p.hit(name)
}

func (p *points) hit(name string) error {
	p.mu.Lock()
	one := p.byName[name]
	if one == nil {
		p.mu.Unlock()
		return nil
	}
	one.hits++
	acts := one.at == 0 || one.hits == one.at
	p.mu.Unlock()
	if !acts {
		return nil
	}
	switch one.action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal arrives before any further step
	case "pause":
		time.Sleep(one.pause)
		return nil
	default:
		return fmt.Errorf("%s: %w", name, ErrInjected)
	}
}
