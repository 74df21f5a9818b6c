// Program rueidis exercises an endpoint with rueidis, which pipelines by itself,
// speaks RESP3, and finds out by itself that it is not talking to a Redis Cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/basalt-redis/basalt/tests/clients/program"
)

func main() { program.Main(features, newSubject) }

var ctx = context.Background()

func options(call program.Call) rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{call.Addr}, Password: call.Password, DisableCache: true}
}

func features(call program.Call, r *program.Report) {
	c, err := rueidis.NewClient(options(call))
	if err != nil {
		r.Check("connect", func(*program.Seen) error { return err })
		return
	}
	defer c.Close()
	r.Check("connect", func(s *program.Seen) error { return connect(call, c, s) })
	r.Check("pipelines", func(s *program.Seen) error { return pipelines(c, s) })
	r.Check("transactions", func(s *program.Seen) error { return transactions(c, s) })
	r.Check("pubsub", func(s *program.Seen) error { return pubsub(c, s) })
	r.Check("blocking", func(s *program.Seen) error { return blocking(c, s) })
	r.Check("scripts", func(s *program.Seen) error { return scripts(c, s) })
	r.Check("functions", func(s *program.Seen) error { return functions(c, s) })
	r.Check("scan", func(s *program.Seen) error { return scan(c, s) })
	r.Check("values", func(s *program.Seen) error { return values(c, s) })
	r.Check("client", func(s *program.Seen) error { return client(call, c, s) })
	r.Check("acl", func(s *program.Seen) error { return acl(call, c, s) })
	r.Check("tracking", func(s *program.Seen) error { return tracking(call, c, s) })
	one, done := c.Dedicate()
	defer done()
	program.Steps(r, call.Steps, func(words []string) (any, bool, error) {
		v, err := one.Do(ctx, one.B().Arbitrary(words...).Build()).ToAny()
		if rueidis.IsRedisNil(err) {
			return nil, false, nil
		}
		_, refused := rueidis.IsRedisErr(err)
		return plain(v), err != nil && !refused, err
	})
}

// plain replaces errors inside of a reply by their text, which prints the same
// everywhere.
func plain(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	case error:
		return "error " + v.Error()
	}
	return v
}

// do sends one command in words.
func do(c rueidis.CoreClient, words ...string) rueidis.RedisResult {
	return c.Do(ctx, c.B().Arbitrary(words...).Build())
}

func show(r rueidis.RedisResult) (any, error) {
	v, err := r.ToAny()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	return plain(v), err
}

func add(s *program.Seen, what string, r rueidis.RedisResult) {
	v, err := show(r)
	s.Add(what, v, err)
}

func connect(call program.Call, c rueidis.Client, s *program.Seen) error {
	add(s, "flushall", do(c, "FLUSHALL"))
	s.Add("mode", c.Mode(), nil)
	for _, old := range []bool{true, false} {
		o := options(call)
		o.AlwaysRESP2, o.ClientName, o.SelectDB, o.ClientNoTouch, o.ClientNoEvict = old, "named", 1, false, true
		named, err := rueidis.NewClient(o)
		if err != nil {
			return err
		}
		defer named.Close()
		add(s, "name", do(named, "CLIENT", "GETNAME"))
		hello, err := do(named, "HELLO").AsMap()
		if err != nil {
			return err
		}
		proto := hello["proto"]
		add(s, "ping", do(named, "PING"))
		s.Add("proto", proto.String(), nil)
		info, err := do(named, "CLIENT", "INFO").ToString()
		s.Add("database", strings.Contains(info, " db=1 "), err)
	}
	wrong := options(call)
	wrong.Password = "wrong"
	_, err := rueidis.NewClient(wrong)
	s.Add("wrong password", "", err)
	return nil
}

