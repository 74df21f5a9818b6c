package consistency

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/basalt-redis/basalt/internal/slot"
)

// Shard is a share of the slots, as the topology has it.
type Shard struct {
	ID    string
	Slots slot.Set
}

// Config of a load.
type Config struct {
	// Addresses of the proxies; connection i uses number i modulo their count.
	Addresses []string
	// Username and Password for AUTH; none when Password is empty.
	Username, Password string
	// Shards; connection i uses keys of number i modulo their count.
	Shards []Shard
	// Connections; 100.
	Connections int
	// KeysPerConnection are written by each connection, spread evenly over the
	// slots of its shard; 10.
	KeysPerConnection int
	// Pace is the mean pause of a connection between two requests; 10 ms, which
	// with 100 connections makes up to 10,000 requests a second: enough that
	// every moment is seen, little enough that queues do not hide the stalls.
	Pace time.Duration
	// Padding is how much longer than the key and the version a value is; 64.
	Padding int
	// Prefix of the keys, so that loads do not meet; "load".
	Prefix string
}

// Load is running, or stopped and ready to be judged.
type Load struct {
	cfg     Config
	begin   time.Time
	model   model
	witness witness
	byShard [][]*keyState
	workers []*worker
	stop    atomic.Bool
	halt    chan struct{}
	// gate is held for reading by every request, for writing while paused.
	gate sync.RWMutex
	done sync.WaitGroup
}

type worker struct {
	load    *Load
	id      int
	shard   int
	conn    *Conn
	own     []*keyState
	records []Record
}

// Start connects, writes every key once, and begins the load. Everything must
// succeed: the cluster has to be healthy at the start.
func Start(ctx context.Context, cfg Config) (*Load, error) {
	if len(cfg.Addresses) == 0 || len(cfg.Shards) == 0 {
		return nil, errors.New("a load needs addresses and shards")
	}
	orInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	orInt(&cfg.Connections, 100)
	orInt(&cfg.KeysPerConnection, 10)
	orInt(&cfg.Padding, 64)
	if cfg.Pace == 0 {
		cfg.Pace = 10 * time.Millisecond
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "load"
	}
	l := &Load{cfg: cfg, halt: make(chan struct{}), byShard: make([][]*keyState, len(cfg.Shards))}
	l.model.spans = make([]atomic.Int64, len(cfg.Shards))
	slots := make([][]int, len(cfg.Shards))
	for i, sh := range cfg.Shards {
		for s := range slot.Count {
			if sh.Slots.Has(s) {
				slots[i] = append(slots[i], s)
			}
		}
		if len(slots[i]) == 0 {
			return nil, fmt.Errorf("shard %s has no slots", sh.ID)
		}
	}
	for id := range cfg.Connections {
		w := &worker{load: l, id: id, shard: id % len(cfg.Shards)}
		perShard := (cfg.Connections/len(cfg.Shards) + 1) * cfg.KeysPerConnection
		for i := range cfg.KeysPerConnection {
			n := id/len(cfg.Shards)*cfg.KeysPerConnection + i
			s := slots[w.shard][n*len(slots[w.shard])/perShard]
			k := &keyState{name: KeyInSlot(fmt.Sprintf("%s:%d:%d", cfg.Prefix, id, i), s), shard: w.shard}
			w.own = append(w.own, k)
			l.byShard[w.shard] = append(l.byShard[w.shard], k)
			l.model.keys = append(l.model.keys, k)
		}
		l.workers = append(l.workers, w)
	}
	l.begin = time.Now()
	for _, w := range l.workers {
		if err := w.fill(ctx); err != nil {
			l.closeAll()
			return nil, fmt.Errorf("connection %d: %w", w.id, err)
		}
	}
	for _, w := range l.workers {
		l.done.Go(w.run)
	}
	return l, nil
}

func (l *Load) closeAll() {
	for _, w := range l.workers {
		if w.conn != nil {
			w.conn.Close()
		}
	}
}

