// Program goredis exercises an endpoint with go-redis, in RESP3.
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/basalt-redis/basalt/tests/clients/program"
)

func main() { program.Main(features, newSubject) }

var ctx = context.Background()

func options(call program.Call) *redis.Options {
	return &redis.Options{Addr: call.Addr, Password: call.Password, ReadTimeout: 10 * time.Second}
}

func features(call program.Call, r *program.Report) {
	c := redis.NewClient(options(call))
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
	one := c.Conn()
	defer one.Close()
	program.Steps(r, call.Steps, func(words []string) (any, bool, error) {
		v, err := one.Do(ctx, program.Args(words)...).Result()
		var refused redis.Error
		return v, err != nil && !errors.As(err, &refused), err
	})
}

func connect(call program.Call, c *redis.Client, s *program.Seen) error {
	if err := c.FlushAll(ctx).Err(); err != nil {
		return err
	}
	for _, protocol := range []int{2, 3} {
		o := options(call)
		o.Protocol, o.ClientName, o.DB = protocol, "named", 1
		named := redis.NewClient(o)
		defer named.Close()
		conn := named.Conn()
		defer conn.Close()
		name, err := conn.ClientGetName(ctx).Result()
		s.Add("name", name, err)
		hello, err := conn.Do(ctx, "HELLO").Result()
		if err != nil {
			return err
		}
		s.Add("hello", strings.Contains(fmt.Sprint(hello), fmt.Sprintf("proto:%d", protocol)) || strings.Contains(fmt.Sprint(hello), fmt.Sprintf("proto %d", protocol)), nil)
		info, err := conn.ClientInfo(ctx).Result()
		if err != nil {
			return err
		}
		s.Add("info", fmt.Sprint(info.Name, info.DB), nil)
	}
	wrong := options(call)
	wrong.Password = "wrong"
	stranger := redis.NewClient(wrong)
	defer stranger.Close()
	s.Add("wrong password", "", stranger.Ping(ctx).Err())
	pong, err := c.Ping(ctx).Result()
	s.Add("ping", pong, err)
	return nil
}

func pipelines(c *redis.Client, s *program.Seen) error {
	const n = 10000
	p := c.Pipeline()
	for i := range n {
		p.Set(ctx, fmt.Sprintf("pipe:%d", i), i, 0)
		if i%1000 == 500 {
			p.Do(ctx, "NOSUCH")
		}
		p.Get(ctx, fmt.Sprintf("pipe:%d", i))
	}
	cmds, err := p.Exec(ctx)
	s.Add("first error", "", err)
	gets, failed := 0, 0
	for _, cmd := range cmds {
		switch cmd := cmd.(type) {
		case *redis.StringCmd:
			if err := program.Want("GET", cmd.Val(), gets); err != nil {
				return err
			}
			gets++
		case *redis.Cmd:
			if cmd.Err() != nil {
				failed++
			}
		}
	}
	s.Add("gets", gets, nil)
	s.Add("failed", failed, nil)
	auto, err := c.AutoPipeline()
	if err != nil {
		return err
	}
	defer auto.Close()
	var waiting []*redis.StringCmd
	for i := range 100 {
		waiting = append(waiting, auto.Get(ctx, fmt.Sprintf("pipe:%d", i)))
	}
	for i, cmd := range waiting {
		if err := program.Want("autopipelined GET", cmd.Val(), i); err != nil {
			return err
		}
	}
	return nil
}

func transactions(c *redis.Client, s *program.Seen) error {
	var incr *redis.IntCmd
	cmds, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, "{tx}a", "1", 0)
		incr = p.Incr(ctx, "{tx}a")
		p.HSet(ctx, "{tx}h", "f", "v")
		p.HGetAll(ctx, "{tx}h")
		return nil
	})
	s.Add("exec", fmt.Sprint(cmds), err)
	s.Add("incr", incr.Val(), incr.Err())
	_, err = c.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, "{tx}a", "9", 0)
		p.Do(ctx, "SET", "{tx}a")
		return nil
	})
	s.Add("bad command", "", err)
	_, err = c.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.LPush(ctx, "{tx}a", "9")
		p.Incr(ctx, "{tx}a")
		return nil
	})
	s.Add("wrong type", "", err)
	calm := c.Watch(ctx, func(tx *redis.Tx) error {
		n, err := tx.Get(ctx, "{tx}a").Int()
		if err != nil {
			return err
		}
		_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Set(ctx, "{tx}a", n*2, 0)
			return nil
		})
		return err
	}, "{tx}a")
	s.Add("watch", c.Get(ctx, "{tx}a").Val(), calm)
	err = c.Watch(ctx, func(tx *redis.Tx) error {
		if err := c.Set(ctx, "{tx}a", "other", 0).Err(); err != nil {
			return err
		}
		_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Set(ctx, "{tx}a", "mine", 0)
			return nil
		})
		return err
	}, "{tx}a")
	s.Add("conflict", c.Get(ctx, "{tx}a").Val(), nil)
	if !errors.Is(err, redis.TxFailedErr) {
		return fmt.Errorf("a changed key was not noticed: %v", err)
	}
	return nil
}

