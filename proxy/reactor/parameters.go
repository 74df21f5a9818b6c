package reactor

import (
	"bytes"
	"sync"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/session"
)

// maxWaiting is how many changes may wait for those before them, and
// maxWaitingBytes how long they may be together.
const (
	maxWaiting      = 4096
	maxWaitingBytes = 16 << 20
)

var lineManySets = []byte("-ERR CONFIG SET failed - too many wait for the Configserver, nothing was changed\r\n")

// inOrder runs functions one after the other, in the order they came.
type inOrder struct {
	mu      sync.Mutex
	waiting []change
	bytes   int
	running bool
}

// change is what waits, and how many bytes it is about.
type change struct {
	run   func()
	bytes int
}

// add has f run, which is about some bytes; false when too many wait.
func (q *inOrder) add(bytes int, f func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= maxWaiting || q.bytes+bytes > maxWaitingBytes {
		return false
	}
	q.bytes += bytes
	q.waiting = append(q.waiting, change{f, bytes})
	if !q.running {
		q.running = true
		go q.run()
	}
	return true
}

func (q *inOrder) run() {
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 {
			q.running = false
			q.mu.Unlock()
			return
		}
		next := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.mu.Unlock()
		next.run()
		q.mu.Lock()
		q.bytes -= next.bytes
		q.mu.Unlock()
	}
}

// configSet answers CONFIG SET. Several of one transaction stay in their order.
func (l *loop) configSet(c *session.Client, r *backend.Request, args [][]byte) {
	set := l.eng.cfg.ConfigSet
	if set == nil {
		c.Complete(r, lineNoAnswer)
		return
	}
	size := 0
	for _, a := range args {
		size += len(a)
	}
	if !l.eng.sets.add(size, func() {
		reply := set(nil, args)
		l.post(func() {
			done := func() { c.Complete(r, reply) }
			if micros, is := slowerThan(args); is && bytes.Equal(reply, lineOK) {
				l.SlowFrom(micros, done)
				return
			}
			done()
		})
	}) {
		c.Complete(r, lineManySets)
	}
}

// Parameters answers CONFIG GET from the reply of a server.
func (l *loop) Parameters(c *session.Client, r *backend.Request, args [][]byte, server []string) {
	get := l.eng.cfg.ConfigGet
	if get == nil {
		c.Complete(r, lineNoAnswer)
		return
	}
	proto := int(r.Proto)
	go func() {
		reply := get(nil, args, proto, server)
		l.post(func() { c.Complete(r, reply) })
	}()
}
