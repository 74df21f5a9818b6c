package health

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/resolve"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Pace of probing that is not the cluster's policy.
const (
	// retryEvery is the distance of dials while a node has begun to refuse, so
	// that a killed process is known for dead within tens of milliseconds.
	retryEvery = 30 * time.Millisecond
	// kickEvery is the least distance of probes that somebody asked for.
	kickEvery = 5 * time.Millisecond
	// fullEvery is how often a probe asks for everything and not only for the
	// state of replication: as often as that, and every so many probes.
	fullEvery  = time.Second
	fullProbes = 8
	// dialTimeout bounds one attempt to connect.
	dialTimeout = time.Second
	// hostEvery is how often the host is asked while a process is silent.
	hostEvery = time.Second
	// patience is for how long beyond policy.HungAfter (policy.MaxBusy, while the host
	// answers) an unanswered question is waited for before a new connection is tried.
	patience = time.Second
)

// ProberConfig is what a Prober needs.
type ProberConfig struct {
	// Node id and address of the server.
	Node, Address string
	// Passwords of the admin user, the current one first; called at every dial.
	Passwords func() []string
	// Resolve looks up host names; nil: the resolver of this machine.
	Resolve resolve.Func
	// Record is what is committed about the node now; nil: nothing.
	Record func() topology.Node
	// Publish takes what is known after every change; it must not block.
	Publish func(node string, p Probe)
	// Measured is called for every probe that was answered; nil for none.
	Measured func(node string, took time.Duration)
}

// Prober watches one server over a connection of its own. It notices the end
// of the connection at once, also between two probes, and dials again at once:
// a refusal then is the fastest sign of a dead process.
type Prober struct {
	cfg      ProberConfig
	kick     chan struct{}
	interval atomic.Int64
	slow     atomic.Int64 // see Slow
	turn     int          // see beat
	hung     atomic.Int64
	busy     atomic.Int64
	refusals atomic.Int64
	// See names.go: where the connection leads, "" while there is none, and
	// Probe.Astray; the words to connect anew and to look up the name again.
	connected, astray atomic.Value
	elsewhere, again  chan struct{}
	// accepted is the password that the node took last, which may be on file no more.
	accepted atomic.Value

	p        Probe
	lastFull time.Time
}

// NewProber makes a prober; Run runs it.
func NewProber(cfg ProberConfig, policy topology.Policy) *Prober {
	if cfg.Resolve == nil {
		cfg.Resolve = resolve.System
	}
	p := &Prober{cfg: cfg, turn: rand.IntN(turns), //nolint:gosec // not a secret
		kick: make(chan struct{}, 1), elsewhere: make(chan struct{}, 1), again: make(chan struct{}, 1)}
	p.SetPolicy(policy)
	return p
}

// SetPolicy changes the pace; it may be called at any time.
func (p *Prober) SetPolicy(policy topology.Policy) {
	p.interval.Store(int64(policy.ProbeInterval))
	p.hung.Store(int64(policy.HungAfter))
	p.busy.Store(int64(max(policy.MaxBusy, policy.HungAfter)))
	p.refusals.Store(int64(policy.RefusedProbes))
}

// Slow makes probes be no closer than every, as long as nobody asks for one; 0 for the
// policy's pace. That the connection ends is noticed at once all the same.
func (p *Prober) Slow(every time.Duration) { p.slow.Store(int64(every)) }

// every is the distance of probes.
func (p *Prober) every() time.Duration {
	return time.Duration(max(p.interval.Load(), p.slow.Load()))
}

// beat is how long to wait for the next probe. Probers that run at the same pace probe
// at the same instants, so that a process with a few nodes wakes once for all of them;
// those of large clusters, which are slow, take their turns.
func (p *Prober) beat(now time.Time) time.Duration {
	every := p.every()
	since := now.Sub(firstBeat)
	if p.slow.Load() > p.interval.Load() {
		since += every * time.Duration(p.turn) / turns
	}
	wait := every - since%every
	if wait < every/4 {
		wait += every // it was probed just now
	}
	return wait
}

// firstBeat is where beats are counted from; turns, how many turns large clusters take.
var firstBeat = time.Now()

const turns = 16

// Kick asks for a probe now.
func (p *Prober) Kick() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// Run probes until ctx ends.
func (p *Prober) Run(ctx context.Context) {
	var names sync.WaitGroup
	names.Go(func() { p.followName(ctx) })
	defer names.Wait()
	for ctx.Err() == nil {
		begun := time.Now()
		p.connection(ctx)
		// Refused for the first few times: look again soon. Later, and for every
		// other trouble, keep the usual pace.
		wait := time.Duration(p.interval.Load())
		if p.p.Refused > 0 && int64(p.p.Refused) <= p.refusals.Load() {
			wait = min(wait, retryEvery)
		}
		p.pause(ctx, begun.Add(wait))
	}
}

