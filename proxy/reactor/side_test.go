package reactor_test

import (
	"context"
	"fmt"
	"log/slog"
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
	"github.com/basalt-redis/basalt/proxy/scripts"
)

// limited is a proxy whose servers know the users of applications, as the
// Configserver makes them.
type limited struct {
	*proxy
	keeper  *keeper
	servers []*redistest.Server

	mu sync.Mutex
	// generation of the credentials; withheld: servers are not told of users.
	generation uint64
	withheld   bool
	texts      []string
}

const proxyPassword, scriptPassword = "of-the-proxy", "of-all-proxies"

func proxyName(generation uint64) string { return scriptName(generation) + "-3-1" }

func scriptName(generation uint64) string { return fmt.Sprintf("basalt-proxy-%d", generation) }

// setGeneration tells of the users of a generation.
func setGeneration(sh *routing.Shard, generation uint64) {
	sh.Generation, sh.Username, sh.Password = generation, proxyName(generation), proxyPassword
	sh.ScriptUsername, sh.ScriptPassword = scriptName(generation), scriptPassword
}

// startLimited starts n shards; cfg may be zero.
func startLimited(t *testing.T, n int, cfg reactor.Config) *limited {
	shards, servers := realShards(t, n)
	l := &limited{servers: servers, generation: 1}
	for i := range shards {
		setGeneration(&shards[i], 1)
	}
	l.grant()
	l.keeper = &keeper{users: map[string]*rules.User{}, created: map[string]uint64{}}
	l.keeper.changed = func(texts []string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.texts = texts
		if !l.withheld {
			l.grantLocked()
		}
	}
	cfg.Users = l.keeper
	l.keeper.mu.Lock()
	defer l.keeper.mu.Unlock()
	l.proxy = startProxy(t, cfg, shards...)
	l.keeper.p = l.proxy
	return l
}

func (l *limited) grant() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grantLocked()
}

// grantLocked makes the users of the generation at all servers.
func (l *limited) grantLocked() {
	for _, s := range l.servers {
		s.MustDo("ACL", "SETUSER", proxyName(l.generation), "reset", "on", ">"+proxyPassword, "~*", "&*", "+@all", "-acl")
		for _, text := range l.texts {
			u, err := rules.Parse(text)
			if err != nil || u.Full() || !u.RunsScripts() {
				continue
			}
			args := []any{"ACL", "SETUSER", rules.NodeUser(scriptName(l.generation), rules.Rights(text)), "reset", "on", ">" + scriptPassword}
			for _, m := range u.Modifiers(nil, "-acl") {
				args = append(args, m)
			}
			s.MustDo(append(args, "+multi", "+exec", "+discard", "+watch", "+unwatch", "+script|load", "+client|caching")...)
		}
	}
}

// withhold keeps news of users from the servers, or tells them.
func (l *limited) withhold(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.withheld = yes
	if !yes {
		l.grantLocked()
	}
}

func (l *limited) user(name string, modifiers ...string) *client {
	l.t.Helper()
	c := l.dial()
	c.want("OK", append([]string{"ACL", "SETUSER", name, "on", "nopass"}, modifiers...)...)
	c.want("OK", "AUTH", name, "x")
	return c
}

var appRules = []string{"~app:*", "&app:*", "+@all", "-@dangerous"}

const (
	cantAccess = "can't access at least one of the keys mentioned in the command arguments"
	cantRun    = "can't run this command or subcommand"
)

