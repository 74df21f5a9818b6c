package failover

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// bystander is a server that answers at an address that is not its own, and must
// not be touched for that.
type bystander struct {
	t       *testing.T
	name    string
	address string
	conn    *consistency.Conn
	before  map[string]string
}

// changing are the commands that change what a server is. Nobody sends them to one
// that is well.
var changing = []string{
	"config|set", "config|rewrite", "config|resetstat", "acl|setuser", "acl|deluser", "acl|load", "acl|save", "replicaof", "slaveof",
	"failover", "psync", "sync", "client|kill", "client|pause", "client|unpause", "flushall", "flushdb", "save", "bgsave", "bgrewriteaof",
	"shutdown", "debug", "script|load", "script|flush", "script|kill", "function|load", "function|flush", "function|restore",
}

// watchBystander remembers what a server is now.
func watchBystander(t *testing.T, name string, conn *consistency.Conn, address string) *bystander {
	t.Helper()
	b := &bystander{t: t, name: name, address: address, conn: conn}
	b.before = b.look()
	return b
}

// look reads all that nobody may change.
func (b *bystander) look() map[string]string {
	b.t.Helper()
	seen := map[string]string{
		"role":   infoField(b.t, b.conn, "replication", "role"),
		"run_id": infoField(b.t, b.conn, "server", "run_id"),
	}
	for _, user := range do(b.t, b.conn, "ACL", "LIST").Array {
		words := strings.Fields(string(user.Text))
		seen["user "+words[1]] = strings.Join(words[2:], " ")
	}
	parameters := do(b.t, b.conn, "CONFIG", "GET", "*").Array
	for i := 0; i+1 < len(parameters); i += 2 {
		seen["parameter "+string(parameters[i].Text)] = string(parameters[i+1].Text)
	}
	stats := string(do(b.t, b.conn, "INFO", "commandstats").Text)
	for _, command := range changing {
		n, err := calls(stats, command)
		if err != nil {
			b.t.Fatal(err)
		}
		seen["calls of "+command] = fmt.Sprint(n)
	}
	return seen
}

// requireUntouched fails the test for everything that is not as it was, except some.
func (b *bystander) requireUntouched(when string, except ...string) {
	b.t.Helper()
	now := b.look()
	all := maps.Clone(b.before)
	maps.Copy(all, now)
	for _, what := range slices.Sorted(maps.Keys(all)) {
		before, after := b.before[what], now[what]
		switch {
		case before == after || slices.Contains(except, what):
		case strings.HasPrefix(what, "user ") || what == "parameter masterauth":
			b.t.Errorf("%s, %s was touched: its %s is not what it was", when, b.name, what) // without the secrets
		default:
			b.t.Errorf("%s, %s was touched: its %s went from %q to %q", when, b.name, what, before, after)
		}
	}
}

// requireNamed waits until the status and an event say that another server answers
// at a node's address.
func requireNamed(t *testing.T, c *harness.Cluster, since uint64, node string) {
	t.Helper()
	const code = "WrongServerAtAddress"
	harness.Eventually(t, 10*time.Second, "the status and an event say that another server answers for "+node, func() error {
		var codes []string
		named := false
		for _, p := range c.Status(t).GetProblems() {
			codes = append(codes, p.GetCode()+" "+p.GetNode())
			named = named || p.GetCode() == code && p.GetNode() == node
		}
		if !named {
			return fmt.Errorf("the problems are %q", codes)
		}
		for _, e := range c.EventsAfter(t, since) {
			if e.GetKind() == code && e.GetNode() == node {
				return nil
			}
		}
		return errNoEvent
	})
}

// twoShards is a cluster whose two shards have keys, and the master of the second,
// which is going to answer at an address of the first.
func twoShards(t *testing.T) (c *harness.Cluster, first, second *numbered, other *bystander) {
	t.Helper()
	c = harness.Start(t, harness.Options{Shards: 2, Disk: harness.AppendOnly})
	c.SetPolicy(t, impatient)
	first, second = numberKeys(t, c, 0), numberKeys(t, c, 1)
	for _, w := range []*numbered{first, second} {
		w.write(500)
		_, replicas := roles(t, c, w.shard)
		w.waitCopied(replicas[0])
	}
	master, _ := roles(t, c, 1)
	address := c.Process(t, master).Address
	return c, first, second, watchBystander(t, master, c.Admin(t, address), address)
}

// longEnough is how long a wrong server answers before it is looked at: ten times
// what it took to admit it.
const longEnough = 3 * time.Second

// TestReplicaAddressLeadsToAnotherShard: the address of a dead replica leads to the
// master of another shard, as a stale DNS record or a reused address does. That
// server is left alone, also when the node is deregistered, and the problem is
// named.
func TestReplicaAddressLeadsToAnotherShard(t *testing.T) {
	t.Parallel()
	c, first, second, other := twoShards(t)
	_, replicas := roles(t, c, 0)
	replica := c.Process(t, replicas[0])
	since := c.LastEvent(t)
	c.Kill(t, replica.Name)
	wrong := harness.Forward(t, replica.Address, other.address)
	time.Sleep(longEnough)
	other.requireUntouched("at the address of " + replica.Name)
	second.requireServed(second.count, servesWithin)
	first.requireServed(first.count, servesWithin)
	if t.Failed() {
		return // there is nothing left that could be damaged
	}
	requireNamed(t, c, since, replica.Name)

	wrong.Refuse()
	c.StartProcess(t, replica.Name)
	c.WaitHealthy(t, 20*time.Second)

	c.Kill(t, replica.Name)
	harness.Forward(t, replica.Address, other.address)
	c.CLI(t, "node", "deregister", replica.Name)
	time.Sleep(time.Second)
	other.requireUntouched("when " + replica.Name + " was deregistered")
	second.requireServed(second.count, servesWithin)
	c.RequireInvariants(t)
}

