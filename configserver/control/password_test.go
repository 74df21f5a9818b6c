package control

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

const clusterSecret = "the-root-of-all-passwords"

// problem tells if a node has a problem now, by its status.
func (r *rig) problem(code, node string) bool {
	for _, p := range r.loop.Status().Problems {
		if p.Code == code && p.Node == node {
			return true
		}
	}
	return false
}

// A rotation to a password that servers do not take begins with nothing, and says at
// once who does not.
func TestRotateNamesServersThatRefuseThePasswordOnFile(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 2, 2, nil)
	r.servers["shard-1-1"].Kill() // it cannot be asked, and is not named
	before := r.loop.Topology()
	r.writeSecrets("none-that-they-know", clusterSecret, "")
	begun := time.Now()
	_, err := r.loop.Rotate(t.Context())
	took := time.Since(begun)
	var refusal *topology.PreconditionError
	if !errors.As(err, &refusal) || took > time.Second {
		t.Fatalf("after %v: %v", took, err)
	}
	for _, want := range []string{"shard-0-0", "shard-0-1", "shard-1-0", "admin-password", "line 2"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "shard-1-1") {
		t.Errorf("%q names a server that said nothing", err)
	}
	for i, s := range r.loop.Topology().Shards {
		if s.Operation != nil || s.Generation != before.Shards[i].Generation {
			t.Errorf("%s: the rotation began all the same: %+v", s.ID, s.Operation)
		}
	}
	r.writeSecrets("none-that-they-know\n"+adminPassword, clusterSecret, "")
	if _, err := r.loop.Rotate(t.Context()); err != nil {
		t.Errorf("with the password of before on line 2: %v", err)
	}
}

// A file with a wrong password is told of while everything still works, and keeps
// nothing from working: what servers took before is tried, too.
func TestAWrongPasswordOnFileIsToldOfAndHarmsNothing(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 3, nil)
	p := r.proxy("p1")
	p.mustSet("shard-0", "k", "v")
	r.writeSecrets("none-that-they-know", "nor-is-this-the-root-of-any", "")
	for node := range r.servers {
		r.eventually(node+" told of", 5*time.Second, func() bool { return r.problem("NodeRefusesAdmin", node) })
	}
	r.eventually("its events", 5*time.Second, func() bool { return len(r.events("NodeRefusesAdmin")) == 3 })
	for _, n := range r.loop.Status().Nodes {
		if !strings.Contains(n.Health, "admin-password") {
			t.Errorf("%s: %s", n.Node.ID, n.Health)
		}
	}
	r.eventually("the secret told of", 5*time.Second, func() bool { return r.problem("CredentialsNotOnFile", "") })

	r.servers["shard-0-0"].Kill()
	r.eventually("replaced", 10*time.Second, func() bool { s := r.shard("shard-0"); return s.Master != "" && s.Master != "shard-0-0" })
	p.setUntil("shard-0", "k", "w")

	r.writeSecrets(adminPassword, clusterSecret, "")
	r.servers["shard-0-0"].Restart()
	r.eventually("over", 15*time.Second, func() bool {
		return !r.problem("NodeRefusesAdmin", "shard-0-0") && !r.problem("NodeRefusesAdmin", "shard-0-1") && !r.problem("CredentialsNotOnFile", "")
	})
	r.settled("shard-0")
	p.has("shard-0", "k", "w")
	r.eventually("events of the end", 10*time.Second, func() bool {
		return len(r.events("NodeRefusesAdminEnded")) == 3 && len(r.events("CredentialsNotOnFileEnded")) == 1
	})
}

// The password of a server may change behind open connections.
func TestAPasswordThatChangedAtAServerIsSeenOnOpenConnections(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	r.servers["shard-0-1"].MustDo("ACL", "SETUSER", "basalt-admin", "resetpass", ">somebody-elses")
	r.eventually("told of", 5*time.Second, func() bool { return r.problem("NodeRefusesAdmin", "shard-0-1") })
	if r.problem("NodeRefusesAdmin", "shard-0-0") {
		t.Error("and of a node that accepts it")
	}
	r.writeSecrets(adminPassword+"\nsomebody-elses", clusterSecret, "")
	r.eventually("over", 5*time.Second, func() bool { return !r.problem("NodeRefusesAdmin", "shard-0-1") })
}

// A Configserver that starts with a wrong file is well as soon as that is repaired, and
// does not fill its log meanwhile.
func TestARepairedFileHealsByItself(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	r.stop()
	r.writeSecrets("none-that-they-know", clusterSecret, "")
	r.run()
	for _, node := range []string{"shard-0-0", "shard-0-1"} {
		r.eventually(node+" told of", 5*time.Second, func() bool { return r.problem("NodeRefusesAdmin", node) })
	}
	if got := r.loop.Status().Nodes[0].Health; strings.Contains(got, "urandom") {
		t.Error(got)
	}
	r.writeSecrets(adminPassword, clusterSecret, "")
	r.eventually("well", 5*time.Second, func() bool {
		for _, n := range r.loop.Status().Nodes {
			if n.Health != "ok" {
				return false
			}
		}
		return true
	})
}

// The passwords of applications that are in force stay so when the file loses them: that
// must not let everybody in.
func TestAClientPasswordThatIsNotOnFileLetsNobodyElseIn(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	r.writeSecrets(adminPassword, clusterSecret, "for-applications")
	if _, err := r.loop.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := r.proxy("p1")
	passwords := func() [][]byte {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.view.ClientPasswordSHA256
	}
	before := passwords()
	r.writeSecrets(adminPassword, clusterSecret, "for-others")
	r.eventually("told of", 5*time.Second, func() bool { return r.problem("CredentialsNotOnFile", "") })
	if _, err := r.loop.SetReadable(t.Context(), "shard-0-1", false); err != nil { // any change
		t.Fatal(err)
	}
	r.eventually("seen", 3*time.Second, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.view.Cluster.Epoch == r.loop.Topology().Epoch })
	if now := passwords(); len(now) != 1 || !bytes.Equal(now[0], before[0]) {
		t.Errorf("passwords %x, before %x", now, before)
	}
	r.stop() // and with it what was remembered
	r.run()
	p.connect()
	r.eventually("seen", 3*time.Second, func() bool { return len(passwords()) == 1 && !bytes.Equal(passwords()[0], before[0]) })
	r.eventually("told of", 5*time.Second, func() bool { return r.problem("CredentialsNotOnFile", "") })
}
