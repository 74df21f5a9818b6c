package reactor_test

import (
	"bufio"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rules "github.com/basalt-redis/basalt/internal/acl"
	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// keeper keeps users as the Configserver does: a change is an epoch, and
// returns when the proxy acknowledged it.
type keeper struct {
	p  *proxy
	mu sync.Mutex
	// users and when they were created, by name; now are those in force.
	users   map[string]*rules.User
	created map[string]uint64
	now     *acl.Users
	// changed, if set, is called with the texts of a change that is to be published.
	changed func(texts []string)
}

func (k *keeper) SetUser(name string, modifiers []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	u := k.users[name]
	if u == nil {
		if u = rules.NewUser(name); name == rules.DefaultUser {
			u = rules.NewDefault()
		}
	} else {
		u = u.Clone()
	}
	if err := u.Apply(modifiers); err != nil {
		return err
	}
	if k.users[name] == nil && name != rules.DefaultUser {
		k.created[name] = k.p.cluster.Epoch + 1
	}
	k.users[name] = u
	k.commit()
	return nil
}

func (k *keeper) DeleteUsers(names []string) (n int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range names {
		if k.users[name] != nil {
			delete(k.users, name)
			n++
		}
	}
	k.commit()
	return n, nil
}

func (k *keeper) commit() {
	var texts []acl.Text
	var rules []string
	for name, u := range k.users {
		texts = append(texts, acl.Text{Rules: u.Text(), Created: k.created[name]})
		rules = append(rules, u.Text())
	}
	if k.changed != nil {
		k.changed(rules)
	}
	var errs []error
	if k.now, errs = acl.Compile(texts, k.now); len(errs) > 0 {
		k.p.t.Error(errs)
	}
	k.p.waitAck(k.p.commit(func(c *routing.Cluster) { c.Users = k.now }))
}

func startKept(t *testing.T, n int) *proxy {
	shards, _ := realShards(t, n)
	k := &keeper{users: map[string]*rules.User{}, created: map[string]uint64{}}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.p = startProxy(t, reactor.Config{Users: k}, shards...)
	return k.p
}

// twin is a client of the proxy and one of a server, which must be told the same.
type twin struct {
	t             *testing.T
	proxy, server *client
}

func (p *proxy) twins(t *testing.T) func() *twin {
	server := redistest.Start(t, redistest.Options{Open: true})
	server.MustDo("ACL", "DELUSER", "basalt-probe")
	return func() *twin {
		conn, err := net.Dial("tcp", server.Address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return &twin{t, p.dial(), &client{t: t, Conn: conn, r: bufio.NewReader(conn)}}
	}
}

// changing are fields of ACL LOG that differ from client to client.
var changing = regexp.MustCompile(`age-seconds \S+ client-info [^\]]*`)

var admins = regexp.MustCompile(`user basalt-admin .*? \+@all |basalt-admin `)

// same sends a line of words to both and wants the same reply, which it returns.
func (p *twin) same(line string) string {
	p.t.Helper()
	words := strings.Fields(line)
	for i, w := range words {
		words[i] = strings.ReplaceAll(w, "_", " ")
	}
	got, want := p.proxy.do(words...), p.server.do(words...)
	if strings.HasPrefix(line, "ACL CAT") {
		got, want = sorted(got), sorted(want)
	} else if strings.HasPrefix(line, "ACL GETUSER") || strings.HasPrefix(line, "ACL LIST") || strings.HasPrefix(line, "ACL USERS") {
		// The server's users of its own, and the order of its hash table.
		got, want = sorted(got), sorted(admins.ReplaceAllString(want, ""))
	}
	if got, want = changing.ReplaceAllString(got, ""), changing.ReplaceAllString(want, ""); got != want {
		p.t.Errorf("%s:\nproxy:  %s\nserver: %s", line, got, want)
	}
	return got
}

func sorted(list string) string {
	words := strings.Fields(strings.Trim(list, "[]"))
	slices.Sort(words)
	return strings.Join(words, " ")
}

// TestUsersAsInRedis: what a client is told about users, by the proxy and by a
// server.
func TestUsersAsInRedis(t *testing.T) {
	t.Parallel()
	dial := startKept(t, 2).twins(t)
	admin, app := dial(), dial()
	for _, line := range []string{
		"ACL SETUSER default sanitize-payload", "ACL WHOAMI", "ACL LIST", "ACL USERS", "ACL GETUSER default", "ACL GETUSER nobody", "ACL CAT", "ACL CAT string", "ACL CAT nosuch", "ACL CAT a b",
		"ACL HELP", "ACL LOAD", "ACL SAVE", "ACL GENPASS 0", "ACL GENPASS 4097", "ACL GENPASS x", "ACL GENPASS 1 2", "ACL LOG", "ACL LOG x", "ACL LOG RESET", "ACL LOG -1", "ACL LOG 1 2",
		"ACL", "ACL nosuch", "ACL WHOAMI x", "ACL SETUSER", "ACL SETUSER a_b", "ACL SETUSER app +nosuch", "ACL SETUSER app (", "ACL SETUSER app <nopw", "ACL SETUSER app ~* ~x",
		"ACL GETUSER app", "ACL SETUSER app", "ACL LIST", "AUTH app x", "AUTH x", "AUTH a b c", "AUTH nobody x",
		"ACL SETUSER app on >secret ~app:* %R~shared:* resetchannels &news.* -@all +@read +@write +@pubsub +@connection +@transaction +acl|whoami -flushall +config|get +select|0 +acl|log +sort",
		"ACL GETUSER app", "ACL DRYRUN app GET app:1", "ACL DRYRUN app GET other", "ACL DRYRUN app SET shared:1 x", "ACL DRYRUN app FLUSHALL", "ACL DRYRUN nobody GET x",
		"ACL DRYRUN app nosuch", "ACL DRYRUN app GET", "ACL DRYRUN app CONFIG nosuch", "ACL DRYRUN app PUBLISH other x", "ACL DRYRUN default FLUSHALL", "ACL DELUSER default", "ACL DELUSER nobody",
	} {
		admin.same(line)
	}
	for _, line := range []string{
		"AUTH app wrong", "AUTH app secret", "ACL WHOAMI", "SET app:1 v", "GET app:1", "GET other", "SET shared:1 v", "GET shared:1", "COPY shared:{x}1 app:{x}2", "COPY app:{x}2 shared:{x}1",
		"MGET app:1 shared:1", "MGET app:1 other", "DEL shared:1", "DEL app:9 app:8", "FLUSHALL", "CLIENT GETNAME", "CONFIG SET x y", "KEYS app:*", "SELECT 0", "ACL LIST", "ACL SETUSER app +@all", "ACL GENPASS",
		"ACL WHOAMI x", "GET", "PUBLISH news.a x", "PUBLISH other x", "SPUBLISH news.a x", "SORT app:l BY w_*", "SORT app:l GET x", "SORT app:l BY nosort", "SORT app:l LIMIT 0 1 ALPHA",
		"MULTI", "GET app:1", "GET other", "GET app:1", "EXEC", "MULTI", "SET app:1 w", "INFO", "DISCARD", "MULTI", "PING", "EXEC", "EXEC", "UNSUBSCRIBE other",
		"HELLO 2 AUTH app wrong", "ACL WHOAMI", "RESET", "ACL WHOAMI",
	} {
		app.same(line)
	}
	admin.same("ACL LOG")
	admin.same("ACL LOG 2")
	admin.same("ACL LOG RESET")
	admin.same("ACL LOG")
	// Without rights for EXEC, MULTI is of no use.
	admin.same("ACL SETUSER app -exec")
	for _, line := range []string{"AUTH app secret", "MULTI", "GET app:1", "EXEC", "EXEC", "PING"} {
		app.same(line)
	}
	// Off: nobody comes in, who is in stays in.
	admin.same("ACL SETUSER app off")
	app.same("GET app:1")
	app.same("AUTH app secret")
	app.same("GET app:1")
	// The default user with a password, without rights, and off.
	admin.same("ACL SETUSER default >pw")
	fresh := dial()
	for _, line := range []string{"PING", "GET x", "AUTH wrong", "AUTH default pw", "PING", "RESET", "PING", "HELLO 3", "HELLO 2 AUTH default nopw", "PING"} {
		fresh.same(line)
	}
	admin.same("ACL SETUSER default -get")
	admin.same("GET x")
	admin.same("ACL SETUSER default off nopass")
	fresh = dial()
	for _, line := range []string{"PING", "AUTH x", "AUTH default x", "HELLO"} {
		fresh.same(line)
	}
	admin.same("ACL LIST")
	admin.same("ACL SETUSER default reset")
	admin.same("PING")
}

// TestRightsChangeUnderClients: a change is in force for who is connected when
// ACL SETUSER has answered.
func TestRightsChangeUnderClients(t *testing.T) {
	t.Parallel()
	dial := startKept(t, 2).twins(t)
	admin, app, other := dial(), dial(), dial()
	admin.same("ACL SETUSER app on nopass ~* &* +@all")
	admin.same("ACL SETUSER other on nopass ~* &* +@all")
	app.same("AUTH app x")
	other.same("AUTH other x")
	app.same("FLUSHALL")
	admin.same("ACL SETUSER app -flushall")
	app.same("FLUSHALL")
	other.same("FLUSHALL")
	// Queued with the old rights.
	app.same("MULTI")
	app.same("SET {a}1 v")
	app.same("GET {a}1")
	app.same("PUBLISH x m")
	app.same("DBSIZE")
	app.same("CLIENT GETNAME")
	app.same("INCR {a}2")
	admin.same("ACL SETUSER app -get resetchannels resetkeys ~{a}1 -client")
	app.same("EXEC")
	admin.same("GET {a}1")
	admin.same("EXISTS {a}2")
	// All of it is forbidden now.
	app.same("MULTI")
	app.same("SET {a}1 w")
	admin.same("ACL SETUSER app -@all +exec")
	app.same("EXEC")
	admin.same("GET {a}1")
	// As another user, from the middle of a transaction on.
	admin.same("ACL SETUSER app +@all ~*")
	app.same("MULTI")
	app.same("AUTH other x")
	app.same("ACL WHOAMI")
	app.same("EXEC")
	app.same("ACL WHOAMI")
	// Deleted: its connections end.
	app.same("AUTH app x")
	app.same("PING")
	admin.same("ACL DELUSER app nobody")
	if got := app.proxy.read(); got != "EOF" {
		t.Errorf("the client of a deleted user reads %q", got)
	}
	if got := app.same("ACL LIST"); got != "EOF" {
		t.Errorf("the client of a deleted user is answered %q", got)
	}
	// By itself: it is told, then its connection ends.
	other.same("ACL DELUSER other")
	if got := other.proxy.read(); got != "EOF" {
		t.Errorf("a client that deleted its user reads %q", got)
	}
	admin.same("ACL USERS")
}

// TestARecreatedUserIsAnother: who was logged in as the user before it does not
// become the new one.
func TestARecreatedUserIsAnother(t *testing.T) {
	t.Parallel()
	p := startKept(t, 1)
	admin, app := p.dial(), p.dial()
	admin.want("OK", "ACL", "SETUSER", "app", "on", "nopass", "+@all")
	app.want("OK", "AUTH", "app", "x")
	// Both changes in one epoch, as a proxy sees them that was away meanwhile.
	u := rules.NewUser("app")
	if err := u.Apply([]string{"on", "nopass", "+@all", "~*"}); err != nil {
		t.Fatal(err)
	}
	users, _ := acl.Compile([]acl.Text{{Rules: u.Text(), Created: 1000}}, nil)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Users = users }))
	if got := app.read(); got != "EOF" {
		t.Errorf("read %q", got)
	}
}

