package control

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// onDisk are servers that keep everything, and let dbfilename be changed.
var onDisk = []string{"appendonly yes", "appendfsync always", "enable-protected-configs yes", "rdbcompression no"}

// diverge lets the master of shard-0 write alone, be replaced by its replica, and come
// back with what it wrote. fault is armed before it comes back.
func (r *rig) diverge(fault string) {
	r.t.Helper()
	p := r.proxy("p1")
	p.fill("shard-0", 10)
	r.servers["shard-0-0"].MustDo("WAIT", 1, 2000)
	r.servers["shard-0-1"].Pause()
	for i := range 50 {
		p.mustSet("shard-0", fmt.Sprint("alone", i), "v")
	}
	r.servers["shard-0-0"].Kill()
	r.servers["shard-0-1"].Resume()
	p.setUntil("shard-0", "after", "v")
	if s := r.shard("shard-0"); s.Master != "shard-0-1" {
		r.t.Fatalf("master %s", s.Master)
	}
	r.arm(fault)
	r.servers["shard-0-0"].Restart()
}

// node is what the record says about a node.
func (r *rig) node(id string) topology.Node {
	c := r.loop.Topology()
	_, n := c.Node(id)
	return *n
}

// failSave makes a node's server save and fail: a folder is in the file's place.
func (r *rig) failSave(node string) {
	r.t.Helper()
	dir, _ := r.servers[node].MustDo("CONFIG", "GET", "dir").([]any)
	file := filepath.Join(fmt.Sprint(dir[1]), "dump.rdb")
	_ = os.Remove(file)
	if err := os.MkdirAll(filepath.Join(file, "x"), 0o700); err != nil {
		r.t.Fatal(err)
	}
	r.servers[node].MustDo("BGSAVE")
	r.eventually("a failed save", 5*time.Second, func() bool {
		return strings.Contains(fmt.Sprint(r.servers[node].MustDo("INFO", "persistence")), "rdb_last_bgsave_status:err")
	})
	if err := os.RemoveAll(file); err != nil {
		r.t.Fatal(err)
	}
}

// kept is the file in which a node keeps diverged data.
func (r *rig) kept(node, file string) []byte {
	r.t.Helper()
	dir, _ := r.servers[node].MustDo("CONFIG", "GET", "dir").([]any)
	data, err := os.ReadFile(filepath.Join(fmt.Sprint(dir[1]), file))
	if err != nil {
		r.t.Fatal(err)
	}
	return data
}

func TestDivergedDataIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 2, func(p *topology.Policy) { p.KeepDiverged = 3 * time.Second })
	r.config = onDisk
	r.form(1, 2)
	r.settled("shard-0")
	r.diverge("")
	r.settled("shard-0")
	if n := len(r.events("DivergedData")); n != 1 {
		t.Errorf("%d events say that data diverged", n)
	}
	kept := r.events("DivergedDataKept")
	if len(kept) != 1 || !strings.Contains(kept[0].Message, "basalt-diverged.rdb") {
		t.Fatalf("events %+v", kept)
	}
	data := r.kept("shard-0-0", "basalt-diverged.rdb")
	for i := range 50 {
		if !bytes.Contains(data, fmt.Append(nil, "alone", i)) {
			t.Errorf("alone%d is not in the file", i)
		}
	}
	if got := fmt.Sprint(r.servers["shard-0-0"].MustDo("CONFIG", "GET", "dbfilename")); got != "[dbfilename dump.rdb]" {
		t.Errorf("dbfilename: %s", got)
	}
	d := r.node("shard-0-0").Diverged
	if d == nil || d.File != "basalt-diverged.rdb" || d.Bytes != -1 || d.Until.IsZero() {
		t.Errorf("the record says %+v", d)
	}
	r.eventually("no longer protected", 10*time.Second, func() bool { return r.node("shard-0-0").Diverged == nil })
	r.checkEpochs()
}