// TestScriptsOfLimitedUsers: a script may do what its user may, to the letter of
// what one server says, in both protocols and around transactions.
func TestScriptsOfLimitedUsers(t *testing.T) {
	l := startLimited(t, 2, reactor.Config{Loops: 1})
	single := redistest.Start(t, redistest.Options{Open: true})
	single.MustDo("ACL", "SETUSER", "app", "on", "nopass", "~app:*", "&app:*", "+@all", "-@dangerous")
	ours, theirs := l.user("app", appRules...), dial(t, single.Address)
	theirs.want("OK", "AUTH", "app", "x")
	library := "#!lua name=lib\nredis.register_function('put', function(keys, args) return redis.call('set', keys[1] or args[1], 'f') end)\n" +
		"redis.register_function{function_name='look', callback=function(keys, args) return redis.call('get', keys[1] or args[1]) end, flags={'no-writes'}}"
	sha := "fd758d1589d044dd850a6f05d52f2eefd27f033f" // of return redis.call('get', KEYS[1]) below; unknown elsewhere
	for _, hello := range []string{"2", "3"} {
		ours.do("HELLO", hello)
		theirs.do("HELLO", hello)
		for i, request := range [][]string{
			{"FUNCTION", "LOAD", "REPLACE", library},
			{"SET", "app:k", "1"},
			{"EVAL", "return redis.call('incr', KEYS[1])", "1", "app:k"},
			{"EVAL", "return redis.call('get', ARGV[1])", "1", "app:k", "app:k"},
			{"EVAL", "return redis.call('get', ARGV[1])", "1", "app:k", "other"},
			{"EVAL", "return redis.pcall('get', ARGV[1])['err']", "1", "app:k", "other"},
			{"EVAL", "return redis.call('set', 'other', 1)", "1", "app:k"},
			{"EVAL", "return redis.call('get', KEYS[1])", "1", "other"},
			{"EVAL", "return redis.call('flushall')", "1", "app:k"},
			{"EVAL", "return redis.call('keys', '*')", "1", "app:k"},
			{"EVAL", "return redis.call('publish', 'other', 1)", "1", "app:k"},
			{"EVAL", "return redis.call('publish', 'app:c', 1)", "1", "app:k"},
			{"EVAL", "return redis.acl_check_cmd('set', 'app:x', 1)", "1", "app:k"},
			{"EVAL", "return redis.acl_check_cmd('set', 'x', 1)", "1", "app:k"},
			{"EVAL", "return redis.call('acl', 'whoami')", "1", "app:k"},
			{"EVAL", "return redis.call('select', 1)", "1", "app:k"},
			{"EVAL", "return {1, {ok='x'}, 3.5}", "1", "app:k"},
			{"EVAL_RO", "return redis.call('get', KEYS[1])", "1", "app:k"},
			{"EVAL_RO", "return redis.call('set', KEYS[1], 1)", "1", "app:k"},
			{"EVAL_RO", "return redis.call('get', 'other')", "1", "app:k"},
			{"EVALSHA", sha, "1", "app:k"},
			{"EVALSHA", "d3c21d0c2b9ca22f82737626a27bcaf5d288f99f", "1", "app:k"},
			{"FCALL", "put", "1", "app:k"},
			{"FCALL", "put", "0", "other"},
			{"FCALL", "put", "1", "other"},
			{"FCALL_RO", "look", "1", "app:k"},
			{"FCALL_RO", "put", "1", "app:k"},
			{"FCALL", "nosuch", "1", "app:k"},
			{"GET", "app:k"},
			{"MULTI"}, {"SET", "app:k", "5"}, {"EVAL", "return redis.call('incr', KEYS[1])", "1", "app:k"},
			{"EVAL", "return redis.call('get', 'other')", "1", "app:k"}, {"GET", "app:k"}, {"EXEC"},
			{"WATCH", "app:k"}, {"MULTI"}, {"EVAL", "return redis.call('incr', KEYS[1])", "1", "app:k"},
			{"EVAL", "return redis.call('del', 'other')", "1", "app:k"}, {"EXEC"},
			{"WATCH", "app:k"}, {"SET", "app:k", "7"}, {"MULTI"}, {"EVAL", "return redis.call('incr', KEYS[1])", "1", "app:k"}, {"EXEC"},
			{"GET", "app:k"},
			{"SELECT", "3"}, {"EVAL", "return redis.call('incr', KEYS[1])", "1", "app:k"}, {"GET", "app:k"}, {"SELECT", "0"}, {"GET", "app:k"},
			{"WATCH", "app:k"}, {"SELECT", "3"}, {"MULTI"}, {"EVAL", "return redis.call('get', KEYS[1])", "1", "app:k"}, {"EXEC"}, {"SELECT", "0"},
			{"SCRIPT", "LOAD", "return redis.call('get', KEYS[1])"},
			{"EVALSHA", "4e6d8fc8bb01276962cce5371fa795a7763657ae", "1", "app:k"},
			{"MULTI"}, {"EVALSHA", "4e6d8fc8bb01276962cce5371fa795a7763657ae", "1", "app:k"}, {"EXEC"},
		} {
			a, b := theirs.do(request...), ours.do(request...)
			if a != b {
				t.Errorf("RESP%s, request %d: %q\nserver: %s\nproxy:  %s", hello, i, request, a, b)
			}
		}
	}
	// The proxies' own rights are not the script's, but a user without limits has them.
	admin := l.dial()
	admin.want("OK", "EVAL", "return redis.call('set', 'other', 1)", "1", "app:k")
}

