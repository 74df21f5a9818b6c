package chaos

import (
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// Harms that need more than one signal.

// strand stops a node and cuts the links of its shard, for longer than a replica
// may be away: what is written meanwhile does not even wait in its socket.
func (n *nemesis) strand(v *victim, hold time.Duration) {
	hold += replicaAge
	n.say("strand %s for %s", v.Name, hold.Round(time.Millisecond))
	harness.Signal(n.t, v.LocalProcess, syscall.SIGSTOP)
	v.is, v.since = paused, n.load.Now()+hold
	for _, other := range n.of("node", up) {
		if other.shard == v.shard {
			if _, err := n.admin(other, "CLIENT", "KILL", "TYPE", "replica"); err != nil {
				n.say("%s keeps its links: %v", other.Name, err)
			}
		}
	}
}

// swap kills a node and has a server of another shard answer at its address.
func (n *nemesis) swap(v *victim, hold time.Duration) {
	var others []*victim
	for _, other := range n.of("node", up) {
		if other.shard != v.shard {
			others = append(others, other)
		}
	}
	harness.Signal(n.t, v.LocalProcess, syscall.SIGKILL)
	v.is, v.since = killed, n.load.Now()
	if len(others) == 0 {
		n.say("kill %s", v.Name)
		return
	}
	other := others[uint64(hold)%uint64(len(others))]
	n.say("kill %s; %s answers at its address for %s", v.Name, other.Name, hold.Round(time.Millisecond))
	v.instead = harness.Forward(n.t, v.Address, other.Address)
	v.is, v.since = replaced, n.load.Now()+hold
}

// wipe kills a node and starts it at once with nothing on its disk.
func (n *nemesis) wipe(v *victim) {
	n.say("wipe %s", v.Name)
	harness.Eventually(n.t, 20*time.Second, "wipe "+v.Name, func() error {
		_, err := n.c.TryCLI("local", "restart", v.Name, "--kill", "--empty")
		return err
	})
	v.LocalProcess = n.c.Process(n.t, v.Name)
	v.is, v.since = up, n.load.Now()
}

// admin sends a command to a node and tells what became of it.
func (n *nemesis) admin(v *victim, args ...string) (consistency.Reply, error) {
	conn, err := consistency.Dial(n.t.Context(), v.Address, "basalt-admin", n.c.AdminPassword(n.t))
	if err != nil {
		return consistency.Reply{}, err
	}
	defer conn.Close()
	conn.Timeout = 2 * time.Second
	r, err := conn.Do(args...)
	return r, errors.Join(err, r.Err)
}

// whole returns the master and the replicas of a shard if every node of it is up
// and holds its data, and nothing is being done to it.
func (n *nemesis) whole(shard int) (st *pb.ClusterStatus, master *victim, replicas []*victim) {
	st, err := n.c.StatusNow(glance)
	if err != nil || !n.settled(st, shard) {
		return nil, nil, nil
	}
	sh := st.GetTopology().GetShards()[shard]
	for _, node := range sh.GetNodes() {
		v := n.named(node.GetId())
		if v.is != up || !holdsData(st, sh, v.Name) || n.load.Now()-v.since < time.Second {
			return nil, nil, nil
		}
		if v.Name == sh.GetMaster() {
			master = v
		} else {
			replicas = append(replicas, v)
		}
	}
	return st, master, replicas
}

// killOwnerAndMaster kills the master of a shard and the Configserver that watches
// it in the same instant.
func (n *nemesis) killOwnerAndMaster(s step) {
	shard := int(s.pick % uint64(n.shards))
	st, master, _ := n.whole(shard)
	if master == nil {
		return
	}
	owner := n.named(st.GetCluster().GetOwner())
	if owner.is != up {
		return
	}
	n.mayLose(shard)
	n.harm("kill", owner, 0)
	n.harm("kill", master, 0)
}

// perKey is what a key costs in a copy that is about to be cut short, in
// microseconds.
const perKey = "20000"

// cutCopyShort restarts a replica with what it has on its disk and kills its
// master while that sends it the rest; another replica is left alone.
func (n *nemesis) cutCopyShort(s step) {
	shard := int(s.pick % uint64(n.shards))
	_, master, replicas := n.whole(shard)
	if len(replicas) < 2 {
		return
	}
	n.mayLose(shard)
	n.harm("kill", replicas[s.also%uint64(len(replicas))], 0)
	n.cutShort(master, replicas[s.also%uint64(len(replicas))], s.also%3 == 0)
	n.harm("kill", master, 0)
}

// cutShort starts a dead replica and returns while it copies its master, which
// takes some seconds.
func (n *nemesis) cutShort(master, replica *victim, empty bool) {
	if _, err := n.admin(master, "CONFIG", "SET", "rdb-key-save-delay", perKey, "repl-backlog-size", "16384"); err != nil {
		n.t.Errorf("slow down the copies of %s: %v", master.Name, err)
	}
	n.start(replica, empty)
	for end := n.load.Now() + 5*time.Second; n.load.Now() < end; time.Sleep(20 * time.Millisecond) {
		if r, err := n.admin(replica, "INFO", "replication"); err == nil && strings.Contains(string(r.Text), "master_sync_in_progress:1") {
			return
		}
	}
	n.say("%s did not begin to copy", replica.Name)
}

// restartShard kills all nodes of a shard at once and starts them in any order,
// within the time in which they are waited for.
func (n *nemesis) restartShard(s step) {
	shard := int(s.pick % uint64(n.shards))
	_, master, replicas := n.whole(shard)
	if master == nil || !n.kept {
		return
	}
	n.mayLose(shard)
	all := append(replicas, master)
	for _, v := range all {
		n.harm("kill", v, 0)
	}
	rng := rand.New(rand.NewPCG(s.also, s.pick))
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, v := range all {
		time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		n.start(v, false)
	}
}