func pipelines(c rueidis.Client, s *program.Seen) error {
	const n = 10000
	var cmds rueidis.Commands
	for i := range n {
		key := "pipe:" + strconv.Itoa(i)
		cmds = append(cmds, c.B().Set().Key(key).Value(strconv.Itoa(i)).Build(), c.B().Get().Key(key).Build())
		if i%1000 == 500 {
			cmds = append(cmds, c.B().Arbitrary("NOSUCH").Build())
		}
	}
	gets, failed := 0, 0
	for _, r := range c.DoMulti(ctx, cmds...) {
		v, err := r.ToString()
		if _, refused := rueidis.IsRedisErr(err); refused {
			failed++
			continue
		}
		if err != nil {
			return err
		}
		if v != "OK" {
			if err := program.Want("GET", v, gets); err != nil {
				return err
			}
			gets++
		}
	}
	s.Add("gets", gets, nil)
	s.Add("failed", failed, nil)
	// Callers that do not know of each other share a connection.
	var all sync.WaitGroup
	faults := make(chan error, 50)
	for i := range 50 {
		all.Go(func() {
			for j := range 20 {
				k := (i*97 + j*31) % n
				v, err := c.Do(ctx, c.B().Get().Key("pipe:"+strconv.Itoa(k)).Build()).AsInt64()
				if err == nil {
					err = program.Want("shared GET", v, k)
				}
				if err != nil {
					faults <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-faults:
		return err
	default:
	}
	many, err := rueidis.MGet(c, ctx, []string{"pipe:1", "pipe:2", "pipe:3", "missing"})
	two := many["pipe:2"]
	s.Add("mget", fmt.Sprint(len(many), two.String()), err)
	return nil
}

func transactions(c rueidis.Client, s *program.Seen) error {
	run := func(what string, cmds ...[]string) error {
		return c.Dedicated(func(d rueidis.DedicatedClient) error {
			var built rueidis.Commands
			for _, words := range cmds {
				built = append(built, d.B().Arbitrary(words...).Build())
			}
			for _, r := range d.DoMulti(ctx, built...) {
				v, err := show(r)
				s.Add(what, v, err)
			}
			return nil
		})
	}
	if err := errors.Join(
		run("exec", []string{"MULTI"}, []string{"SET", "{tx}a", "1"}, []string{"INCR", "{tx}a"}, []string{"HSET", "{tx}h", "f", "v"},
			[]string{"HGETALL", "{tx}h"}, []string{"PING"}, []string{"EXEC"}),
		run("discard", []string{"MULTI"}, []string{"SET", "{tx}a", "9"}, []string{"DISCARD"}, []string{"GET", "{tx}a"}),
		run("bad", []string{"MULTI"}, []string{"SET", "{tx}a"}, []string{"EXEC"}),
		run("wrong type", []string{"MULTI"}, []string{"LPUSH", "{tx}a", "x"}, []string{"INCR", "{tx}a"}, []string{"EXEC"}),
	); err != nil {
		return err
	}
	return c.Dedicated(func(d rueidis.DedicatedClient) error {
		for _, disturb := range []bool{false, true} {
			add(s, "watch", do(d, "WATCH", "{tx}a", "{tx}b"))
			if disturb {
				add(s, "other", do(c, "SET", "{tx}b", "other"))
			}
			for _, r := range d.DoMulti(ctx, d.B().Multi().Build(), d.B().Set().Key("{tx}a").Value("mine").Build(), d.B().Exec().Build()) {
				add(s, "then", r)
			}
		}
		return nil
	})
}

func pubsub(c rueidis.Client, s *program.Seen) error {
	d, done := c.Dedicate()
	defer done()
	messages, changes := make(chan string, 100), make(chan string, 100)
	lost := d.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage:      func(m rueidis.PubSubMessage) { messages <- fmt.Sprintf("%+v", m) },
		OnSubscription: func(p rueidis.PubSubSubscription) { changes <- fmt.Sprintf("%+v", p) },
	})
	take := func(what string, from <-chan string, n int) error {
		var some []string
		for range n {
			select {
			case m := <-from:
				some = append(some, m)
			case err := <-lost:
				return fmt.Errorf("%s: the subscription was lost: %w", what, err)
			case <-time.After(5 * time.Second):
				return fmt.Errorf("%s: nothing came, after %q", what, some)
			}
		}
		slices.Sort(some)
		s.Add(what, some, nil)
		return nil
	}
	add(s, "subscribe", d.Do(ctx, d.B().Subscribe().Channel("news:1", "news:2").Build()))
	if err := take("confirmed", changes, 2); err != nil {
		return err
	}
	add(s, "psubscribe", d.Do(ctx, d.B().Psubscribe().Pattern("news:*").Build()))
	add(s, "ssubscribe", d.Do(ctx, d.B().Ssubscribe().Channel("{shard}news").Build()))
	if err := take("confirmed", changes, 2); err != nil {
		return err
	}
	// In RESP3 a subscribed connection still serves commands.
	add(s, "set", do(d, "SET", "subscribed", "x"))
	add(s, "publish", do(c, "PUBLISH", "news:1", "hello"))
	add(s, "spublish", do(c, "SPUBLISH", "{shard}news", "hello"))
	if err := take("messages", messages, 3); err != nil {
		return err
	}
	add(s, "numpat", do(c, "PUBSUB", "NUMPAT"))
	add(s, "shardnumsub", do(c, "PUBSUB", "SHARDNUMSUB", "{shard}news"))
	add(s, "unsubscribe", d.Do(ctx, d.B().Unsubscribe().Channel("news:2").Build()))
	return take("confirmed", changes, 1)
}

func blocking(c rueidis.Client, s *program.Seen) error {
	for _, b := range []struct{ wake, wait []string }{
		{[]string{"RPUSH", "queue", "job"}, []string{"BLPOP", "other", "queue", "5"}},
		{[]string{"RPUSH", "{q}a", "move"}, []string{"BLMOVE", "{q}a", "{q}b", "LEFT", "RIGHT", "5"}},
		{[]string{"ZADD", "ranked", "1.5", "low"}, []string{"BZPOPMIN", "ranked", "5"}},
		{[]string{"RPUSH", "{q}m", "x", "y"}, []string{"BLMPOP", "5", "2", "{q}l", "{q}m", "LEFT", "COUNT", "10"}},
		{[]string{"XADD", "log", "5-1", "a", "b"}, []string{"XREAD", "BLOCK", "5000", "STREAMS", "log", "$"}},
	} {
		// BLPOP of two keys needs both in one slot.
		if b.wait[0] == "BLPOP" {
			b.wait[1], b.wait[2], b.wake[1] = "{q}other", "{q}queue", "{q}queue"
		}
		program.Later(func() { do(c, b.wake...) })
		add(s, b.wait[0], c.Do(ctx, c.B().Arbitrary(b.wait...).Blocking()))
	}
	_, err := c.Do(ctx, c.B().Blpop().Key("empty").Timeout(1).Build()).ToAny()
	s.Add("timeout", rueidis.IsRedisNil(err), nil)
	return nil
}

func scripts(c rueidis.Client, s *program.Seen) error {
	lua := rueidis.NewLuaScript("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}")
	for _, key := range []string{"s1", "s2", "s3", "s4"} {
		add(s, "lua", lua.Exec(ctx, c, []string{key}, []string{"arg"}))
		add(s, "again", lua.Exec(ctx, c, []string{key}, []string{"arg"}))
	}
	loading := rueidis.NewLuaScript("return ARGV[1]", rueidis.WithLoadSHA1(true))
	add(s, "loaded", loading.Exec(ctx, c, nil, []string{"no keys"}))
	for _, r := range lua.ExecMulti(ctx, c, rueidis.LuaExec{Keys: []string{"s1"}, Args: []string{"x"}}, rueidis.LuaExec{Keys: []string{"s2"}, Args: []string{"y"}}) {
		add(s, "multi", r)
	}
	add(s, "read only", rueidis.NewLuaScriptReadOnly("return redis.call('SET', KEYS[1], 'x')").Exec(ctx, c, []string{"s1"}, nil))
	add(s, "load", do(c, "SCRIPT", "LOAD", "return 1"))
	add(s, "exists", do(c, "SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", strings.Repeat("f", 40)))
	add(s, "unknown", do(c, "EVALSHA", strings.Repeat("f", 40), "1", "k"))
	return nil
}

func functions(c rueidis.Client, s *program.Seen) error {
	code := "#!lua name=rueidis\nredis.register_function('rueidis_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)"
	add(s, "load", do(c, "FUNCTION", "LOAD", "REPLACE", code))
	add(s, "again", do(c, "FUNCTION", "LOAD", code))
	for _, key := range []string{"f1", "f2", "f3", "f4"} {
		add(s, "fcall", do(c, "FCALL", "rueidis_set", "1", key, key))
	}
	add(s, "list", do(c, "FUNCTION", "LIST", "LIBRARYNAME", "rueidis", "WITHCODE"))
	dump, err := do(c, "FUNCTION", "DUMP").ToString()
	if err != nil {
		return err
	}
	add(s, "delete", do(c, "FUNCTION", "DELETE", "rueidis"))
	add(s, "restore", do(c, "FUNCTION", "RESTORE", dump))
	add(s, "restored", do(c, "FCALL", "rueidis_set", "1", "f1", "x"))
	add(s, "flush", do(c, "FUNCTION", "FLUSH"))
	return nil
}

func scan(c rueidis.Client, s *program.Seen) error {
	var cmds rueidis.Commands
	for i := range 1000 {
		cmds = append(cmds, c.B().Set().Key("scan:"+strconv.Itoa(i)).Value("x").Build(), c.B().Sadd().Key("scanned").Member(strconv.Itoa(i)).Build())
	}
	for _, r := range c.DoMulti(ctx, cmds...) {
		if r.Error() != nil {
			return r.Error()
		}
	}
	seen := map[string]bool{}
	scanner := rueidis.NewScanner(func(cursor uint64) (rueidis.ScanEntry, error) {
		return c.Do(ctx, c.B().Scan().Cursor(cursor).Match("scan:*").Count(91).Build()).AsScanEntry()
	})
	for key := range scanner.Iter() {
		seen[key] = true
	}
	s.Add("keys", len(seen), scanner.Err())
	members := map[string]bool{}
	scanner = rueidis.NewScanner(func(cursor uint64) (rueidis.ScanEntry, error) {
		return c.Do(ctx, c.B().Sscan().Key("scanned").Cursor(cursor).Build()).AsScanEntry()
	})
	for member := range scanner.Iter() {
		members[member] = true
	}
	s.Add("members", len(members), scanner.Err())
	return nil
}

func values(c rueidis.Client, s *program.Seen) error {
	big := strings.Repeat("0123456789abcdef", 1<<20)
	add(s, "set", c.Do(ctx, c.B().Set().Key("big").Value(big).Build()))
	got, err := c.Do(ctx, c.B().Get().Key("big").Build()).ToString()
	s.Add("16 MiB are the same", got == big, err)
	binary := rueidis.BinaryString([]byte("\x00\r\n$-1\r\n\xff"))
	add(s, "set", c.Do(ctx, c.B().Set().Key(binary).Value(binary).Build()))
	got, err = c.Do(ctx, c.B().Get().Key(binary).Build()).ToString()
	s.Add("binary", got == binary, err)
	add(s, "del", do(c, "DEL", "big", binary))
	return nil
}

func client(call program.Call, c rueidis.Client, s *program.Seen) error {
	o := options(call)
	o.ClientName, o.PipelineMultiplex = "victim", -1
	other, err := rueidis.NewClient(o)
	if err != nil {
		return err
	}
	defer other.Close()
	id, err := do(other, "CLIENT", "ID").AsInt64()
	if err != nil {
		return err
	}
	list, err := do(c, "CLIENT", "LIST").ToString()
	s.Add("listed", strings.Count(list, " name=victim "), err)
	add(s, "kill", do(c, "CLIENT", "KILL", "ID", strconv.FormatInt(id, 10)))
	add(s, "again", other.Do(ctx, other.B().Get().Key("missing").Build()))
	d, done := c.Dedicate()
	defer done()
	id, err = do(d, "CLIENT", "ID").AsInt64()
	if err != nil {
		return err
	}
	program.Later(func() { do(c, "CLIENT", "UNBLOCK", strconv.FormatInt(id, 10), "ERROR") })
	add(s, "unblocked", d.Do(ctx, d.B().Blpop().Key("nothing").Timeout(5).Build()))
	return nil
}

func acl(call program.Call, c rueidis.Client, s *program.Seen) error {
	add(s, "setuser", do(c, "ACL", "SETUSER", "rueidis", "reset", "on", ">secret", "~app:*", "&app:*", "+@all", "-@dangerous"))
	o := options(call)
	o.Username, o.Password, o.ForceSingleClient = "rueidis", "secret", true
	user, err := rueidis.NewClient(o)
	if err != nil {
		return err
	}
	defer user.Close()
	add(s, "whoami", do(user, "ACL", "WHOAMI"))
	add(s, "own key", do(user, "SET", "app:key", "x"))
	add(s, "other key", do(user, "SET", "key", "x"))
	add(s, "dangerous", do(user, "FLUSHALL"))
	add(s, "deluser", do(c, "ACL", "DELUSER", "rueidis"))
	return nil
}

// tracking uses the client's cache, which asks for CLIENT TRACKING ON OPTIN when
// it connects, and again with BCAST.
func tracking(call program.Call, c rueidis.Client, s *program.Seen) error {
	for _, tracked := range [][]string{nil, {"PREFIX", "cached:", "BCAST"}} {
		o := options(call)
		o.DisableCache, o.ClientTrackingOptions = false, tracked
		cached, err := rueidis.NewClient(o)
		if err != nil {
			return err
		}
		keys := []string{"cached:1", "cached:2", "cached:3", "cached:4"}
		err = invalidated(c, cached, keys)
		cached.Close()
		if err != nil {
			return err
		}
		s.Add("invalidated", len(keys), nil)
	}
	return nil
}

func invalidated(c, cached rueidis.Client, keys []string) error {
	get := func(key string) rueidis.RedisResult {
		return cached.DoCache(ctx, cached.B().Get().Key(key).Cache(), time.Minute)
	}
	for _, key := range keys {
		if err := do(c, "SET", key, "old").Error(); err != nil {
			return err
		}
		if v, err := get(key).ToString(); err != nil || v != "old" {
			return fmt.Errorf("GET %s: %q, %w", key, v, err)
		}
		// What comes before the reply of the next command was about the past.
		if err := cached.Do(ctx, cached.B().Ping().Build()).Error(); err != nil {
			return err
		}
		if again := get(key); again.Error() != nil || !again.IsCacheHit() {
			return fmt.Errorf("GET %s: not cached: %v", key, again.Error())
		}
	}
	for _, key := range keys {
		if err := do(c, "SET", key, "new").Error(); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(2 * time.Second)
	for _, key := range keys {
		for {
			v, err := get(key).ToString()
			if err != nil {
				return err
			}
			if v == "new" {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s is still the old one in the cache", key)
			}
			time.Sleep(time.Millisecond)
		}
	}
	many, err := rueidis.MGetCache(cached, ctx, time.Minute, keys)
	if err != nil || len(many) != len(keys) {
		return fmt.Errorf("MGET of cached keys: %v, %w", many, err)
	}
	return nil
}

type subject struct{ rueidis.Client }

func newSubject(call program.Call) (program.Subject, error) {
	o := options(call)
	o.ConnWriteTimeout = 10 * time.Second
	c, err := rueidis.NewClient(o)
	return subject{c}, err
}

func (s subject) Set(key, value string) error { return do(s, "SET", key, value).Error() }

func (s subject) Get(key string) (string, error) {
	v, err := s.Do(ctx, s.B().Get().Key(key).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return "", nil
	}
	return v, err
}

func (s subject) Incr(key string) (int64, error) { return do(s, "INCR", key).AsInt64() }

func (s subject) Push(list, item string) error { return do(s, "RPUSH", list, item).Error() }

func (s subject) Publish(channel, message string) error {
	return do(s, "PUBLISH", channel, message).Error()
}

func (s subject) Pop(list string) (string, error) {
	v, err := s.Do(ctx, s.B().Blpop().Key(list).Timeout(1).Build()).AsStrSlice()
	if rueidis.IsRedisNil(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return v[1], program.Want("the list of BLPOP", v[0], list)
}

func (s subject) Subscribe(ctx context.Context, channel string, got func(string)) error {
	err := s.Receive(ctx, s.B().Subscribe().Channel(channel).Build(), func(m rueidis.PubSubMessage) { got(m.Message) })
	if ctx.Err() != nil {
		return nil
	}
	return err
}
