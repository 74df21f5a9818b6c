package health

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// watched is a server under a prober, with everything it published.
type watched struct {
	*redistest.Server
	t  *testing.T
	p  *Prober
	mu sync.Mutex
	// last is the newest probe, all counts them.
	last Probe
	all  int
}

func watch(t *testing.T, passwords ...string) *watched {
	t.Helper()
	w := &watched{Server: redistest.Start(t, redistest.Options{}), t: t}
	if len(passwords) == 0 {
		passwords = []string{w.AdminPassword}
	}
	return w.run(ProberConfig{Address: w.Address}, passwords...)
}

// run runs the prober.
func (w *watched) run(cfg ProberConfig, passwords ...string) *watched {
	w.t.Helper()
	t, policy := w.t, topology.DefaultPolicy()
	w.p = NewProber(ProberConfig{Node: "n", Address: cfg.Address, Resolve: cfg.Resolve, Record: cfg.Record, Passwords: func() []string { return passwords },
		Publish: func(_ string, p Probe) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.last = p
			w.all++
		}}, policy)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.p.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *watched) seen() Probe {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

func (w *watched) until(what string, within time.Duration, ok func(p Probe) bool) time.Duration {
	w.t.Helper()
	begun := time.Now()
	for !ok(w.seen()) {
		if time.Since(begun) > within {
			w.t.Fatalf("not %s within %v: %+v", what, within, w.seen())
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(begun)
}

func ok(p Probe) bool { return p.Sight == topology.SightOK && p.Info.RunID != "" }

func TestProberSeesAKillAtOnce(t *testing.T) {
	w := watch(t)
	w.until("seen", 2*time.Second, ok)
	before := w.seen().Info.RunID
	w.Kill()
	took := w.until("refused three times", time.Second, func(p Probe) bool { return p.Refused >= 3 })
	t.Logf("refused three times after %v", took)
	if took > 300*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	w.Restart()
	w.until("seen again", 2*time.Second, func(p Probe) bool { return ok(p) && p.Info.RunID != before && p.Refused == 0 })
}

func TestProberTellsSilence(t *testing.T) {
	w := watch(t)
	w.until("seen", 2*time.Second, ok)
	w.Pause()
	w.until("asked", time.Second, func(Probe) bool { return true })
	time.Sleep(500 * time.Millisecond)
	if silence := time.Since(w.seen().Heard); silence < 350*time.Millisecond {
		t.Errorf("silence of %v", silence)
	}
	w.Resume()
	w.until("heard", time.Second, func(p Probe) bool { return time.Since(p.Heard) < 150*time.Millisecond })
}

func TestProberReadsEverything(t *testing.T) {
	w := watch(t, "wrong", "test-admin-password")
	w.until("seen", 2*time.Second, ok)
	p := w.seen()
	if p.DefaultUser != (redisadmin.DefaultUser{}) || !slices.Contains(p.Users, credentials.AdminUser) || p.Info.Mode != "standalone" || !p.Info.Master || p.Info.Keys != 0 || p.Info.Software.Version == "" {
		t.Errorf("probe %+v", p)
	}
	w.MustDo("ACL", "SETUSER", "default", "on")
	w.until("seen that anybody may log in", 3*time.Second, func(p Probe) bool { return p.DefaultUser.On })
	w.MustDo("ACL", "SETUSER", "default", "off", "-debug")
	w.until("seen that transactions would be lost", 3*time.Second, func(p Probe) bool { return p.DefaultUser == redisadmin.DefaultUser{Narrow: true} })
}

func TestProberIsRefusedByPassword(t *testing.T) {
	w := watch(t, "wrong")
	w.until("fenced", 2*time.Second, func(p Probe) bool { return p.Sight == topology.SightFenced })
	if p := w.seen(); p.Heard.IsZero() || p.Refused != 0 {
		t.Errorf("an answer is an answer: %+v", p)
	}
}

func TestABusyServerAnswers(t *testing.T) {
	w := watch(t)
	w.until("seen", 2*time.Second, ok)
	w.MustDo("CONFIG", "SET", "lua-time-limit", "100")
	c := w.Client(redistest.AdminUser, w.AdminPassword)
	defer c.Close()
	go c.Eval(context.Background(), "while true do end", nil)
	w.until("busy", 3*time.Second, func(p Probe) bool { return p.Busy == "BUSY" && p.Sight == topology.SightOK })
	w.MustDo("SCRIPT", "KILL")
	w.until("working", 3*time.Second, func(p Probe) bool { return p.Busy == "" })
}

func TestKick(t *testing.T) {
	w := watch(t)
	policy := topology.DefaultPolicy()
	policy.ProbeInterval = 10 * time.Second
	w.p.SetPolicy(policy)
	w.until("seen", 2*time.Second, ok)
	time.Sleep(300 * time.Millisecond) // the present pause was begun by the old policy
	before := w.seen().InfoAt
	w.p.Kick()
	if took := w.until("probed", time.Second, func(p Probe) bool { return p.InfoAt.After(before) }); took > 200*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}

// The kernel of a host answers for a process that is stopped, and a prober that waits
// for one knows; of a connection on which nothing arrives it knows that, too.
func TestProberHearsTheHostOfAStoppedProcess(t *testing.T) {
	w := watch(t)
	w.until("seen", 2*time.Second, ok)
	w.Pause()
	defer w.Resume()
	stopped := time.Now()
	w.until("silent for 8 s, its host answering", 15*time.Second, func(p Probe) bool {
		if silent := time.Since(p.Heard); silent > 3*time.Second && time.Since(p.HostAt) > hostWithin {
			t.Fatalf("after %v the host was last heard %v ago", silent, time.Since(p.HostAt))
		}
		return time.Since(stopped) > 8*time.Second
	})
	if w.seen().Sight != topology.SightOK {
		t.Errorf("%+v: the connection was given up while the host answers", w.seen())
	}

	nc, err := net.Dial("tcp", w.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	opened := time.Now()
	time.Sleep(200 * time.Millisecond)
	if at := hostAt(nc); at.Before(opened.Add(-50*time.Millisecond)) || at.After(opened.Add(100*time.Millisecond)) {
		t.Errorf("a connection without keep-alives was heard on %v after it was opened", at.Sub(opened))
	}
}
