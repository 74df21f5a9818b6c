package conformance

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Numbers of generated sequences, and their length in steps.
const (
	sequences = 1500
	steps     = 25
)

// setting reads a number from the environment.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func start(t *testing.T, shards int) *runner {
	t.Helper()
	c := harness.Start(t, harness.Options{Shards: shards, Replicas: -1, Flags: []string{"--enable-debug"}})
	r := &runner{
		t: t, oneShard: shards == 1,
		redis: &side{addr: harness.StartRedis(t, "--enable-debug-command", "yes").Address}, basalt: &side{addr: c.Proxies[0]},
		node:     &side{addr: harness.StartRedis(t, "--cluster-enabled", "yes").Address},
		failures: map[string]bool{}, differences: differences(), missing: map[string]*difference{},
	}
	for _, d := range missing() {
		if r.missing[d.command] != nil {
			t.Fatalf("%s is declared missing twice", d.command)
		}
		r.missing[d.command] = d
	}
	if p, err := r.node.ask(words("CLUSTER ADDSLOTSRANGE 0 16383")); err != nil || string(p.raw) != "+OK\r\n" {
		t.Fatalf("the node of a cluster: %s, %v", p, err)
	}
	harness.Eventually(t, 10*time.Second, "the node serves its cluster", func() error {
		p, err := r.node.ask(words("GET x"))
		if err == nil && !p.null {
			err = fmt.Errorf("GET: %s", p)
		}
		return err
	})
	r.learn()
	only := func(d *difference) bool { return d.only != nil && !d.only(r.version) }
	r.differences = slices.DeleteFunc(r.differences, only)
	r.absent = map[string]bool{}
	for name, d := range r.missing {
		if only(d) {
			r.absent[name] = true
			delete(r.missing, name)
		}
	}
	return r
}

