package reactor_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
	"github.com/basalt-redis/basalt/proxy/scripts"
)

// scriptKeeper is a Configserver's scripts in memory.
type scriptKeeper struct {
	mu      sync.Mutex
	kept    map[string]string
	flushes uint64
	// away: nothing is answered; hangs: not even with an error.
	away, hangs bool
	// slow is how long it takes to say which scripts there are.
	slow time.Duration
}

func (k *scriptKeeper) call(ctx context.Context, f func()) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hangs {
		k.mu.Unlock()
		<-ctx.Done()
		k.mu.Lock()
		return ctx.Err()
	}
	if k.away {
		return errors.New("away")
	}
	f()
	return nil
}

func (k *scriptKeeper) PutScripts(ctx context.Context, flushes uint64, list []scripts.Source) (now uint64, err error) {
	err = k.call(ctx, func() {
		if now = k.flushes; now == flushes {
			for _, s := range list {
				k.kept[s.SHA] = s.Text
			}
		}
	})
	return now, err
}

func (k *scriptKeeper) GetScripts(ctx context.Context, shas []string, _ bool) (kept map[string]string, flushes uint64, err error) {
	kept = map[string]string{}
	k.mu.Lock()
	slow := k.slow
	k.mu.Unlock()
	time.Sleep(slow)
	err = k.call(ctx, func() {
		flushes = k.flushes
		for _, sha := range shas {
			if text, ok := k.kept[sha]; ok {
				kept[sha] = text
			}
		}
	})
	return kept, flushes, err
}

func (k *scriptKeeper) FlushScripts(ctx context.Context) (flushes uint64, err error) {
	err = k.call(ctx, func() {
		k.flushes++
		flushes = k.flushes
		clear(k.kept)
	})
	return flushes, err
}

func (k *scriptKeeper) set(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

func (k *scriptKeeper) has(source string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept[scripts.SHA(source)] == source
}

// scriptProxies starts n proxies in front of the same shards.
func scriptProxies(t *testing.T, n int, shards ...routing.Shard) (*scriptKeeper, []*proxy) {
	t.Helper()
	k := &scriptKeeper{kept: map[string]string{}}
	var all []*proxy
	for range n {
		l := scripts.New(k, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		go func() { _ = l.Run(ctx) }()
		all = append(all, startProxy(t, reactor.Config{Loops: 1, Scripts: l}, shards...))
	}
	return k, all
}

const incr = "return redis.call('incr',KEYS[1])"

// noScript is how the servers of the tests say that they do not have a script.
var noScript = func() string {
	out, _ := exec.Command(cmp.Or(os.Getenv("REDIS_SERVER"), "redis-server"), "--version").Output()
	if strings.HasPrefix(string(out), "Valkey ") { // from 8.0
		return "-NOSCRIPT No matching script."
	}
	return "-NOSCRIPT No matching script. Please use EVAL."
}()

func flushServers(servers []*redistest.Server) {
	for _, s := range servers {
		s.MustDo("SCRIPT", "FLUSH")
	}
}

// TestScriptsOfAllProxies: a script that was loaded through one proxy runs
// through another, at shards that never saw it or lost it.
func TestScriptsOfAllProxies(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 3)
	k, p := scriptProxies(t, 2, shards...)
	one, two := p[0].dial(), p[1].dial()
	two.want(noScript, "EVALSHA", scripts.SHA(incr), "1", "a")
	one.want(scripts.SHA(incr), "SCRIPT", "LOAD", incr)
	if !k.has(incr) {
		t.Error("SCRIPT LOAD is not kept when it is answered")
	}
	for _, s := range servers {
		if got := fmt.Sprint(s.MustDo("SCRIPT", "EXISTS", scripts.SHA(incr))); got != "[1]" {
			t.Errorf("a shard has it: %s", got)
		}
	}
	flushServers(servers)
	for i, key := range []string{"a", "b", "c", "d"} {
		two.want("1", "EVALSHA", scripts.SHA(incr), "1", key)
		two.want("2", "EVALSHA", strings.ToUpper(scripts.SHA(incr)), "1", key)
		if i == 1 {
			flushServers(servers)
		}
	}
	two.want("3", "EVALSHA", scripts.SHA(incr), "1", "a")
	two.want("[1 0]", "SCRIPT", "EXISTS", scripts.SHA(incr), scripts.SHA("other"))

	// What came with EVAL is known to the others soon.
	get := "return {KEYS[1],redis.call('get',KEYS[1])}"
	one.want("[a 3]", "EVAL", get, "1", "a")
	one.want("[b 2]", "EVALSHA", scripts.SHA(get), "1", "b")
	for deadline := time.Now().Add(5 * time.Second); !k.has(get); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a script of EVAL is not kept")
		}
	}
	two.want("[c 2]", "EVALSHA_RO", scripts.SHA(get), "1", "c")
	// What the server does not take is not kept.
	one.want("-ERR Error compiling script (new function): user_script:1: '=' expected near 'is'", "EVAL", "this is no lua", "1", "a")
	one.want("-ERR value is not an integer or out of range", "EVAL", "return 9", "x", "a")
	one.want("[0 0]", "SCRIPT", "EXISTS", scripts.SHA("this is no lua"), scripts.SHA("return 9"))
	one.want(noScript, "EVALSHA", scripts.SHA("return 9"), "1", "a")
	one.want("OK", "SET", "a", "x")
	one.want("-ERR value is not an integer or out of range script: "+scripts.SHA("return redis.call('decr',KEYS[1])")+", on @user_script:1.", "EVAL", "return redis.call('decr',KEYS[1])", "1", "a")
	one.want("-1", "EVALSHA", scripts.SHA("return redis.call('decr',KEYS[1])"), "1", "z")
	one.want("-ERR my error", "EVAL", "return redis.error_reply('ERR my error')", "1", "a")
	one.want("[1]", "SCRIPT", "EXISTS", scripts.SHA("return redis.error_reply('ERR my error')"))
}