// TestScriptsOfLimitedUsersKeepTheOrder of the client's other commands, which take
// other connections.
func TestScriptsOfLimitedUsersKeepTheOrder(t *testing.T) {
	l := startLimited(t, 2, reactor.Config{})
	var wg sync.WaitGroup
	for n := range 4 {
		name := fmt.Sprintf("app%d", n)
		c := l.user(name, "~"+name+":*", "+@all")
		wg.Go(func() {
			key := name + ":k"
			var raw strings.Builder
			var want []string
			at := 0
			for i := range 200 {
				at++
				switch want = append(want, fmt.Sprint(at)); i % 5 {
				case 0:
					raw.WriteString(encode("EVAL", "return redis.call('incr', KEYS[1])", "1", key))
				case 1:
					raw.WriteString(encode("INCR", key))
				case 2:
					raw.WriteString(encode("MULTI") + encode("EVAL", "return redis.call('incr', KEYS[1])", "1", key) + encode("EXEC"))
					want = append(want[:len(want)-1], "OK", "QUEUED", fmt.Sprintf("[%d]", at))
				case 3:
					raw.WriteString(encode("MULTI") + encode("INCR", key) + encode("EXEC"))
					want = append(want[:len(want)-1], "OK", "QUEUED", fmt.Sprintf("[%d]", at))
				default:
					raw.WriteString(encode("EVALSHA", "7d8c2e8a9ac6a1a1f6e7a6e9b3a6c8e6a9d6c0aa", "1", key) + encode("INCR", key))
					want = append(want[:len(want)-1], noScript, fmt.Sprint(at))
				}
			}
			c.write(raw.String())
			for i, w := range want {
				if got := c.read(); got != w {
					t.Errorf("reply %d: %q, want %q", i, got, w)
					return
				}
			}
		})
	}
	wg.Wait()
}

const noUser = "-ERR the server does not know yet what this user may do, and can run no script for it; retry later"

// TestScriptsWaitForTheirUser: a server that does not know a user yet makes its
// scripts wait, and nothing else; it is not taken for fenced.
func TestScriptsWaitForTheirUser(t *testing.T) {
	l := startLimited(t, 1, reactor.Config{})
	l.withhold(true)
	c, watching, other := l.user("app", appRules...), l.user("app", appRules...), l.dial()
	const script = "return redis.call('incr', KEYS[1])"
	c.want("1", "INCR", "app:k")
	c.send("EVAL", script, "1", "app:k")
	watching.want("OK", "WATCH", "app:w")
	watching.queued([]string{"EVAL", script, "1", "app:w"})
	watching.send("EXEC")
	c.silent(50 * time.Millisecond)
	watching.silent(50 * time.Millisecond)
	other.want("1", "EVAL", script, "1", "k")
	l.withhold(false)
	c.wantNext("2")
	watching.wantNext("[1]")
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	for node, sights := range l.sights {
		if slices.Contains(sights, reactor.SightFenced) {
			t.Errorf("%s was reported: %v", node, sights)
		}
	}
}

// TestScriptsDoNotWaitForever for their user. What WATCH left at a server is not the
// next client's.
func TestScriptsDoNotWaitForever(t *testing.T) {
	l := startLimited(t, 1, reactor.Config{Loops: 1, HoldTimeout: 200 * time.Millisecond})
	l.withhold(true)
	c, other := l.user("app", appRules...), l.dial()
	const script = "return redis.call('incr', KEYS[1])"
	c.want(noUser, "EVAL", script, "1", "app:k")
	c.want("OK", "WATCH", "app:k")
	c.queued([]string{"EVAL", script, "1", "app:k"})
	c.want(noUser, "EXEC")
	other.want("OK", "SET", "app:k", "1")
	other.want("OK", "WATCH", "x")
	other.queued([]string{"INCR", "x"})
	other.want("[1]", "EXEC")
}