func TestDivergedDataThatCannotBeKept(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config  []string
		policy  time.Duration
		message string
	}{
		"the server does not let it":   {[]string{"appendonly yes", "appendfsync always"}, time.Minute, "enable-protected-configs yes"},
		"the policy does not want it":  {onDisk, 0, "keep_diverged"},
		"there is no room in its disk": {onDisk, time.Minute, "could not write the file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, 2, func(p *topology.Policy) { p.KeepDiverged = tc.policy })
			r.config = tc.config
			r.form(1, 2)
			r.settled("shard-0")
			if strings.Contains(tc.message, "write") {
				dir, _ := r.servers["shard-0-0"].MustDo("CONFIG", "GET", "dir").([]any)
				// A folder of that name: the file cannot be put in its place.
				if err := os.MkdirAll(filepath.Join(fmt.Sprint(dir[1]), "basalt-diverged.rdb", "x"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			r.diverge("")
			r.settled("shard-0")
			d := r.node("shard-0-0").Diverged
			if d == nil || d.File != "" || !strings.Contains(d.Error, tc.message) {
				t.Errorf("the record says %+v", d)
			}
			if got := fmt.Sprint(r.servers["shard-0-0"].MustDo("CONFIG", "GET", "dbfilename")); got != "[dbfilename dump.rdb]" {
				t.Errorf("dbfilename: %s", got)
			}
		})
	}
}

// TestAnotherOwnerFinishesAnAdmission stops the owner at every step of the admission
// of an old master that wrote alone.
func TestAnotherOwnerFinishesAnAdmission(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"diverged/found", "diverged/named", "diverged/begun", "diverged/saved", "admission/judged", "admission/committed", "admission/configured"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, 2, nil)
			r.config = onDisk
			r.form(1, 2)
			r.settled("shard-0")
			r.diverge(step + "=error")
			time.Sleep(500 * time.Millisecond) // it is stuck at the step, trying again and again
			// What was named is not named again, so that step stops it only once.
			if n := r.node("shard-0-0"); step != "diverged/named" && (n.InSync || n.InReadSet) {
				t.Errorf("stuck at %s: %+v", step, n)
			}
			if step == "diverged/found" {
				r.failSave("shard-0-0") // which says nothing about the save that is to come
			}
			r.takeOver()
			r.settled("shard-0")
			if !bytes.Contains(r.kept("shard-0-0", "basalt-diverged.rdb"), []byte("alone49")) {
				t.Error("what was written alone is not in the file")
			}
			if len(r.events("DivergedData")) != 1 || len(r.events("DivergedDataKept")) != 1 {
				t.Errorf("%d and %d events", len(r.events("DivergedData")), len(r.events("DivergedDataKept")))
			}
			if got := fmt.Sprint(r.servers["shard-0-0"].MustDo("CONFIG", "GET", "dbfilename")); got != "[dbfilename dump.rdb]" {
				t.Errorf("dbfilename: %s", got)
			}
			r.oneWritable("shard-0")
			r.checkEpochs()
		})
	}
}

// TestAnotherOwnerFinishesTheFirstAdmission stops the owner between what is committed
// about the first node of a shard and what is done to it.
func TestAnotherOwnerFinishesTheFirstAdmission(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 2, nil)
	r.arm("admission/committed=error")
	r.register("shard-0", 0)
	r.eventually("committed", 5*time.Second, func() bool { return r.shard("shard-0").Nodes[0].Incarnation != "" })
	if s := r.shard("shard-0"); s.Master != "" {
		t.Errorf("master %s, though nothing was done to it", s.Master)
	}
	r.takeOver()
	r.register("shard-0", 1)
	r.settled("shard-0")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if users := fmt.Sprint(r.servers["shard-0-0"].MustDo("ACL", "USERS")); !strings.Contains(users, "basalt-node:c:shard-0:shard-0-0") || ctx.Err() != nil {
		t.Errorf("users %s", users)
	}
	r.checkEpochs()
}
