package conformance

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// spec is what the server says of one command.
type spec struct {
	name           string
	arity          int
	write, reads   bool
	container      bool
	hasKeys        bool
	calls, normals int // compared; answered by the plain server without an error
}

// runner compares the two sides and counts.
type runner struct {
	t                   *testing.T
	redis, basalt, node *side
	version             version
	specs               map[string]*spec
	missing             map[string]*difference
	absent              map[string]bool // refused commands that the server does not have
	differences         []*difference
	failures            map[string]bool
	sequences, commands int
	// oneShard: the cluster has one, so keys may be in any slots.
	oneShard bool
}

// nameOf finds the command of a request: "config|get" for CONFIG GET. Unknown
// ones are called by their first word.
func (r *runner) nameOf(args [][]byte) string {
	name := strings.ToLower(string(args[0]))
	if s := r.specs[name]; s != nil && s.container && len(args) > 1 {
		sub := name + "|" + strings.ToLower(string(args[1]))
		if r.specs[sub] != nil {
			return sub
		}
	}
	return name
}

// verdict on one command of a sequence.
type verdict struct {
	at            int
	ours, theirs  reply // of the plain server, of the endpoint
	name          string
	explained     *difference
	stop, differs bool
}

// both runs a sequence on both sides at once.
func (r *runner) both(seq []command, v variation) (ours, theirs []reply, err error) {
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { ours, errs[0] = r.redis.run(seq, v) })
	wg.Go(func() { theirs, errs[1] = r.basalt.run(seq, v) })
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, nil, err
		}
	}
	return ours, theirs, nil
}

// judge compares the replies to a sequence and calls f for each command until
// the rest has nothing to say any more.
func (r *runner) judge(seq []command, v variation, ours, theirs []reply, f func(verdict)) {
	queued := map[bool][]request{}
	for i, c := range seq {
		args := c.args(v.tagged)
		d := verdict{at: i, ours: ours[i], theirs: theirs[i], name: r.nameOf(args)}
		h := howOf(d.name, args)
		switch {
		case string(d.ours.raw) == "+QUEUED\r\n":
			if crosses(d.theirs) && r.crossesInExec(queued[c.second], args) {
				d.explained, d.differs, d.stop = inTransaction, true, true
				f(d)
				return
			}
			queued[c.second] = append(queued[c.second], request{d.name, args, h})
			h = exact
		case d.name == "exec":
			d.differs, d.explained, d.stop = r.judgeExec(queued[c.second], d.ours, d.theirs)
			queued[c.second] = nil
		case d.name == "discard" || d.name == "reset":
			queued[c.second] = nil
		}
		if d.name != "exec" {
			d.differs = !same(h, d.ours, d.theirs)
		}
		if d.differs && d.explained == nil {
			d.explained, d.stop = r.explain(request{d.name, args, h}, false, d.ours, d.theirs)
			d.stop = d.stop || d.explained == nil
		}
		f(d)
		if d.stop {
			return
		}
	}
	for i := len(seq); i < len(ours); i++ { // the pushes
		if !same(exact, ours[i], theirs[i]) {
			f(verdict{at: len(seq) - 1, ours: ours[i], theirs: theirs[i], name: "push", differs: true})
		}
	}
}

// request is a command that was sent, and how its replies are compared.
type request struct {
	name string
	args [][]byte
	how  how
}

// judgeExec compares what the commands of a transaction returned, each in its
// own way. explained is one of the differences, if all are declared.
func (r *runner) judgeExec(queued []request, a, b reply) (differs bool, explained *difference, stop bool) {
	if a.kind != '*' || a.kind != b.kind || len(a.items) != len(b.items) || len(a.items) != len(queued) {
		return !same(exact, a, b), nil, false
	}
	for i, q := range queued {
		if q.how == scanned {
			q.how = shape // one page
		}
		if same(q.how, a.items[i], b.items[i]) {
			continue
		}
		d, stops := r.explain(q, true, a.items[i], b.items[i])
		if d == nil {
			return true, nil, true
		}
		differs, explained, stop = true, d, stop || stops
	}
	return differs, explained, stop
}

