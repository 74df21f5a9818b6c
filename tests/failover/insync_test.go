package failover

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/harness"
)

// TestReplicaThatWasAwayWaitsForMaster: a replica dies, 5000 keys are written, the
// master dies, and the replica alone comes back. It is known to lack them, so the
// shard waits and says for whom; with the master the keys are back, without an
// admin.
func TestReplicaThatWasAwayWaitsForMaster(t *testing.T) {
	t.Parallel()
	for _, disk := range []harness.Disk{harness.AppendOnly, harness.Snapshots} {
		t.Run(disk.String(), func(t *testing.T) {
			t.Parallel()
			c := harness.Start(t, harness.Options{Shards: 1, Disk: disk})
			c.SetPolicy(t, impatient)
			w := numberKeys(t, c, 0)
			master, replicas := roles(t, c, 0)
			replica := replicas[0]
			w.write(500)
			w.waitCopied(replica)
			if disk == harness.Snapshots {
				c.CLI(t, "local", "stop", replica)
			} else {
				c.Kill(t, replica)
			}
			w.write(5000)
			save(t, c, disk, master)
			waitOut(t, c, 0, replica)
			since := c.LastEvent(t)
			c.Kill(t, master)
			time.Sleep(4 * time.Second) // longer than a restarted shard waits for its nodes
			c.StartProcess(t, replica)
			requireBlocked(t, c, 0, since, master, replica)
			c.StartProcess(t, master)
			w.requireServed(w.count, servesWithin)
			c.WaitHealthy(t, 20*time.Second)
			c.RequireInvariants(t)
		})
	}
}

// save makes a node keep what it has, if its disk needs to be told.
func save(t *testing.T, c *harness.Cluster, disk harness.Disk, node string) {
	t.Helper()
	if disk == harness.Snapshots {
		do(t, c.Admin(t, c.Process(t, node).Address), "SAVE")
	}
}

// stoppedReplicas is a shard whose master died while all its replicas had been
// stopped for longer than the policy allows: 500 keys are in all, 2000 only in the
// master. The replicas have just woken.
func stoppedReplicas(t *testing.T, count int, disk harness.Disk, policy func(*pb.Policy)) (
	w *numbered, master, replica string, since uint64,
) {
	t.Helper()
	c := harness.Start(t, harness.Options{Shards: 1, Replicas: count, Disk: disk})
	c.SetPolicy(t, policy)
	w = numberKeys(t, c, 0)
	master, replicas := roles(t, c, 0)
	w.write(500)
	var stopped []harness.LocalProcess
	for _, replica := range replicas {
		w.waitCopied(replica)
		stopped = append(stopped, fallBehind(t, c, master, replica))
	}
	w.write(2000)
	save(t, c, disk, master)
	for _, replica := range replicas {
		waitOut(t, c, 0, replica)
	}
	since = c.LastEvent(t)
	kill(t, c, master)
	for _, p := range stopped {
		harness.Signal(t, p, syscall.SIGCONT)
	}
	return w, master, replicas[0], since
}

// TestStoppedReplicaIsNotInSync: a replica that hung for long is not promoted when
// it wakes up beside its master's grave. When the master is back, so is what it
// has on its disk; if that is nothing, the replica's data is served.
func TestStoppedReplicaIsNotInSync(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		replicas int
		disk     harness.Disk
	}{{1, harness.AppendOnly}, {1, harness.Snapshots}, {1, harness.Nothing}, {2, harness.AppendOnly}} {
		t.Run(fmt.Sprint(row.replicas, " ", row.disk), func(t *testing.T) {
			t.Parallel()
			w, master, replica, since := stoppedReplicas(t, row.replicas, row.disk, impatient)
			requireBlocked(t, w.c, 0, since, master, replica)
			w.c.StartProcess(t, master)
			if row.disk == harness.Snapshots && !knowsAges(t, w.c) {
				// Nobody knows if the snapshot has more than the replica: an admin decides.
				harness.Eventually(t, 15*time.Second, "both ways out are named", func() error {
					for _, e := range w.c.EventsAfter(t, since) {
						if e.GetKind() == "FailoverBlocked" && strings.Contains(e.GetMessage(), "--to "+master+" --accept-loss") && strings.Contains(e.GetMessage(), "--to "+replica+" --accept-loss") {
							return nil
						}
					}
					return errors.New("no event does")
				})
				requireNotReplaced(t, w.c, 0, master)
				w.c.CLI(t, "failover", w.c.Name, shardName(0), "--to", master, "--accept-loss", "--yes")
			}
			if row.disk == harness.Nothing {
				w.requireServed(500, servesWithin)
			} else {
				w.requireServed(w.count, servesWithin)
			}
			w.c.WaitHealthy(t, 20*time.Second)
			w.c.RequireInvariants(t)
		})
	}
}

