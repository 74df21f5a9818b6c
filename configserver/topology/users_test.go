package topology

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/acl"
)

func rulesOf(users []User) string {
	var lines []string
	for _, u := range users {
		lines = append(lines, fmt.Sprintf("%s (%d)", u.Rules, u.Created))
	}
	return strings.Join(lines, "\n")
}

func TestUsers(t *testing.T) {
	c := Cluster{Name: "c", Epoch: 7}
	set := func(name string, modifiers ...string) {
		t.Helper()
		if err := c.SetUser(name, modifiers, nil); err != nil {
			t.Fatal(err)
		}
		c.Epoch++
	}
	set("b", "on", "nopass", "+get")
	set("a", "~x")
	set("b", "~b:*")
	if got, want := rulesOf(c.Users), "user a off ~x resetchannels -@all (8)\nuser b on nopass ~b:* resetchannels -@all +get (7)"; got != want {
		t.Errorf("users\n%s\nwant\n%s", got, want)
	}
	var rule *acl.Error
	if err := c.SetUser("a", []string{"on", "+nosuch"}, nil); !errors.As(err, &rule) || strings.Contains(c.Users[0].Rules, "on") {
		t.Errorf("%v, %v", err, c.Users)
	}
	var invalid *InvalidError
	for _, bad := range [][]string{{"a b"}, {"a", ">secret"}, {"a", "<secret"}} {
		if err := c.SetUser(bad[0], bad[1:], nil); !errors.As(err, &invalid) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if n := c.DeleteUsers([]string{"nobody", "b", "b"}); n != 1 || len(c.Users) != 1 {
		t.Errorf("deleted %d, left %v", n, c.Users)
	}
	set("b", "off")
	if c.Users[1].Created == 7 {
		t.Error("a user that was made again has the age of the one before")
	}
}

// TestTheDefaultUser has the passwords of the file until others are set.
func TestTheDefaultUser(t *testing.T) {
	sum := sha256.Sum256([]byte("file"))
	file, hash := [][]byte{sum[:]}, "#"+acl.HashOf("file")
	c := Cluster{Name: "c", Epoch: 1}
	effective := func(passwords [][]byte, want string, sums int) {
		t.Helper()
		if got := rulesOf(c.EffectiveUsers(passwords)); got != want+" (0)" {
			t.Errorf("users\n%s\nwant\n%s", got, want)
		}
		if got := c.DefaultPasswords(passwords); len(got) != sums {
			t.Errorf("%d passwords of the default user, want %d", len(got), sums)
		}
	}
	effective(nil, "user default on nopass ~* &* +@all", 0)
	effective(file, "user default on "+hash+" ~* &* +@all", 1)
	if err := c.SetUser("default", []string{"-flushall"}, file); err != nil {
		t.Fatal(err)
	}
	effective(nil, "user default on nopass ~* &* +@all -flushall", 0)
	effective(file, "user default on "+hash+" ~* &* +@all -flushall", 1)
	if strings.Contains(c.Users[0].Rules, hash) {
		t.Error("the file's password is in the record")
	}
	other := "#" + acl.HashOf("other")
	if err := c.SetUser("default", []string{other}, file); err != nil {
		t.Fatal(err)
	}
	effective(nil, "user default on "+hash+" "+other+" ~* &* +@all -flushall", 2)
	if err := c.SetUser("default", []string{"!" + hash[1:]}, nil); err != nil {
		t.Fatal(err)
	}
	effective(file, "user default on "+other+" ~* &* +@all -flushall", 1)
	if err := c.SetUser("default", []string{"off"}, nil); err != nil {
		t.Fatal(err)
	}
	effective(file, "user default off "+other+" ~* &* +@all -flushall", 1)
	if got := c.DefaultPasswords(file); string(got[0]) != string(make([]byte, 32)) {
		t.Error("a user that is off has a password for proxies that do not know users")
	}
	c.DeleteUsers([]string{"default"})
	effective(file, "user default on "+hash+" ~* &* +@all", 1)
}

func TestRoomForUsers(t *testing.T) {
	c := Cluster{Name: "c", Epoch: 1}
	var full *PreconditionError
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = c.SetUser(fmt.Sprint("user", i), []string{"~" + strings.Repeat("k", 10000)}, nil)
	}
	if !errors.As(err, &full) || len(c.Users) < 20 {
		t.Errorf("%d users, %v", len(c.Users), err)
	}
}