func receive(sub *redis.PubSub) (string, error) {
	m, err := sub.ReceiveTimeout(ctx, 5*time.Second)
	return fmt.Sprintf("%T %v", m, m), err
}

func pubsub(c *redis.Client, s *program.Seen) error {
	sub := c.Subscribe(ctx, "news:1", "news:2")
	defer sub.Close()
	add := func(what string) error {
		m, err := receive(sub)
		s.Add(what, m, err)
		return err
	}
	for range 2 {
		if err := add("subscribed"); err != nil {
			return err
		}
	}
	if err := sub.PSubscribe(ctx, "news:*"); err != nil {
		return err
	}
	if err := add("psubscribed"); err != nil {
		return err
	}
	n, err := c.Publish(ctx, "news:1", "hello").Result()
	s.Add("receivers", n, err)
	// The order in which a channel and a pattern that matches it tell is the
	// server's own.
	var both []string
	for range 2 {
		m, err := receive(sub)
		if err != nil {
			return err
		}
		both = append(both, m)
	}
	slices.Sort(both)
	s.Add("messages", both, nil)
	if err := sub.Ping(ctx, "still there"); err != nil {
		return err
	}
	if err := add("ping"); err != nil {
		return err
	}
	subs, err := c.PubSubNumSub(ctx, "news:1", "news:2", "none").Result()
	s.Add("numsub", subs, err)
	channels, err := c.PubSubChannels(ctx, "news:*").Result()
	slices.Sort(channels)
	s.Add("channels", channels, err)
	if err := sub.Unsubscribe(ctx, "news:1"); err != nil {
		return err
	}
	if err := add("unsubscribed"); err != nil {
		return err
	}
	sharded := c.SSubscribe(ctx, "{shard}news")
	defer sharded.Close()
	m, err := receive(sharded)
	s.Add("ssubscribed", m, err)
	if err != nil {
		return err
	}
	n, err = c.SPublish(ctx, "{shard}news", "hello").Result()
	s.Add("shard receivers", n, err)
	m, err = receive(sharded)
	s.Add("shard message", m, err)
	return err
}

func blocking(c *redis.Client, s *program.Seen) error {
	program.Later(func() { c.RPush(ctx, "queue", "job") })
	got, err := c.BLPop(ctx, 5*time.Second, "queue").Result()
	s.Add("blpop", got, err)
	_, err = c.BLPop(ctx, time.Second, "empty").Result()
	s.Add("timeout", errors.Is(err, redis.Nil), nil)
	program.Later(func() { c.RPush(ctx, "{q}a", "move") })
	moved, err := c.BLMove(ctx, "{q}a", "{q}b", "LEFT", "RIGHT", 5*time.Second).Result()
	s.Add("blmove", moved, err)
	program.Later(func() { c.ZAdd(ctx, "ranked", redis.Z{Score: 1.5, Member: "low"}) })
	low, err := c.BZPopMin(ctx, 5*time.Second, "ranked").Result()
	s.Add("bzpopmin", fmt.Sprintf("%+v", low), err)
	program.Later(func() { c.RPush(ctx, "{q}m", "x", "y") })
	key, items, err := c.BLMPop(ctx, 5*time.Second, "LEFT", 10, "{q}l", "{q}m").Result()
	s.Add("blmpop", fmt.Sprint(key, items), err)
	program.Later(func() { c.XAdd(ctx, &redis.XAddArgs{Stream: "log", ID: "5-1", Values: []string{"a", "b"}}) })
	read, err := c.XRead(ctx, &redis.XReadArgs{Streams: []string{"log", "$"}, Block: 5 * time.Second}).Result()
	s.Add("xread", read, err)
	acks, err := c.Wait(ctx, 0, time.Second).Result()
	s.Add("wait", acks >= 0, err)
	return nil
}

