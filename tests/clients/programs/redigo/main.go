// Program redigo exercises an endpoint with redigo, in RESP2: a pool of plain
// connections, each with Send, Flush and Receive.
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/basalt-redis/basalt/tests/clients/program"
)

func main() { program.Main(features, newSubject) }

func dial(call program.Call, more ...redis.DialOption) (redis.Conn, error) {
	return redis.Dial("tcp", call.Addr, append([]redis.DialOption{redis.DialPassword(call.Password), redis.DialReadTimeout(10 * time.Second)}, more...)...)
}

func features(call program.Call, r *program.Report) {
	c, err := dial(call)
	if err != nil {
		r.Check("connect", func(*program.Seen) error { return err })
		return
	}
	defer c.Close()
	other, err := dial(call)
	if err != nil {
		r.Check("connect", func(*program.Seen) error { return err })
		return
	}
	defer other.Close()
	r.Check("connect", func(s *program.Seen) error { return connect(call, c, s) })
	r.Check("pipelines", func(s *program.Seen) error { return pipelines(c, s) })
	r.Check("transactions", func(s *program.Seen) error { return transactions(c, other, s) })
	r.Check("pubsub", func(s *program.Seen) error { return pubsub(call, c, s) })
	r.Check("blocking", func(s *program.Seen) error { return blocking(c, other, s) })
	r.Check("scripts", func(s *program.Seen) error { return scripts(c, s) })
	r.Check("functions", func(s *program.Seen) error { return functions(c, s) })
	r.Check("scan", func(s *program.Seen) error { return scan(c, s) })
	r.Check("values", func(s *program.Seen) error { return values(c, s) })
	r.Check("client", func(s *program.Seen) error { return client(call, c, s) })
	r.Check("acl", func(s *program.Seen) error { return acl(call, c, s) })
	r.None("tracking", "RESP2 only")
	program.Steps(r, call.Steps, func(words []string) (any, bool, error) {
		v, err := c.Do(words[0], program.Args(words[1:])...)
		var refused redis.Error
		return plain(v), err != nil && !errors.As(err, &refused), err
	})
}

// plain shows bytes as text.
func plain(v any) any {
	switch v := v.(type) {
	case []byte:
		return string(v)
	case []any:
		var all []any
		for _, one := range v {
			all = append(all, plain(one))
		}
		return all
	}
	return v
}

func add(s *program.Seen, what string, v any, err error) { s.Add(what, plain(v), err) }

func connect(call program.Call, c redis.Conn, s *program.Seen) error {
	v, err := c.Do("FLUSHALL")
	add(s, "flushall", v, err)
	named, err := dial(call, redis.DialClientName("named"), redis.DialDatabase(1), redis.DialUsername("default"))
	if err != nil {
		return err
	}
	defer named.Close()
	v, err = named.Do("CLIENT", "GETNAME")
	add(s, "name", v, err)
	info, err := redis.String(named.Do("CLIENT", "INFO"))
	s.Add("database", strings.Contains(info, " db=1 "), err)
	hello, err := redis.Values(named.Do("HELLO", "2", "AUTH", "default", call.Password, "SETNAME", "renamed"))
	if err != nil {
		return err
	}
	s.Add("proto", hello[5], nil)
	v, err = named.Do("CLIENT", "GETNAME")
	add(s, "renamed", v, err)
	_, err = dial(call, redis.DialPassword("wrong"))
	s.Add("wrong password", "", err)
	stranger, err := redis.Dial("tcp", call.Addr)
	if err != nil {
		return err
	}
	defer stranger.Close()
	v, err = stranger.Do("GET", "x")
	add(s, "no password", v, err)
	v, err = c.Do("PING", "hello")
	add(s, "ping", v, err)
	v, err = c.Do("")
	add(s, "nothing", v, err)
	return nil
}

func pipelines(c redis.Conn, s *program.Seen) error {
	// More than the sockets hold: nobody reads before everything is written.
	const n = 10000
	for i := range n {
		if err := errors.Join(c.Send("SET", fmt.Sprintf("pipe:%d", i), i), c.Send("GET", fmt.Sprintf("pipe:%d", i))); err != nil {
			return err
		}
		if i%1000 == 500 {
			if err := c.Send("NOSUCH"); err != nil {
				return err
			}
		}
	}
	if err := c.Flush(); err != nil {
		return err
	}
	failed := 0
	for i := range n {
		if _, err := c.Receive(); err != nil {
			return err
		}
		v, err := redis.Int(c.Receive())
		if err == nil {
			err = program.Want("GET", v, i)
		}
		if err != nil {
			return err
		}
		if i%1000 == 500 {
			if _, err := c.Receive(); err != nil {
				failed++
			}
		}
	}
	s.Add("failed", failed, nil)
	return nil
}

