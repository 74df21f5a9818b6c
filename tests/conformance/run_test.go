package conformance

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"time"
)

// variation is one way to run a sequence.
type variation struct {
	proto             int
	tagged, pipelined bool
}

func (v variation) String() string {
	s := fmt.Sprintf("RESP%d, keys spread", v.proto)
	if v.tagged {
		s = fmt.Sprintf("RESP%d, keys in one hash tag", v.proto)
	}
	if v.pipelined {
		s += ", pipelined"
	}
	return s
}

// side is one of the two that are compared: the plain server or the endpoint.
type side struct {
	addr    string
	control *wire
}

// wire is one connection.
type wire struct {
	net  net.Conn
	r    *bufio.Reader
	gone bool
	// off and skip follow CLIENT REPLY.
	off  bool
	skip int
	// pushes that came between replies.
	pushes []reply
}

// patience is how long a reply may take; PFSELFTEST takes seconds on a busy machine.
const patience = 10 * time.Second

func dial(addr string) (*wire, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &wire{net: conn, r: bufio.NewReaderSize(conn, 64<<10)}, nil
}

func (w *wire) close() { _ = w.net.Close() }

func appendRequest(dst []byte, args [][]byte) []byte {
	dst = fmt.Appendf(dst, "*%d\r\n", len(args))
	for _, a := range args {
		dst = fmt.Appendf(dst, "$%d\r\n", len(a))
		dst = append(append(dst, a...), "\r\n"...)
	}
	return dst
}

// write sends bytes without waiting until they are taken.
func (w *wire) write(b []byte) {
	if len(b) < 32<<10 {
		_, _ = w.net.Write(b) // who hung up is found out when reading
		return
	}
	go func() { _, _ = w.net.Write(b) }()
}

// receive reads the reply to a request: several in one for a subscription to
// several channels, none after CLIENT REPLY OFF.
func (w *wire) receive(args [][]byte) (reply, error) {
	name := strings.ToLower(string(args[0]))
	if name == "client" && len(args) == 3 && strings.EqualFold(string(args[1]), "reply") {
		switch strings.ToLower(string(args[2])) {
		case "off":
			w.off = true
		case "on":
			w.off, w.skip = false, 0
		case "skip":
			if !w.off {
				w.skip = 2
			}
		}
	}
	if w.skip > 0 {
		w.skip--
		return reply{}, nil
	}
	if w.off {
		return reply{}, nil
	}
	if strings.HasSuffix(name, "subscribe") && len(args) > 2 {
		var all reply
		for range args[1:] {
			one, err := w.one(true)
			if err != nil || one.kind != '*' && one.kind != '>' {
				return one, err
			}
			all.kind, all.raw, all.items = one.kind, append(all.raw, one.raw...), append(all.items, one)
		}
		return all, nil
	}
	return w.one(strings.HasSuffix(name, "subscribe"))
}

// one reads one reply and keeps pushes and messages that come before it.
func (w *wire) one(push bool) (reply, error) {
	if w.gone {
		return reply{kind: hungUp}, nil
	}
	for {
		_ = w.net.SetReadDeadline(time.Now().Add(patience))
		p, err := read(w.r)
		if err != nil {
			return p, err
		}
		w.gone = p.kind == hungUp || p.kind == noReply
		if p.kind == '>' && !push || message(p) {
			w.pushes = append(w.pushes, p)
			continue
		}
		return p, nil
	}
}

// message tells if a reply is one of a subscription.
func message(p reply) bool {
	if p.kind != '*' && p.kind != '>' || len(p.items) < 3 {
		return false
	}
	kind := p.items[0].text
	return bytes.Equal(kind, []byte("message")) || bytes.Equal(kind, []byte("pmessage")) || bytes.Equal(kind, []byte("smessage"))
}

func (w *wire) do(args [][]byte) (reply, error) {
	w.write(appendRequest(nil, args))
	return w.receive(args)
}

func words(line string) (args [][]byte) {
	for w := range strings.FieldsSeq(line) {
		args = append(args, []byte(w))
	}
	return args
}

// clean makes a side as it was at the start: no data, and of scripts the one
// that EVALSHA is tried with, on every shard.
func (s *side) clean(seq []command) error {
	lines := []string{"FLUSHALL"}
	scripts, evalsha := false, false
	for _, c := range seq {
		name := strings.ToUpper(c.words[0].text)
		scripts = scripts || name == "SCRIPT" || name == "FUNCTION"
		evalsha = evalsha || strings.HasPrefix(name, "EVALSHA")
	}
	if scripts {
		lines = append(lines, "FUNCTION FLUSH", "SCRIPT FLUSH")
	}
	if evalsha {
		lines = append(lines, "EVAL return\x001 1 {t}")
		for key := range 16 {
			lines = append(lines, fmt.Sprintf("EVAL return\x001 1 %d", key))
		}
	}
	if s.control == nil || s.control.gone {
		w, err := dial(s.addr)
		if err != nil {
			return err
		}
		s.control = w
	}
	for _, line := range lines {
		args := words(line)
		for i := range args {
			args[i] = bytes.ReplaceAll(args[i], []byte{0}, []byte(" "))
		}
		p, err := s.control.do(args)
		if err != nil {
			return err
		}
		if line == "FLUSHALL" && string(p.raw) != "+OK\r\n" {
			return fmt.Errorf("%s: FLUSHALL: %s", s.addr, p)
		}
	}
	return nil
}

