package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/harness"
)

// condition of a process, as the nemesis left it.
type condition int

const (
	up condition = iota
	killed
	paused
	// replaced: it is dead, and a server of another shard answers at its address.
	replaced
)

// victim is one process of the cluster.
type victim struct {
	harness.LocalProcess
	shard int // of a node, else -1
	is    condition
	since time.Duration
	// instead is what listens at its address while it is replaced.
	instead *harness.Forwarder
}

// nemesis does harm to a cluster under load and knows what it did.
type nemesis struct {
	t       *testing.T
	c       *harness.Cluster
	load    *harness.Load
	victims []*victim
	shards  int
	// kept: nodes find what they had when they start again.
	kept bool
	// loss is, by shard, when it was last seen unsettled; a shard that is not in
	// it must lose nothing that was acknowledged.
	loss    map[int]time.Duration
	watched time.Duration
	// rotated counts secrets; rotating is held while a rotation is under way.
	rotated  int
	rotating sync.Mutex
	// operations counts those that admins asked for and that are under way, by
	// shard.
	mu         sync.Mutex
	operations map[int]int
	asked      sync.WaitGroup
	done       map[string]int
}

func newNemesis(t *testing.T, c *harness.Cluster, load *harness.Load, shards int, kept bool) *nemesis {
	n := &nemesis{
		t: t, c: c, load: load, shards: shards, kept: kept,
		loss: map[int]time.Duration{}, operations: map[int]int{}, done: map[string]int{},
	}
	for _, p := range c.LocalStatus(t).Processes {
		v := &victim{LocalProcess: p, shard: -1}
		if p.Kind == "node" {
			if _, err := fmt.Sscanf(p.Name, "shard-%d-", &v.shard); err != nil {
				t.Fatalf("node %s: %v", p.Name, err)
			}
		}
		n.victims = append(n.victims, v)
	}
	return n
}

// step is one thing to do, chosen by the seed alone. Numbers pick among the
// targets that are possible when its time has come.
type step struct {
	after      time.Duration
	what       string
	pick, also uint64
	hold       time.Duration
}

// weights say how often each kind of step is taken.
var weights = []struct {
	what   string
	weight int
}{
	{"kill node", 12}, {"kill two nodes", 3}, {"pause node", 8},
	{"strand node", 4}, {"swap node", 4}, {"wipe node", 3},
	{"kill owner and master", 3}, {"cut a copy short", 3}, {"restart a shard", 2},
	{"kill configserver", 5}, {"pause configserver", 6},
	{"kill etcd", 2}, {"pause etcd", 2},
	{"kill proxy", 3}, {"pause proxy", 4},
	{"switchover", 10}, {"failover", 4}, {"rotate", 6},
	{"heal one", 25},
}

// plan derives the steps of a length of time from a seed.
func plan(seed uint64, length time.Duration) []step {
	rng := rand.New(rand.NewPCG(seed, 0x6261_7361_6c74))
	total := 0
	for _, w := range weights {
		total += w.weight
	}
	var steps []step
	// Some sequences leave time to recover, some do not.
	haste := []time.Duration{1200 * time.Millisecond, 700 * time.Millisecond, 300 * time.Millisecond}[seed%3]
	for at := time.Duration(0); at < length; {
		s := step{after: time.Duration(rng.Int64N(int64(haste))), pick: rng.Uint64(), also: rng.Uint64()}
		s.hold = 200*time.Millisecond + time.Duration(rng.Int64N(int64(6*time.Second)))
		chosen := rng.IntN(total)
		for _, w := range weights {
			if chosen -= w.weight; chosen < 0 {
				s.what = w.what
				break
			}
		}
		at += s.after
		steps = append(steps, s)
	}
	return steps
}

// run takes the steps, and gives back whatever was paused for long enough.
func (n *nemesis) run(steps []step, end time.Duration) {
	for _, s := range steps {
		due := n.load.Now() + s.after
		for n.load.Now() < due {
			n.watch()
			time.Sleep(min(50*time.Millisecond, max(0, due-n.load.Now())))
		}
		if n.load.Now() > end {
			return
		}
		n.take(s)
	}
}

// watch ends pauses that lasted and spans of loss that are over.
func (n *nemesis) watch() {
	now := n.load.Now()
	for _, v := range n.victims {
		if (v.is == paused || v.is == replaced) && now >= v.since {
			n.heal(v)
		}
	}
	if len(n.loss) == 0 || now-n.watched < 300*time.Millisecond {
		return
	}
	st, err := n.c.StatusNow(glance)
	n.watched = n.load.Now()
	for shard, since := range n.loss {
		switch {
		case err != nil || !n.settled(st, shard):
			n.loss[shard] = n.load.Now()
		case n.load.Now()-since > 1500*time.Millisecond:
			n.load.LossEnds(shard)
			delete(n.loss, shard)
		}
	}
}