func transactions(c, other redis.Conn, s *program.Seen) error {
	do := func(words ...string) {
		v, err := c.Do(words[0], program.Args(words[1:])...)
		add(s, words[0], v, err)
	}
	do("MULTI")
	do("SET", "{tx}a", "1")
	do("INCR", "{tx}a")
	do("PING")
	do("HSET", "{tx}h", "f", "v")
	do("EXEC")
	do("MULTI")
	do("SET", "{tx}a", "9")
	do("DISCARD")
	do("MULTI")
	do("SET", "{tx}a")
	do("EXEC")
	do("MULTI")
	do("LPUSH", "{tx}a", "x")
	do("MULTI")
	do("WATCH", "x")
	do("EXEC")
	for _, disturb := range []bool{false, true} {
		do("WATCH", "{tx}a")
		if disturb {
			v, err := other.Do("SET", "{tx}a", "other")
			add(s, "other", v, err)
		}
		do("MULTI")
		do("SET", "{tx}a", "mine")
		do("EXEC")
	}
	do("UNWATCH")
	do("GET", "{tx}a")
	// All in one go.
	for _, words := range [][]any{{"MULTI"}, {"SET", "{tx}b", "1"}, {"INCRBY", "{tx}b", 41}} {
		if err := c.Send(words[0].(string), words[1:]...); err != nil {
			return err
		}
	}
	v, err := c.Do("EXEC")
	add(s, "in one go", v, err)
	return nil
}

func pubsub(call program.Call, c redis.Conn, s *program.Seen) error {
	conn, err := dial(call)
	if err != nil {
		return err
	}
	sub := redis.PubSubConn{Conn: conn}
	defer sub.Close()
	take := func(n int) error {
		var some []string
		for range n {
			m := sub.ReceiveWithTimeout(5 * time.Second)
			if err, failed := m.(error); failed {
				return err
			}
			some = append(some, fmt.Sprintf("%T %s", m, strings.ReplaceAll(fmt.Sprintf("%+v", m), "[", "")))
		}
		slices.Sort(some)
		s.Add("received", some, nil)
		return nil
	}
	if err := errors.Join(sub.Subscribe("news:1", "news:2"), take(2), sub.PSubscribe("news:*"), take(1)); err != nil {
		return err
	}
	v, err := c.Do("PUBLISH", "news:1", "hello")
	add(s, "publish", v, err)
	if err := errors.Join(take(2), sub.Ping("still there"), take(1), sub.Unsubscribe("news:1"), take(1), sub.PUnsubscribe(), take(1)); err != nil {
		return err
	}
	// Subscribed in RESP2, nothing else is allowed.
	if err := errors.Join(conn.Send("GET", "x"), conn.Flush()); err != nil {
		return err
	}
	_, err = conn.Receive()
	s.Add("get", "", err)
	v, err = c.Do("PUBSUB", "NUMSUB", "news:1", "news:2")
	add(s, "numsub", v, err)
	if err := errors.Join(sub.Unsubscribe(), take(1)); err != nil {
		return err
	}
	v, err = conn.Do("PING")
	add(s, "free again", v, err)
	return nil
}

func blocking(c, other redis.Conn, s *program.Seen) error {
	for _, b := range []struct{ wake, wait []string }{
		{[]string{"RPUSH", "{q}queue", "job"}, []string{"BLPOP", "{q}other", "{q}queue", "5"}},
		{[]string{"RPUSH", "{q}queue", "job"}, []string{"BRPOP", "{q}queue", "5"}},
		{[]string{"RPUSH", "{q}a", "move"}, []string{"BRPOPLPUSH", "{q}a", "{q}b", "5"}},
		{[]string{"ZADD", "ranked", "1.5", "low"}, []string{"BZPOPMAX", "ranked", "5"}},
		{[]string{"ZADD", "ranked", "1.5", "low"}, []string{"BZMPOP", "5", "1", "ranked", "MIN"}},
		{[]string{"XADD", "log", "5-1", "a", "b"}, []string{"XREAD", "BLOCK", "5000", "STREAMS", "log", "$"}},
	} {
		woken := make(chan error, 1)
		go func() {
			time.Sleep(150 * time.Millisecond)
			_, err := other.Do(b.wake[0], program.Args(b.wake[1:])...)
			woken <- err
		}()
		v, err := c.Do(b.wait[0], program.Args(b.wait[1:])...)
		add(s, b.wait[0], v, err)
		if err := <-woken; err != nil {
			return err
		}
	}
	begin := time.Now()
	v, err := c.Do("BLPOP", "empty", "0.2")
	add(s, "timeout", v, err)
	s.Add("it waited", time.Since(begin) > 190*time.Millisecond, nil)
	v, err = c.Do("WAIT", "0", "100")
	_, number := v.(int64)
	s.Add("wait", number, err)
	return nil
}

