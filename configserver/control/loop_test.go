package control

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/store/memstore"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/faultpoint"
	"github.com/basalt-redis/basalt/internal/redistest"
)

const adminPassword = "an-admin-password"

// rig is a cluster of real servers under a loop, with a fake proxy.
type rig struct {
	t       *testing.T
	store   *memstore.Store
	dir     string
	servers map[string]*redistest.Server
	loop    *Loop
	stop    func()
	nth     int
	faults  faultpoint.Points
	// config are lines of the configuration of servers that are registered from now on.
	config  []string
	names   dns
	metrics *Metrics // of the loops; nil for none
}

func policy() topology.Policy {
	p := topology.DefaultPolicy()
	p.ProbeInterval = 50 * time.Millisecond
	p.AckTimeout = 2 * time.Second // many tests run at once, and none is about a slow proxy
	return p
}

// newRig makes a cluster that is not formed yet, and runs its loop.
func newRig(t *testing.T, shards, nodes int, change func(p *topology.Policy)) *rig {
	t.Helper()
	r := &rig{t: t, store: memstore.New(memstore.Options{KeepEpochs: 10000}), dir: t.TempDir(), servers: map[string]*redistest.Server{}}
	r.writeSecrets(adminPassword, "the-root-of-all-passwords", "")
	p := policy()
	if change != nil {
		change(&p)
	}
	now := time.Now().UTC()
	c := topology.Cluster{Name: "c", Epoch: 1, CommittedAt: now, CreatedAt: now, Reason: "created",
		Phase: topology.Forming, WantShards: shards, WantNodes: nodes, Policy: p}
	c.MoreSeats()
	if err := r.store.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	r.run()
	t.Cleanup(func() { r.stop() })
	return r
}

// settledRig makes a cluster that serves, with every node in the read set.
func settledRig(t *testing.T, shards, nodes int, change func(p *topology.Policy)) *rig {
	t.Helper()
	r := newRig(t, shards, nodes, change)
	r.form(shards, nodes)
	for s := range shards {
		r.settled(fmt.Sprintf("shard-%d", s))
	}
	return r
}

// arm arms a fault point of this rig's loops.
func (r *rig) arm(point string) {
	r.t.Helper()
	if err := r.faults.Arm(point); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) writeSecrets(admin, secret, client string) {
	r.t.Helper()
	folder := filepath.Join(r.dir, "c")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		r.t.Fatal(err)
	}
	for name, text := range map[string]string{credentials.AdminFile: admin, credentials.SecretFile: secret, credentials.ClientFile: client} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text+"\n"), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

// run begins a loop as another Configserver would.
func (r *rig) run() {
	r.t.Helper()
	r.nth++
	id := fmt.Sprintf("cs-%d", r.nth)
	session, err := r.store.Join(r.t.Context(), store.Replica{ID: id, Address: "127.0.0.1:1"})
	if err != nil {
		r.t.Fatal(err)
	}
	own, err := session.Claim(r.t.Context(), "c")
	if err != nil {
		r.t.Fatal(err)
	}
	out := slog.DiscardHandler
	if testing.Verbose() {
		out = slog.NewTextHandler(os.Stderr, nil)
	}
	l, err := New(Config{Cluster: "c", ID: id, Store: r.store, Ownership: own, Logger: slog.New(out).With("id", id), Faults: &r.faults, Resolve: r.names.resolve, Metrics: r.metrics,
		Credentials: func() (*credentials.Set, error) { return credentials.Open(r.dir, "c") }})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.Run(ctx); err != nil {
			r.t.Logf("%s: run: %v", id, err)
		}
	}()
	r.loop = l
	r.stop = func() {
		cancel()
		<-done
		r.store.ExpireLease(id)
	}
}

// form registers servers and waits until the cluster serves.
func (r *rig) form(shards, nodes int) {
	r.t.Helper()
	for s := range shards {
		for n := range nodes {
			r.register(fmt.Sprintf("shard-%d", s), n)
		}
	}
	r.eventually("serving", 15*time.Second, func() bool { return r.loop.Topology().Phase == topology.Serving })
}