// TestChannelsAreTakenAway: a subscriber that may not listen any more is closed,
// others are not.
func TestChannelsAreTakenAway(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		subscribe []string
		rules     string
		closed    bool
	}{
		{[]string{"SUBSCRIBE", "news.a"}, "+get", false},
		{[]string{"SUBSCRIBE", "news.a"}, "resetchannels &news.*", false},
		{[]string{"SUBSCRIBE", "news.a"}, "resetchannels &news.b", true},
		{[]string{"SSUBSCRIBE", "news.a"}, "resetchannels &news.b", true},
		{[]string{"PSUBSCRIBE", "news.*"}, "resetchannels &news.*", false},
		{[]string{"PSUBSCRIBE", "news.a*"}, "resetchannels &news.*", true},
		{[]string{"SUBSCRIBE", "news.a"}, "resetchannels (&news.*)", false},
	} {
		t.Run(strings.Join(tc.subscribe, " ")+" "+tc.rules, func(t *testing.T) {
			dial := startKept(t, 2).twins(t)
			admin, app := dial(), dial()
			admin.same("ACL SETUSER app on nopass +@all &*")
			app.same("AUTH app x")
			app.same(strings.Join(tc.subscribe, " "))
			admin.same("ACL SETUSER app " + tc.rules)
			got := app.same("PING")
			if (got == "EOF") != tc.closed {
				t.Errorf("then: %q", got)
			}
		})
	}
}