// Now is the time on the timeline.
func (l *Load) Now() time.Duration { return time.Since(l.begin) }

// LossBegins says that the master of a shard is about to be taken away without
// warning: from now on only confirmed writes must be there.
func (l *Load) LossBegins(shard int) {
	if l.model.spans[shard].Add(1)%2 != 1 {
		panic("LossBegins twice without LossEnds")
	}
}

// LossEnds says that a new master serves the shard: from now on what is
// acknowledged must stay.
func (l *Load) LossEnds(shard int) {
	if l.model.spans[shard].Add(1)%2 != 0 {
		panic("LossEnds without LossBegins")
	}
}

// Pause returns when no request is under way, and none begins until Continue.
func (l *Load) Pause() { l.gate.Lock() }

// Continue ends a Pause.
func (l *Load) Continue() { l.gate.Unlock() }

// Stop lets every connection finish its request and closes it.
func (l *Load) Stop() {
	if l.stop.CompareAndSwap(false, true) {
		close(l.halt)
	}
	l.done.Wait()
	l.closeAll()
}

// Timeline returns every request. The load must be stopped.
func (l *Load) Timeline() Timeline {
	var all Timeline
	for _, w := range l.workers {
		all = append(all, w.records...)
	}
	slices.SortFunc(all, func(a, b Record) int { return int(a.Start - b.Start) })
	return all
}

// Violations returns what was wrong, at most 20 of it, and how much there was.
func (l *Load) Violations() ([]string, int) {
	l.model.mu.Lock()
	defer l.model.mu.Unlock()
	return slices.Clone(l.model.violations), l.model.count
}

// Unconfirmed counts the keys of a shard whose newest acknowledged version has
// not been seen in a replica yet.
func (l *Load) Unconfirmed(shard int) (n int) {
	for _, k := range l.byShard[shard] {
		k.mu.Lock()
		if k.acked > k.floor {
			n++
		}
		k.mu.Unlock()
	}
	return n
}

// Keys lists the keys of a shard.
func (l *Load) Keys(shard int) []string {
	var names []string
	for _, k := range l.byShard[shard] {
		names = append(names, k.name)
	}
	return names
}

// Version returns the version of a value read for key; an error when the load
// never wrote it there.
func (l *Load) Version(key string, value []byte) (int64, error) {
	return decode(key, value, l.cfg.Padding)
}

// Final is what was found when all keys were read at the end.
type Final struct {
	// Keys read, and how many were at a version below the newest acknowledged.
	Keys, Behind int
	// Examples of the keys that were behind.
	Examples []string
}

// ReadAll reads every key through a proxy after the load was stopped. Every
// value passes the same checks as reads under load (see Violations); Final
// tells how many keys lost acknowledged writes at all.
func (l *Load) ReadAll(ctx context.Context, addr string) (Final, error) {
	c, err := Dial(ctx, addr, l.cfg.Username, l.cfg.Password)
	if err != nil {
		return Final{}, err
	}
	defer c.Close()
	var f Final
	for _, k := range l.model.keys {
		b := l.model.beginRead(k)
		r, err := c.Do("GET", k.name)
		if err == nil {
			err = r.Err
		}
		if err != nil {
			return f, fmt.Errorf("final read of %s: %w", k.name, err)
		}
		l.model.endRead(k, b, r.Text, l.cfg.Padding, "final read")
		f.Keys++
		version := int64(0)
		if r.Text != nil {
			if version, err = decode(k.name, r.Text, l.cfg.Padding); err != nil {
				continue // endRead has noted it
			}
		}
		if version < k.acked {
			f.Behind++
			if len(f.Examples) < 5 {
				f.Examples = append(f.Examples, fmt.Sprintf("%s shows %d, acknowledged %d, seen in a replica %d", k.name, version, k.acked, k.floor))
			}
		}
	}
	return f, nil
}

