package reactor_test

import (
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/scripts"
)

// TestPauseAndScripts: CLIENT PAUSE WRITE holds back the scripts and functions
// that may write, by whichever command they are called, and no others.
func TestPauseAndScripts(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	admin, c := p.dial(), p.dial()
	const (
		reads  = "#!lua flags=no-writes\nreturn 'reads'"
		writes = "#!lua\nreturn 'writes'"
		plain  = "return 'plain'"
	)
	admin.want("lib", "FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('writes', function() return 'writes' end)\n"+
		"redis.register_function{function_name='reads', callback=function() return 'reads' end, flags={'no-writes'}}")
	// This one differs between the shards: it counts as one that writes.
	for i, flags := range []string{"{'no-writes'}", "{}"} {
		servers[i].MustDo("FUNCTION", "LOAD", "#!lua name=other\nredis.register_function{function_name='differs', callback=function() return 'differs' end, flags="+flags+"}")
	}
	for _, script := range []string{reads, writes, plain} {
		admin.want(scripts.SHA(script), "SCRIPT", "LOAD", script)
	}
	var queued []*client // queueing them in the pause would wait, too
	for _, line := range [][]string{{"EVAL", writes, "0"}, {"EVALSHA", scripts.SHA(plain), "0"}, {"FCALL", "writes", "0"}} {
		c := p.dial()
		c.want("OK", "MULTI")
		c.want("QUEUED", "GET", "k")
		c.want("QUEUED", line...)
		queued = append(queued, c)
	}
	admin.want("OK", "CLIENT", "PAUSE", "100000", "WRITE")
	for _, line := range [][]string{
		{"EVAL", reads, "0"}, {"EVAL_RO", reads, "0"}, {"EVALSHA", scripts.SHA(reads), "0"}, {"EVALSHA", strings.ToUpper(scripts.SHA(reads)), "0"},
		{"EVALSHA_RO", scripts.SHA(reads), "0"}, {"FCALL", "reads", "0"}, {"FCALL_RO", "reads", "0"}, {"FCALL", "reads", "1", "k"},
	} {
		c.want("reads", line...)
	}
	c.want("plain", "EVAL_RO", plain, "0")
	c.want("plain", "EVALSHA_RO", scripts.SHA(plain), "0")
	c.want("-ERR Function not found", "FCALL_RO", "unknown", "0")
	c.want("OK", "MULTI")
	for _, line := range [][]string{{"EVAL", reads, "0"}, {"EVALSHA", scripts.SHA(reads), "0"}, {"FCALL", "reads", "0"}, {"GET", "k"}} {
		c.want("QUEUED", line...)
	}
	c.want("[reads reads reads (nil)]", "EXEC")

	held := []struct{ line, reply string }{
		{"EVAL|" + writes + "|0", "writes"},
		{"EVAL|" + plain + "|0", "plain"},
		{"EVALSHA|" + scripts.SHA(writes) + "|0", "writes"},
		{"EVALSHA|" + scripts.SHA(plain) + "|0", "plain"},
		{"EVALSHA|" + scripts.SHA("unknown") + "|0", noScript},
		{"EVALSHA|short|0", noScript},
		{"EVAL_RO|" + writes + "|0", "-ERR Can not execute a script with write flag using *_ro command."},
		{"FCALL|writes|0", "writes"},
		{"FCALL_RO|writes|0", "-ERR Can not execute a script with write flag using *_ro command."},
		{"FCALL|differs|0", "differs"},
		{"FCALL|unknown|0", "-ERR Function not found"},
	}
	var waiting []*client
	for _, h := range held {
		c := p.dial()
		c.send(strings.Split(h.line, "|")...)
		waiting = append(waiting, c)
	}
	for _, c := range queued {
		c.send("EXEC")
		held = append(held, struct{ line, reply string }{"EXEC", ""})
		waiting = append(waiting, c)
	}
	waitFor(t, "they wait", func() bool { return p.Stats().ClientsBlocked == len(held) })
	// Further functions are known by now, so whatever is going to wait does.
	c.want("reads", "FCALL", "reads", "0")
	waitFor(t, "they wait again", func() bool { return p.Stats().ClientsBlocked == len(held) })
	admin.want("OK", "CLIENT", "UNPAUSE")
	for i, c := range waiting {
		if got := c.read(); got != held[i].reply && held[i].reply != "" {
			t.Errorf("%q after the pause: %q, want %q", held[i].line, got, held[i].reply)
		}
	}

	// Functions may be others in the next pause.
	admin.want("lib", "FUNCTION", "LOAD", "REPLACE", "#!lua name=lib\nredis.register_function('reads', function() return 'writes now' end)")
	admin.want("OK", "CLIENT", "PAUSE", "100000", "WRITE")
	c.send("FCALL", "reads", "0")
	waitFor(t, "the function waits", func() bool { return p.Stats().ClientsBlocked == 1 })
	admin.want("OK", "CLIENT", "UNPAUSE")
	c.wantNext("writes now")
}

// TestPauseAndScriptsOfOthers: a script that another proxy was given is looked
// for, and not held back when it only reads.
func TestPauseAndScriptsOfOthers(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	_, proxies := scriptProxies(t, 2, shards...)
	const reads = "#!lua flags=no-writes\nreturn 'reads'"
	proxies[1].dial().want(scripts.SHA(reads), "SCRIPT", "LOAD", reads)
	proxies[0].dial().want("OK", "CLIENT", "PAUSE", "100000", "WRITE")
	proxies[0].dial().want("reads", "EVALSHA", scripts.SHA(reads), "0")
}