func scripts(c *redis.Client, s *program.Seen) error {
	v, err := c.Eval(ctx, "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}", []string{"{s}n"}, "arg").Result()
	s.Add("eval", v, err)
	v, err = c.Eval(ctx, "return 42", nil).Result()
	s.Add("no keys", v, err)
	script := redis.NewScript("return redis.call('GET', KEYS[1]) .. ARGV[1]")
	v, err = script.Run(ctx, c, []string{"{s}n"}, "!").Result()
	s.Add("run", v, err)
	loaded, err := c.ScriptLoad(ctx, "return ARGV[1]").Result()
	s.Add("load", loaded, err)
	for _, key := range []string{"one", "two", "three", "four"} {
		v, err = c.EvalSha(ctx, loaded, []string{key}, key).Result()
		s.Add("evalsha", v, err)
	}
	exists, err := c.ScriptExists(ctx, loaded, strings.Repeat("f", 40)).Result()
	s.Add("exists", exists, err)
	_, err = c.EvalSha(ctx, strings.Repeat("f", 40), []string{"k"}).Result()
	s.Add("unknown", "", err)
	_, err = c.Eval(ctx, "return redis.call('LPUSH', KEYS[1], 'x')", []string{"{s}n"}).Result()
	s.Add("fails", "", err)
	v, err = c.EvalRO(ctx, "return redis.call('GET', KEYS[1])", []string{"{s}n"}).Result()
	s.Add("read only", v, err)
	_, err = c.EvalRO(ctx, "return redis.call('SET', KEYS[1], 'x')", []string{"{s}n"}).Result()
	s.Add("read only write", "", err)
	return nil
}

func functions(c *redis.Client, s *program.Seen) error {
	code := "#!lua name=goredis\nredis.register_function('goredis_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)\n" +
		"redis.register_function{function_name='goredis_get', callback=function(keys) return redis.call('GET', keys[1]) end, flags={'no-writes'}}"
	name, err := c.FunctionLoadReplace(ctx, code).Result()
	s.Add("load", name, err)
	_, err = c.FunctionLoad(ctx, code).Result()
	s.Add("again", "", err)
	for _, key := range []string{"f1", "f2", "f3", "f4"} {
		v, err := c.FCall(ctx, "goredis_set", []string{key}, key).Result()
		s.Add("fcall", v, err)
		v, err = c.FCallRO(ctx, "goredis_get", []string{key}).Result()
		s.Add("fcall_ro", v, err)
	}
	list, err := c.FunctionList(ctx, redis.FunctionListQuery{LibraryNamePattern: "goredis"}).Result()
	if err != nil {
		return err
	}
	for _, l := range list {
		s.Add("list", fmt.Sprint(l.Name, l.Engine, len(l.Functions)), nil)
	}
	deleted, err := c.FunctionDelete(ctx, "goredis").Result()
	s.Add("delete", deleted, err)
	return nil
}

func scan(c *redis.Client, s *program.Seen) error {
	p := c.Pipeline()
	for i := range 1000 {
		p.Set(ctx, fmt.Sprintf("scan:%d", i), i, 0)
		p.HSet(ctx, "scanned", fmt.Sprintf("field:%d", i), i)
	}
	p.RPush(ctx, "scan:list", "x")
	if _, err := p.Exec(ctx); err != nil {
		return err
	}
	seen := map[string]bool{}
	for it := c.Scan(ctx, 0, "scan:*", 73).Iterator(); it.Next(ctx); {
		seen[it.Val()] = true
	}
	s.Add("keys", len(seen), nil)
	var lists []string
	for it := c.ScanType(ctx, 0, "scan:*", 100, "list").Iterator(); it.Next(ctx); {
		lists = append(lists, it.Val())
	}
	s.Add("lists", lists, nil)
	fields := 0
	it := c.HScan(ctx, "scanned", 0, "", 100).Iterator()
	for it.Next(ctx) {
		fields++
	}
	s.Add("fields and values", fields, it.Err())
	keys, err := c.Keys(ctx, "scan:99*").Result()
	slices.Sort(keys)
	s.Add("matched", keys, err)
	return nil
}

func values(c *redis.Client, s *program.Seen) error {
	big := strings.Repeat("0123456789abcdef", 1<<20)
	if err := c.Set(ctx, "big", big, 0).Err(); err != nil {
		return err
	}
	got, err := c.Get(ctx, "big").Result()
	s.Add("16 MiB are the same", got == big, err)
	p := c.Pipeline()
	var parts []*redis.StringCmd
	for i := range 20 {
		p.Set(ctx, fmt.Sprintf("big:%d", i), big[:1<<18+i], 0)
		parts = append(parts, p.Get(ctx, fmt.Sprintf("big:%d", i)))
	}
	_, err = p.Exec(ctx)
	length := 0
	for _, part := range parts {
		length += len(part.Val())
	}
	s.Add("pipelined", length, err)
	binary := "\x00\r\n$-1\r\n\xff"
	if err := c.Set(ctx, binary, binary, 0).Err(); err != nil {
		return err
	}
	got, err = c.Get(ctx, binary).Result()
	s.Add("binary", got == binary, err)
	n, err := c.Del(ctx, "big", binary).Result()
	s.Add("del", n, err)
	return nil
}