// fill connects and writes the first version of the worker's keys.
func (w *worker) fill(ctx context.Context) error {
	c, err := Dial(ctx, w.address(), w.load.cfg.Username, w.load.cfg.Password)
	if err != nil {
		return err
	}
	w.conn = c
	for _, k := range w.own {
		if r := w.write(k); r.Class != OK {
			return fmt.Errorf("first write of %s: %s", k.name, r.Text)
		}
	}
	w.records = nil
	return nil
}

func (w *worker) address() string {
	return w.load.cfg.Addresses[w.id%len(w.load.cfg.Addresses)]
}

func (w *worker) run() {
	rng := rand.New(rand.NewPCG(uint64(w.id), 7)) //nolint:gosec // not a secret
	timer := time.NewTimer(0)
	defer timer.Stop()
	all := w.load.byShard[w.shard]
	for next := 0; ; {
		pause := time.Duration(rng.Int64N(int64(2*w.load.cfg.Pace) + 1))
		timer.Reset(pause)
		select {
		case <-w.load.halt:
			return
		case <-timer.C:
		}
		w.load.gate.RLock()
		switch what := rng.IntN(10); {
		case what < 5:
			w.write(w.own[next%len(w.own)])
			next++
		case what < 9:
			w.read("GET", all[rng.IntN(len(all))])
		default:
			w.read("MGET", all[rng.IntN(len(all))], all[rng.IntN(len(all))], all[rng.IntN(len(all))])
		}
		w.load.gate.RUnlock()
	}
}

func (w *worker) write(k *keyState) Record {
	version, span := w.load.model.beginWrite(k)
	rec := Record{Write: true, Key: k.name, Version: version}
	record, _ := w.do(rec, "SET", k.name, encode(k.name, version, w.load.cfg.Padding))
	w.load.model.endWrite(k, version, span, record.Class)
	return record
}

func (w *worker) read(command string, keys ...*keyState) {
	args := []string{command}
	bounds := make([]bound, len(keys))
	for i, k := range keys {
		args = append(args, k.name)
		bounds[i] = w.load.model.beginRead(k)
	}
	record, reply := w.do(Record{}, args...)
	if record.Class != OK {
		return
	}
	values := []Reply{reply}
	if command == "MGET" {
		values = reply.Array
	}
	if len(values) != len(keys) {
		w.load.model.violate("%s of %d keys has %d values", command, len(keys), len(values))
		return
	}
	for i, k := range keys {
		where := fmt.Sprintf("connection %d at %s, begun at %s", w.id, record.End(), record.Start)
		w.load.model.endRead(k, bounds[i], values[i].Text, w.load.cfg.Padding, where)
	}
}

// do sends one request, connecting first if the connection was lost, and
// records it.
func (w *worker) do(rec Record, args ...string) (Record, Reply) {
	rec.Start, rec.Shard, rec.Conn = w.load.Now(), w.shard, w.id
	reply, class, err := w.attempt(args)
	rec.Latency = w.load.Now() - rec.Start
	rec.Class = class
	if err != nil {
		rec.Text = err.Error()
		if class == Disconnected || class == Refused {
			rec.Text = plainNetError(err)
		}
	}
	w.records = append(w.records, rec)
	return rec, reply
}

func (w *worker) attempt(args []string) (Reply, Class, error) {
	if w.conn != nil && w.conn.Closed() {
		// Nothing was in flight: a client that looks first has lost nothing.
		w.conn.Close()
		w.conn = nil
	}
	if w.conn == nil {
		c, err := Dial(context.Background(), w.address(), w.load.cfg.Username, w.load.cfg.Password)
		if err != nil {
			return Reply{}, Refused, err
		}
		w.conn = c
	}
	reply, err := w.conn.Do(args...)
	switch {
	case err != nil:
		w.conn.Close()
		w.conn = nil
		return reply, Disconnected, err
	case reply.Err != nil:
		return reply, classify(reply.Err), reply.Err
	}
	return reply, OK, nil
}

// plainNetError drops the addresses, so that equal errors count as equal.
func plainNetError(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}