func scripts(c redis.Conn, s *program.Seen) error {
	script := redis.NewScript(1, "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}")
	for _, key := range []string{"s1", "s2", "s3", "s4"} {
		v, err := script.Do(c, key, "arg")
		add(s, "do", v, err)
	}
	other := redis.NewScript(1, "return ARGV[1]")
	v, err := redis.Values(nil, other.Load(c))
	add(s, "load", len(v), nil)
	s.Add("hash", other.Hash(), nil)
	if !errors.Is(err, redis.ErrNil) && err != nil {
		return err
	}
	for _, key := range []string{"s1", "s2", "s3", "s4"} {
		if err := other.SendHash(c, key, key); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return err
	}
	for range 4 {
		v, err := c.Receive()
		add(s, "evalsha", v, err)
	}
	one, err := c.Do("SCRIPT", "EXISTS", other.Hash(), strings.Repeat("f", 40))
	add(s, "exists", one, err)
	one, err = c.Do("EVALSHA", strings.Repeat("f", 40), "0")
	add(s, "unknown", one, err)
	return nil
}

func functions(c redis.Conn, s *program.Seen) error {
	code := "#!lua name=redigo\nredis.register_function('redigo_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)"
	v, err := c.Do("FUNCTION", "LOAD", "REPLACE", code)
	add(s, "load", v, err)
	for _, key := range []string{"f1", "f2", "f3", "f4"} {
		v, err = c.Do("FCALL", "redigo_set", 1, key, key)
		add(s, "fcall", v, err)
	}
	v, err = c.Do("FUNCTION", "LIST", "LIBRARYNAME", "redigo")
	add(s, "list", v, err)
	v, err = c.Do("FUNCTION", "DELETE", "redigo")
	add(s, "delete", v, err)
	v, err = c.Do("FCALL", "redigo_set", 1, "f1", "x")
	add(s, "gone", v, err)
	return nil
}

func scan(c redis.Conn, s *program.Seen) error {
	for i := range 1000 {
		if err := errors.Join(c.Send("SET", fmt.Sprintf("scan:%d", i), i), c.Send("ZADD", "scanned", i, i)); err != nil {
			return err
		}
	}
	if _, err := c.Do(""); err != nil {
		return err
	}
	for _, words := range [][]any{{"SCAN"}, {"ZSCAN", "scanned"}} {
		seen := map[string]bool{}
		cursor := "0"
		for {
			args := append(slices.Clone(words[1:]), cursor, "COUNT", 117)
			if words[0] == "SCAN" {
				args = append(args, "MATCH", "scan:*", "TYPE", "string")
			}
			v, err := redis.Values(c.Do(words[0].(string), args...))
			if err != nil {
				return err
			}
			items, err := redis.Strings(v[1], nil)
			if err != nil {
				return err
			}
			for i, item := range items {
				if words[0] == "SCAN" || i%2 == 0 {
					seen[item] = true
				}
			}
			if cursor, err = redis.String(v[0], nil); err != nil {
				return err
			}
			if cursor == "0" {
				break
			}
		}
		s.Add(words[0].(string), len(seen), nil)
	}
	return nil
}

func values(c redis.Conn, s *program.Seen) error {
	big := strings.Repeat("0123456789abcdef", 1<<20)
	v, err := c.Do("SET", "big", big)
	add(s, "set", v, err)
	got, err := redis.String(c.Do("GET", "big"))
	s.Add("16 MiB are the same", got == big, err)
	binary := "\x00\r\n$-1\r\n\xff"
	v, err = c.Do("SET", binary, binary)
	add(s, "set", v, err)
	got, err = redis.String(c.Do("GET", binary))
	s.Add("binary", got == binary, err)
	got, err = redis.String(c.Do("GETRANGE", "big", -4, -1))
	s.Add("getrange", got, err)
	v, err = c.Do("DEL", "big", binary)
	add(s, "del", v, err)
	return nil
}