// knowsAges tells if the servers know how old a snapshot is that they start from: Redis
// from 7.0, and every Valkey.
func knowsAges(t *testing.T, c *harness.Cluster) bool {
	t.Helper()
	major, _, _ := strings.Cut(c.Status(t).GetNodes()[0].GetVersion(), ".")
	n, err := strconv.Atoi(major)
	return err == nil && n >= 7
}

// TestAcceptedLoss: a failover to a replica that lacks writes is refused with a
// word of how much it lacks, and happens when an admin accepts the loss.
func TestAcceptedLoss(t *testing.T) {
	t.Parallel()
	w, master, replica, since := stoppedReplicas(t, 1, harness.AppendOnly, impatient)
	requireBlocked(t, w.c, 0, since, master, replica)
	_, err := w.c.Failover(t.Context(), shardName(0))
	if status.Code(err) != codes.FailedPrecondition || !howFar.MatchString(status.Convert(err).Message()) {
		t.Errorf("a failover that loses writes was not refused with how much is lost: %v", err)
	}
	requireNotReplaced(t, w.c, 0, master)
	w.c.CLI(t, "failover", w.c.Name, shardName(0), "--accept-loss", "--yes")
	if m := w.c.Master(t, 0); m.GetId() != replica {
		t.Fatalf("the loss was accepted, and the master is %q", m.GetId())
	}
	requireAdmitted(t, w.c, since)
	w.requireServed(500, servesWithin)
	w.c.StartProcess(t, master)
	w.c.WaitHealthy(t, 20*time.Second)
	w.c.RequireInvariants(t)
}

// requireAdmitted requires that the one report since an event tells of the writes
// of stoppedReplicas that are lost.
func requireAdmitted(t *testing.T, c *harness.Cluster, since uint64) {
	t.Helper()
	const atLeast = 2000 * 100 // keys and their values
	reports := c.Reports(t, since)
	if len(reports) != 1 || reports[0].GetOffsetGap() < atLeast || !reports[0].GetSucceeded() {
		t.Errorf("2000 keys are lost and %d reports do not say so", len(reports))
	}
	for _, r := range reports {
		t.Log(harness.ReportLine(r))
	}
}

// TestPreferAvailability: with that policy the shard waits for a while, and then
// the best node that answers is promoted and the loss reported.
func TestPreferAvailability(t *testing.T) {
	t.Parallel()
	const wait = 2 * time.Second
	w, master, replica, since := stoppedReplicas(t, 1, harness.AppendOnly, func(p *pb.Policy) {
		impatient(p)
		p.Prefer, p.ElectionWait = pb.Preference_PREFERENCE_AVAILABILITY, durationpb.New(wait)
	})
	took := waitNewMaster(t, w.c, 0, master, 15*time.Second)
	// The shard waits from when its master was seen to be well for the last time.
	if m := w.c.Master(t, 0).GetId(); m != replica || took < wait-300*time.Millisecond {
		t.Errorf("%s was promoted after %s, before the %s that the shard waits for one without loss", m, took.Round(time.Millisecond), wait)
	}
	w.requireServed(500, servesWithin)
	requireAdmitted(t, w.c, since)
	w.c.StartProcess(t, master)
	w.c.WaitHealthy(t, 20*time.Second)
	w.c.RequireInvariants(t)
}