// learn asks the server for its commands.
func (r *runner) learn() {
	r.specs = map[string]*spec{}
	info, err := r.redis.ask(words("INFO server"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.version = versionOf(string(info.text))
	p, err := r.redis.ask(words("COMMAND"))
	if err != nil || len(p.items) < 200 {
		r.t.Fatalf("COMMAND: %s, %v", p, err)
	}
	var add func(reply)
	add = func(p reply) {
		s := &spec{name: string(p.items[0].text)}
		s.arity, _ = strconv.Atoi(string(p.items[1].text))
		for _, flag := range p.items[2].items {
			s.write = s.write || string(flag.text) == "write"
			s.reads = s.reads || string(flag.text) == "readonly"
		}
		s.hasKeys = len(p.items[8].items) > 0
		for _, sub := range p.items[9].items {
			s.container = true
			add(sub)
		}
		r.specs[s.name] = s
	}
	for _, item := range p.items {
		add(item)
	}
	list, err := r.redis.ask(words("COMMAND LIST"))
	if err != nil || len(list.items) != len(r.specs) {
		r.t.Fatalf("COMMAND LIST has %d commands, COMMAND %d: %v", len(list.items), len(r.specs), err)
	}
}

// TestConformance is the whole of it; see the package's comment.
func TestConformance(t *testing.T) {
	r := start(t, 3)
	begin := time.Now()
	step := func(name string, f func()) {
		from, n := time.Now(), r.commands
		f()
		t.Logf("%s: %d commands in %s", name, r.commands-n, time.Since(from).Round(time.Millisecond))
	}
	written, err := cases()
	if err != nil {
		t.Fatal(err)
	}
	step("hand-written", func() { r.handWritten(written) })
	r.requireCoverage()
	step("refused", func() { r.refused(written) })
	step("arities", r.arities)
	step("mutations", func() { r.mutations(written) })
	step("types", func() { r.types(written) })
	step("slots", func() { r.slots(written) })
	step("generated", r.generated)
	r.table()
	t.Logf("%d sequences, %d commands compared in %s", r.sequences, r.commands, time.Since(begin).Round(time.Millisecond))
}

// TestOneShard: with one shard it is all the same wherever keys are.
func TestOneShard(t *testing.T) {
	r := start(t, 1)
	written, err := cases()
	if err != nil {
		t.Fatal(err)
	}
	r.handWritten(written)
	r.generated()
	t.Logf("%d sequences, %d commands compared", r.sequences, r.commands)
}

// spreads tells if a sequence means the same when its keys lie in many slots.
func (r *runner) spreads(seq []command) bool {
	if r.oneShard {
		return true
	}
	inMulti := false
	together := map[string]bool{} // keys that must lie in one slot
	for _, c := range seq {
		name := r.nameOf(c.args(false))
		inMulti = name == "multi" || inMulti && name != "exec" && name != "discard"
		if inMulti || name == "watch" {
			for _, k := range c.keys() {
				together[k] = true
			}
		}
		if len(together) > 1 || len(c.keys()) > 1 && !isSplit(name) {
			return false
		}
	}
	return !inMulti
}

func usable(seq []command) bool {
	return !slices.ContainsFunc(seq, func(c command) bool { return c.refused })
}

func (r *runner) handWritten(written []sequence) {
	for _, s := range written {
		if !usable(s.commands) {
			continue
		}
		for _, proto := range []int{2, 3} {
			for _, tagged := range []bool{true, false} {
				if tagged && r.oneShard || !tagged && !r.spreads(s.commands) {
					continue
				}
				r.run(s.name, s.commands, variation{proto, tagged, false})
				if !s.once {
					r.run(s.name, s.commands, variation{proto, tagged, true})
				}
			}
		}
	}
}

// refused are commands that only the endpoint gets.
func (r *runner) refused(written []sequence) {
	for _, s := range written {
		for _, c := range s.commands {
			if !c.refused {
				continue
			}
			args := c.args(true)
			if r.absent[strings.ToLower(string(bytes.Join(args[:min(2, len(args))], []byte("|"))))] {
				continue // this server has no such command either
			}
			p, err := r.basalt.ask(args)
			name := r.nameOf(args)
			d := r.missing[name]
			if err != nil || d == nil || !d.matches(name, args, p) {
				r.t.Errorf("%s: %s: %s, %v; it must be refused, and declared missing", s.name, c.line(true), p, err)
				continue
			}
			d.seen++
			r.commands++
		}
	}
}

// requireCoverage fails for every command that no hand-written sequence shows
// at work, and for every one with data that the grammar does not know.
func (r *runner) requireCoverage() {
	forms, err := grammar()
	if err != nil {
		r.t.Fatal(err)
	}
	known := map[string]bool{}
	for _, f := range forms {
		known[f.name] = true
		if len(f.tokens) > 1 {
			known[f.name+"|"+strings.ToLower(f.tokens[1])] = true
		}
	}
	for _, name := range r.names() {
		s := r.specs[name]
		if s.normals == 0 && r.missing[name] == nil && !dangerous(name) && !neverAnswers(name) && !s.container {
			r.t.Errorf("%s: no hand-written sequence in which the server answers it without an error", name)
		}
		if (s.write || s.reads) && !dangerous(name) && !known[name] && !slices.Contains(ungenerated, name) {
			r.t.Errorf("%s: not in the grammar", name)
		}
	}
}

// dangerous are commands a plain server must not get.
func dangerous(name string) bool {
	return slices.Contains(strings.Fields("shutdown replicaof slaveof failover replconf psync sync monitor migrate module|load module|loadex module|unload"), name)
}

// neverAnswers are commands that a plain server answers with errors only.
func neverAnswers(name string) bool {
	return strings.HasPrefix(name, "cluster") || slices.Contains(strings.Fields(
		"asking readonly readwrite auth config|rewrite acl|load acl|save script|kill function|kill client|kill object|freq latency|graph"), name)
}

// ungenerated commands read or write, but not the data that sequences are about.
var ungenerated = strings.Fields("lolwut function|delete function|flush function|load function|restore")

// names of all commands, sorted.
func (r *runner) names() (names []string) {
	for name := range r.specs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// arities sends every command with too few and too many arguments.
func (r *runner) arities() {
	for i, name := range r.names() {
		s := r.specs[name]
		base := strings.Split(name, "|")
		var seq []command
		add := func(n int) {
			c := command{}
			for _, w := range base {
				c.words = append(c.words, word{text: w})
			}
			for len(c.words) < n {
				c.words = append(c.words, word{text: "x"})
			}
			seq = append(seq, c)
		}
		least := max(s.arity, -s.arity)
		for n := len(base); n < least; n++ {
			add(n)
		}
		if s.arity > 0 {
			add(least + 1)
			add(least + 3)
		}
		if strings.HasPrefix(name, "cluster|") {
			add(least) // cluster mode is off
		}
		if s.container {
			seq = append(seq, command{words: []word{{text: base[0]}, {text: "nosuch"}}}, command{words: []word{{text: base[0]}, {text: ""}, {text: "x"}}})
		}
		if name == "quit" || len(seq) == 0 {
			continue
		}
		r.run("arity of "+name, seq, variation{2 + i%2, true, false})
	}
}

// sensitive commands change how the connection or the server goes on, or wait:
// nothing is made of them.
func sensitive(name string) bool {
	base, _, _ := strings.Cut(name, "|")
	return dangerous(name) || strings.HasSuffix(name, "subscribe") || slices.Contains(strings.Fields(
		"multi exec discard watch unwatch quit reset hello auth acl config debug script function cluster asking wait"), base) ||
		slices.Contains(strings.Fields("client|reply client|pause client|kill client|tracking client|unblock client|caching select save bgsave bgrewriteaof"), name)
}

// mutations runs every hand-written sequence with each of its commands made
// wrong in every place.
func (r *runner) mutations(written []sequence) {
	n := 0
	for _, s := range written {
		if s.once || !usable(s.commands) {
			continue
		}
		seen := map[string]bool{}
		for i, c := range s.commands {
			args := c.args(true)
			name := r.nameOf(args)
			form := fmt.Sprint(name, len(args))
			if sensitive(name) || r.missing[name] != nil || seen[form] || name == "spop" || howOf(name, args) == shape && name == "xadd" {
				continue
			}
			seen[form] = true
			seq := slices.Clone(s.commands[:i])
			seq = slices.DeleteFunc(seq, func(c command) bool {
				name := r.nameOf(c.args(true))
				return sensitive(name) || r.missing[name] != nil
			})
			first := 1 + strings.Count(name, "|")
			for at := first; at < len(c.words); at++ {
				seq = append(seq, c.with(at))
				if c.words[at].key {
					continue
				}
				for _, wrong := range []string{"bogus", "", "-1", "99999999999999999999", "1.5", "\x00\r\n\xff"} {
					if strings.Contains(name, "b") && (wrong == "-1" || wrong == "1.5") && r.waits(c) {
						continue
					}
					seq = append(seq, c.with(at, word{text: wrong}))
				}
			}
			more := c
			more.words = append(slices.Clone(c.words), word{text: "extra"})
			lower := c
			lower.words = slices.Clone(c.words)
			lower.words[0].text = strings.ToLower(c.words[0].text)
			seq = append(seq, more, lower)
			n++
			r.run(fmt.Sprintf("mutations of %s, %s", s.name, c.line(true)), seq, variation{2 + n%2, true, n%3 > 0})
		}
	}
}

// waits tells if a command may wait for data.
func (r *runner) waits(c command) bool {
	name := strings.ToLower(c.words[0].text)
	return strings.HasPrefix(name, "bl") || strings.HasPrefix(name, "br") || strings.HasPrefix(name, "bz") || strings.HasPrefix(name, "xread")
}

// keysOfTypes make the key of each type.
var keysOfTypes = []string{"SET @ value", "RPUSH @ a b c", "HSET @ f v g 2", "SADD @ a b c", "ZADD @ 1 a 2 b", "XADD @ 1-1 f v"}

// types runs every hand-written command on keys of every type.
func (r *runner) types(written []sequence) {
	seen := map[string]bool{}
	n := 0
	for _, s := range written {
		if s.once || !usable(s.commands) {
			continue
		}
		for _, c := range s.commands {
			name := r.nameOf(c.args(true))
			keys := c.keys()
			if len(keys) == 0 || sensitive(name) || r.missing[name] != nil || seen[c.line(false)] {
				continue
			}
			seen[c.line(false)] = true
			var seq []command
			for _, line := range keysOfTypes {
				for _, k := range keys {
					made := command{words: []word{{text: "DEL"}, {k, true}}}
					seq = append(seq, made)
					made, err := parse(line)
					if err != nil {
						r.t.Fatal(err)
					}
					made.words[1].text = k
					seq = append(seq, made)
				}
				seq = append(seq, c)
			}
			n++
			r.run("types for "+c.line(true), seq, variation{2 + n%2, true, true})
		}
	}
}

// slots: a command whose keys lie in different slots is refused as a Redis
// Cluster refuses it.
func (r *runner) slots(written []sequence) {
	for _, s := range written {
		if !usable(s.commands) {
			continue
		}
		for _, c := range s.commands {
			args := c.args(false)
			name := r.nameOf(args)
			if len(c.keys()) < 2 || isSplit(name) || r.missing[name] != nil || name == "sort" || name == "sort_ro" || strings.HasPrefix(name, "command|") {
				continue
			}
			a, err := r.node.ask(args)
			if err != nil {
				r.t.Fatal(err)
			}
			b, err := r.basalt.ask(args)
			if err != nil {
				r.t.Fatal(err)
			}
			r.commands++
			if d, _ := r.explain(request{name: name, args: args}, false, a, b); d != nil && d != inCluster {
				continue
			}
			if crosses(a) != crosses(b) {
				r.t.Errorf("%s: %s: a node of a cluster says %s, the endpoint %s", s.name, c.line(false), a, b)
			}
		}
	}
}

// generated runs sequences made from the grammar.
func (r *runner) generated() {
	seed := setting(r.t, "BASALT_CONFORMANCE_SEED", 1)
	n := setting(r.t, "BASALT_CONFORMANCE_SEQUENCES", sequences)
	if r.oneShard {
		n /= 4
	}
	r.t.Logf("BASALT_CONFORMANCE_SEED=%d BASALT_CONFORMANCE_SEQUENCES=%d", seed, n)
	all, err := grammar()
	if err != nil {
		r.t.Fatal(err)
	}
	var forms []form
	for _, f := range all {
		sub := ""
		if len(f.tokens) > 1 {
			sub = f.name + "|" + strings.ToLower(f.tokens[1])
		}
		if r.specs[f.name] == nil {
			continue // later servers have it
		}
		if r.missing[f.name] == nil && r.missing[sub] == nil {
			forms = append(forms, f)
		}
	}
	for i := range n {
		g := generator{rand.New(rand.NewPCG(seed, i)), forms, r.missing["multi"] == nil}
		v := variation{2 + int(i%2), i%4 < 2 && !r.oneShard, i%8 < 4}
		r.run(fmt.Sprintf("generated %d/%d", seed, i), g.sequence(steps, v.tagged || r.oneShard), v)
	}
}