func client(call program.Call, c *redis.Client, s *program.Seen) error {
	o := options(call)
	o.ClientName = "victim"
	o.PoolSize = 1
	other := redis.NewClient(o)
	defer other.Close()
	id, err := other.ClientID(ctx).Result()
	if err != nil {
		return err
	}
	list, err := c.ClientList(ctx).Result()
	s.Add("listed", strings.Count(list, " name=victim "), err)
	killed, err := c.ClientKillByFilter(ctx, "ID", fmt.Sprint(id)).Result()
	s.Add("killed", killed, err)
	// The client finds its connection closed and takes another.
	pong, err := other.Ping(ctx).Result()
	s.Add("again", pong, err)
	id, err = other.ClientID(ctx).Result()
	if err != nil {
		return err
	}
	unblocked := make(chan error, 1)
	program.Later(func() {
		n, err := c.ClientUnblock(ctx, id).Result()
		if err == nil {
			err = program.Want("CLIENT UNBLOCK", n, 1)
		}
		unblocked <- err
	})
	_, err = other.BLPop(ctx, 5*time.Second, "nothing").Result()
	s.Add("unblocked", errors.Is(err, redis.Nil), <-unblocked)
	begin := time.Now()
	ok, err := c.Do(ctx, "CLIENT", "PAUSE", 200, "WRITE").Result()
	s.Add("pause", ok, err)
	set, err := other.Set(ctx, "paused", "x", 0).Result()
	s.Add("set", set, err)
	s.Add("it waited", time.Since(begin) > 150*time.Millisecond, nil)
	return nil
}

func acl(call program.Call, c *redis.Client, s *program.Seen) error {
	who, err := c.Do(ctx, "ACL", "WHOAMI").Result()
	s.Add("whoami", who, err)
	ok, err := c.Do(ctx, "ACL", "SETUSER", "goredis", "reset", "on", ">secret", "~app:*", "&app:*", "+@all", "-@dangerous").Result()
	s.Add("setuser", ok, err)
	o := options(call)
	o.Username, o.Password = "goredis", "secret"
	user := redis.NewClient(o)
	defer user.Close()
	who, err = user.Do(ctx, "ACL", "WHOAMI").Result()
	s.Add("whoami", who, err)
	set, err := user.Set(ctx, "app:key", "x", 0).Result()
	s.Add("own key", set, err)
	s.Add("other key", "", user.Set(ctx, "key", "x", 0).Err())
	s.Add("other channel", "", user.Publish(ctx, "news", "x").Err())
	s.Add("dangerous", "", user.FlushAll(ctx).Err())
	n, err := c.Do(ctx, "ACL", "DELUSER", "goredis").Result()
	s.Add("deluser", n, err)
	return nil
}

func tracking(call program.Call, c *redis.Client, s *program.Seen) error {
	o := options(call)
	o.ClientSideCacheConfig = &redis.ClientSideCacheConfig{}
	cached := redis.NewClient(o)
	defer cached.Close()
	keys := []string{"cached:1", "cached:2", "cached:3", "cached:4"}
	for _, key := range keys {
		if err := c.Set(ctx, key, "old", 0).Err(); err != nil {
			return err
		}
		for range 3 {
			if err := cached.Get(ctx, key).Err(); err != nil {
				return err
			}
		}
	}
	stats := cached.CSCStats()
	s.Add("cache is used", stats.Hits > 0, nil)
	for _, key := range keys {
		if err := c.Set(ctx, key, "new", 0).Err(); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(2 * time.Second)
	for _, key := range keys {
		for cached.Get(ctx, key).Val() != "new" {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s is still the old one in the cache", key)
			}
			time.Sleep(time.Millisecond)
		}
	}
	s.Add("invalidated", len(keys), nil)
	return nil
}

type subject struct{ *redis.Client }

func newSubject(call program.Call) (program.Subject, error) {
	return subject{redis.NewClient(options(call))}, nil
}

func (s subject) Set(key, value string) error { return s.Client.Set(ctx, key, value, 0).Err() }

func (s subject) Get(key string) (string, error) {
	v, err := s.Client.Get(ctx, key).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	return v, err
}

func (s subject) Incr(key string) (int64, error) { return s.Client.Incr(ctx, key).Result() }

func (s subject) Push(list, item string) error { return s.RPush(ctx, list, item).Err() }

func (s subject) Publish(channel, message string) error {
	return s.Client.Publish(ctx, channel, message).Err()
}

func (s subject) Pop(list string) (string, error) {
	v, err := s.BLPop(ctx, time.Second, list).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return v[1], program.Want("the list of BLPOP", v[0], list)
}

func (s subject) Subscribe(ctx context.Context, channel string, got func(string)) error {
	sub := s.Client.Subscribe(ctx, channel)
	defer sub.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-sub.Channel():
			if !ok {
				return errors.New("the subscription ended")
			}
			got(m.Payload)
		}
	}
}
