package session

import (
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/fanout"
	"github.com/basalt-redis/basalt/proxy/pubsub"
)

// inquiry is a pubsub.Inquiry on its way: the owner of what is asked.
type inquiry struct {
	sh *Shared
	q  *pubsub.Inquiry
	// at is the slot whose master is asked; proto and db choose the connection.
	at        int
	proto, db uint8
	began     int64
	rounds    int
	// numbers are those of the signature that a list is asked for after.
	numbers []int64
	done    []func()
}

// inquiryRounds is how often one inquiry asks at most: patterns may change all the
// time.
const inquiryRounds = 4

// inquire asks the master of a slot, on connections of a request's kind, and calls
// done when it has answered. It is called at once when there is no master: then the
// loops are all that is known.
func (s *Shared) inquire(of *backend.Request, at int, q *pubsub.Inquiry, done func()) *inquiry {
	i := &inquiry{sh: s, q: q, at: at, proto: of.Proto, db: of.DB, began: s.Now, done: []func(){done}}
	i.ask()
	return i
}

func (i *inquiry) ask() {
	if i.rounds++; i.rounds > inquiryRounds {
		i.end()
		return
	}
	i.send(appendNumSub(i.q.Names()), i.answered)
}

// send sends a request; take is called with the reply.
func (i *inquiry) send(raw []byte, take func(reply []byte)) {
	sh := i.sh
	owner := sh.ownerOf(i.at)
	if owner < 0 || sh.Table.Shards[owner].Held() || sh.Router.Away(owner) {
		take(nil)
		return
	}
	r := sh.Requests.Get()
	r.Owner, r.Start = &asked{sh: sh, take: take}, sh.Now
	r.Slot, r.Proto, r.DB, r.ReadOnly = int32(i.at), i.proto, i.db, true
	sh.Router.Route(r, raw)
}

// answered takes the reply to NUMSUB.
func (i *inquiry) answered(reply []byte) {
	switch i.q.Take(numSubNumbers(reply)) {
	case pubsub.AskAgain:
		i.ask()
	case pubsub.ListFirst:
		i.send(appendNumSub(pubsub.SignatureNames()), func(reply []byte) { i.numbers = numSubNumbers(reply) })
		i.send(appendCommand(nil, [][]byte{[]byte("PUBSUB"), []byte("CHANNELS"), []byte(pubsub.SurplusPattern)}), i.listed)
	default:
		i.end()
	}
}

// listed takes the list of patterns.
func (i *inquiry) listed(reply []byte) {
	elements, err := fanout.Elements(reply)
	if err != nil {
		i.end()
		return
	}
	names := make([]string, 0, len(elements))
	for _, element := range elements {
		if name, err := fanout.Bulk(element); err == nil {
			names = append(names, string(name))
		}
	}
	i.sh.Hub.Directory().Learn(i.numbers, names)
	i.ask()
}

func (i *inquiry) end() {
	for _, done := range i.done {
		done()
	}
	i.done = nil
}

// asked is the owner of a request of the proxy's own about a server.
type asked struct {
	sh   *Shared
	take func(reply []byte) // nil for none
}

// Reply takes the reply.
func (a *asked) Reply(r *backend.Request, piece []byte, last bool, _ byte) {
	if reply := a.sh.Collect(r, piece, last); last {
		a.take(reply)
	}
}

// Fail goes on without one.
func (a *asked) Fail(r *backend.Request, _ []byte) {
	r.Out.Reset(&a.sh.Pool)
	a.sh.Requests.Put(r)
	a.take(nil)
}

// elsewhere calls done with how many more clients of other proxies get a message than
// loops. Publications that are answered in one wake-up share one question: it is sent
// after all of them were executed.
func (s *Shared) elsewhere(of *backend.Request, kind pubsub.Kind, name []byte, done func(more int64)) {
	key := inquiryKey{kind, string(name)}
	if i := s.inquiries[key]; i != nil && i.began == s.Now && i.done != nil {
		i.done = append(i.done, func() { done(i.q.AllElsewhere()) })
		return
	}
	if s.inquiries == nil {
		s.inquiries = map[inquiryKey]*inquiry{}
	}
	dir, at, patterns := s.Hub.Directory(), s.publishedAt(kind, name), s.Table.PatternSlot()
	if kind == pubsub.Channel && s.ownerOf(at) != s.ownerOf(patterns) {
		own, matching := dir.InquireSubscribers(kind, []string{key.name}), dir.InquireMatching(key.name)
		s.inquire(of, at, own, func() {
			s.inquire(of, patterns, matching, func() { done(own.AllElsewhere() + matching.AllElsewhere()) })
		})
		return
	}
	q := dir.InquireReceivers(kind, key.name)
	i := s.inquire(of, at, q, func() {
		if i := s.inquiries[key]; i != nil && i.q == q {
			delete(s.inquiries, key)
		}
		done(q.AllElsewhere())
	})
	if i.done != nil {
		s.inquiries[key] = i
	}
}

// inquiryKey is what one question is about.
type inquiryKey struct {
	kind pubsub.Kind
	name string
}

// appendNumSub makes PUBSUB NUMSUB.
func appendNumSub(names []string) []byte {
	args := make([][]byte, 0, len(names)+2)
	args = append(args, []byte("PUBSUB"), []byte("NUMSUB"))
	for _, name := range names {
		args = append(args, []byte(name))
	}
	return appendCommand(nil, args)
}

// numSubNumbers are the numbers of a reply to PUBSUB NUMSUB; nil of what is none.
func numSubNumbers(reply []byte) []int64 {
	elements, err := fanout.Elements(reply)
	if err != nil || len(elements)%2 != 0 {
		return nil
	}
	numbers := make([]int64, len(elements)/2)
	for i := range numbers {
		if numbers[i], err = fanout.Integer(elements[2*i+1]); err != nil {
			return nil
		}
	}
	return numbers
}