// glance is how long a Configserver may take to say how the cluster is.
const glance = 300 * time.Millisecond

// settled tells if a shard has a master that lives and nothing is being done
// to it.
func (n *nemesis) settled(st *pb.ClusterStatus, shard int) bool {
	n.mu.Lock()
	busy := n.operations[shard] > 0
	n.mu.Unlock()
	sh := st.GetTopology().GetShards()[shard]
	if busy || sh.GetMaster() == "" || sh.GetFrozen() || sh.GetOperation() != nil || n.named(sh.GetMaster()).is != up {
		return false
	}
	return holdsData(st, sh, sh.GetMaster())
}

// holdsData tells if a node is the shard's live master, or a replica that
// follows it and is in sync.
func holdsData(st *pb.ClusterStatus, sh *pb.Shard, id string) bool {
	for _, node := range sh.GetNodes() {
		if node.GetId() != id {
			continue
		}
		for _, seen := range st.GetNodes() {
			if seen.GetNode() == id {
				return node.GetInSync() && seen.GetSight() == pb.Sight_SIGHT_OK && node.GetIncarnation() != "" && seen.GetIncarnation() == node.GetIncarnation() &&
					(id == sh.GetMaster() && seen.GetRole() == pb.NodeRole_NODE_ROLE_MASTER || seen.GetLinkUp() && seen.GetLag() >= 0)
			}
		}
	}
	return false
}

func (n *nemesis) named(name string) *victim {
	for _, v := range n.victims {
		if v.Name == name {
			return v
		}
	}
	n.t.Fatalf("no process %s", name)
	return nil
}

// of returns the processes of a kind in a condition.
func (n *nemesis) of(kind string, is condition) (some []*victim) {
	for _, v := range n.victims {
		if v.Kind == kind && v.is == is {
			some = append(some, v)
		}
	}
	return some
}

func (n *nemesis) say(format string, args ...any) {
	n.t.Logf("%8s  %s", n.load.Now().Round(time.Millisecond), fmt.Sprintf(format, args...))
}

// take does one step, or nothing when it would take the last copy of a shard's
// data away or has no target.
func (n *nemesis) take(s step) {
	verb, kind, _ := strings.Cut(s.what, " ")
	switch s.what {
	case "kill node", "pause node", "strand node", "swap node", "wipe node":
		n.takeDown(verb, s, 1)
	case "kill owner and master":
		n.killOwnerAndMaster(s)
	case "cut a copy short":
		n.cutCopyShort(s)
	case "restart a shard":
		n.restartShard(s)
	case "kill two nodes":
		n.takeDown(verb, s, 2)
	case "switchover", "failover":
		n.ask(s.what, int(s.pick%uint64(n.shards)))
	case "rotate":
		n.rotate(s.also%2 == 0)
	case "heal one":
		var down []*victim
		for _, v := range n.victims {
			if v.is != up {
				down = append(down, v)
			}
		}
		if len(down) > 0 {
			n.heal(down[s.pick%uint64(len(down))])
		}
	default:
		if targets := n.of(kind, up); len(targets) > 0 {
			n.harm(verb, targets[s.pick%uint64(len(targets))], s.hold)
		}
	}
}

// takeDown takes nodes of one shard away as long as another one that holds
// its data stays.
func (n *nemesis) takeDown(verb string, s step, count int) {
	st, err := n.c.StatusNow(glance)
	if err != nil {
		return // nobody knows which copies are good
	}
	shard := int(s.pick % uint64(n.shards))
	sh := st.GetTopology().GetShards()[shard]
	var running, keep []*victim
	for _, v := range n.of("node", up) {
		if v.shard != shard {
			continue
		}
		running = append(running, v)
		if holdsData(st, sh, v.Name) && n.load.Now()-v.since > time.Second {
			keep = append(keep, v)
		}
	}
	if len(keep) == 0 || len(running) <= count {
		return
	}
	// The one that stays is chosen first: any that holds the data, the master
	// seldom.
	stays := keep[s.also%uint64(len(keep))]
	if stays.Name == sh.GetMaster() && len(keep) > 1 && s.also%5 != 0 {
		for _, v := range keep {
			if v != stays {
				stays = v
				break
			}
		}
	}
	for i := range running {
		v := running[(uint64(i)+s.also)%uint64(len(running))]
		if v == stays || count == 0 {
			continue
		}
		count--
		n.mu.Lock()
		busy := n.operations[shard] > 0
		n.mu.Unlock()
		if v.Name == sh.GetMaster() || sh.GetMaster() == "" || sh.GetOperation() != nil || busy {
			n.mayLose(shard)
		}
		n.harm(verb, v, s.hold)
	}
}

