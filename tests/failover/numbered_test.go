package failover

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

const (
	// servesWithin bounds how long a shard may need once all its nodes are back.
	servesWithin = 20 * time.Second
	// replicaAge is the policy's max_replica_age in tests that wait for it.
	replicaAge = 2 * time.Second
)

// impatient is a policy that waits as briefly as tests of losses can afford.
func impatient(p *pb.Policy) {
	harness.UnlimitedFailovers(p)
	p.MaxReplicaAge = durationpb.New(replicaAge)
	p.RestartGrace = durationpb.New(3 * time.Second)
}

// numbered is what was acknowledged in one shard: the keys 0 to count-1.
type numbered struct {
	t     *testing.T
	c     *harness.Cluster
	shard int
	slots []int
	count int
}

// numberKeys begins with no keys in shard number i.
func numberKeys(t *testing.T, c *harness.Cluster, i int) *numbered {
	t.Helper()
	w := &numbered{t: t, c: c, shard: i}
	for first, last := range c.Shards(t)[i].Slots.Ranges {
		for s := first; s <= last; s++ {
			w.slots = append(w.slots, s)
		}
	}
	return w
}

func (w *numbered) key(n int) string {
	return consistency.KeyInSlot(fmt.Sprint("numbered-", n), w.slots[n%len(w.slots)])
}

// value of key n, 100 bytes.
func (w *numbered) value(n int) string { return fmt.Sprintf("%0100d", n) }

// write sets n more keys through a proxy; every one must be acknowledged.
func (w *numbered) write(n int) {
	w.t.Helper()
	conn, err := consistency.Dial(w.t.Context(), w.c.Proxies[0], "", "")
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	const batch = 500
	for left := n; left > 0; left -= batch {
		var commands [][]string
		for range min(batch, left) {
			commands = append(commands, []string{"SET", w.key(w.count), w.value(w.count)})
			w.count++
		}
		replies, err := conn.Pipeline(commands...)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range replies {
			if r.Err != nil {
				w.t.Fatalf("write a key: %v", r.Err)
			}
		}
	}
}

// missing counts the keys that the server or proxy at conn does not have, and
// returns an error when it does not answer.
func (w *numbered) missing(conn *consistency.Conn, count int) (n int, first string, err error) {
	const batch = 500
	for from := 0; from < count; from += batch {
		var commands [][]string
		for i := from; i < min(from+batch, count); i++ {
			commands = append(commands, []string{"GET", w.key(i)})
		}
		replies, err := conn.Pipeline(commands...)
		if err != nil {
			return 0, "", err
		}
		for i, r := range replies {
			if r.Err != nil {
				return 0, "", r.Err
			}
			if string(r.Text) != w.value(from+i) {
				n++
				first = cmp.Or(first, fmt.Sprintf("key %d", from+i))
			}
		}
	}
	return n, first, nil
}

// requireServed waits until the shard serves reads and writes, and requires the
// first count keys to be there.
func (w *numbered) requireServed(count int, limit time.Duration) {
	w.t.Helper()
	var lost int
	var first string
	took := harness.Eventually(w.t, limit, shardName(w.shard)+" serves", func() error {
		conn, err := consistency.Dial(w.t.Context(), w.c.Proxies[0], "", "")
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.Timeout = 5 * time.Second
		r, err := conn.Do("SET", consistency.KeyInSlot("serves", w.slots[0]), "yes")
		if err = errors.Join(err, r.Err); err != nil {
			return err
		}
		lost, first, err = w.missing(conn, count)
		return err
	})
	if lost > 0 {
		w.t.Errorf("%s: %d of %d acknowledged keys are lost, the first is %s", shardName(w.shard), lost, count, first)
	}
	w.t.Logf("%s served %s after it could, with %d of %d keys", shardName(w.shard), took.Round(time.Millisecond), count-lost, count)
}

// waitCopied waits until a replica has every key.
func (w *numbered) waitCopied(replica string) {
	w.t.Helper()
	conn := w.c.Admin(w.t, w.c.Process(w.t, replica).Address)
	harness.Eventually(w.t, 10*time.Second, replica+" has every key", func() error {
		n, _, err := w.missing(conn, w.count)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d are missing", n)
		}
		return err
	})
}

