package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// dns is the DNS of a test: by "host:port", where that leads.
type dns struct {
	mu     sync.Mutex
	leads  map[string][]string
	broken bool
}

func (n *dns) resolve(_ context.Context, address string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case topology.Literal(address):
		return []string{address}, nil
	case n.broken || len(n.leads[address]) == 0:
		return nil, &net.DNSError{Err: "no such host", Name: address, IsNotFound: !n.broken, IsTimeout: n.broken}
	}
	return n.leads[address], nil
}

func (n *dns) point(address string, to ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leads == nil {
		n.leads = map[string][]string{}
	}
	n.leads[address] = to
}

func (n *dns) fail(broken bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.broken = broken
}

// byName is a shard of two nodes that are registered by names of one port. The
// master is at 127.0.0.2, its replica at 127.0.0.3.
type byName struct {
	*rig
	port int
	p    *fakeProxy
}

func newByName(t *testing.T, masterConfig ...string) *byName {
	t.Helper()
	r := &byName{rig: newRig(t, 1, 2, nil), port: redistest.FreePort(t)}
	for i, config := range [][]string{masterConfig, nil} {
		id := fmt.Sprint("shard-0-", i)
		r.servers[id] = r.start(i+2, config...)
		r.names.point(r.name(i), r.at(i+2))
		if _, err := r.loop.RegisterNode(t.Context(), "shard-0", topology.Node{ID: id, Address: r.name(i), Readable: true, Priority: 100}, false); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("serving", 15*time.Second, func() bool { return r.loop.Topology().Phase == topology.Serving })
	r.settled("shard-0")
	r.p = r.proxy("p1")
	r.p.fill("shard-0", 100)
	return r
}

func (r *byName) name(i int) string { return fmt.Sprintf("db-%d.test:%d", i, r.port) }
func (r *byName) at(i int) string   { return fmt.Sprintf("127.0.0.%d:%d", i, r.port) }

func (r *byName) start(i int, config ...string) *redistest.Server {
	r.t.Helper()
	return redistest.Start(r.t, redistest.Options{AdminPassword: adminPassword, Address: r.at(i), Config: config})
}

func (r *byName) endpoint(node string) string {
	s := r.shard("shard-0")
	return s.Node(node).Resolved
}

// problem tells if a problem of a node is found now.
func (r *byName) problem(code, node string) bool {
	return slices.ContainsFunc(r.loop.Status().Problems, func(p Problem) bool { return p.Code == code && p.Node == node })
}

// disturb breaks the Configserver's connections to a server.
func disturb(s *redistest.Server) { _, _ = s.Do("CLIENT", "KILL", "USER", redistest.AdminUser) }

// calm checks, while a number of looks at the names pass, that nothing happens that
// commits anything, and that writes go on.
func (r *byName) calm(what string, within time.Duration, meanwhile func()) {
	r.t.Helper()
	epoch := r.loop.Topology().Epoch
	for end := time.Now().Add(within); time.Now().Before(end); {
		meanwhile()
		r.p.mustSet("shard-0", "calm", what)
		if c := r.loop.Topology(); c.Epoch != epoch {
			r.t.Fatalf("%s: epoch %d: %s", what, c.Epoch, c.Reason)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestEndpointsAreCommitted(t *testing.T) {
	t.Parallel()
	r := newByName(t)
	if r.endpoint("shard-0-0") != r.at(2) || r.endpoint("shard-0-1") != r.at(3) {
		t.Errorf("endpoints %+v", r.shard("shard-0").Nodes)
	}
	if host := r.servers["shard-0-1"].Info("master_host"); host != "127.0.0.2" {
		t.Errorf("the replica follows %s", host)
	}
	if replica := r.servers["shard-0-0"].Info("slave0"); !strings.Contains(replica, "ip=127.0.0.3,") {
		t.Errorf("the master knows its replica as %s", replica)
	}
	r.checkEpochs()
}

// A replica starts again elsewhere, and its name leads there: it is admitted there.
func TestReplicaRestartsElsewhere(t *testing.T) {
	t.Parallel()
	r := newByName(t)
	r.servers["shard-0-1"].Kill()
	next := r.start(4)
	r.names.point(r.name(1), r.at(4))
	r.eventually("admitted elsewhere", 10*time.Second, func() bool { return r.endpoint("shard-0-1") == r.at(4) })
	r.settled("shard-0")
	if keys := next.MustDo("DBSIZE"); keys != int64(100) {
		t.Errorf("%v keys", keys)
	}
	if replica := r.servers["shard-0-0"].Info("slave0"); !strings.Contains(replica, "ip=127.0.0.4,") {
		t.Errorf("the master knows its replica as %s", replica)
	}
	r.checkEpochs()
}

// The name of a dead replica leads to a server of another cluster, which is not
// touched.
func TestNameOfADeadReplicaLeadsToAStranger(t *testing.T) {
	t.Parallel()
	r := newByName(t)
	other := r.start(4, "user basalt-node:other:t:t-0 off")
	other.MustDo("SET", "theirs", "1")
	state := func() string {
		return fmt.Sprint(other.MustDo("ACL", "LIST"), other.MustDo("CONFIG", "GET", "master*"), other.MustDo("DBSIZE"), other.Info("role"), other.Info("run_id"))
	}
	before := state()
	r.servers["shard-0-1"].Kill()
	r.names.point(r.name(1), r.at(4))
	r.eventually("told", 10*time.Second, func() bool { return r.problem("WrongServerAtAddress", "shard-0-1") })
	time.Sleep(time.Second)
	if after := state(); after != before {
		t.Errorf("the stranger was\n%s\nand is\n%s", before, after)
	}
	if r.endpoint("shard-0-1") != r.at(3) || len(r.events("FailoverBegan")) > 0 {
		t.Errorf("the shard is %+v", r.shard("shard-0"))
	}
	r.p.holds("shard-0", 100)
}

// The name of a master that is well leads to an empty server: nobody follows it there.
// When the master dies, its replica takes over with everything.
func TestNameOfAMasterLeadsToAnEmptyServer(t *testing.T) {
	t.Parallel()
	r := newByName(t)
	empty := r.start(4)
	r.names.point(r.name(0), r.at(4))
	r.eventually("told", 15*time.Second, func() bool { return r.problem("NameLeadsElsewhere", "shard-0-0") })
	r.calm("with a wrong name", 3*time.Second, func() { disturb(r.servers["shard-0-0"]); disturb(r.servers["shard-0-1"]) })
	if host := r.servers["shard-0-1"].Info("master_host"); host != "127.0.0.2" {
		t.Errorf("the replica follows %s", host)
	}
	if users := empty.MustDo("ACL", "USERS"); strings.Contains(fmt.Sprint(users), "basalt-proxy-") {
		t.Errorf("the empty server lets proxies in: %v", users)
	}
	r.names.point(r.name(0), r.at(2))
	r.eventually("well", 15*time.Second, func() bool { return !r.problem("NameLeadsElsewhere", "shard-0-0") })
	r.names.point(r.name(0), r.at(4))
	r.servers["shard-0-0"].Kill()
	r.eventually("failed over", 15*time.Second, func() bool { return r.shard("shard-0").Master == "shard-0-1" })
	r.settled("shard-0")
	r.p.holds("shard-0", 100)
	if r.endpoint("shard-0-0") != r.at(4) || empty.MustDo("DBSIZE") != int64(101) {
		t.Errorf("the server that has its name now is not its replica: %+v", r.shard("shard-0").Nodes)
	}
	r.checkEpochs()
}

// The DNS is away: servers are not dead by that, and a master that dies is replaced.
func TestDNSFails(t *testing.T) {
	t.Parallel()
	r := newByName(t)
	r.names.fail(true)
	r.calm("without a DNS", 4*time.Second, func() { disturb(r.servers["shard-0-0"]); disturb(r.servers["shard-0-1"]) })
	r.eventually("well", 5*time.Second, func() bool {
		return !slices.ContainsFunc(r.loop.Status().Nodes, func(n NodeStatus) bool { return n.Health != "ok" })
	})
	r.servers["shard-0-0"].Kill()
	r.eventually("failed over", 10*time.Second, func() bool { return r.shard("shard-0").Master == "shard-0-1" })
	r.p.holds("shard-0", 100)
	r.names.fail(false)
	r.servers["shard-0-0"].Restart()
	r.settled("shard-0")
	r.checkEpochs()
}

// The master's process is reached at another IP, and its name leads there: replicas
// and proxies change over to that, without a failover.
func TestMasterMoves(t *testing.T) {
	t.Parallel()
	r := newByName(t, "bind 127.0.0.2 127.0.0.4")
	r.names.point(r.name(0), r.at(4))
	r.eventually("moved", 15*time.Second, func() bool { return r.endpoint("shard-0-0") == r.at(4) })
	r.eventually("followed", 10*time.Second, func() bool { return r.servers["shard-0-1"].Info("master_host") == "127.0.0.4" })
	r.settled("shard-0")
	r.p.mustSet("shard-0", "k", "v")
	r.p.holds("shard-0", 100)
	if len(r.events("NodeMoved")) != 1 || len(r.events("FailoverBegan")) > 0 {
		t.Errorf("moved %d times, failovers %v", len(r.events("NodeMoved")), r.events("FailoverBegan"))
	}
	r.checkEpochs()
}

// One process that answers at each address of its name is not admitted again and again.
func TestNameWithSeveralAddresses(t *testing.T) {
	t.Parallel()
	r := newByName(t, "bind 127.0.0.2 127.0.0.4")
	turn := 0
	r.calm("with two addresses", 12*time.Second, func() {
		turn++
		both := []string{r.at(2), r.at(4)}
		if turn%2 == 0 {
			slices.Reverse(both)
		}
		r.names.point(r.name(0), both...)
		disturb(r.servers["shard-0-0"])
	})
	if r.endpoint("shard-0-0") != r.at(2) {
		t.Errorf("it moved to %s", r.endpoint("shard-0-0"))
	}
}

func TestRegisteringAnUnknownName(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	_, err := r.loop.RegisterNode(t.Context(), "shard-0", topology.Node{ID: "shard-0-0", Address: "nowhere.test:6379"}, false)
	var precondition *topology.PreconditionError
	if !errors.As(err, &precondition) || !strings.Contains(err.Error(), "host name not found") {
		t.Errorf("error %v", err)
	}
}