// inTransaction explains a CROSSSLOT to a command that is queued.
var inTransaction = &difference{why: "commands of one transaction with keys of different slots: CROSSSLOT when they are queued, as a Redis Cluster says at EXEC", seen: 1}

// crossesInExec tells if a Redis Cluster refuses a transaction of these commands
// for the slots of its keys.
func (r *runner) crossesInExec(queued []request, last [][]byte) bool {
	all := [][][]byte{{[]byte("MULTI")}}
	for _, q := range queued {
		all = append(all, q.args)
	}
	all = append(all, last, [][]byte{[]byte("EXEC")})
	var p reply
	for _, args := range all {
		var err error
		if p, err = r.node.ask(args); err != nil {
			return false
		}
	}
	return crosses(p)
}

// crosses tells if a reply is CROSSSLOT: that of the endpoint says more than Redis's.
func crosses(p reply) bool {
	return strings.HasPrefix(string(p.raw), "-CROSSSLOT Keys in request don't hash to the same slot")
}

// inCluster explains a CROSSSLOT: a Redis Cluster says it too.
var inCluster = &difference{why: "keys of different slots: CROSSSLOT, as a Redis Cluster says before it looks at anything else", seen: 1}

// explain finds the declared difference that covers a reply. stop says that the
// data may differ from here on.
func (r *runner) explain(req request, queued bool, ours, theirs reply) (d *difference, stop bool) {
	if !r.oneShard && crosses(theirs) {
		if p, err := r.node.ask(req.args); err == nil && crosses(p) {
			return inCluster, !ours.isError()
		}
	}
	if d := r.missing[req.name]; d != nil && d.matches(req.name, req.args, theirs) {
		return d, !ours.isError()
	}
	for _, d := range r.differences {
		if r.oneShard && d.why == patterns {
			continue
		}
		if (queued || !d.queued) && d.matches(req.name, req.args, theirs) {
			return d, !d.harmless && !ours.isError()
		}
	}
	return nil, true
}

// ask asks on the control connection.
func (s *side) ask(args [][]byte) (reply, error) {
	if s.control == nil || s.control.gone {
		w, err := dial(s.addr)
		if err != nil {
			return reply{}, err
		}
		s.control = w
	}
	return s.control.do(args)
}

// run runs a sequence, counts, and reports what is not declared.
func (r *runner) run(name string, seq []command, v variation) {
	r.t.Helper()
	begin := time.Now()
	ours, theirs, err := r.both(seq, v)
	if took := time.Since(begin); took > time.Second/2 {
		r.t.Logf("%s (%s) took %s", name, v, took.Round(time.Millisecond))
	}
	if err != nil {
		r.t.Errorf("%s (%s): %v", name, v, err)
		return
	}
	r.sequences++
	for i, c := range seq {
		if s := r.specs[r.nameOf(c.args(v.tagged))]; s != nil && !ours[i].isError() {
			s.normals++
		}
	}
	r.judge(seq, v, ours, theirs, func(d verdict) {
		r.commands++
		if s := r.specs[d.name]; s != nil {
			s.calls++
		}
		switch {
		case !d.differs:
		case d.explained != nil:
			d.explained.seen++
		default:
			r.fail(name, seq, v, d)
		}
	})
}

// mostFailures is how many different failures are reported.
const mostFailures = 60

// fail reports a failure once.
func (r *runner) fail(name string, seq []command, v variation, d verdict) {
	r.t.Helper()
	key := fmt.Sprintf("%s %.60q %.60q", d.name, d.ours.raw, d.theirs.raw)
	if r.failures[key] || len(r.failures) > mostFailures {
		return
	}
	r.failures[key] = true
	short := r.minimise(seq[:d.at+1], v)
	flag := ""
	if v.proto == 3 {
		flag = " -3"
	}
	var script strings.Builder
	fmt.Fprintf(&script, "redis-cli%s -p $PORT <<'END'\nFLUSHALL\n", flag)
	for _, c := range short {
		if c.second {
			script.WriteString("# on another connection:\n")
		}
		script.WriteString(c.line(v.tagged) + "\n")
	}
	r.t.Errorf("%s (%s)\n%sEND\nredis:    %s\nendpoint: %s", name, v, script.String(), d.ours, d.theirs)
}
