// Package scripts remembers the sources of the Lua scripts that clients of this
// proxy use, and keeps them at the Configserver.
//
// Goal: EVALSHA finds every script that was loaded through any proxy, by SCRIPT
// LOAD or by EVAL, also at a master that lost its script cache or never had it:
// servers neither replicate it nor keep it over a restart.
//
//  1. A source that is new here is added (Add, Keep) and sent to the
//     Configserver, where it is kept under its SHA-1 for all proxies, before the
//     client gets its reply (Settle). After a put that failed nobody waits until one
//     succeeds: sources stay here and are put later, several together.
//  2. Who needs a source asks Find. The Configserver decides: what it does not
//     have was flushed, perhaps through another proxy. Only if it does not
//     answer in time, what is remembered here counts.
//  3. Flushes are counted. Each answer carries the count; when it changed, what
//     was kept before is forgotten here. A put that names an old count is
//     refused, so nothing that was flushed comes back by a late put.
//  4. A script that is sent by EVAL again and again is not put again and again,
//     so this proxy must notice by itself that it was flushed elsewhere: as long
//     as known scripts are being used it asks for the count every checkEvery.
//     Those used since the last look count as sent after the flush.
//
// What may be lost: a script that came with EVAL, and was flushed through another
// proxy, and was sent again within checkEvery, is unknown to the others until
// then. And what is dropped beyond the limits, here or at the Configserver:
// scripts of EVAL first.
package scripts

