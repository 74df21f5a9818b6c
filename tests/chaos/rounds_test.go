package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// Rounds: one incident after the other, each on a cluster that is well.
//
// Where TestChaos mixes harms and can only require what holds in any mixture, a
// round knows what its incident may cost. In most of them nothing: somebody who
// has every acknowledged write is alive or comes back with its disk. In the others
// the master dies beside replicas that were in sync; what it acknowledged in its
// last moment may be lost then, is counted, and must be admitted by the report.
//
//	BASALT_CHAOS_SEED=7 BASALT_CHAOS_ROUNDS=200 go test ./chaos -v -run TestRounds
//
// Round i has the seed BASALT_CHAOS_SEED + i, which fixes the cluster, the incident
// and its numbers: BASALT_CHAOS_ROUNDS=1 with that seed does it again.

const (
	defaultRounds = 3
	// roundsPerCluster follow each other on one cluster.
	roundsPerCluster = 20
)

// round is one incident.
type round struct {
	*nemesis
	rng      *rand.Rand
	shard    int
	owner    *victim
	master   *victim
	replicas []*victim
	// at is when the master was harmed; 0 when nothing may be lost.
	at time.Duration
}

// incident is one kind of round.
type incident struct {
	name string
	// kept: only for nodes that keep their data; bare: only for those that do not.
	kept, bare bool
	happen     func(r *round)
}

var incidents = []incident{
	{name: "a replica's address leads to another shard", happen: func(r *round) { r.swapped(r.replicas[0]) }},
	{name: "the master's address leads to another shard", happen: func(r *round) { r.loses(); r.swapped(r.master) }},
	{name: "a replica is wiped", happen: func(r *round) { r.wipe(r.replicas[0]) }},
	{name: "the master is wiped", happen: func(r *round) { r.loses(); r.wipe(r.master) }},
	{name: "the owner dies with the master", happen: func(r *round) { r.loses(); r.ownerDies() }},
	{name: "the master dies beside replicas that were away", kept: true, happen: func(r *round) { r.strandReplicas(); r.masterDies() }},
	{name: "the master loses its disk beside replicas that were away", bare: true, happen: func(r *round) {
		r.strandReplicas()
		r.loses()
		r.masterDies()
	}},
	{name: "owner and master die beside replicas that were away", kept: true, happen: func(r *round) { r.strandReplicas(); r.ownerDies() }},
	{name: "the copies of all replicas are cut short", kept: true, happen: func(r *round) { r.allCopiesCutShort() }},
	{name: "the copy of one replica is cut short", bare: true, happen: func(r *round) { r.loses(); r.oneCopyCutShort() }},
	{name: "all nodes restart", kept: true, happen: func(r *round) { r.restarts() }},
}

// loses says that the master is harmed now, beside replicas that are in sync or
// without a disk.
func (r *round) loses() {
	r.mayLose(r.shard)
	r.at = r.load.Now()
}

// pause lets things happen for up to limit.
func (r *round) pause(limit time.Duration) { time.Sleep(time.Duration(r.rng.Int64N(int64(limit)))) }

func (r *round) swapped(v *victim) {
	r.swap(v, time.Second+time.Duration(r.rng.Int64N(int64(2*time.Second))))
	for v.is == replaced && r.load.Now() < v.since {
		time.Sleep(50 * time.Millisecond)
	}
	r.start(v, r.rng.IntN(2) == 0)
}

// strandReplicas returns when no replica is in sync any more.
func (r *round) strandReplicas() {
	for _, v := range r.replicas {
		r.strand(v, time.Minute)
	}
	time.Sleep(replicaAge)
	harness.Eventually(r.t, 10*time.Second, "the replicas left the in-sync set", func() error {
		for _, n := range r.c.Topology(r.t).GetShards()[r.shard].GetNodes() {
			if n.GetId() != r.master.Name && n.GetInSync() {
				return fmt.Errorf("%s is in sync", n.GetId())
			}
		}
		return nil
	})
}

// masterDies kills the master and brings everybody back in any order.
func (r *round) masterDies() {
	r.harm("kill", r.master, 0)
	r.everybodyBack()
}

func (r *round) ownerDies() {
	r.harm("kill", r.owner, 0)
	r.masterDies()
}

// everybodyBack resumes and starts all nodes with what they have.
func (r *round) everybodyBack() {
	all := append([]*victim{r.master}, r.replicas...)
	r.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, v := range all {
		r.pause(2 * time.Second)
		switch v.is {
		case paused:
			r.heal(v)
		case killed:
			r.start(v, false)
		case up, replaced:
		}
	}
}

func (r *round) allCopiesCutShort() {
	for _, v := range r.replicas {
		r.harm("kill", v, 0)
	}
	time.Sleep(replicaAge)
	r.cutShort(r.master, r.replicas[0], r.rng.IntN(3) == 0)
	r.masterDies()
}

func (r *round) oneCopyCutShort() {
	r.harm("kill", r.replicas[0], 0)
	r.cutShort(r.master, r.replicas[0], true)
	r.masterDies()
}