// TestElectionWaitsForTheBest: of two replicas one is 200 KB behind, and the other
// one does not answer for a moment just when the master dies. It is waited for,
// and nothing is lost.
func TestElectionWaitsForTheBest(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Shards: 1, Replicas: 2})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	w := numberKeys(t, c, 0)
	master, replicas := roles(t, c, 0)
	best, other := replicas[1], replicas[0] // the other one has the lower id
	w.write(500)
	w.waitCopied(other)
	behind := fallBehind(t, c, master, other)
	w.write(2000)
	w.waitCopied(best)
	since := c.LastEvent(t)
	silent := c.Process(t, best)
	dying := c.Process(t, master)
	harness.Signal(t, silent, syscall.SIGSTOP)
	harness.Signal(t, dying, syscall.SIGKILL)
	harness.Signal(t, behind, syscall.SIGCONT)
	time.Sleep(1200 * time.Millisecond)
	harness.Signal(t, silent, syscall.SIGCONT)
	took := waitNewMaster(t, c, 0, master, 15*time.Second)
	if m := c.Master(t, 0).GetId(); m != best {
		t.Errorf("%s was promoted %s after %s went on; it lacks 2000 keys that %s has", m, took.Round(time.Millisecond), best, best)
	}
	w.requireServed(w.count, servesWithin)
	for _, r := range c.Reports(t, since) {
		t.Log(harness.ReportLine(r))
	}
	c.StartProcess(t, master)
	c.WaitHealthy(t, 20*time.Second)
	c.RequireInvariants(t)
}

// TestElectionDoesNotWaitForever: an in-sync replica that stays silent is not
// waited for longer than the policy says, when another one has every write.
func TestElectionDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Shards: 1, Replicas: 2})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	w := numberKeys(t, c, 0)
	master, replicas := roles(t, c, 0)
	w.write(500)
	for _, r := range replicas {
		w.waitCopied(r)
	}
	silent := c.Process(t, replicas[1])
	dying := c.Process(t, master)
	harness.Signal(t, silent, syscall.SIGSTOP)
	harness.Signal(t, dying, syscall.SIGKILL)
	waitNewMaster(t, c, 0, master, 10*time.Second)
	w.requireServed(w.count, servesWithin)
	harness.Signal(t, silent, syscall.SIGCONT)
	c.StartProcess(t, master)
	c.WaitHealthy(t, 20*time.Second)
}

// TestOwnerDiesWithMaster: a replica whose link was down for long is not promoted
// by a Configserver that has never seen the master alive, be it another one or the
// same one restarted.
func TestOwnerDiesWithMaster(t *testing.T) {
	t.Parallel()
	for _, configservers := range []int{1, 2} {
		t.Run(map[int]string{1: "restarted", 2: "another"}[configservers], func(t *testing.T) {
			t.Parallel()
			c := harness.Start(t, harness.Options{Shards: 1, Configservers: configservers, Disk: harness.AppendOnly,
				Flags: []string{"--configserver-flag", "--lease-ttl=2s"}})
			c.SetPolicy(t, impatient)
			w := numberKeys(t, c, 0)
			master, replicas := roles(t, c, 0)
			replica := replicas[0]
			w.write(500)
			w.waitCopied(replica)
			keepFromCopying(t, c, master)
			p := fallBehind(t, c, master, replica)
			w.write(5000)
			harness.Signal(t, p, syscall.SIGCONT)
			conn := c.Admin(t, p.Address)
			harness.Eventually(t, 5*time.Second, "its link is down", func() error {
				if link := infoField(t, conn, "replication", "master_link_status"); link != "down" {
					return errors.New("it is up")
				}
				return nil
			})
			waitOut(t, c, 0, replica)
			since := c.LastEvent(t)
			owner := c.Process(t, c.Status(t).GetCluster().GetOwner())
			dying := c.Process(t, master)
			harness.Signal(t, owner, syscall.SIGKILL)
			harness.Signal(t, dying, syscall.SIGKILL)
			if configservers == 1 {
				startAgain(t, c, owner.Name)
			}
			requireBlocked(t, c, 0, since, master, replica)
			c.StartProcess(t, master)
			w.requireServed(w.count, servesWithin)
			if configservers == 2 {
				c.StartProcess(t, owner.Name)
			}
			c.WaitHealthy(t, 20*time.Second)
			c.RequireInvariants(t)
		})
	}
}