import (
	"container/list"
	"context"
	"crypto/sha1" //nolint:gosec // it is the name that Redis gives to scripts, not a proof
	"encoding/hex"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// MaxBytes is the longest source that is kept, in bytes.
const MaxBytes = 512 << 10

// Limits of what is remembered here, and of one put and one question.
const (
	maxCount    = 1000
	maxTotal    = 16 << 20
	maxAtOnce   = 32
	maxPutBytes = 1 << 20
)

// Keeper is the Configserver. Its calls may be repeated.
type Keeper interface {
	// PutScripts keeps scripts, unless there were other flushes than those the
	// caller knows of; it returns how many there were.
	PutScripts(ctx context.Context, flushes uint64, list []Source) (now uint64, err error)
	// GetScripts returns the sources of those that are kept, "" without sources,
	// and how many flushes there were.
	GetScripts(ctx context.Context, shas []string, sources bool) (kept map[string]string, flushes uint64, err error)
	// FlushScripts forgets all and returns how many flushes there were.
	FlushScripts(ctx context.Context) (flushes uint64, err error)
}

// Source is a script as it is kept.
type Source struct {
	// SHA is the SHA-1 of Text, 40 lower case hexadecimal digits.
	SHA, Text string
	// Loaded: it came with SCRIPT LOAD.
	Loaded bool
}

// SHA names a source.
func SHA(source string) string {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}

// Bounds on what is put, in bytes: at once, and per second in the long run. Each
// put writes the Configserver's list of scripts anew, about putCost. The store
// keeps what was overwritten for minutes and must not be filled by a client that
// writes its values into the source of each EVAL: it has the cluster's epochs.
const (
	putCost  = 128 << 10
	putBurst = 32 << 20
	putRate  = 64 << 10
)

// spend takes what a put costs from what may be put.
func (l *Library) spend(sources []Source, now time.Time) error {
	l.credit = min(putBurst, l.credit+now.Sub(l.creditAt).Seconds()*putRate)
	l.creditAt = now
	cost := float64(putCost)
	for _, s := range sources {
		cost += float64(len(s.Text))
	}
	if l.credit < cost {
		return errOften
	}
	l.credit -= cost
	return nil
}

// Script is one that is remembered. Any goroutine may use it.
type Script struct {
	// Source and SHA never change.
	Source, SHA string

	used atomic.Bool // since the last look
	// the rest is guarded by the library
	loaded bool
	kept   bool // by the Configserver, as far as is known
	active bool // was used since it was put
	place  *list.Element
}

// Library is what one proxy remembers. Its methods may be called by any
// goroutine.
type Library struct {
	keeper Keeper // nil: nothing is kept elsewhere
	log    *slog.Logger
	// version changes when scripts were forgotten.
	version atomic.Uint64
	// flushed counts the flushes that were noticed.
	flushed atomic.Uint64
	// refused: the last put failed, so nobody waits for the next one.
	refused atomic.Bool
	wake    chan struct{} // has room for one
	// turn holds the one put or flush that goes on: a put that learns of a flush
	// puts again what it takes for newer, which must not be a flush of our own.
	turn chan struct{}
	// credit is how many bytes may be put, as of creditAt; it belongs to whoever
	// has the turn.
	credit   float64
	creditAt time.Time

	mu      sync.Mutex
	scripts map[string]*Script
	order   *list.List // of *Script, the least recently used first
	bytes   int
	flushes uint64
	asked   map[string]*question
	told    bool // that the Configserver does not take scripts
	often   bool // there were more scripts than may be put
}

// question is a Find that several wait for.
type question struct {
	done  chan struct{}
	found map[string]string
}

// New makes a library; keeper may be nil. Run it.
func New(keeper Keeper, log *slog.Logger) *Library {
	return &Library{
		keeper: keeper, log: log, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		scripts: map[string]*Script{}, order: list.New(), asked: map[string]*question{},
	}
}

// Version changes whenever scripts were forgotten: who remembers Scripts must
// then forget them too.
func (l *Library) Version() uint64 { return l.version.Load() }

// Flushed changes whenever a flush was noticed: then servers lost their scripts.
func (l *Library) Flushed() uint64 { return l.flushed.Load() }

// Use notes that a remembered script came with EVAL again. It is cheap.
func (l *Library) Use(s *Script) {
	if !s.used.Load() {
		s.used.Store(true)
		l.nudge()
	}
}

func (l *Library) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Add remembers a source that came with EVAL; nil when it is too long.
func (l *Library) Add(source string) *Script {
	if len(source) > MaxBytes {
		return nil
	}
	sha := SHA(source)
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.add(sha, source, false)
	if !s.kept {
		l.nudge()
	}
	return s
}

// add remembers a source; the caller holds the lock.
func (l *Library) add(sha, source string, loaded bool) *Script {
	s := l.scripts[sha]
	if s == nil {
		s = &Script{Source: source, SHA: sha}
		l.makeRoom(len(source))
		l.scripts[sha] = s
		s.place = l.order.PushBack(s)
		l.bytes += len(source)
	}
	if loaded && !s.loaded {
		s.loaded, s.kept = true, false
	}
	l.order.MoveToBack(s.place)
	return s
}

// makeRoom forgets the least recently used scripts, those of SCRIPT LOAD last,
// when one more would be too many. It forgets a quarter at once: each time, all
// loops forget what they know.
func (l *Library) makeRoom(size int) {
	if len(l.scripts) < maxCount && l.bytes+size <= maxTotal {
		return
	}
	l.version.Add(1)
	for _, loaded := range []bool{false, true} {
		for e := l.order.Front(); e != nil; {
			if len(l.scripts) <= maxCount*3/4 && l.bytes+size <= maxTotal*3/4 {
				return
			}
			s, next := e.Value.(*Script), e.Next()
			if s.loaded == loaded {
				l.forget(s)
			}
			e = next
		}
	}
}

func (l *Library) forget(s *Script) {
	delete(l.scripts, s.SHA)
	l.order.Remove(s.place)
	l.bytes -= len(s.Source)
}

// Peek returns a source that is remembered, without asking if it was flushed.
func (l *Library) Peek(sha string) (source string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.scripts[sha]
	if s == nil {
		return "", false
	}
	l.order.MoveToBack(s.place)
	return s.Source, true
}

// Keep remembers a source of SCRIPT LOAD and has it kept before it returns. An
// error says that the Configserver did not answer; it will be told later.
func (l *Library) Keep(ctx context.Context, source string) error {
	sha := SHA(source)
	l.mu.Lock()
	s := l.add(sha, source, true)
	l.mu.Unlock()
	defer l.nudge()
	return l.put(ctx, []*Script{s})
}

// Settle returns when the Configserver keeps a script that came with EVAL, or when
// that cannot be had now: it did not answer before ctx ended, or not the last time.
// Then it will be told later.
func (l *Library) Settle(ctx context.Context, s *Script) {
	for l.Unsettled(s) && ctx.Err() == nil {
		if l.putWaiting(ctx) != nil {
			return
		}
	}
}

// Unsettled tells if Settle would wait for a script.
func (l *Library) Unsettled(s *Script) bool {
	if l.keeper == nil || l.refused.Load() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.scripts[s.SHA] == s && !s.kept
}

// Find returns the sources of those scripts that are not unknown or flushed.
func (l *Library) Find(ctx context.Context, shas []string) map[string]string {
	key := strings.Join(shas, " ")
	l.mu.Lock()
	q := l.asked[key]
	if q != nil {
		l.mu.Unlock()
		select {
		case <-q.done:
			return q.found
		case <-ctx.Done():
			return l.remembered(shas, false)
		}
	}
	q = &question{done: make(chan struct{})}
	l.asked[key] = q
	l.mu.Unlock()
	q.found = l.find(ctx, shas)
	l.mu.Lock()
	delete(l.asked, key)
	l.mu.Unlock()
	close(q.done)
	return q.found
}

func (l *Library) find(ctx context.Context, shas []string) map[string]string {
	flushed := l.Flushed()
	unkept := l.remembered(shas, true) // it may be put while the answer is on its way
	kept, err := l.ask(ctx, shas, true)
	if err != nil {
		return l.remembered(shas, false)
	}
	maps.Copy(kept, unkept)
	maps.Copy(kept, l.remembered(shas, true))
	l.mu.Lock()
	defer l.mu.Unlock()
	if flushed != l.Flushed() {
		return kept // they may be flushed by now
	}
	for sha, source := range kept {
		if l.scripts[sha] == nil {
			l.add(sha, source, false).kept = true
		}
	}
	return kept
}

// Exists tells which scripts are known, here or at the Configserver.
func (l *Library) Exists(ctx context.Context, shas []string) map[string]bool {
	known := map[string]bool{}
	for sha := range l.remembered(shas, true) { // it may be put while the answer is on its way
		known[sha] = true
	}
	kept, err := l.ask(ctx, shas, false)
	for sha := range kept {
		known[sha] = true
	}
	for sha := range l.remembered(shas, err == nil) {
		known[sha] = true
	}
	return known
}

// ask asks the Configserver.
func (l *Library) ask(ctx context.Context, shas []string, sources bool) (map[string]string, error) {
	all := map[string]string{}
	if l.keeper == nil {
		return all, errNoKeeper
	}
	for len(shas) > 0 {
		n := min(len(shas), maxAtOnce)
		before := l.count()
		kept, flushes, err := l.keeper.GetScripts(ctx, shas[:n], sources)
		if err != nil {
			return all, err
		}
		l.counted(flushes, before)
		for sha, source := range kept {
			all[sha] = source
		}
		shas = shas[n:]
	}
	return all, nil
}

// remembered returns what is known here; with unkept, only what was not told to
// the Configserver yet.
func (l *Library) remembered(shas []string, unkept bool) map[string]string {
	found := map[string]string{}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sha := range shas {
		if s := l.scripts[sha]; s != nil && !(unkept && s.kept) {
			found[sha] = s.Source
		}
	}
	return found
}

// Flush forgets all scripts here and at the Configserver. An error says that
// nothing was forgotten.
func (l *Library) Flush(ctx context.Context) error {
	if err := l.begin(ctx); err != nil {
		return err
	}
	defer l.end()
	var flushes uint64
	if l.keeper != nil {
		var err error
		if flushes, err = l.keeper.FlushScripts(ctx); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushes = flushes
	clear(l.scripts)
	l.order.Init()
	l.bytes = 0
	l.version.Add(1)
	l.flushed.Add(1)
	return nil
}

// counted takes note of how many flushes there were. After one that this proxy
// did not know of, it forgets what it took for kept, but for what was used since.
// before is what was known when the question was sent: an answer that was
// overtaken by another one, or by a flush of our own, tells nothing.
func (l *Library) counted(flushes, before uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before != l.flushes || flushes == l.flushes {
		return
	}
	l.flushes = flushes
	l.version.Add(1)
	l.flushed.Add(1)
	for _, s := range l.scripts {
		switch {
		case !s.kept:
		case s.used.Load():
			s.kept = false
		default:
			l.forget(s)
		}
	}
	l.nudge()
}

// count is how many flushes are known.
func (l *Library) count() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flushes
}

// begin waits for the turn.
func (l *Library) begin(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Library) end() { <-l.turn }

// put keeps scripts at the Configserver.
func (l *Library) put(ctx context.Context, list []*Script) error {
	if l.keeper == nil {
		return nil
	}
	if err := l.begin(ctx); err != nil {
		return err
	}
	defer l.end()
	return l.putNow(ctx, list)
}

// putNow does so for whoever has the turn.
func (l *Library) putNow(ctx context.Context, list []*Script) (err error) {
	defer func() { l.refused.Store(err != nil) }()
	for range 3 { // once, and again after a flush
		var sources []Source
		l.mu.Lock()
		flushes := l.flushes
		for _, s := range list {
			if l.scripts[s.SHA] == s { // else it was flushed meanwhile
				sources = append(sources, Source{s.SHA, s.Source, s.loaded})
			}
		}
		l.mu.Unlock()
		if len(sources) == 0 {
			return nil
		}
		if err := l.spend(sources, time.Now()); err != nil {
			return err
		}
		now, err := l.keeper.PutScripts(ctx, flushes, sources)
		if err != nil {
			return err
		}
		if now == flushes {
			l.mu.Lock()
			for i, s := range sources {
				if mine := l.scripts[s.SHA]; mine != nil && mine.loaded == sources[i].Loaded && l.flushes == flushes {
					mine.kept, mine.active = true, false
				}
			}
			l.mu.Unlock()
			return nil
		}
		l.counted(now, flushes)
	}
	return errFlushes
}

// Count is how many scripts are remembered, and how many bytes they are.
func (l *Library) Count() (scripts, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.scripts), l.bytes
}

// Waiting is how many scripts the Configserver was not told yet.
func (l *Library) Waiting() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.scripts {
		if !s.kept {
			n++
		}
	}
	return n
}

// Times of Run.
const (
	// together is how long scripts of EVAL wait for others.
	together = 20 * time.Millisecond
	// checkEvery is how soon a flush elsewhere is noticed while scripts are used.
	checkEvery = 500 * time.Millisecond
	// againEvery is how often scripts in use are put again, so that they are not
	// the ones that are dropped.
	againEvery = 10 * time.Minute
	putTimeout = 2 * time.Second
	lastRetry  = 5 * time.Second
	// oftenRetry is the pause when more would be put than may be.
	oftenRetry = time.Second
)