// TestPipelinedChange: what follows ACL SETUSER in a pipeline sees the new user.
func TestPipelinedChange(t *testing.T) {
	t.Parallel()
	p := startKept(t, 2)
	c := p.dial()
	c.write(encode("ACL", "SETUSER", "app", "on", ">pw", "+@all") + encode("AUTH", "app", "pw") + encode("ACL", "WHOAMI") +
		encode("ACL", "SETUSER", "app", "-ping") + encode("PING") + encode("GET", "k"))
	for _, want := range []string{"OK", "OK", "app", "OK", "-NOPERM this user has no permissions to run the 'ping' command", "-NOPERM this user has no permissions to access one of the keys used as arguments"} {
		c.wantNext(want)
	}
	if got := c.do("CLIENT", "INFO"); !strings.Contains(got, " user=app") {
		t.Errorf("CLIENT INFO: %s", got)
	}
}

// TestLongChangesOfUsersAreRefused: a loop compares each rule with those before
// it, while its other clients wait.
func TestLongChangesOfUsersAreRefused(t *testing.T) {
	c := startKept(t, 1).dial()
	words := []string{"ACL", "SETUSER", "app"}
	for range rules.MaxModifiers {
		words = append(words, "on")
	}
	c.want("OK", words...)
	c.want("-ERR 2001 words of 4002 bytes, at most 2000 of 262144 bytes are taken at once", append(words, "on")...)
	c.want("-ERR 1 words of 300000 bytes, at most 2000 of 262144 bytes are taken at once", "ACL", "DELUSER", strings.Repeat("x", 300_000))
	c.want("[app default]", "ACL", "USERS")
}