func client(call program.Call, c redis.Conn, s *program.Seen) error {
	pool := &redis.Pool{MaxIdle: 1, Dial: func() (redis.Conn, error) { return dial(call, redis.DialClientName("victim")) }}
	defer pool.Close()
	victim := pool.Get()
	id, err := redis.Int64(victim.Do("CLIENT", "ID"))
	if err != nil {
		return err
	}
	list, err := redis.String(c.Do("CLIENT", "LIST"))
	s.Add("listed", strings.Count(list, " name=victim "), err)
	v, err := c.Do("CLIENT", "KILL", "ID", id)
	add(s, "kill", v, err)
	_, err = victim.Do("PING")
	s.Add("it was closed", err != nil, nil)
	victim.Close()
	victim = pool.Get()
	defer victim.Close()
	v, err = victim.Do("PING")
	add(s, "another", v, err)
	id, err = redis.Int64(victim.Do("CLIENT", "ID"))
	if err != nil {
		return err
	}
	woken := make(chan error, 1)
	go func() {
		time.Sleep(150 * time.Millisecond)
		_, err := c.Do("CLIENT", "UNBLOCK", strconv.FormatInt(id, 10), "ERROR")
		woken <- err
	}()
	v, err = victim.Do("BLPOP", "nothing", 5)
	add(s, "unblocked", v, err)
	if err := <-woken; err != nil {
		return err
	}
	v, err = victim.Do("CLIENT", "REPLY", "ON")
	add(s, "reply", v, err)
	return nil
}

func acl(call program.Call, c redis.Conn, s *program.Seen) error {
	v, err := c.Do("ACL", "SETUSER", "redigo", "reset", "on", ">secret", "~app:*", "&app:*", "+@all", "-@dangerous")
	add(s, "setuser", v, err)
	user, err := dial(call, redis.DialUsername("redigo"), redis.DialPassword("secret"))
	if err != nil {
		return err
	}
	defer user.Close()
	for _, words := range [][]string{{"ACL", "WHOAMI"}, {"SET", "app:key", "x"}, {"SET", "key", "x"}, {"MGET", "app:key", "key"},
		{"PUBLISH", "news", "x"}, {"FLUSHALL"}, {"CONFIG", "GET", "port"}} {
		v, err := user.Do(words[0], program.Args(words[1:])...)
		add(s, strings.Join(words, " "), v, err)
	}
	v, err = c.Do("ACL", "DELUSER", "redigo")
	add(s, "deluser", v, err)
	_, err = user.Do("PING")
	s.Add("gone", err != nil, nil)
	return nil
}

// subject takes a connection of a pool for each call, as servers do.
type subject struct {
	pool *redis.Pool
}

func newSubject(call program.Call) (program.Subject, error) {
	return subject{&redis.Pool{MaxIdle: 5, Dial: func() (redis.Conn, error) {
		return dial(call, redis.DialConnectTimeout(time.Second))
	}}}, nil
}

func (s subject) do(name string, args ...any) (any, error) {
	c := s.pool.Get()
	defer c.Close()
	return c.Do(name, args...)
}

func (s subject) Set(key, value string) error {
	_, err := s.do("SET", key, value)
	return err
}

func (s subject) Get(key string) (string, error) {
	v, err := redis.String(s.do("GET", key))
	if errors.Is(err, redis.ErrNil) {
		return "", nil
	}
	return v, err
}

func (s subject) Incr(key string) (int64, error) { return redis.Int64(s.do("INCR", key)) }

func (s subject) Push(list, item string) error {
	_, err := s.do("RPUSH", list, item)
	return err
}

func (s subject) Publish(channel, message string) error {
	_, err := s.do("PUBLISH", channel, message)
	return err
}

func (s subject) Pop(list string) (string, error) {
	v, err := redis.Strings(s.do("BLPOP", list, 1))
	if errors.Is(err, redis.ErrNil) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return v[1], program.Want("the list of BLPOP", v[0], list)
}

// Subscribe returns when the connection is lost, as redigo's users know, and is
// called again.
func (s subject) Subscribe(ctx context.Context, channel string, got func(string)) error {
	sub := redis.PubSubConn{Conn: s.pool.Get()}
	defer sub.Close()
	if err := sub.Subscribe(channel); err != nil {
		return err
	}
	for ctx.Err() == nil {
		switch m := sub.ReceiveWithTimeout(0).(type) {
		case redis.Message:
			got(string(m.Data))
		case error:
			return m
		}
	}
	return nil
}
