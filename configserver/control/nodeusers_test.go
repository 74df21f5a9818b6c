package control

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/internal/acl"
)

// exact tells if a node has the users of the present generation and those that the
// newest users ask for, and no others of either kind.
func (r *rig) exact(node string) bool {
	r.t.Helper()
	names, err := r.servers[node].Do("ACL", "USERS")
	if err != nil {
		return false
	}
	var has []string
	for _, name := range names.([]any) {
		has = append(has, name.(string))
	}
	c := r.loop.Topology()
	s, _ := c.Node(node)
	missing, surplus := redisadmin.MatchUsers(has, s.Generation, r.loop.NodeUsers())
	_, exact := (&redisadmin.Proxies{Generation: s.Generation, Seats: c.Seats}).Match(has)
	return exact && len(missing)+len(surplus) == 0
}

func (r *rig) allExact() bool {
	for id := range r.servers {
		if !r.exact(id) {
			return false
		}
	}
	return true
}

// missing are the nodes that do not have a user of an application.
func (r *rig) missingAt(name string) (nodes []string) {
	r.t.Helper()
	for id := range r.servers {
		if r.isMissing(id, name) {
			nodes = append(nodes, id)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// isMissing tells if a node does not have a user of an application.
func (r *rig) isMissing(node, name string) bool {
	r.t.Helper()
	c := r.loop.Topology()
	shard, _ := c.Node(node)
	for _, u := range r.loop.Users() {
		want := acl.NodeUser(credentials.ScriptUser(shard.Generation), acl.Rights(u.Rules))
		if acl.NameOf(u.Rules) == name && !slices.Contains(r.servers[node].MustDo("ACL", "USERS").([]any), any(want)) {
			return true
		}
	}
	return false
}

func (r *rig) setUser(name string, modifiers ...string) {
	r.t.Helper()
	if _, err := r.loop.SetUser(r.t.Context(), name, modifiers); err != nil {
		r.t.Fatal(err)
	}
}

// TestNodesHaveTheUsers: when a change was answered, every node has what it needs;
// what nobody needs goes soon. Nodes that join, start again, are promoted or get
// other credentials have it, too.
func TestNodesHaveTheUsers(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 2, 2, nil)
	begun := time.Now()
	r.setUser("app", "on", "#"+strings.Repeat("0", 64), "~app:*", "+@all")
	t.Logf("set in %v", time.Since(begun))
	if at := r.missingAt("app"); len(at) > 0 {
		t.Errorf("a change was answered without %v", at)
	}
	r.setUser("reader", "on", "nopass", "~*", "+@read") // runs no scripts
	r.setUser("app", "-@dangerous")
	if at := r.missingAt("app"); len(at) > 0 {
		t.Errorf("a second change was answered without %v", at)
	}
	r.eventually("exact", 10*time.Second, r.allExact)
	if n := len(r.loop.NodeUsers()); n != 1 {
		t.Errorf("nodes need %d users", n)
	}

	r.servers["shard-0-1"].Kill()
	r.servers["shard-0-1"].Restart()
	r.servers["shard-1-0"].Kill()
	r.eventually("replaced", 10*time.Second, func() bool { return r.shard("shard-1").Master == "shard-1-1" })
	if r.isMissing("shard-1-1", "app") {
		t.Error("the new master does not have the users")
	}
	r.servers["shard-1-0"].Restart()
	r.settled("shard-0")
	r.settled("shard-1")
	r.register("shard-0", 2)
	r.settled("shard-0")
	r.eventually("exact after restarts", 10*time.Second, r.allExact)
	if _, err := r.loop.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !r.allExact() {
		t.Error("not after a rotation")
	}
	if _, _, err := r.loop.DeleteUsers(t.Context(), []string{"app"}); err != nil {
		t.Fatal(err)
	}
	r.eventually("gone", 10*time.Second, func() bool { return len(r.loop.NodeUsers()) == 0 && r.allExact() })
	r.checkEpochs()
}

// TestUsersStayUntilProxiesObey: a script that a proxy let in before may still run.
func TestUsersStayUntilProxiesObey(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 1, nil)
	r.setUser("app", "on", "nopass", "~app:*", "+@all")
	old := acl.NodeUser(credentials.ScriptUser(r.shard("shard-0").Generation), r.loop.NodeUsers()[0].Rights)
	s := r.hello("p1", r.loop.Topology().Epoch)
	go func() {
		for range s.Updates() {
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 2*usersKept)
	defer cancel()
	if _, err := r.loop.SetUser(ctx, "app", []string{"~x"}); err == nil {
		t.Error("answered without the proxy")
	}
	if !slices.Contains(r.servers["shard-0-0"].MustDo("ACL", "USERS").([]any), any(old)) {
		t.Error("a user was removed that a proxy may use")
	}
	if at := r.missingAt("app"); len(at) > 0 {
		t.Error("the new one is not there")
	}
	s.Ack(r.loop.Topology().Epoch)
	r.eventually("exact", 10*time.Second, r.allExact)
}

// TestANodeThatWasAwayGetsTheUsers, and nobody waits for it.
func TestANodeThatWasAwayGetsTheUsers(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	away := r.servers["shard-0-1"]
	away.Pause()
	r.eventually("noticed", 10*time.Second, func() bool {
		for _, n := range r.shard("shard-0").Nodes {
			if n.ID == "shard-0-1" && !n.InReadSet {
				return true
			}
		}
		return false
	})
	begun := time.Now()
	r.setUser("app", "on", "nopass", "~app:*", "+@all")
	if took := time.Since(begun); took > 2*usersPush {
		t.Errorf("a change of users took %v", took)
	}
	if !r.exact("shard-0-0") {
		t.Error("the master does not have it")
	}
	away.Resume()
	r.eventually("exact", 10*time.Second, r.allExact)
}

// TestAnotherOwnerGivesTheUsers: the owner was killed after the commit.
func TestAnotherOwnerGivesTheUsers(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	r.setUser("app", "on", "nopass", "~app:*", "+@all")
	r.arm("users/committed=error")
	if _, err := r.loop.SetUser(t.Context(), "app", []string{"~x"}); err == nil {
		t.Fatal("no fault")
	}
	r.takeOver()
	r.settled("shard-0")
	r.eventually("exact", 10*time.Second, func() bool { return len(r.loop.NodeUsers()) == 1 && r.allExact() })
	if at := r.missingAt("app"); len(at) > 0 {
		t.Errorf("not at %v", at)
	}
	// One that a server lost, and one that nobody knows of.
	generation := r.shard("shard-0").Generation
	r.servers["shard-0-0"].MustDo("ACL", "DELUSER", acl.NodeUser(credentials.ScriptUser(generation), r.loop.NodeUsers()[0].Rights))
	r.servers["shard-0-1"].MustDo("ACL", "SETUSER", acl.NodeUser(credentials.ScriptUser(generation), "unknown"), "on", "nopass", "+@all")
	r.servers["shard-0-1"].MustDo("ACL", "SETUSER", acl.NodeUser(credentials.ScriptUser(generation+7), "unknown"), "on", "nopass", "+@all")
	r.eventually("exact again", 10*time.Second, r.allExact)
}

// TestAFencedNodeGetsNoUsers: a node that lets no proxies in lets nobody in.
func TestAFencedNodeGetsNoUsers(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 3, nil)
	r.setUser("app", "on", "nopass", "~app:*", "+@all")
	old := r.servers["shard-0-0"]
	old.Pause()
	r.eventually("replaced", 20*time.Second, func() bool { m := r.shard("shard-0").Master; return m != "" && m != "shard-0-0" })
	r.setUser("app", "~x")
	old.Resume()
	r.settled("shard-0")
	r.eventually("exact", 10*time.Second, r.allExact)
	r.oneWritable("shard-0")
	r.checkEpochs()
}