// TestScriptsAfterAChangeOfUsers: the next script has the new rights, whatever the
// server still knows of the old.
func TestScriptsAfterAChangeOfUsers(t *testing.T) {
	l := startLimited(t, 1, reactor.Config{HoldTimeout: 2 * time.Second})
	c, admin := l.user("app", appRules...), l.dial()
	const get = "return redis.call('get', ARGV[1])"
	c.want("(nil)", "EVAL", get, "1", "app:k", "app:x")
	if got := c.do("EVAL", get, "1", "app:k", "x"); !strings.Contains(got, cantAccess) {
		t.Errorf("before: %s", got)
	}
	admin.want("OK", "ACL", "SETUSER", "app", "~x")
	c.want("(nil)", "EVAL", get, "1", "app:k", "x")
	admin.want("OK", "ACL", "SETUSER", "app", "-get")
	if got := c.do("EVAL", get, "1", "app:k", "x"); !strings.Contains(got, cantRun) {
		t.Errorf("without get: %s", got)
	}
	admin.want("OK", "ACL", "SETUSER", "app", "allkeys", "allchannels", "allcommands")
	c.want("(nil)", "EVAL", get, "1", "app:k", "y") // as the proxies
	admin.want("OK", "ACL", "SETUSER", "app", "-eval")
	c.want("-NOPERM this user has no permissions to run the 'eval' command", "EVAL", get, "1", "app:k", "y")
	l.withhold(true)
	admin.want("OK", "ACL", "SETUSER", "app", "+@all", "resetkeys", "~z")
	if got := c.do("EVAL", get, "0", "y"); !strings.HasPrefix(got, "-ERR the server does not know yet") {
		t.Errorf("the server does not know the new rights: %s", got)
	}
	l.withhold(false)
	if got := c.do("EVAL", get, "0", "y"); !strings.Contains(got, cantAccess) {
		t.Errorf("the new rights: %s", got)
	}
	admin.want("1", "ACL", "DELUSER", "app")
	if got := c.do("EVAL", get, "1", "z", "z"); got != "EOF" {
		t.Errorf("a deleted user: %s", got)
	}
}

// TestScriptsHeldOverAChangeOfUsers run with the new rights.
func TestScriptsHeldOverAChangeOfUsers(t *testing.T) {
	l := startLimited(t, 1, reactor.Config{})
	c, admin := l.user("app", appRules...), l.dial()
	const get = "return redis.call('get', ARGV[1])"
	c.want("(nil)", "EVAL", get, "1", "app:k", "app:k")
	l.waitAck(l.commit(func(cl *routing.Cluster) { cl.Shards[0].Frozen = true }))
	c.send("EVAL", get, "1", "app:k", "x")
	c.silent(20 * time.Millisecond)
	admin.want("OK", "ACL", "SETUSER", "app", "~x")
	l.commit(func(cl *routing.Cluster) { cl.Shards[0].Frozen = false })
	c.wantNext("(nil)")
}

// TestScriptsOfLimitedUsersAtNewMaster: other credentials, and then another master,
// are followed as by everything else.
func TestScriptsOfLimitedUsersAtNewMaster(t *testing.T) {
	l := startLimited(t, 1, reactor.Config{})
	c := l.user("app", appRules...)
	const script = "redis.call('incr', KEYS[1]) return redis.call('get', ARGV[1])"
	c.want("1", "EVAL", script, "1", "app:k", "app:k")
	l.mu.Lock()
	l.generation = 2
	l.grantLocked()
	l.mu.Unlock()
	l.waitAck(l.commit(func(cl *routing.Cluster) {
		setGeneration(&cl.Shards[0], 2)
	}))
	for _, name := range l.servers[0].MustDo("ACL", "USERS").([]any) {
		if strings.HasPrefix(name.(string), scriptName(1)) {
			l.servers[0].MustDo("ACL", "DELUSER", name)
		}
	}
	c.want("2", "EVAL", script, "1", "app:k", "app:k")
	// The master is replaced without a freeze, and the new one has nothing.
	fresh := redistest.Start(t, redistest.Options{Open: true})
	l.servers[0].Kill()
	l.waitAck(l.commit(func(cl *routing.Cluster) { cl.Shards[0].Master = "" }))
	c.send("EVAL", script, "1", "app:k", "app:k")
	c.silent(20 * time.Millisecond)
	l.mu.Lock()
	l.servers = append(l.servers[:0], fresh)
	l.generation = 3
	l.grantLocked()
	l.mu.Unlock()
	l.commit(func(cl *routing.Cluster) {
		cl.Shards[0].Nodes = append(cl.Shards[0].Nodes, routing.Node{ID: "shard-0-1", Address: fresh.Address})
		cl.Shards[0].Master = "shard-0-1"
		setGeneration(&cl.Shards[0], 3)
	})
	c.wantNext("1")
	if got := c.do("EVAL", script, "1", "app:k", "x"); !strings.Contains(got, cantAccess) {
		t.Errorf("at the new master: %s", got)
	}
}