// TestScriptFlushElsewhere: what was flushed through another proxy stays flushed.
func TestScriptFlushElsewhere(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	k, p := scriptProxies(t, 2, shards...)
	one, two := p[0].dial(), p[1].dial()
	one.want(scripts.SHA(incr), "SCRIPT", "LOAD", incr)
	one.want("1", "EVALSHA", scripts.SHA(incr), "1", "a")
	two.want("2", "EVALSHA", scripts.SHA(incr), "1", "a")
	two.want("-ERR SCRIPT FLUSH only support SYNC|ASYNC option", "SCRIPT", "FLUSH", "now")
	two.want("OK", "SCRIPT", "FLUSH", "sync")
	one.want(noScript, "EVALSHA", scripts.SHA(incr), "1", "a")
	one.want("[0]", "SCRIPT", "EXISTS", scripts.SHA(incr))
	two.want(noScript, "EVALSHA", scripts.SHA(incr), "1", "a")
	one.want("2", "GET", "a")
	// All but the Configserver have it: it was loaded by an administrator.
	for _, s := range servers {
		s.MustDo("SCRIPT", "LOAD", incr)
	}
	one.want("[1 0]", "SCRIPT", "EXISTS", scripts.SHA(incr), "nosha")
	// Without the Configserver nothing is flushed.
	one.want("OK", "SCRIPT", "FLUSH")
	one.want(scripts.SHA(incr), "SCRIPT", "LOAD", incr)
	k.set(func() { k.away = true })
	if got := one.do("SCRIPT", "FLUSH"); !strings.HasPrefix(got, "-ERR SCRIPT FLUSH needs the Configserver, which keeps the scripts; nothing was flushed") {
		t.Error(got)
	}
	one.want("3", "EVALSHA", scripts.SHA(incr), "1", "a")
}

