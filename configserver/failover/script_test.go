package failover

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// TestScripts runs the golden scripts in testdata: what happens to a shard, and
// what is decided, on a clock of its own. Regenerate with -rewrite and review
// the difference. Commands:
//
//	shard nodes=3 [max-failovers=N]   a new serving shard; n0 is master
//	kill|pause|resume n1              what happens to a server
//	restart n1 [keys=N]               a new process, with so many keys
//	lookup                            the nodes are registered by names from here on
//	move n1 10.0.0.9:6379             its name leads there, and its process is there
//	cut|heal n1                       the Configserver's network to a node
//	proxy p1 ok|refused|timeout       what a proxy reports about the master
//	sort p1, sorted p1                a proxy sent a command that takes long, and has its reply
//	write N                           bytes written by the master
//	tick 5s                           time passes; prints every change of what is found
//	plan                              what is found now, and who would be elected
//	act                               does what is due, as the executor would
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		var w *world
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "shard" {
				var nodes int
				d.ScanArgs(t, "nodes", &nodes)
				w = newWorld(nodes)
				if d.HasArg("max-failovers") {
					d.ScanArgs(t, "max-failovers", &w.c.Policy.MaxFailovers)
				}
				return ""
			}
			return w.run(t, d)
		})
	})
}

func (w *world) run(t *testing.T, d *datadriven.TestData) string {
	arg := func(i int) string {
		if i >= len(d.CmdArgs) {
			d.Fatalf(t, "%s wants more arguments", d.Cmd)
		}
		return d.CmdArgs[i].Key
	}
	switch d.Cmd {
	case "kill":
		w.kill(arg(0))
	case "pause":
		w.servers[arg(0)].hung = true
	case "resume":
		w.servers[arg(0)].hung = false
	case "restart":
		keys := 0
		if d.HasArg("keys") {
			d.ScanArgs(t, "keys", &keys)
		}
		w.restart(arg(0), int64(keys)).appendOnly = d.HasArg("journal")
	case "lookup":
		w.lookUp()
	case "move":
		w.servers[arg(0)].at = arg(1)
	case "cut", "heal":
		w.cut[arg(0)] = d.Cmd == "cut"
	case "proxy":
		sight := topology.Sight(arg(1))
		p := health.ProxySight{Sight: sight, At: w.now, ReplyAt: w.now}
		if sight != topology.SightOK {
			p.ReplyAt = w.o.Nodes[w.shard().Master].RefusedSince
		}
		w.proxies[arg(0)] = p
	case "sort":
		w.behind[arg(0)] = health.Behind{Command: "sort", Sent: w.now}
	case "sorted":
		delete(w.behind, arg(0))
	case "write":
		var n int64
		_, _ = fmt.Sscan(arg(0), &n)
		w.write(n)
	case "tick":
		d2, err := time.ParseDuration(arg(0))
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		return w.watch(d2)
	case "plan":
		return w.plan()
	case "act":
		return w.act()
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	return ""
}

// watch ticks and prints every change.
func (w *world) watch(d time.Duration) string {
	var out strings.Builder
	before := w.summary()
	for end := w.now.Add(d); w.now.Before(end); {
		w.tick(step)
		if now := w.summary(); now != before {
			fmt.Fprintf(&out, "%v: %s\n", w.now.Sub(epoch0), now)
			before = now
		}
	}
	return out.String()
}

// summary is one line about the shard.
func (w *world) summary() string {
	var parts []string
	for _, p := range w.detect() {
		part := p.Code + " " + p.Node
		if p.Remedy != Tell {
			part += " (" + string(p.Remedy) + ")"
		}
		parts = append(parts, part)
	}
	var in []string
	for i, ok := range ReadSet(&w.c, w.shard(), &w.o, w.now) {
		if ok {
			in = append(in, w.shard().Nodes[i].ID)
		}
	}
	if len(parts) == 0 {
		parts = []string{"well"}
	}
	return fmt.Sprintf("%s; reads %s; in sync %s", strings.Join(parts, ", "), strings.Join(in, " "), strings.Join(w.shard().Members(), " "))
}

func (w *world) plan() string {
	var out strings.Builder
	for _, p := range w.detect() {
		fmt.Fprintf(&out, "%s %s %s: %s\n", p.Severity, p.Code, p.Node, p.Message)
		for _, e := range p.Evidence {
			fmt.Fprintf(&out, "  %s: %s %s\n", e.VantagePoint, e.Sight, e.Detail)
		}
		if p.Remedy == Replace {
			outcome := Elect(&w.c, w.shard(), Election{Old: w.shard().Master, Since: troubleSince(w.shard(), &w.o), Offset: w.o.Histories["s"].Offset}, &w.o, w.now)
			if outcome.Restarted {
				fmt.Fprintln(&out, "  among restarted nodes:")
			}
			for _, c := range outcome.Candidates {
				word := "chosen"
				if !c.Chosen {
					word = c.Refused
				}
				fmt.Fprintf(&out, "  candidate %s at %d: %s\n", c.Node, c.Offset, word)
			}
		}
	}
	if out.Len() == 0 {
		return "nothing to do\n"
	}
	return out.String()
}

// act does what is due at once: the commits of a failover, or one remedy for
// each node.
func (w *world) act() string {
	var out strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	for _, p := range w.detect() {
		s := w.shard()
		switch p.Remedy {
		case Replace:
			events, err := w.commit(Begin("s", fmt.Sprint(w.c.Epoch), p.Code, nil, RowOf(p.Code).Counts, p.Evidence, &w.o, w.now))
			if err != nil {
				say("refused: %v", err)
				return out.String()
			}
			say("epoch %d: %s", w.c.Epoch, events[0].Message)
			return out.String() + w.failOver()
		case Admit, Regrant:
			n, live := s.Node(p.Node), w.servers[p.Node]
			live.users = append(w.users(), w.mark(p.Node))
			if p.Remedy == Admit {
				admit(n, &redisadmin.Info{RunID: live.runID}, live.at, w.now)
				live.master, live.follows = false, s.MasterNode().Endpoint()
			}
			w.c.Epoch++
			w.c.CommittedAt, w.o.Since = w.now, map[string]time.Time{"s": w.now}
			say("epoch %d: %s: %s", w.c.Epoch, p.Node, p.Remedy)
		case Relocate:
			s.Node(p.Node).ReachedAt(w.servers[p.Node].at)
			w.c.Epoch++
			w.c.CommittedAt, w.o.Since = w.now, map[string]time.Time{"s": w.now}
			say("epoch %d: %s: %s", w.c.Epoch, p.Node, p.Remedy)
		}
	}
	if out.Len() == 0 {
		return "nothing is due\n"
	}
	return out.String()
}

func (w *world) users() []string {
	users := []string{credentials.AdminUser, credentials.ReplicationUser}
	for i, version := range w.c.Seats {
		users = append(users, credentials.ProxyUser(w.shard().Generation, credentials.Seat{Number: i, Version: version}))
	}
	return users
}

func (w *world) failOver() string {
	s := w.shard()
	e := ElectionOf(s.Operation)
	e.Begun, e.Since = w.now, troubleSince(s, &w.o)
	outcome := Elect(&w.c, s, e, &w.o, w.now)
	chosen := outcome.Chosen()
	if chosen == "" {
		return "nobody: " + outcome.Blocked(&w.c, s) + "\n"
	}
	old := s.Operation.OldMaster
	if err := w.succeed(chosen); err != nil {
		return err.Error() + "\n"
	}
	return fmt.Sprintf("epoch %d: %s instead of %s, generation %d\n", w.c.Epoch, chosen, old, w.shard().Generation)
}

// succeed makes a node the master, as the executor does.
func (w *world) succeed(chosen string) error {
	live := w.servers[chosen]
	joined := map[string]redisadmin.Info{}
	if !live.master {
		live.master, live.linkUp, live.older, live.secondOffset = true, false, live.history, live.offset+1
		w.runs++
		live.history = fmt.Sprintf("h%d", w.runs)
	}
	info := live.info(w)
	for _, n := range w.shard().Nodes {
		if s := w.servers[n.ID]; n.ID != chosen && s.up && !s.hung && s.runID == n.Incarnation && !w.cut[n.ID] {
			joined[n.ID] = s.info(w)
			s.master, s.follows, s.linkUp = false, w.address(chosen), false
		}
	}
	_, err := w.commit(func(c *topology.Cluster) ([]topology.Event, error) {
		s := &c.Shards[0]
		op := s.Operation
		s.Master, s.Generation, s.Operation = chosen, s.Generation+1, nil
		s.Node(chosen).Incarnation = live.runID
		succeed(s, op, info, joined, w.now)
		for i := range s.Nodes {
			if _, follows := joined[s.Nodes[i].ID]; !follows {
				s.Nodes[i].InReadSet = s.Nodes[i].ID == chosen
			}
		}
		return nil, nil
	})
	for _, n := range w.shard().Nodes {
		if _, follows := joined[n.ID]; follows || n.ID == chosen {
			w.servers[n.ID].users = append(w.users(), w.mark(n.ID))
		}
	}
	w.o.NewMaster(w.shard(), w.now)
	return err
}