// roles are the nodes of a shard, the master first.
func roles(t *testing.T, c *harness.Cluster, shard int) (master string, replicas []string) {
	t.Helper()
	sh := c.Topology(t).GetShards()[shard]
	for _, n := range sh.GetNodes() {
		if n.GetId() != sh.GetMaster() {
			replicas = append(replicas, n.GetId())
		}
	}
	return sh.GetMaster(), replicas
}

// kill ends a node with SIGKILL; it keeps what is on its disk.
func kill(t *testing.T, c *harness.Cluster, node string) {
	t.Helper()
	harness.Signal(t, c.Process(t, node), syscall.SIGKILL)
}

// fallBehind stops a replica and cuts its link, so that it gets nothing of what is
// written from now on, not even from its socket's buffer when it goes on.
func fallBehind(t *testing.T, c *harness.Cluster, master, replica string) harness.LocalProcess {
	t.Helper()
	p := c.Process(t, replica)
	harness.Signal(t, p, syscall.SIGSTOP)
	do(t, c.Admin(t, c.Process(t, master).Address), "CLIENT", "KILL", "TYPE", "replica")
	return p
}

// waitOut waits until a replica that follows nobody is not in sync any more.
func waitOut(t *testing.T, c *harness.Cluster, shard int, replica string) {
	t.Helper()
	time.Sleep(replicaAge) // it may be known before, and need not be
	harness.Eventually(t, 10*time.Second, replica+" left the in-sync set", func() error {
		for _, n := range c.Topology(t).GetShards()[shard].GetNodes() {
			if n.GetId() == replica && n.GetInSync() {
				return errors.New("it is in sync")
			}
		}
		return nil
	})
}

// howFar matches a distance in the stream of writes or in time.
var howFar = regexp.MustCompile(`\d+ bytes|\d ?(ms|s|m)\b`)

// requireBlocked waits until the status and an event since a sequence number say
// that the shard waits for its master, how far a replica is behind, and what an
// admin can do. Whoever is promoted meanwhile fails the test.
func requireBlocked(t *testing.T, c *harness.Cluster, shard int, since uint64, master, replica string) {
	t.Helper()
	const code = "FailoverBlocked"
	message := ""
	harness.Eventually(t, 15*time.Second, fmt.Sprintf("%s waits for %s and says so", shardName(shard), master), func() error {
		requireNotReplaced(t, c, shard, master)
		said := func(p *pb.Problem) bool { return p.GetCode() == code && p.GetShard() == shardName(shard) }
		if !slices.ContainsFunc(c.Status(t).GetProblems(), said) {
			return errors.New("the status does not")
		}
		for _, e := range c.EventsAfter(t, since) {
			if e.GetKind() == code {
				message = e.GetMessage() // the last one knows most
			}
		}
		for _, word := range []string{master, replica, "basaltctl failover", "--accept-loss"} {
			if !strings.Contains(message, word) {
				return fmt.Errorf("the event does not name %s: %q", word, message)
			}
		}
		if !howFar.MatchString(message) {
			return fmt.Errorf("the event does not tell how far %s is behind: %q", replica, message)
		}
		return nil
	})
	t.Log(message)
	time.Sleep(time.Second)
	requireNotReplaced(t, c, shard, master)
}

// requireNotReplaced fails the test when another node than master is the shard's.
func requireNotReplaced(t *testing.T, c *harness.Cluster, shard int, master string) {
	t.Helper()
	if m := c.Master(t, shard); m != nil && m.GetId() != master {
		t.Fatalf("%s was promoted, although it lacks writes that were acknowledged", m.GetId())
	}
}

// infoField reads one field of INFO at a node.
func infoField(t *testing.T, conn *consistency.Conn, section, field string) string {
	t.Helper()
	_, rest, _ := strings.Cut(string(do(t, conn, "INFO", section).Text), "\n"+field+":")
	value, _, _ := strings.Cut(rest, "\r")
	return value
}