// TestScriptsWithoutConfigserver: the proxies go on with what they know, and do
// not wait long.
func TestScriptsWithoutConfigserver(t *testing.T) {
	shards, servers := realShards(t, 2)
	k, p := scriptProxies(t, 2, shards...)
	one, two := p[0].dial(), p[1].dial()
	one.want(scripts.SHA(incr), "SCRIPT", "LOAD", incr)
	two.want("1", "EVALSHA", scripts.SHA(incr), "1", "a") // so the other has it, too
	time.Sleep(100 * time.Millisecond)
	k.set(func() { k.hangs = true })
	flushServers(servers)
	begin := time.Now()
	two.want("2", "EVALSHA", scripts.SHA(incr), "1", "a")
	one.want("3", "EVALSHA", scripts.SHA(incr), "1", "a")
	one.want(noScript, "EVALSHA", scripts.SHA("return 7"), "1", "a")
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
	one.want(scripts.SHA("return 7"), "SCRIPT", "LOAD", "return 7")
	one.want("[1 1]", "SCRIPT", "EXISTS", scripts.SHA("return 7"), scripts.SHA(incr))
	k.set(func() { k.hangs = false })
	for deadline := time.Now().Add(10 * time.Second); !k.has("return 7"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not told when it was back")
		}
	}
}

// TestScriptOrder: the commands behind an EVALSHA that must be sent again do not
// overtake it, in one write and in many.
func TestScriptOrder(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	_, p := scriptProxies(t, 2, shards...)
	one, two := p[0].dial(), p[1].dial()
	one.want(scripts.SHA(incr), "SCRIPT", "LOAD", incr)
	flushServers(servers)
	var raw strings.Builder
	const rounds = 50
	for range rounds {
		raw.WriteString(encode("EVALSHA", scripts.SHA(incr), "1", "a") + encode("GET", "a"))
	}
	two.write(raw.String())
	for i := range rounds {
		two.wantNext(fmt.Sprint(i + 1))
		two.wantNext(fmt.Sprint(i + 1))
	}
	// Flushed when it is known to be there, and commands follow: NOSCRIPT, or the
	// right order.
	flushServers(servers)
	two.write(raw.String())
	last := rounds
	for range rounds {
		got, want := two.read(), two.read()
		if got != want && (got != noScript || want != fmt.Sprint(last)) {
			t.Fatalf("EVALSHA says %s, GET %s, before it was %d", got, want, last)
		}
		if got != noScript {
			last++
		}
	}
	two.want(fmt.Sprint(last+1), "EVALSHA", scripts.SHA(incr), "1", "a")
}

// TestScriptsInTransactions: EVALSHA in MULTI finds what the server does not have.
func TestScriptsInTransactions(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	k, p := scriptProxies(t, 2, shards...)
	one, two := p[0].dial(), p[1].dial()
	get := "return redis.call('get',KEYS[1])"
	one.want(scripts.SHA(incr), "SCRIPT", "LOAD", incr)
	one.want(scripts.SHA(get), "SCRIPT", "LOAD", get)
	flushServers(servers)
	exec := func(want string) {
		t.Helper()
		two.queued([]string{"EVALSHA", scripts.SHA(incr), "1", "a"}, []string{"EVALSHA", strings.ToUpper(scripts.SHA(get)), "1", "a"}, []string{"EVALSHA", scripts.SHA("none"), "1", "a"}, []string{"CLIENT", "GETNAME"})
		two.want(want, "EXEC")
	}
	exec("[1 1 " + noScript + " (nil)]")
	exec("[2 2 " + noScript + " (nil)]")
	flushServers(servers)
	two.want("OK", "WATCH", "a")
	exec("[" + noScript + " " + noScript + " " + noScript + " (nil)]")
	// What a transaction loads is kept; a flush happens behind it.
	two.queued([]string{"SCRIPT", "LOAD", "return 5"}, []string{"EVALSHA", scripts.SHA("return 5"), "0"}, []string{"EVAL", "return 6", "1", "a"}, []string{"FUNCTION", "LOAD", library("f", "1")}, []string{"FUNCTION", "LIST"})
	if got := two.do("EXEC"); !strings.HasPrefix(got, "["+scripts.SHA("return 5")+" 5 6 lib_f [[library_name lib_f ") {
		t.Error(got)
	}
	for i, s := range servers {
		if got := fmt.Sprint(s.MustDo("SCRIPT", "EXISTS", scripts.SHA("return 5"))); got != "[1]" {
			t.Errorf("shard %d: %s", i, got)
		}
		if got := fmt.Sprint(s.MustDo("FCALL", "f", "0")); got != "1" {
			t.Errorf("shard %d: %s", i, got)
		}
	}
	one.want("5", "EVALSHA", scripts.SHA("return 5"), "1", "x")
	two.want("6", "EVALSHA", scripts.SHA("return 6"), "1", "x")
	k.set(func() { k.slow = 50 * time.Millisecond }) // the flush waits all the same
	two.queued([]string{"SCRIPT", "EXISTS", scripts.SHA("return 5")}, []string{"SCRIPT", "FLUSH"}, []string{"SCRIPT", "KILL"}, []string{"INCR", "a"})
	two.want("[[1] OK -NOTBUSY No scripts in execution right now. 3]", "EXEC")
	one.want(noScript, "EVALSHA", scripts.SHA("return 5"), "1", "x")
}