// pause sleeps until an instant, or shorter when kicked.
func (p *Prober) pause(ctx context.Context, until time.Time) {
	select {
	case <-time.After(time.Until(until)):
	case <-p.kick:
		select {
		case <-time.After(kickEvery):
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
}

// connection dials once and probes until the connection ends.
func (p *Prober) connection(ctx context.Context) {
	if p.p.Asked.IsZero() {
		p.p.Asked = time.Now()
	}
	l, err := p.login(ctx)
	if err != nil {
		p.connected.Store("")
		if ctx.Err() == nil {
			p.failed(err)
		}
		return
	}
	defer l.close()
	defer p.connected.Store("")
	select {
	case <-p.elsewhere: // of an earlier connection
	default:
	}
	p.lastFull = time.Time{}
	for first := true; ctx.Err() == nil; first = false {
		if err := p.probe(l); err != nil {
			if ctx.Err() == nil {
				p.ended(err)
			}
			return
		}
		if err := p.rest(ctx, l, first); err != nil {
			if ctx.Err() == nil && !errors.Is(err, errElsewhere) {
				p.ended(err)
			}
			return
		}
	}
}

// rest waits for the next probe; an error is the end of the connection.
func (p *Prober) rest(ctx context.Context, l *line, first bool) error {
	next := p.beat(time.Now())
	if first {
		next = min(next, 10*time.Millisecond) // the first one only said hello
	}
	timer := time.NewTimer(next)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case together := <-l.replies:
		if err := together[0].err; err != nil {
			return err
		}
		return errors.New("an answer without a question")
	case <-p.elsewhere:
		return errElsewhere
	case <-p.kick:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-time.After(kickEvery):
	case <-ctx.Done():
	}
	return nil
}

// failed records a dial or a login that did not succeed.
func (p *Prober) failed(err error) {
	sight, detail := redisadmin.SightOf(err)
	p.p.Sight, p.p.Detail = sight, detail
	if sight == topology.SightRefused {
		if p.p.Refused++; p.p.Refused == 1 {
			p.p.RefusedSince = time.Now()
		}
	} else {
		p.p.Refused = 0
	}
	p.publish()
}

// ended records the end of a connection that worked. It is only a suspicion:
// the dial that follows at once decides.
func (p *Prober) ended(err error) {
	p.p.Sight, p.p.Detail = redisadmin.SightOf(err)
	if p.p.Asked.IsZero() {
		p.p.Asked = time.Now()
	}
	if p.p.Sight == topology.SightRefused {
		p.p.RefusedSince = time.Now()
		p.publish()
		p.Kick() // no pause before the dial
		return
	}
	p.publish()
}

func (p *Prober) publish() {
	p.p.Astray, _ = p.astray.Load().(string)
	p.cfg.Publish(p.cfg.Node, p.p)
}

// heard records that the node said something.
func (p *Prober) heard() {
	p.p.Heard = time.Now()
	p.p.Asked = time.Time{}
	p.p.Refused = 0
}

// dial connects to where the node is now.
func (p *Prober) dial(ctx context.Context) (net.Conn, error) {
	place, err := p.locate(ctx)
	if err != nil {
		return nil, err
	}
	nc, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", place.Endpoint)
	if err != nil {
		return nil, err
	}
	if err := keepAlive(nc); err != nil {
		_ = nc.Close()
		return nil, err
	}
	p.p.Endpoint, p.p.HostAt = place.Endpoint, time.Now()
	p.connected.Store(place.Endpoint)
	p.astray.Store(place.Astray)
	return nc, nil
}

// login connects and finds a password that is accepted.
func (p *Prober) login(ctx context.Context) (*line, error) {
	nc, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	l := newLine(ctx, nc)
	onFile := p.cfg.Passwords()
	for _, password := range p.Passwords() {
		accepted, err := p.auth(l, password)
		if err == nil && !accepted {
			continue
		}
		if err != nil {
			l.close()
			return nil, err
		}
		p.p.NotOnFile = !slices.Contains(onFile, password)
		return l, nil
	}
	l.close()
	p.p.NotOnFile = true
	return nil, redisadmin.ErrPassword
}

// Passwords are those on file, and then the one that the node accepted last, if that is
// not on file any more.
func (p *Prober) Passwords() []string {
	passwords := slices.Clone(p.cfg.Passwords())
	if last, _ := p.accepted.Load().(string); last != "" && !slices.Contains(passwords, last) {
		passwords = append(passwords, last)
	}
	return passwords
}

// auth logs in, also where somebody is logged in already: that stays so when the
// password is refused.
func (p *Prober) auth(l *line, password string) (accepted bool, err error) {
	reply, err := p.ask(l, authenticate(password))
	if err != nil {
		return false, err
	}
	p.heard()
	text, isError := reply.(replyError)
	if isError && !wrongPassword(string(text)) {
		p.p.Sight, p.p.Detail = topology.SightOK, string(text)
		return false, errors.New(string(text))
	}
	if !isError {
		p.accepted.Store(password)
	}
	return !isError, nil
}

func authenticate(password string) []string { return []string{"AUTH", adminUser, password} }

// onFile is the password that the node accepted last, if that is on file, else the
// first on file. One that is refused is in the node's ACL LOG.
func (p *Prober) onFile() string {
	passwords := p.cfg.Passwords()
	if last, _ := p.accepted.Load().(string); slices.Contains(passwords, last) {
		return last
	}
	return passwords[0]
}

// judge finds out if the node would let this Configserver in again by what is on file
// now; the connection that is open tells nothing of that. said is the answer to
// authenticate(password) on it.
func (p *Prober) judge(l *line, password string, said any) error {
	text, isError := said.(replyError)
	switch {
	case !isError:
		p.accepted.Store(password)
		p.p.NotOnFile = false
		return nil
	case !wrongPassword(string(text)):
		return nil // it has no time for that
	}
	for _, other := range p.cfg.Passwords() {
		if other == password {
			continue
		}
		if accepted, err := p.auth(l, other); accepted || err != nil {
			p.p.NotOnFile = p.p.NotOnFile && !accepted
			return err
		}
	}
	p.p.NotOnFile = true
	return nil
}

// ask sends one command and waits for its reply.
func (p *Prober) ask(l *line, command []string) (any, error) {
	replies, err := p.exchange(l, newRequest(command))
	if err != nil {
		return nil, err
	}
	return replies[0], nil
}

// exchange sends commands in one write and collects their replies. It waits
// past the time after which the node counts as hung: an answer that comes late
// is still a sign of life, and a new connection would only queue behind the old.
func (p *Prober) exchange(l *line, r request) ([]any, error) {
	if p.p.Asked.IsZero() {
		p.p.Asked = time.Now()
	}
	if err := l.send(r); err != nil {
		return nil, err
	}
	timer := time.NewTimer(time.Duration(p.hung.Load()) + patience)
	defer timer.Stop()
	host := time.NewTicker(hostEvery)
	defer host.Stop()
	replies := make([]any, 0, r.replies)
	for len(replies) < r.replies {
		select {
		case together := <-l.replies:
			for _, r := range together {
				if r.err != nil {
					return nil, r.err
				}
				replies = append(replies, r.value)
			}
		case <-host.C:
			p.p.HostAt = hostAt(l.nc)
			p.publish()
		case <-timer.C:
			// A host that is there has a process that may be busy.
			if time.Since(p.p.HostAt) > hostWithin || time.Since(p.p.Asked) > time.Duration(p.busy.Load())+patience {
				return nil, context.DeadlineExceeded
			}
			timer.Reset(hostEvery)
		}
	}
	return replies, nil
}

// replication is what a probe asks nearly always.
var replication = newRequest([]string{"PING"}, []string{"INFO", "replication"})

// probe asks once and publishes the answer.
func (p *Prober) probe(l *line) error {
	begun := time.Now()
	full := begun.Sub(p.lastFull) >= max(fullEvery, fullProbes*time.Duration(p.slow.Load()))
	ask, password := replication, ""
	if full {
		password = p.onFile()
		ask = newRequest([]string{"PING"}, []string{"INFO"}, []string{"ACL", "USERS"}, []string{"ACL", "GETUSER", "default"}, authenticate(password))
	}
	replies, err := p.exchange(l, ask)
	if err != nil {
		return err
	}
	p.heard()
	if p.cfg.Measured != nil {
		p.cfg.Measured(p.cfg.Node, time.Since(begun))
	}
	p.p.Sight, p.p.Detail, p.p.Busy = topology.SightOK, "ok", ""
	if text, isError := replies[0].(replyError); isError {
		p.p.Busy = firstWord(string(text))
		p.p.Detail = string(text)
	}
	if text, ok := replies[1].(string); ok {
		info := redisadmin.ParseInfo(text)
		if full {
			p.p.Info, p.lastFull = info, begun
		} else {
			p.p.Info = p.p.Info.Merge(info)
			p.p.Info.Loading = p.p.Busy == "LOADING"
		}
		p.p.InfoAt = begun
	}
	if full {
		names, listed := replies[2].([]any)
		if fields, ok := replies[3].([]any); ok && listed {
			if users := texts(names); !slices.Equal(users, p.p.Users) {
				p.p.Users = users
			}
			p.p.DefaultUser = defaultUser(fields)
			p.p.UsersAt = begun
		}
		if err := p.judge(l, password, replies[4]); err != nil {
			return err
		}
	}
	p.publish()
	return nil
}