func (r *round) restarts() {
	for _, v := range r.replicas {
		r.harm("kill", v, 0)
	}
	r.harm("kill", r.master, 0)
	r.everybodyBack()
}

// rounds is how many rounds to do.
func rounds(t *testing.T) uint64 {
	text := os.Getenv("BASALT_CHAOS_ROUNDS")
	if text == "" {
		return defaultRounds
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("BASALT_CHAOS_ROUNDS: %v", err)
	}
	return n
}

func TestRounds(t *testing.T) {
	t.Parallel()
	first, count := seed(t), rounds(t)
	for s := first; s < first+count; {
		end := min(first+count, (s/roundsPerCluster+1)*roundsPerCluster)
		ok := t.Run(fmt.Sprintf("%d-%d", s, end-1), func(t *testing.T) {
			c, kept := clusterOf(t, s)
			for ; s < end; s++ {
				if !t.Run(fmt.Sprint(s), func(t *testing.T) { playRound(t, c, s, kept) }) {
					t.Fatalf("again with BASALT_CHAOS_SEED=%d BASALT_CHAOS_ROUNDS=1", s)
				}
			}
		})
		if !ok {
			return
		}
	}
}

// clusterOf starts the cluster of a seed.
func clusterOf(t *testing.T, s uint64) (c *harness.Cluster, kept bool) {
	t.Helper()
	o := []harness.Options{
		{Replicas: 1, Disk: harness.AppendOnly},
		{Replicas: 2, Disk: harness.AppendOnly},
		{Replicas: 2, Disk: harness.Nothing},
	}[s/roundsPerCluster%3]
	o.Shards, o.Configservers, o.Flags = 2, 2, []string{"--configserver-flag", "--lease-ttl=2s"}
	c = harness.Start(t, o)
	c.SetPolicy(t, impatient)
	return c, o.Disk != harness.Nothing
}

// playRound does the incident of a seed and judges it.
func playRound(t *testing.T, c *harness.Cluster, s uint64, kept bool) {
	rng := rand.New(rand.NewPCG(s, 0x726f_756e_64))
	var possible []incident
	for _, i := range incidents {
		if kept && !i.bare || !kept && !i.kept {
			possible = append(possible, i)
		}
	}
	chosen := possible[rng.IntN(len(possible))]
	l := c.StartLoad(t, consistency.Config{Connections: 20, Pace: 15 * time.Millisecond, Prefix: fmt.Sprint("round-", s)})
	r := &round{nemesis: newNemesis(t, c, l, 2, kept), rng: rng, shard: rng.IntN(2)}
	time.Sleep(time.Second)
	harness.Eventually(t, 10*time.Second, "the cluster is well", func() error {
		st, master, replicas := r.whole(r.shard)
		if master == nil {
			return errors.New("it is not")
		}
		r.owner, r.master, r.replicas = r.named(st.GetCluster().GetOwner()), master, replicas
		return nil
	})
	rng.Shuffle(len(r.replicas), func(i, j int) { r.replicas[i], r.replicas[j] = r.replicas[j], r.replicas[i] })
	since := c.LastEvent(t)
	r.say("%s: %s", r.master.Name, chosen.name)
	chosen.happen(r)
	r.stop()
	took := c.WaitHealthy(t, healthyWithin)
	r.settle()
	r.say("well again after %s", took.Round(time.Millisecond))
	time.Sleep(300 * time.Millisecond)
	r.requireAlive()
	final := l.Judge(t)
	if final.Behind > 0 {
		r.requireAdmitted(final, since)
	}
}

// unseen is for how long a Configserver may not have looked at a master that then
// died: what was written in that time is in no report.
const unseen = 500 * time.Millisecond

// requireAdmitted compares what is lost with what the reports say.
func (r *round) requireAdmitted(final consistency.Final, since uint64) {
	if r.at == 0 {
		r.t.Errorf("%d keys are behind what was acknowledged, and somebody had it: %s", final.Behind, final.Examples)
		return
	}
	const leastBytes = 64 // of a write
	admitted, known := int64(0), true
	var reports []*pb.Report
	for _, e := range r.c.EventsAfter(r.t, since) {
		known = known && e.GetKind() != "AllNodesRestarted" // which cannot know
		if report := e.GetReport(); report != nil && report.GetShard() == fmt.Sprintf("shard-%d", r.shard) {
			reports = append(reports, report)
			known = known && report.GetOffsetGap() >= 0
			admitted += max(0, report.GetOffsetGap())
			r.say("%s", harness.ReportLine(report))
		}
	}
	late := r.load.Timeline().Shard(r.shard).Where(func(w consistency.Record) bool {
		return w.Write && w.Class == consistency.OK && w.End() > r.at-unseen && w.Start < r.at+unseen
	})
	limit := admitted/leastBytes + int64(len(late))
	r.say("%d keys are behind what was acknowledged; reports admit %d bytes (all known: %t), and %d writes ended near the harm",
		final.Behind, admitted, known, len(late))
	if len(reports) == 0 || known && int64(final.Behind) > limit {
		r.t.Errorf("%d keys are behind what was acknowledged, which %d reports do not admit: %s", final.Behind, len(reports), final.Examples)
	}
}