// startAgain starts a process whose death the runner may not have noticed yet.
func startAgain(t *testing.T, c *harness.Cluster, name string) {
	t.Helper()
	harness.Eventually(t, 5*time.Second, "start "+name, func() error {
		_, err := c.TryCLI("local", "start", name)
		return err
	})
}

// keepFromCopying makes a master forget at once what its replicas have not got
// yet, and send the full copies that they need then next to never.
func keepFromCopying(t *testing.T, c *harness.Cluster, master string) {
	t.Helper()
	conn := c.Admin(t, c.Process(t, master).Address)
	do(t, conn, "CONFIG", "SET", "repl-backlog-size", "16384")
	do(t, conn, "CONFIG", "SET", "repl-diskless-sync-delay", "3600")
	slowCopies(t, c, master)
}

// slowCopies makes a master need some seconds for a full copy of some hundred keys.
func slowCopies(t *testing.T, c *harness.Cluster, master string) {
	t.Helper()
	const perKey = "20000" // in microseconds
	do(t, c.Admin(t, c.Process(t, master).Address), "CONFIG", "SET", "rdb-key-save-delay", perKey)
}

// TestReplicaWithOldDataIsNotInSync: a replica starts with data of before, is
// admitted, and its master dies in the middle of the copy that brings it up to
// date. To be admitted is not to be in sync: the shard waits for its master, and
// takes it at once.
func TestReplicaWithOldDataIsNotInSync(t *testing.T) {
	t.Parallel()
	for _, disk := range []harness.Disk{harness.Snapshots, harness.AppendOnly} {
		t.Run(disk.String(), func(t *testing.T) {
			t.Parallel()
			w, master, replica, since := copyCutShort(t, disk)
			requireBlocked(t, w.c, 0, since, master, replica)
			w.c.StartProcess(t, master)
			w.requireServed(w.count, servesWithin)
			w.c.WaitHealthy(t, 20*time.Second)
			w.c.RequireInvariants(t)
		})
	}
}

// TestMasterBackWithEverythingIsTaken: the same, and the master is started again
// at once. It is taken although the replica was admitted meanwhile.
func TestMasterBackWithEverythingIsTaken(t *testing.T) {
	t.Parallel()
	for _, disk := range []harness.Disk{harness.AppendOnly, harness.Snapshots} {
		t.Run(disk.String(), func(t *testing.T) {
			t.Parallel()
			w, master, _, _ := copyCutShort(t, disk)
			w.c.CLI(t, "local", "start", master)
			w.requireServed(w.count, servesWithin)
			w.c.WaitHealthy(t, 20*time.Second)
			w.c.RequireInvariants(t)
		})
	}
}

// copyCutShort is a shard whose replica was restarted with 500 keys of its own
// disk, and whose master, with 2000 more, was killed while it sent them.
func copyCutShort(t *testing.T, disk harness.Disk) (w *numbered, master, replica string, since uint64) {
	t.Helper()
	c := harness.Start(t, harness.Options{Shards: 1, Disk: disk})
	c.SetPolicy(t, impatient)
	w = numberKeys(t, c, 0)
	master, replicas := roles(t, c, 0)
	replica = replicas[0]
	w.write(500)
	w.waitCopied(replica)
	c.CLI(t, "local", "stop", replica)
	w.write(2000)
	save(t, c, disk, master)
	slowCopies(t, c, master)
	since = c.LastEvent(t)
	c.StartProcess(t, replica)
	conn := c.Admin(t, c.Process(t, replica).Address)
	run := infoField(t, conn, "server", "run_id")
	harness.Eventually(t, 10*time.Second, "the replica is admitted and copies", func() error {
		admitted := false
		for _, n := range c.Topology(t).GetShards()[0].GetNodes() {
			admitted = admitted || n.GetId() == replica && n.GetIncarnation() == run
		}
		if !admitted || infoField(t, conn, "replication", "master_sync_in_progress") != "1" {
			return errors.New("not yet")
		}
		return nil
	})
	c.Kill(t, master)
	return w, master, replica, since
}
