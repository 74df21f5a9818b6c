package control

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// TestEveryChangeSaysWhoAsked makes each change of the API and looks for its event:
// what was, what is, and who asked; no password and no sum of one.
func TestEveryChangeSaysWhoAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 2, nil)
	r.form(1, 2)
	r.settled("shard-0")
	l := r.loop
	const who = "10.1.2.3:4567"
	ctx := AskedBy(t.Context(), who)
	secret := "#" + strings.Repeat("0123456789abcdef", 4)
	replica := func() string {
		for _, n := range r.shard("shard-0").Nodes {
			if n.ID != r.shard("shard-0").Master {
				return n.ID
			}
		}
		return ""
	}
	rest := func() {
		r.settled("shard-0")
		r.eventually("nothing is being done", 10*time.Second, func() bool {
			busy := true
			_ = l.do(ctx, func() { busy = l.busy() })
			return !busy
		})
	}
	for _, row := range []struct {
		name, kind string
		say        []string
		do         func() error
	}{
		{"policy", "PolicyChanged", []string{"maxFailovers: ", "→ 77"}, func() error {
			p := l.Topology().Policy
			p.MaxFailovers = 77
			_, err := l.UpdatePolicy(ctx, p)
			return err
		}},
		{"a parameter", "ConfigChanged", []string{`hz: none → "20"`}, func() error {
			_, err := l.SetConfig(ctx, []topology.Setting{{Name: "hz", Value: "20"}})
			return err
		}},
		{"a parameter again", "ConfigChanged", []string{`hz: "20" → "21"`}, func() error {
			_, err := l.SetConfig(ctx, []topology.Setting{{Name: "hz", Value: "21"}})
			return err
		}},
		{"a parameter no more", "ConfigChanged", []string{`hz: "21" → none`}, func() error {
			_, err := l.UnsetConfig(ctx, []string{"hz"})
			return err
		}},
		{"a new user", "UserChanged", []string{`"app": none → on #… ~a`}, func() error {
			_, err := l.SetUser(ctx, "app", []string{"on", secret, "~a", "+get"})
			return err
		}},
		{"a user's rules", "UserChanged", []string{"~a", "→", "~b"}, func() error {
			_, err := l.SetUser(ctx, "app", []string{"~b"})
			return err
		}},
		{"a user's password", "UserChanged", []string{`"app": other passwords`}, func() error {
			_, err := l.SetUser(ctx, "app", []string{"resetpass", "#" + strings.Repeat("fedcba9876543210", 4)})
			return err
		}},
		{"no user any more", "UsersDeleted", []string{`"app": on #…`, "→ none"}, func() error {
			_, _, err := l.DeleteUsers(ctx, []string{"app"})
			return err
		}},
		{"who may be read", "NodeReadableChanged", []string{"readable true → false"}, func() error {
			_, err := l.SetReadable(ctx, replica(), false)
			return err
		}},
		{"who may be read again", "NodeReadableChanged", []string{"readable false → true"}, func() error {
			_, err := l.SetReadable(ctx, replica(), true)
			return err
		}},
		{"a switchover", "OperationAsked", []string{"switchover of shard-0: "}, func() error {
			_, err := l.Switchover(ctx, "shard-0", replica())
			return err
		}},
		{"a failover", "OperationAsked", []string{"failover of shard-0"}, func() error {
			rest()
			_, err := l.Failover(ctx, "shard-0", failover.Wish{Node: replica()})
			return err
		}},
		{"a rotation", "OperationAsked", []string{"rotation of the credentials"}, func() error {
			rest()
			_, err := l.Rotate(ctx)
			return err
		}},
		{"a node that leaves", "NodeDeregistered", []string{"left shard-0"}, func() error {
			rest()
			_, err := l.DeregisterNode(ctx, replica())
			return err
		}},
	} {
		had := len(r.events(row.kind))
		if err := row.do(); err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		var events []topology.Event
		r.eventually(row.name+": told", 5*time.Second, func() bool { events = r.events(row.kind); return len(events) > had })
		e := events[len(events)-1]
		for _, want := range row.say {
			if !strings.Contains(e.Message, want) {
				t.Errorf("%s: %q lacks %q", row.name, e.Message, want)
			}
		}
		if e.By != who {
			t.Errorf("%s: asked by %q", row.name, e.By)
		}
		if strings.Contains(e.Message, "0123456789abcdef") || strings.Contains(e.Message, "fedcba98") {
			t.Errorf("%s: the sum of a password is told: %s", row.name, e.Message)
		}
	}
	// What the Configserver does by itself is signed by nobody.
	if err := context.Cause(l.life); err != nil {
		t.Fatal(err)
	}
	for _, e := range r.events("NodeAdmitted") {
		if e.By != "" {
			t.Errorf("%s is signed by %s", e.Message, e.By)
		}
	}
}