// mayLose says that acknowledged writes of a shard may be lost from now on, if
// no replica has them.
func (n *nemesis) mayLose(shard int) {
	if _, is := n.loss[shard]; !is {
		n.load.LossBegins(shard)
	}
	n.loss[shard] = n.load.Now()
}

func (n *nemesis) harm(verb string, v *victim, hold time.Duration) {
	n.done[verb+" "+v.Kind]++
	switch verb {
	case "kill":
		n.say("kill %s", v.Name)
		harness.Signal(n.t, v.LocalProcess, syscall.SIGKILL)
		v.is, v.since = killed, n.load.Now()
	case "strand":
		n.strand(v, hold)
	case "swap":
		n.swap(v, hold)
	case "wipe":
		n.wipe(v)
	default:
		n.say("pause %s for %s", v.Name, hold.Round(time.Millisecond))
		harness.Signal(n.t, v.LocalProcess, syscall.SIGSTOP)
		v.is, v.since = paused, n.load.Now()+hold
	}
}

// heal lets a process go on, or starts it again, every second node without its data.
func (n *nemesis) heal(v *victim) {
	if v.is == paused {
		n.say("resume %s", v.Name)
		harness.Signal(n.t, v.LocalProcess, syscall.SIGCONT)
		v.is, v.since = up, n.load.Now()
		return
	}
	n.done["start"]++
	n.start(v, v.Kind == "node" && n.done["start"]%2 == 0)
}

// start starts a dead process, a node without its data when asked so.
func (n *nemesis) start(v *victim, empty bool) {
	if v.instead != nil {
		v.instead.Refuse()
		v.instead = nil
	}
	args := []string{"local", "start", v.Name}
	if empty {
		args = append(args, "--empty")
	}
	n.say("%s", strings.Join(args[1:], " "))
	// Its death may not have been noticed yet.
	harness.Eventually(n.t, 20*time.Second, "start "+v.Name, func() error {
		_, err := n.c.TryCLI(args...)
		return err
	})
	v.LocalProcess = n.c.Process(n.t, v.Name)
	v.is, v.since = up, n.load.Now()
}

// ask has an admin ask for a switchover or a failover; it may be refused.
func (n *nemesis) ask(what string, shard int) {
	if what == "failover" {
		n.mayLose(shard)
	}
	n.mu.Lock()
	n.operations[shard]++
	n.mu.Unlock()
	n.done[what]++
	n.say("%s shard-%d", what, shard)
	n.asked.Go(func() {
		args := []string{what, n.c.Name, fmt.Sprintf("shard-%d", shard), "--timeout", "15s"}
		if what == "failover" {
			args = append(args, "--yes") // whatever is lost
		}
		_, err := n.c.TryCLI(args...)
		n.say("%s shard-%d ended: %s", what, shard, outcome(err))
		n.mu.Lock()
		n.operations[shard]--
		n.mu.Unlock()
	})
}

// rotate puts new credentials into force, of a new secret when the one before
// is in force everywhere.
func (n *nemesis) rotate(secret bool) {
	if !n.rotating.TryLock() {
		return
	}
	n.done["rotate"]++
	n.rotated++
	number := n.rotated
	n.say("rotate")
	n.asked.Go(func() {
		defer n.rotating.Unlock()
		if secret {
			if _, err := n.c.TryCLI("credentials", "rotate", n.c.Name, "--timeout", "15s"); err != nil {
				n.say("rotate ended: %s", outcome(err))
				return
			}
			if err := newSecret(n.c, fmt.Sprintf("secret-number-%d-of-this-cluster", number)); err != nil {
				n.t.Error(err)
			}
		}
		_, err := n.c.TryCLI("credentials", "rotate", n.c.Name, "--timeout", "15s")
		n.say("rotate ended: %s", outcome(err))
	})
}

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return lines[len(lines)-1]
}

// stop gives everything back and waits until nothing is asked for any more.
func (n *nemesis) stop() {
	for _, v := range n.victims {
		if v.is != up {
			n.heal(v)
		}
	}
	n.asked.Wait()
}

// settle ends all spans of loss: the cluster is well again.
func (n *nemesis) settle() {
	for shard := range n.loss {
		n.load.LossEnds(shard)
		delete(n.loss, shard)
	}
}

// requireAlive fails the test for every process that died though nobody killed
// it.
func (n *nemesis) requireAlive() {
	for _, p := range n.c.LocalStatus(n.t).Processes {
		if v := n.named(p.Name); p.PID != v.PID || p.State != "running" {
			n.t.Errorf("%s is %s as pid %d, was started as pid %d and nobody killed it", p.Name, p.State, p.PID, v.PID)
		}
	}
}
