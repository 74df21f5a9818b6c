package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/basalt-redis/basalt/internal/slot"
)

// drawCluster makes a valid record, forming or serving, with or without
// operations, nodes and masters.
func drawCluster(t *rapid.T) Cluster {
	shards := rapid.IntRange(1, 12).Draw(t, "shards")
	c := Cluster{
		Name:       rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?`).Draw(t, "name"),
		Epoch:      rapid.Uint64Range(1, 1<<60).Draw(t, "epoch"),
		Reason:     rapid.String().Draw(t, "reason"),
		CreatedAt:  time.Unix(1700000000, 0).UTC(),
		Phase:      rapid.SampledFrom([]Phase{Forming, Serving, Deleting}).Draw(t, "phase"),
		WantShards: shards, WantNodes: 3, Policy: DefaultPolicy(),
		ClientSecretIDs: rapid.SliceOfN(rapid.StringMatching(`[0-9a-f]{16}`), 0, 2).Draw(t, "client ids"),
		Seats:           rapid.SliceOfN(rapid.Uint32Range(1, 9), 0, 20).Draw(t, "seats"),
	}
	for i := range shards {
		s := c.AddShard(fmt.Sprintf("shard-%d", i))
		s.Generation = rapid.Uint64Range(1, 9).Draw(t, "generation")
		s.SecretID = rapid.StringMatching(`[0-9a-f]{16}`).Draw(t, "secret id")
		for j := range rapid.IntRange(0, 3).Draw(t, "nodes") {
			n := Node{
				ID: fmt.Sprintf("%s-%d", s.ID, j), Address: fmt.Sprintf("host:%d", 1000+i*10+j),
				Readable: rapid.Bool().Draw(t, "readable"), Priority: rapid.IntRange(0, 200).Draw(t, "priority"),
			}
			if rapid.Bool().Draw(t, "admitted") {
				n.Incarnation = fmt.Sprintf("run-%d-%d", i, j)
				n.InReadSet = rapid.Bool().Draw(t, "in read set")
				n.InSync = rapid.Bool().Draw(t, "in sync")
				if !n.InSync {
					n.Out = &OutOfSync{Since: time.Unix(rapid.Int64Range(0, 1<<31).Draw(t, "out"), 0).UTC(), Why: "a test"}
				}
				if rapid.Bool().Draw(t, "diverged") {
					n.Diverged = &Diverged{FoundAt: time.Unix(1700000000, 0).UTC(), Bytes: 7, File: "x.rdb"}
				}
			}
			s.Nodes = append(s.Nodes, n)
		}
		for i := range s.Nodes {
			if n := &s.Nodes[i]; n.Incarnation != "" {
				s.Master, n.InSync = n.ID, true
				s.Continue(History{ReplID: "history of " + n.ID, Start: int64(i)})
			}
		}
		if s.Master == "" && c.Phase == Serving || rapid.Bool().Draw(t, "operating") {
			s.Operation = drawOperation(t, s)
			s.Frozen = rapid.Bool().Draw(t, "frozen")
			if s.Operation.Kind == Failover {
				s.Master = ""
			}
		}
		for range rapid.IntRange(0, 2).Draw(t, "failovers") {
			s.Failovers = append(s.Failovers, time.Unix(rapid.Int64Range(0, 1<<31).Draw(t, "failover"), 0).UTC())
		}
	}
	c.EvenSlots()
	return c
}

func drawOperation(t *rapid.T, s *Shard) *Operation {
	o := &Operation{
		ID:        rapid.StringMatching(`op-[0-9]{1,4}`).Draw(t, "operation"),
		Kind:      rapid.SampledFrom([]OperationKind{Failover, Switchover, Rotation}).Draw(t, "kind"),
		Phase:     "fencing",
		StartedAt: time.Unix(1700000000, 0).UTC(),
		Unacked:   rapid.SliceOfN(rapid.StringMatching(`[a-z]{4}`), 0, 2).Draw(t, "unacked"),
		Evidence:  []Evidence{{VantagePoint: "configserver", Sight: SightRefused}},
	}
	if len(s.Nodes) > 0 && rapid.Bool().Draw(t, "chosen") {
		o.Candidate = s.Nodes[0].ID
		o.Candidates = []Candidate{{Node: o.Candidate, Chosen: true}}
	}
	return o
}

func TestDrawnClustersAreValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var back Cluster
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if d := Diff(c, back); len(d.Cluster.Shards)+len(d.Removed) != 0 {
			t.Fatalf("JSON changed shards: %+v", d)
		}
	})
}

// TestEveryBreachIsFound breaks one invariant of a valid record at a time.
func TestEveryBreachIsFound(t *testing.T) {
	breaches := map[string]func(*Cluster){
		"name":                      func(c *Cluster) { c.Name = "Upper" },
		"name too long":             func(c *Cluster) { c.Name = strings.Repeat("a", 64) },
		"epoch 0":                   func(c *Cluster) { c.Epoch = 0 },
		"phase":                     func(c *Cluster) { c.Phase = "resting" },
		"no shards wanted":          func(c *Cluster) { c.WantShards = 0 },
		"too many nodes wanted":     func(c *Cluster) { c.WantNodes = MaxNodes + 1 },
		"policy":                    func(c *Cluster) { c.Policy.RefusedProbes = 0 },
		"hung before a probe":       func(c *Cluster) { c.Policy.HungAfter, c.Policy.ProbeInterval = time.Second, time.Minute },
		"shared slot":               func(c *Cluster) { c.Shards[1].Slots.Add(0) },
		"hole in a serving cluster": func(c *Cluster) { c.Shards[1].Slots = slot.Set{} },
		"shards out of order":       func(c *Cluster) { c.Shards[0], c.Shards[1] = c.Shards[1], c.Shards[0] },
		"same shard twice":          func(c *Cluster) { c.Shards[1].ID = c.Shards[0].ID },
		"generation 0":              func(c *Cluster) { c.Shards[0].Generation = 0 },
		"node twice":                func(c *Cluster) { c.Shards[1].Nodes[1].ID = "shard-0-0" },
		"address twice":             func(c *Cluster) { c.Shards[1].Nodes[1].Address = "host:1000" },
		"one server twice":          func(c *Cluster) { c.Shards[1].Nodes[1].Incarnation = "run-0-0" },
		"address without port":      func(c *Cluster) { c.Shards[0].Nodes[0].Address = "host" },
		"address with port 0":       func(c *Cluster) { c.Shards[0].Nodes[0].Address = "host:0" },
		"node id":                   func(c *Cluster) { c.Shards[0].Nodes[1].ID = "-" },
		"negative priority":         func(c *Cluster) { c.Shards[0].Nodes[1].Priority = -1 },
		"fenced node is read":       func(c *Cluster) { c.Shards[0].Nodes[1].InReadSet, c.Shards[0].Nodes[1].Incarnation = true, "" },
		"master elsewhere":          func(c *Cluster) { c.Shards[0].Master = "shard-1-0" },
		"master not admitted":       func(c *Cluster) { c.Shards[0].Nodes[0].Incarnation, c.Shards[0].Nodes[0].InReadSet = "", false },
		"master not in sync":        func(c *Cluster) { c.Shards[0].Nodes[0].InSync = false },
		"nobody in sync": func(c *Cluster) {
			c.Shards[0].Nodes[0].InSync, c.Shards[0].Nodes[1].InSync, c.Shards[0].Master = false, false, ""
			c.Shards[0].Operation = &Operation{ID: "1", Phase: "x", Kind: Failover}
		},
		"in sync and not admitted":  func(c *Cluster) { c.Shards[0].Nodes[1].InReadSet, c.Shards[0].Nodes[1].Incarnation = false, "" },
		"serving without a master":  func(c *Cluster) { c.Shards[0].Master = "" },
		"frozen for ever":           func(c *Cluster) { c.Shards[0].Frozen = true },
		"operation of unknown kind": func(c *Cluster) { c.Shards[0].Operation = &Operation{ID: "1", Phase: "x", Kind: "picnic"} },
		"operation without id":      func(c *Cluster) { c.Shards[0].Operation = &Operation{Phase: "x", Kind: Failover} },
		"version 0 of a seat":       func(c *Cluster) { c.Seats = []uint32{1, 0} },
		"too many seats":            func(c *Cluster) { c.Seats = slices.Repeat([]uint32{1}, MaxSeats+1) },
		"candidate in another shard": func(c *Cluster) {
			c.Shards[0].Operation = &Operation{ID: "1", Phase: "x", Kind: Failover, Candidate: "shard-1-0"}
		},
	}
	for name, breach := range breaches {
		t.Run(name, func(t *testing.T) {
			c := Cluster{Name: "a", Epoch: 1, Phase: Serving, WantShards: 2, WantNodes: 2, Policy: DefaultPolicy()}
			for i := range 2 {
				s := c.AddShard(fmt.Sprintf("shard-%d", i))
				for j := range 2 {
					s.Nodes = append(s.Nodes, Node{ID: fmt.Sprintf("%s-%d", s.ID, j), Address: fmt.Sprintf("host:%d", 1000+i*10+j),
						Incarnation: fmt.Sprintf("run-%d-%d", i, j), InReadSet: true, InSync: true, Priority: 100})
				}
				s.Master = s.Nodes[0].ID
			}
			c.EvenSlots()
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			breach(&c)
			if c.Validate() == nil {
				t.Error("not found")
			}
		})
	}
}

func TestInvalidNamesTheField(t *testing.T) {
	p := DefaultPolicy()
	p.AckTimeout = 0
	var invalid *InvalidError
	if err := p.Validate(); !errors.As(err, &invalid) || invalid.Field != "policy.ack_timeout" {
		t.Errorf("got %v", err)
	}
	p = DefaultPolicy()
	p.ReadPolicy = "nearest"
	if err := p.Validate(); !errors.As(err, &invalid) || invalid.Field != "policy.read_policy" {
		t.Errorf("got %v", err)
	}
	p = DefaultPolicy()
	p.CrossSlot = "ask"
	if err := p.Validate(); !errors.As(err, &invalid) || invalid.Field != "policy.cross_slot" {
		t.Errorf("got %v", err)
	}
}

// TestSecondShardAsksForRefuse: while requests over several slots are served because there
// is one shard, slots cannot be given to another.
func TestSecondShardAsksForRefuse(t *testing.T) {
	c := Cluster{Name: "one", Epoch: 7, Phase: Serving, Policy: DefaultPolicy(), WantShards: 1, WantNodes: 1}
	c.AddShard("shard-0")
	c.EvenSlots()
	grow := func(c Cluster) Cluster {
		next := c.Clone()
		next.Epoch++
		next.AddShard("shard-1")
		return next
	}
	next := grow(c)
	if err := c.ValidateNext(next); err != nil {
		t.Errorf("a shard without slots: %v", err)
	}
	next.EvenSlots()
	var invalid *InvalidError
	if err := c.ValidateNext(next); !errors.As(err, &invalid) || invalid.Field != "policy.cross_slot" || !strings.Contains(err.Error(), "--cross-slot refuse") {
		t.Errorf("a second shard: %v", err)
	}
	next.Policy.CrossSlot = CrossRefuse // in the same commit: no proxy has obeyed it yet
	if c.ValidateNext(next) == nil {
		t.Error("a second shard and the policy in one commit: not refused")
	}
	c.Policy.CrossSlot = CrossRefuse
	next = grow(c)
	next.EvenSlots()
	if err := c.ValidateNext(next); err != nil {
		t.Errorf("with refuse: %v", err)
	}
	next.Epoch, next.Policy.CrossSlot = 8, CrossOneShard
	after := next.Clone()
	after.Epoch++
	if err := next.ValidateNext(after); err != nil {
		t.Errorf("with several shards the policy means nothing: %v", err)
	}
}

// change makes a later record of the same cluster, valid or not.
func change(t *rapid.T, c Cluster) Cluster {
	next := c.Clone()
	next.Epoch += rapid.Uint64Range(1, 5).Draw(t, "epochs")
	next.Reason = "changed"
	for i := range next.Shards {
		s := &next.Shards[i]
		switch rapid.IntRange(0, 5).Draw(t, "change") {
		case 0:
			s.Generation++
		case 1:
			s.Nodes = append(s.Nodes, Node{ID: "new", Address: "new:1"})
		case 2:
			s.Operation = drawOperation(t, s)
		case 3:
			s.Operation, s.Frozen = nil, false
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "new shards") {
		next.AddShard(fmt.Sprintf("shard-%d", rapid.IntRange(0, 40).Draw(t, "new shard")))
	}
	for range rapid.IntRange(0, 2).Draw(t, "removed shards") {
		if n := len(next.Shards); n > 0 {
			i := rapid.IntRange(0, n-1).Draw(t, "removed")
			next.Shards = slices.Delete(next.Shards, i, i+1)
		}
	}
	return next
}

func TestDiffRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := drawCluster(t)
		to := change(t, from)
		before := from.Clone()
		d := Diff(from, to)
		got, err := d.Apply(from)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Shards) == 0 && len(to.Shards) == 0 {
			got.Shards, to.Shards = nil, nil
		}
		if !reflect.DeepEqual(got, to) {
			t.Fatalf("applied\n%+v\nwant\n%+v", got, to)
		}
		if !reflect.DeepEqual(from, before) {
			t.Fatal("Apply changed its argument")
		}
		for i := range d.Cluster.Shards {
			changed := &d.Cluster.Shards[i]
			if was := from.Shard(changed.ID); was != nil && was.Equal(changed) {
				t.Fatalf("shard %s is in the delta and did not change", changed.ID)
			}
		}
		if _, err := d.Apply(to); err == nil {
			t.Fatal("the delta applied to another epoch")
		}
	})
}

func TestCloneSharesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		data, _ := json.Marshal(c)
		clone := c.Clone()
		if !reflect.DeepEqual(clone, c) {
			t.Fatal("the clone differs")
		}
		scribble(reflect.ValueOf(&clone).Elem())
		if after, _ := json.Marshal(c); string(after) != string(data) {
			t.Fatal("changing the clone changed the original")
		}
	})
}

// scribble overwrites every string and number that can be reached.
func scribble(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("scribbled")
	case reflect.Int, reflect.Int64:
		v.SetInt(-1)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(99)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Pointer:
		if !v.IsNil() {
			scribble(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			scribble(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				scribble(v.Field(i))
			}
		}
	}
}

func TestValidateNext(t *testing.T) {
	c := Cluster{Name: "a", Epoch: 4, Phase: Serving, Shards: []Shard{{ID: "shard-0", Generation: 3}}, Seats: []uint32{1, 5}}
	next := func(change func(*Cluster)) Cluster {
		n := c.Clone()
		n.Epoch++
		change(&n)
		return n
	}
	far := next(func(c *Cluster) { c.Epoch += 100 })
	if c.ValidateNext(far) == nil || c.ValidateAdopted(far) != nil || c.ValidateAdopted(next(func(*Cluster) {})) == nil {
		t.Errorf("epoch %d after epoch %d: next %v, adopted %v", far.Epoch, c.Epoch, c.ValidateNext(far), c.ValidateAdopted(far))
	}
	for name, good := range map[string]Cluster{
		"the same":      next(func(*Cluster) {}),
		"more seats":    next(func(c *Cluster) { c.MoreSeats() }),
		"newer version": next(func(c *Cluster) { c.Seats[0]++ }),
	} {
		if err := c.ValidateNext(good); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]Cluster{
		"another name":       next(func(c *Cluster) { c.Name = "b" }),
		"another cluster":    next(func(c *Cluster) { c.CreatedAt = time.Unix(1, 0) }),
		"skipped an epoch":   next(func(c *Cluster) { c.Epoch++ }),
		"back to forming":    next(func(c *Cluster) { c.Phase = Forming }),
		"generation returns": next(func(c *Cluster) { c.Shards[0].Generation = 2 }),
		"version returns":    next(func(c *Cluster) { c.Seats[1] = 4 }),
		"fewer seats":        next(func(c *Cluster) { c.Seats = c.Seats[:1] }),
	} {
		if c.ValidateNext(bad) == nil {
			t.Errorf("%s: not found", name)
		}
	}
}

func TestLookup(t *testing.T) {
	var c Cluster
	for _, id := range []string{"shard-10", "shard-2", "shard-0", "shard-1", "shard-2"} {
		c.AddShard(id).Nodes = []Node{{ID: id + "-0"}}
	}
	var ids []string
	for _, s := range c.Shards {
		ids = append(ids, s.ID)
	}
	if !slices.Equal(ids, []string{"shard-0", "shard-1", "shard-2", "shard-10"}) {
		t.Errorf("shards %v", ids)
	}
	c.EvenSlots()
	if s := c.Owner(16383); s == nil || s.ID != "shard-10" {
		t.Errorf("owner of the last slot %v", s)
	}
	if s, n := c.Node("shard-2-0"); s == nil || s.ID != "shard-2" || n != &s.Nodes[0] {
		t.Errorf("node found in %v: %v", s, n)
	}
	if s, n := c.Node("nobody"); s != nil || n != nil || c.Shard("nobody") != nil {
		t.Error("found what is not there")
	}
	s := c.Shard("shard-1")
	if s.MasterNode() != nil {
		t.Error("a master without one")
	}
	s.Master = "shard-1-0"
	if s.MasterNode() != &s.Nodes[0] {
		t.Error("the master was not found")
	}
}

func TestCompareIDs(t *testing.T) {
	ordered := []string{"", "a", "a-01", "a-1", "a-2", "a-10", "a-10-2", "a-10-11", "b", "shard-2", "shard-10"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got, want := CompareIDs(a, b) < 0, i < j; got != want {
				t.Errorf("%q before %q: %v", a, b, got)
			}
			if (CompareIDs(a, b) == 0) != (i == j) {
				t.Errorf("%q equals %q", a, b)
			}
		}
	}
}

func TestEndpoint(t *testing.T) {
	name, ip := Node{Address: "db.test:6379"}, Node{Address: "[::1]:6379"}
	if name.Endpoint() != name.Address || !name.Moved("10.0.0.1:6379") || name.Moved("") || ip.Moved("10.0.0.1:6379") {
		t.Error("before anything was admitted")
	}
	for _, n := range []*Node{&name, &ip} {
		n.ReachedAt("10.0.0.1:6379")
		n.ReachedAt("")
	}
	if name.Endpoint() != "10.0.0.1:6379" || name.Moved("10.0.0.1:6379") || !name.Moved("10.0.0.2:6379") || ip.Resolved != "" {
		t.Errorf("after it: %+v, %+v", name, ip)
	}
}