func (r *rig) register(shard string, number int) string {
	r.t.Helper()
	id := fmt.Sprintf("%s-%d", shard, number)
	r.servers[id] = redistest.Start(r.t, redistest.Options{AdminPassword: adminPassword,
		Config: append([]string{"user basalt-node:c:" + shard + ":" + id + " off"}, r.config...)})
	var err error
	for begun := time.Now(); ; {
		_, err = r.loop.RegisterNode(r.t.Context(), shard, topology.Node{ID: id, Address: r.servers[id].Address, Readable: true, Priority: 100}, false)
		if err == nil {
			return id
		}
		// The server is just being starved by whatever else runs.
		if !strings.Contains(err.Error(), "no answer in time") || time.Since(begun) > 10*time.Second {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) eventually(what string, within time.Duration, ok func() bool) time.Duration {
	r.t.Helper()
	begun := time.Now()
	for !ok() {
		if time.Since(begun) > within {
			r.t.Fatalf("not %s within %v: %+v\nproblems: %+v\n%s", what, within, r.loop.Topology().Shards, r.loop.Status().Problems, r.loop.Status().Progress)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(begun)
}

func (r *rig) shard(id string) topology.Shard {
	c := r.loop.Topology()
	return *c.Shard(id)
}

// settled waits until a shard has a master, no operation and all its nodes in
// the read set and in sync.
func (r *rig) settled(shard string) {
	r.t.Helper()
	r.eventually("settled", 15*time.Second, func() bool {
		s := r.shard(shard)
		return s.Master != "" && s.Operation == nil && !slices.ContainsFunc(s.Nodes, func(n topology.Node) bool { return !n.InReadSet || !n.InSync })
	})
}

func (r *rig) events(kind string) (found []topology.Event) {
	r.t.Helper()
	events, err := r.store.Events(r.t.Context(), "c", 0, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range events {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

// checkEpochs checks every epoch that was ever committed.
func (r *rig) checkEpochs() {
	r.t.Helper()
	epochs, err := r.store.Epochs(r.t.Context(), "c", 10000)
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Reverse(epochs)
	for i, c := range epochs {
		if err := c.Validate(); err != nil {
			r.t.Errorf("epoch %d (%s): %v", c.Epoch, c.Reason, err)
		}
		if i == 0 {
			continue
		}
		before := epochs[i-1]
		if err := before.ValidateNext(c); err != nil {
			r.t.Errorf("epoch %d (%s): %v", c.Epoch, c.Reason, err)
		}
		for j := range c.Shards {
			s := &c.Shards[j]
			was := before.Shard(s.ID)
			// A master never changes from one epoch to the next unless the shard had
			// none, or was frozen: every proxy has let go of the old one by then.
			if was != nil && was.Master != "" && s.Master != "" && s.Master != was.Master && !was.Frozen {
				r.t.Errorf("epoch %d (%s): master of %s changed from %s to %s at one stroke", c.Epoch, c.Reason, s.ID, was.Master, s.Master)
			}
		}
	}
}

// fakeProxy follows the topology as a proxy does, and routes go-redis clients.
type fakeProxy struct {
	r  *rig
	id string
	mu sync.Mutex
	// view is obeyed; sends count commands in flight. logins are by shard: they stay
	// as long as no view brings others.
	view    View
	logins  map[string]login
	clients map[string]*redis.Client
	changed chan struct{}
	sending *sync.WaitGroup
	before  chan struct{} // closes when everything sent by earlier views was answered
	stream  ProxyStream
	mute    bool
}

// login is what a proxy logs in to a shard with.
type login struct{ username, password string }

func (r *rig) proxy(id string) *fakeProxy {
	r.t.Helper()
	p := &fakeProxy{r: r, id: id, view: View{Common: &Common{}}, logins: map[string]login{}, clients: map[string]*redis.Client{}, changed: make(chan struct{}), sending: &sync.WaitGroup{}, before: make(chan struct{})}
	close(p.before)
	p.mu.Lock()
	first := p.changed
	p.mu.Unlock()
	p.connect()
	<-first
	return p
}

func (p *fakeProxy) connect() {
	p.r.t.Helper()
	p.mu.Lock()
	epoch := p.view.Cluster.Epoch
	p.mu.Unlock()
	var stream ProxyStream
	p.r.eventually("connected", 5*time.Second, func() bool {
		var err error
		stream, err = p.r.loop.Connect(p.r.t.Context(), Hello{ID: p.id, Address: "127.0.0.1:2", Epoch: epoch})
		return err == nil
	})
	p.stream = stream
	go func() {
		for v := range stream.Updates() {
			p.mu.Lock()
			if v.Cluster.Epoch < p.view.Cluster.Epoch {
				p.mu.Unlock()
				stream.Close() // it does not go back
				return
			}
			p.view = v
			for i := range v.Credentials {
				if v.Seated() {
					username, password := v.Credentials[i].Login(v.Seat)
					p.logins[v.Credentials[i].Shard] = login{username, password}
				}
			}
			close(p.changed)
			p.changed = make(chan struct{})
			mute, sending, before, answered := p.mute, p.sending, p.before, make(chan struct{})
			p.sending, p.before = &sync.WaitGroup{}, answered
			p.mu.Unlock()
			go func() {
				<-before
				sending.Wait()
				close(answered)
				if !mute {
					stream.Ack(v.Cluster.Epoch)
				}
			}()
		}
	}()
}

// do runs f with a client of the shard's master, holding while there is none.
func (p *fakeProxy) do(shard string, f func(c *redis.Client) error) error {
	deadline := time.After(15 * time.Second)
	for {
		p.mu.Lock()
		s := p.view.Cluster.Shard(shard)
		changed := p.changed
		if s != nil && s.Master != "" && !s.Frozen {
			c, sending := p.client(s), p.sending
			sending.Add(1)
			p.mu.Unlock()
			err := f(c)
			sending.Done()
			return err
		}
		p.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			return fmt.Errorf("held too long")
		}
	}
}

func (p *fakeProxy) client(s *topology.Shard) *redis.Client {
	m := s.MasterNode()
	cred := p.logins[s.ID]
	key := m.Endpoint() + " " + m.Incarnation + " " + cred.username
	if p.clients[key] == nil {
		p.clients[key] = redis.NewClient(&redis.Options{Addr: m.Endpoint(), Username: cred.username, Password: cred.password,
			Protocol: 2, MaxRetries: -1, DisableIdentity: true, DialerRetries: 1, ReadTimeout: 5 * time.Second})
	}
	return p.clients[key]
}

// present is a client with the address and the credentials that p knows now; it
// keeps them whatever p learns.
func (p *fakeProxy) present(shard string) *redis.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.client(p.view.Cluster.Shard(shard))
}

// setMute says if p obeys without a word.
func (p *fakeProxy) setMute(mute bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = mute
}

func (p *fakeProxy) set(shard, key, value string) error {
	return p.do(shard, func(c *redis.Client) error { return c.Set(context.Background(), key, value, 0).Err() })
}

func (p *fakeProxy) get(shard, key string) (value string, err error) {
	err = p.do(shard, func(c *redis.Client) error {
		value, err = c.Get(context.Background(), key).Result()
		return err
	})
	return value, err
}

func (p *fakeProxy) mustSet(shard, key, value string) {
	p.r.t.Helper()
	if err := p.set(shard, key, value); err != nil {
		p.r.t.Fatal(err)
	}
}

// has checks the value of a key.
func (p *fakeProxy) has(shard, key, want string) {
	p.r.t.Helper()
	if v, err := p.get(shard, key); v != want {
		p.r.t.Errorf("%s: %q, %v", key, v, err)
	}
}

// fill sets the keys k0, k1 and so on.
func (p *fakeProxy) fill(shard string, keys int) {
	p.r.t.Helper()
	for i := range keys {
		p.mustSet(shard, fmt.Sprint("k", i), "v")
	}
}

// holds checks that what fill set is there.
func (p *fakeProxy) holds(shard string, keys int) {
	p.r.t.Helper()
	for i := range keys {
		p.has(shard, fmt.Sprint("k", i), "v")
	}
}

// setUntil writes until a write is acknowledged and tells how long it took.
func (p *fakeProxy) setUntil(shard, key, value string) time.Duration {
	begun := time.Now()
	for {
		if err := p.set(shard, key, value); err == nil {
			return time.Since(begun)
		} else if time.Since(begun) > 20*time.Second {
			p.r.t.Fatalf("no write to %s for %v: %v", shard, time.Since(begun), err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestForming(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, 2, nil)
	for s := range 2 {
		r.register(fmt.Sprintf("shard-%d", s), 0)
	}
	if got := r.loop.Status().Progress; !strings.Contains(got, "shard-1: 1 of 2 nodes registered") {
		t.Errorf("progress %q", got)
	}
	r.register("shard-0", 1)
	r.register("shard-1", 1)
	took := r.eventually("serving", 15*time.Second, func() bool { return r.loop.Topology().Phase == topology.Serving })
	t.Logf("serving after %v", took)
	p := r.proxy("p1")
	p.mustSet("shard-0", "k", "v")
	r.settled("shard-0")
	st := r.loop.Status()
	if len(st.Nodes) != 4 || st.Progress != "" || len(st.Proxies) != 1 {
		t.Errorf("status %+v", st)
	}
	for _, n := range st.Nodes {
		if n.Health != "ok" || n.Sight != topology.SightOK {
			t.Errorf("%s: %s", n.Node.ID, n.Health)
		}
	}
	if len(r.events("ClusterServing")) != 1 || len(r.events("NodeAdmitted")) != 4 {
		t.Error("events are missing")
	}
	r.checkEpochs()
}