// library is the code of a library with one function.
func library(name, result string) string {
	return "#!lua name=lib_" + name + "\nredis.register_function('" + name + "', function() return " + result + " end)"
}

// TestScriptsAtNewMaster: after a failover the new master has no scripts; what
// was held is given them.
func TestScriptsAtNewMaster(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t, redistest.Options{Open: true}), redistest.Start(t, redistest.Options{Open: true})
	_, p := scriptProxies(t, 1, twoNodes(a.Address, b.Address))
	c := p[0].dial()
	c.want(scripts.SHA(incr), "SCRIPT", "LOAD", incr)
	c.want("1", "EVALSHA", scripts.SHA(incr), "1", "n")
	p[0].waitAck(p[0].commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	c.send("EVALSHA", scripts.SHA(incr), "1", "n")
	c.send("GET", "n")
	other := p[0].dial()
	other.want("OK", "MULTI")
	other.want("QUEUED", "EVALSHA", scripts.SHA(incr), "1", "m")
	other.want("QUEUED", "EVALSHA", scripts.SHA(incr), "1", "m")
	other.send("EXEC")
	c.silent(50 * time.Millisecond)
	p[0].waitAck(p[0].commit(func(c *routing.Cluster) { c.Shards[0].Master, c.Shards[0].Generation = "b", 2 }))
	c.wantNext("1") // the test's servers do not replicate
	c.wantNext("1")
	other.wantNext("[1 2]")
	c.want("2", "EVALSHA", scripts.SHA(incr), "1", "n")
}

// TestScriptSentAgainOnce: a connection that breaks behind the second attempt
// leaves it unknown whether the script was executed; it is not sent once more.
func TestScriptSentAgainOnce(t *testing.T) {
	t.Parallel()
	var loaded sync.Once
	f := startFake(t, nil)
	f.set(func(args []string) string {
		if args[0] == "EVALSHA" {
			reply := ""
			loaded.Do(func() { reply = noScript + "\r\n" })
			return reply
		}
		return "+OK\r\n"
	})
	k, p := scriptProxies(t, 1, one(0, 1, f.ln.Addr().String()))
	k.set(func() { k.kept[scripts.SHA("x")] = "x" })
	c := p[0].dial()
	c.send("EVALSHA", scripts.SHA("x"), "1", "a")
	c.send("PING")
	got := f.waitGot(3)
	if got[1] != "SCRIPT LOAD x" || !strings.HasPrefix(got[2], "EVALSHA ") {
		t.Fatalf("sent %q", got)
	}
	f.cut()
	c.wantNext(lost)
	c.wantNext("PONG")
	c.want("PONG", "PING")
	// In a transaction it may write as well.
	c.queued([]string{"EVALSHA", scripts.SHA("x"), "1", "a"})
	c.send("EXEC")
	f.waitGot(7)
	f.cut()
	c.wantNext(lost)
	if got := f.waitGot(7); len(got) != 7 || got[3] != "SCRIPT LOAD x" || got[4] != "MULTI" {
		t.Errorf("sent %q", got)
	}
}