// run runs a sequence from an empty database on connections of its own. It
// returns one reply for each command, and one more per connection for its
// pushes. s does not run anything else meanwhile.
func (s *side) run(seq []command, v variation) ([]reply, error) {
	if err := s.clean(seq); err != nil {
		return nil, err
	}
	var wires [2]*wire
	defer func() {
		for _, w := range wires {
			if w != nil {
				w.close()
			}
		}
	}()
	for i := range wires {
		if i == 1 && !hasSecond(seq) {
			break
		}
		w, err := dial(s.addr)
		if err != nil {
			return nil, err
		}
		wires[i] = w
		if v.proto == 3 {
			if p, err := w.do(words("HELLO 3")); err != nil || p.kind != '%' {
				return nil, fmt.Errorf("%s: HELLO 3: %s, %w", s.addr, p, err)
			}
		}
	}
	replies := make([]reply, len(seq), len(seq)+2)
	var err error
	if v.pipelined && !hasSecond(seq) {
		err = pipeline(wires[0], seq, v, replies)
	} else {
		err = oneByOne(wires, seq, v, replies)
	}
	if err != nil {
		return nil, err
	}
	for _, w := range wires {
		if w == nil {
			continue
		}
		all := reply{kind: '>', items: w.pushes}
		for _, p := range w.pushes {
			all.raw = append(all.raw, p.raw...)
		}
		replies = append(replies, all)
	}
	return replies, nil
}

func hasSecond(seq []command) bool {
	for _, c := range seq {
		if c.second || c.later {
			return true
		}
	}
	return false
}

func oneByOne(wires [2]*wire, seq []command, v variation, replies []reply) (err error) {
	var waiting [2][]int // commands of each connection that were not answered
	settle := func(n int) error {
		for _, i := range waiting[n] {
			if replies[i], err = wires[n].receive(seq[i].args(v.tagged)); err != nil {
				return err
			}
		}
		waiting[n] = nil
		return nil
	}
	for i, c := range seq {
		n := 0
		if c.second {
			n = 1
		}
		args := c.args(v.tagged)
		if err := settle(n); err != nil {
			return err
		}
		wires[n].write(appendRequest(nil, args))
		waiting[n] = append(waiting[n], i)
		if c.later {
			time.Sleep(30 * time.Millisecond) // until it waits
			continue
		}
		if err := settle(n); err != nil {
			return err
		}
		if err := iterate(wires[n], args, &replies[i]); err != nil {
			return err
		}
	}
	for n := range wires {
		if err := settle(n); err != nil {
			return err
		}
	}
	return nil
}

// pipeline sends runs of commands at once; an iteration ends a run.
func pipeline(w *wire, seq []command, v variation, replies []reply) (err error) {
	for from := 0; from < len(seq); {
		to := from
		var out []byte
		for to < len(seq) {
			args := seq[to].args(v.tagged)
			out = appendRequest(out, args)
			to++
			if iterates(args) {
				break
			}
		}
		w.write(out)
		for i := from; i < to; i++ {
			if replies[i], err = w.receive(seq[i].args(v.tagged)); err != nil {
				return fmt.Errorf("%s: %w", seq[i].line(v.tagged), err)
			}
		}
		if err := iterate(w, seq[to-1].args(v.tagged), &replies[to-1]); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// cursorAt is the index of a cursor of 0, which begins an iteration; 0 if the
// request is none.
func cursorAt(args [][]byte) int {
	at := 2
	switch strings.ToLower(string(args[0])) {
	case "scan":
		at = 1
	case "hscan", "sscan", "zscan":
	default:
		return 0
	}
	if len(args) <= at || string(args[at]) != "0" {
		return 0
	}
	return at
}

func iterates(args [][]byte) bool { return cursorAt(args) > 0 }

// mostPages bounds an iteration that does not end.
const mostPages = 10_000

// iterate goes on with an iteration until its end, and puts all pages into p.
func iterate(w *wire, args [][]byte, p *reply) error {
	at := cursorAt(args)
	if at == 0 || len(p.items) != 2 {
		return nil
	}
	all := reply{kind: p.kind, items: []reply{*p}}
	next := *p
	for len(next.items) == 2 && string(next.items[0].text) != "0" {
		if len(all.items) > mostPages {
			return fmt.Errorf("the iteration %q does not end", args)
		}
		own := append([][]byte(nil), args...)
		own[at] = next.items[0].text
		var err error
		if next, err = w.do(own); err != nil {
			return err
		}
		all.items = append(all.items, next)
	}
	for _, page := range all.items {
		all.raw = append(all.raw, page.raw...)
	}
	*p = all
	return nil
}
