package reactor_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/scripts"
)

// TestScriptAtOnceElsewhere: a script that came with EVAL, alone or in a
// transaction, runs by EVALSHA through another proxy as soon as it was answered,
// and exists there.
func TestScriptAtOnceElsewhere(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 3)
	_, p := scriptProxies(t, 2, shards...)
	one, two, third := p[0].dial(), p[1].dial(), p[1].dial()
	for i := range 60 {
		source := fmt.Sprintf("return {KEYS[1],%d}", i)
		key, other := fmt.Sprint("a", i), fmt.Sprint("b", i)
		switch i % 3 {
		case 0:
			one.want(fmt.Sprintf("[%s %d]", key, i), "EVAL", source, "1", key)
		case 1:
			one.want("OK", "MULTI")
			one.want("QUEUED", "EVAL", source, "1", key)
			one.want(fmt.Sprintf("[[%s %d]]", key, i), "EXEC")
		case 2:
			one.want(scripts.SHA(source), "SCRIPT", "LOAD", source)
		}
		third.want("[1]", "SCRIPT", "EXISTS", scripts.SHA(source))
		two.want(fmt.Sprintf("[%s %d]", other, i), "EVALSHA", scripts.SHA(source), "1", other)
		// One that is known keeps the library busy with looking for flushes, which
		// does not delay what is new.
		one.want("[x 0]", "EVAL", "return {KEYS[1],0}", "1", "x")
	}
}

// TestNewScriptsWithoutConfigserver: scripts are answered while nobody keeps them;
// only the first one waits to find that out.
func TestNewScriptsWithoutConfigserver(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	k, p := scriptProxies(t, 1, shards...)
	c := p[0].dial()
	k.set(func() { k.hangs = true })
	begin := time.Now()
	for i := range 30 {
		source := fmt.Sprintf("return %d", i)
		c.want(fmt.Sprint(i), "EVAL", source, "0")
		c.want(fmt.Sprint(i), "EVALSHA", scripts.SHA(source), "0")
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("30 new scripts took %v while the Configserver hangs", took)
	}
	k.set(func() { k.hangs = false })
	for deadline := time.Now().Add(20 * time.Second); !k.has("return 29"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it was not told later")
		}
	}
}