// TestScriptClientLeaves: nothing of a client that closes meanwhile is left.
func TestScriptClientLeaves(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 1)
	k, p := scriptProxies(t, 1, shards...)
	c := p[0].dial()
	c.want(scripts.SHA(incr), "SCRIPT", "LOAD", incr)
	flushServers(servers)
	k.set(func() { k.hangs = true })
	var leaving []*client
	for range 3 {
		one, two := p[0].dial(), p[0].dial()
		one.send("EVALSHA", scripts.SHA(incr), "1", "a")
		two.queued([]string{"EVALSHA", scripts.SHA(incr), "1", "a"})
		two.send("EXEC")
		leaving = append(leaving, one, two)
	}
	time.Sleep(100 * time.Millisecond)
	for _, c := range leaving {
		if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil { // closed at once, not after the answer
			t.Fatal(err)
		}
		c.Close()
	}
	time.Sleep(600 * time.Millisecond)
	c.want("(nil)", "GET", "a")
	k.set(func() { k.hangs = false })
	c.want("1", "EVALSHA", scripts.SHA(incr), "1", "a")
}

// TestScriptKill reaches a shard whose shared connection waits behind the script.
func TestScriptKill(t *testing.T) {
	t.Parallel()
	var shards []routing.Shard
	for i := range 2 {
		s := redistest.Start(t, redistest.Options{Config: []string{"busy-reply-threshold 20"}})
		shard := one(i, 2, s.Address)
		shard.Username, shard.Password, shard.Generation = redistest.AdminUser, s.AdminPassword, 1
		shards = append(shards, shard)
	}
	_, p := scriptProxies(t, 1, shards...)
	busy, c := p[0].dial(), p[0].dial()
	const notBusy = "-NOTBUSY No scripts in execution right now."
	const idle = "[running_script (nil) engines [LUA [libraries_count 1 functions_count 1]]]"
	c.want("lib_f", "FUNCTION", "LOAD", "#!lua name=lib_f\nredis.register_function{function_name='f', callback=function() while true do end end, flags={'no-writes'}}")
	for _, proto := range []string{"2", "3"} {
		c.do("HELLO", proto)
		c.want(notBusy, "SCRIPT", "KILL")
		c.want(notBusy, "FUNCTION", "KILL")
		c.want(idle, "FUNCTION", "STATS")
		for _, key := range []string{"a", "b", "c", "d"} { // at both shards
			busy.send("EVAL", "while true do end", "1", key)
			got := notBusy
			for ; got == notBusy; got = c.do("SCRIPT", "KILL") {
				time.Sleep(time.Millisecond) // it has not begun yet
			}
			if got != "OK" {
				t.Fatal(got)
			}
			if got := busy.read(); !strings.Contains(got, "Script killed by user") {
				t.Fatal(got)
			}
			busy.send("FCALL", "f", "1", key)
			for got = idle; got == idle; got = c.do("FUNCTION", "STATS") {
				_ = busy.SetReadDeadline(time.Now().Add(time.Millisecond))
				if strings.HasPrefix(busy.read(), "-BUSY") { // with the script before, for one tick more
					busy.send("FCALL", "f", "1", key)
				}
			}
			_ = busy.SetReadDeadline(time.Now().Add(patience))
			if !strings.HasPrefix(got, "[running_script [name f command [FCALL f 1 "+key+"] duration_ms ") {
				t.Error(got)
			}
			if got := c.do("SCRIPT", "KILL"); !strings.HasPrefix(got, "-BUSY") {
				t.Error(got)
			}
			c.want("OK", "FUNCTION", "KILL")
			if got := busy.read(); !strings.Contains(got, "killed by user") {
				t.Fatal(got)
			}
		}
	}
	// One that wrote cannot be killed; that is no reason to close anything.
	busy.send("EVAL", "redis.call('set',KEYS[1],'x') local t=redis.call('time')[1] repeat until redis.call('time')[1]-t>1", "1", "a")
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if got := c.do("SCRIPT", "KILL"); strings.HasPrefix(got, "-UNKILLABLE Sorry the script already executed write commands") {
			break
		} else if got != notBusy || time.Now().After(deadline) {
			t.Fatal(got)
		}
	}
	busy.wantNext("(nil)")
	c.want(notBusy, "SCRIPT", "KILL")
	c.want("-NOTBUSY No scripts in execution right now.", "SCRIPT", "KILL")
	if n := p[0].Stats().Pinned; n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestFunctionsOfAllShards: functions are loaded everywhere, and an error says
