// Package chaos harms a cluster under a verifying load in a random sequence and
// judges what became of it: kills and pauses of servers, proxies, Configservers
// and etcd, two at a time, servers that answer at the address of others, copies
// that are cut short, disks that are wiped, between switchovers, failovers and
// rotations.
//
//	go test ./chaos -v                              one random sequence
//	BASALT_CHAOS_SEED=7 go test ./chaos -v          the same steps again
//	BASALT_CHAOS_TIME=10m go test ./chaos -v -timeout 30m
//
// A seed fixes the steps and what they pick from; what is there to be picked
// depends on the speed of the machine, so a failure may take a few runs to show
// again. Everything that was done is in the log of the test.
//
// Two rules keep the verdict sharp. One node of each shard that holds its data
// is left alone at any time, or all keep it on their disks and are back at once,
// so a write that was seen in a replica must survive. And a shard may lose acknowledged writes that no replica has only while its
// master is being harmed; at all other times nothing may go back.
package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	defaultTime = 60 * time.Second
	// healthyWithin is how long a cluster may take to be well after the last harm.
	healthyWithin = 30 * time.Second
)

// seed is of the environment, or new.
func seed(t *testing.T) uint64 {
	text := os.Getenv("BASALT_CHAOS_SEED")
	if text == "" {
		return uint64(time.Now().UnixNano() % 1_000_000)
	}
	s, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("BASALT_CHAOS_SEED: %v", err)
	}
	return s
}

func length(t *testing.T) time.Duration {
	text := os.Getenv("BASALT_CHAOS_TIME")
	if text == "" {
		return defaultTime
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("BASALT_CHAOS_TIME: %v", err)
	}
	return d
}

func TestChaos(t *testing.T) {
	t.Parallel()
	seed, length := seed(t), length(t)
	t.Logf("again with BASALT_CHAOS_SEED=%d", seed)
	const shards = 2
	o := harness.Options{Shards: shards, Replicas: 2, Proxies: 2, Configservers: 2}
	if seed%2 == 1 {
		// Servers that restart find their data of before.
		o.Disk = harness.AppendOnly
	}
	c := harness.Start(t, o)
	c.SetPolicy(t, impatient)
	l := c.StartLoad(t, consistency.Config{Connections: 40, Pace: 15 * time.Millisecond})
	n := newNemesis(t, c, l, shards, o.Disk != harness.Nothing)
	n.run(plan(seed, length), l.Now()+length)
	n.stop()
	took := c.WaitHealthy(t, healthyWithin)
	n.settle()
	well := l.Now()
	t.Logf("%8s  well again after %s; steps: %v", well.Round(time.Millisecond), took.Round(time.Millisecond), n.done)
	time.Sleep(3 * time.Second)
	n.requireAlive()
	harness.Eventually(t, 10*time.Second, "one writable master in each shard", func() error { return oneMaster(t, c) })
	l.Judge(t)
	for _, r := range l.Timeline().Errors() {
		if r.Start > well {
			t.Errorf("%s after all was well: [%s] %s", r.Start, r.Class, r.Text)
		}
	}
	t.Logf("errors that clients saw: %s", l.Timeline().ErrorTexts())
}

// replicaAge is the policy's max_replica_age here.
const replicaAge = 3 * time.Second

// impatient is a policy by which nodes leave the in-sync set within these tests.
func impatient(p *pb.Policy) {
	harness.UnlimitedFailovers(p)
	p.MaxReplicaAge = durationpb.New(replicaAge)
}

// oneMaster asks every server itself: the topology's master is the only one,
// and all accept proxies of the present generation only.
func oneMaster(t *testing.T, c *harness.Cluster) error {
	var errs []error
	var seats []string // the same at all nodes
	for _, sh := range c.Topology(t).GetShards() {
		for _, node := range sh.GetNodes() {
			conn, err := consistency.Dial(t.Context(), node.GetAddress(), "basalt-admin", c.AdminPassword(t))
			if err != nil {
				return err
			}
			replies, err := conn.Pipeline([]string{"INFO", "replication"}, []string{"ACL", "USERS"})
			conn.Close()
			if err != nil {
				return err
			}
			want := "role:slave"
			if node.GetId() == sh.GetMaster() {
				want = "role:master"
			}
			if !strings.Contains(string(replies[0].Text), want) {
				errs = append(errs, fmt.Errorf("%s has not %s:\n%s", node.GetId(), want, replies[0].Text))
			}
			var users []string
			for _, u := range replies[1].Array {
				if strings.HasPrefix(string(u.Text), "basalt-proxy-") {
					users = append(users, string(u.Text))
				}
			}
			present := fmt.Sprintf("basalt-proxy-%d-", sh.GetGeneration())
			if len(users) == 0 || slices.ContainsFunc(users, func(u string) bool { return !strings.HasPrefix(u, present) }) {
				errs = append(errs, fmt.Errorf("%s has the users %v, want %s only", node.GetId(), users, present))
			}
			slices.Sort(users)
			if seats == nil {
				seats = seatsOf(users, present)
			} else if now := seatsOf(users, present); !slices.Equal(now, seats) {
				errs = append(errs, fmt.Errorf("%s knows the seats %v, another node %v", node.GetId(), now, seats))
			}
		}
	}
	return errors.Join(errs...)
}

// seatsOf are the parts of users' names behind that of their generation.
func seatsOf(users []string, prefix string) (seats []string) {
	for _, u := range users {
		seats = append(seats, strings.TrimPrefix(u, prefix))
	}
	return seats
}

// newSecret puts a cluster secret on the first line of its file, and leaves the
// one before on the second.
func newSecret(c *harness.Cluster, secret string) error {
	path := filepath.Join(c.CredentialsDir, "cluster-secret")
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	current, _, _ := strings.Cut(string(old), "\n")
	next := path + ".new"
	if err := os.WriteFile(next, []byte(secret+"\n"+current+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