// TestSideLanesEnd: they are closed when nobody uses them, and bounded in number.
func TestSideLanesEnd(t *testing.T) {
	l := startLimited(t, 1, reactor.Config{Loops: 1, NodeTimeout: 20 * time.Millisecond, MaxPinned: 2})
	connections := func() int { return l.Stats().Nodes[0].Connections }
	until := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %d connections", what, connections())
			}
		}
	}
	until("at first", func() bool { return connections() == 2 })
	const script = "return redis.call('incr', KEYS[1])"
	a, b, c := l.user("a", "~a", "+@all"), l.user("b", "~b", "+@all"), l.user("c", "~c", "+@all")
	a.want("1", "EVAL", script, "1", "a")
	b.want("1", "EVAL", script, "1", "b")
	a.want("2", "EVAL", script, "1", "a")
	until("in use", func() bool { return connections() == 4 })
	c.want("-ERR too many connections of this proxy to the servers serve single users or clients (see its max-pinned); retry later", "EVAL", script, "1", "c")
	until("unused", func() bool { return connections() == 2 })
	c.want("1", "EVAL", script, "1", "c")
	a.want("3", "EVAL", script, "1", "a")
}

// TestScriptsOfLimitedUsersFromElsewhere: a script that another proxy got is found
// for a user who may not load it.
func TestScriptsOfLimitedUsersFromElsewhere(t *testing.T) {
	k := &scriptKeeper{kept: map[string]string{}}
	library := scripts.New(k, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { _ = library.Run(ctx) }()
	l := startLimited(t, 1, reactor.Config{Scripts: library})
	c, admin := l.user("app", "~app:*", "+@all", "-script"), l.dial()
	sha := admin.do("SCRIPT", "LOAD", incr)
	for range 3 {
		flushServers(l.servers)
		if got := c.do("EVALSHA", sha, "1", "app:k"); got == noScript {
			t.Fatal("the script was not found")
		}
		flushServers(l.servers)
		c.queued([]string{"EVALSHA", sha, "1", "app:k"})
		if got := c.do("EXEC"); strings.Contains(got, "NOSCRIPT") && !strings.HasPrefix(got, "[-NOSCRIPT") {
			t.Errorf("in a transaction: %s", got)
		}
	}
	c.want("-NOPERM this user has no permissions to run the 'script|load' command", "SCRIPT", "LOAD", incr)
}

// TestLimitsAreKnownByRights: users with the same rights share the name of them.
func TestLimitsAreKnownByRights(t *testing.T) {
	users, errs := acl.Compile([]acl.Text{{Rules: "user a on #" + strings.Repeat("0", 64) + " ~k +@all"}, {Rules: "user b off nopass ~k +@all"}, {Rules: "user c on ~j +@all"}}, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	of := func(name string) string { return users.Find([]byte(name)).Limits.Rights }
	if of("a") != of("b") || of("a") == of("c") {
		t.Errorf("%s %s %s", of("a"), of("b"), of("c"))
	}
}

// TestLongScriptsOfLimitedUsers: a script with very many keys is looked at little by
// little, and has the same limits then, even if its client left meanwhile.
func TestLongScriptsOfLimitedUsers(t *testing.T) {
	l := startLimited(t, 1, reactor.Config{Loops: 1})
	admin := l.dial()
	args := []string{"EVAL", "redis.call('incr', KEYS[2]) return redis.call('flushall')", "20000"}
	for i := range 20000 {
		args = append(args, fmt.Sprintf("{k}%d", i))
	}
	for i := range 2 {
		c := l.user("app", "~*", "&*", "+@all", "-flushall")
		c.want("OK", "SET", "{k}0", "1")
		c.send(args...)
		if i == 0 {
			if got := c.read(); !strings.Contains(got, cantRun) {
				t.Errorf("%.200s", got)
			}
		}
		_ = c.Close()
		for admin.do("GET", "{k}1") != fmt.Sprint(i+1) {
			time.Sleep(time.Millisecond)
		}
		admin.want("1", "GET", "{k}0")
	}
}