// where not.
func TestFunctionsOfAllShards(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 3)
	_, p := scriptProxies(t, 1, shards...)
	c := p[0].dial()
	c.want("lib_f", "FUNCTION", "LOAD", library("f", "1"))
	for _, key := range []string{"a", "b", "c", "d"} {
		c.want("1", "FCALL", "f", "1", key)
	}
	c.want("1", "FCALL", "f", "0")
	c.want("-ERR Library 'lib_f' already exists", "FUNCTION", "LOAD", library("f", "2"))
	servers[1].MustDo("FUNCTION", "FLUSH")
	c.want("-ERR FUNCTION LOAD failed at 2 of 3 shards and was done at the others, repeat it with REPLACE; at shard-0: ERR Library 'lib_f' already exists", "FUNCTION", "LOAD", library("f", "2"))
	c.want("lib_f", "FUNCTION", "LOAD", "REPLACE", library("f", "3"))
	for i, s := range servers {
		if got := fmt.Sprint(s.MustDo("FCALL", "f", "0")); got != "3" {
			t.Errorf("shard %d: %s", i, got)
		}
	}
	dump := c.do("FUNCTION", "DUMP")
	servers[2].MustDo("FUNCTION", "FLUSH")
	c.want("OK", "FUNCTION", "DELETE", "lib_f") // one had none: none has it now
	c.want("-ERR Library not found", "FUNCTION", "DELETE", "lib_f")
	c.want("OK", "FUNCTION", "RESTORE", dump)
	c.want("3", "FCALL", "f", "1", "b")
	c.want("-ERR Library lib_f already exists", "FUNCTION", "RESTORE", dump)
	c.want("OK", "FUNCTION", "RESTORE", dump, "REPLACE")
	c.want("OK", "FUNCTION", "FLUSH")
	c.want("[]", "FUNCTION", "LIST")
}

// TestScriptSelectsNothing: a script that selects a database does so for itself,
// not for those that share the connection.
func TestScriptSelectsNothing(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	_, p := scriptProxies(t, 1, shards...)
	c := p[0].dial()
	c.want("OK", "EVAL", "redis.call('select',3) return redis.call('set',KEYS[1],'3')", "1", "a")
	c.want("(nil)", "GET", "a")
	c.want("3", "EVAL", "redis.call('select',3) return redis.call('get',KEYS[1])", "1", "a")
}

// TestScriptDebugger: who asked for the debugger and does not look at the answer,
// as redis-cli --ldb, believes that a script changes nothing. It is not run.
func TestScriptDebugger(t *testing.T) {
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	set := []string{"EVAL", "return redis.call('SET', KEYS[1], '1')", "1", "k"}
	const refused = "-ERR the script was not run: this connection asked for the debugger, and SCRIPT DEBUG is not supported behind the proxy, debug against a server of your own"
	for _, mode := range []string{"YES", "sync"} {
		if got := c.do("SCRIPT", "DEBUG", mode); !strings.HasPrefix(got, "-ERR SCRIPT DEBUG is not supported behind the proxy") {
			t.Error(got)
		}
		c.want(refused, set...)
		c.want("OK", "MULTI")
		c.want("QUEUED", "PING")
		c.want("[PONG]", "EXEC")
		c.want("(nil)", "GET", "k")
		c.do("SCRIPT", "DEBUG", "NO")
		c.want("OK", set...)
		c.want("1", "DEL", "k")
	}
	c.do("SCRIPT", "DEBUG", "YES")
	c.want("RESET", "RESET")
	c.want("OK", set...)
}