// TestMasterAddressLeadsToAnotherShard: the same at the address of a dead master,
// from the moment of its death. Its replica takes its place.
func TestMasterAddressLeadsToAnotherShard(t *testing.T) {
	t.Parallel()
	c, first, second, other := twoShards(t)
	old, replicas := roles(t, c, 0)
	address := c.Process(t, old).Address
	since := c.LastEvent(t)
	c.Kill(t, old)
	wrong := harness.Forward(t, address, other.address)
	time.Sleep(longEnough)
	other.requireUntouched("at the address of " + old)
	second.requireServed(second.count, servesWithin)
	first.requireServed(first.count, servesWithin)
	if t.Failed() {
		return
	}
	if m := c.Master(t, 0); m.GetId() != replicas[0] {
		t.Errorf("the master of shard-0 is %q, want %s", m.GetId(), replicas[0])
	}
	requireNamed(t, c, since, old)
	wrong.Refuse()
	c.StartProcess(t, old)
	c.WaitHealthy(t, 20*time.Second)
	c.RequireInvariants(t)
}

// TestReplicaLogsInAtItsShardOnly: while nobody watches, the address of a dead
// master leads to the master of another shard, and the replica connects to it by
// itself. It cannot log in there, keeps its data, and is promoted with it.
func TestReplicaLogsInAtItsShardOnly(t *testing.T) {
	t.Parallel()
	c, first, second, other := twoShards(t)
	old, replicas := roles(t, c, 0)
	address := c.Process(t, old).Address
	replica := c.Admin(t, c.Process(t, replicas[0]).Address)
	const configserver = "configserver-0"
	c.Kill(t, configserver)
	c.Kill(t, old)
	wrong := harness.Forward(t, address, other.address)
	time.Sleep(longEnough)
	if n, _, err := first.missing(replica, first.count); err != nil || n > 0 {
		t.Errorf("%s lost %d of %d keys to the copy of another shard (%v)", replicas[0], n, first.count, err)
	}
	c.StartProcess(t, configserver)
	c.WaitConfigservers(t, 20*time.Second)
	first.requireServed(first.count, servesWithin)
	second.requireServed(second.count, servesWithin)
	// A Configserver that begins sets min-replicas-to-write, which it cannot know.
	other.requireUntouched("at the address of "+old, "calls of config|set")
	if t.Failed() {
		return
	}
	wrong.Refuse()
	c.StartProcess(t, old)
	c.WaitHealthy(t, 20*time.Second)
	c.RequireInvariants(t)
}

// TestAddressLeadsToAnotherCluster: the address of a dead replica leads to a server
// of another cluster whose servers have the same administrator's password. It is
// left alone, also when the cluster of the dead replica is deleted.
func TestAddressLeadsToAnotherCluster(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Shards: 1})
	address := startOtherCluster(t, c)
	conn := c.Admin(t, address)
	for i := range 100 {
		do(t, conn, "SET", fmt.Sprint("theirs-", i), "x")
	}
	other := watchBystander(t, "the server of another cluster", conn, address)
	w := numberKeys(t, c, 0)
	w.write(500)
	_, replicas := roles(t, c, 0)
	replica := c.Process(t, replicas[0])
	since := c.LastEvent(t)
	c.Kill(t, replica.Name)
	harness.Forward(t, replica.Address, address)
	time.Sleep(longEnough)
	requireKeys := func(when string) {
		t.Helper()
		other.requireUntouched(when)
		if n := do(t, conn, "DBSIZE").Int; n != 100 {
			t.Errorf("%s, the other cluster has %d keys, it had 100", when, n)
		}
	}
	requireKeys("at the address of " + replica.Name)
	if t.Failed() {
		return
	}
	requireNamed(t, c, since, replica.Name)
	w.requireServed(w.count, servesWithin)
	c.CLI(t, "cluster", "delete", c.Name, "--yes")
	requireKeys("when the cluster was deleted")
}

// startOtherCluster makes a second cluster in the Configserver of the first, with
// one server that has the same administrator, and returns its address.
func startOtherCluster(t *testing.T, c *harness.Cluster) string {
	t.Helper()
	const name = "other"
	dir := filepath.Join(filepath.Dir(c.CredentialsDir), name)
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "admin-password"), []byte(c.AdminPassword(t)+"\n"), 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "cluster-secret"), []byte("the-secret-of-the-other-cluster\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	address := harness.StartRedis(t).Address
	conn, err := consistency.Dial(t.Context(), address, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	do(t, conn, "ACL", "SETUSER", "basalt-admin", "on", ">"+c.AdminPassword(t), "~*", "&*", "+@all")
	do(t, conn, "ACL", "SETUSER", "basalt-probe", "on", "nopass", "resetkeys", "resetchannels", "-@all", "+ping")
	do(t, conn, "ACL", "SETUSER", "default", "off")
	c.CLI(t, "cluster", "create", name, "--shards", "1", "--nodes-per-shard", "1")
	c.CLI(t, "node", "register", name, "shard-0", "theirs", address)
	harness.Eventually(t, 20*time.Second, "the other cluster serves", func() error {
		out, err := c.TryCLI("cluster", "status", name)
		if err == nil && !strings.Contains(out, "serving") {
			err = errors.New(out)
		}
		return err
	})
	return address
}
