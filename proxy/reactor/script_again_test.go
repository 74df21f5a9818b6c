package reactor_test

import (
	"strings"
	"testing"
)

// TestLargeScriptCallWhileItIsLookedFor: the bytes of a large EVALSHA, which the
// server answered with NOSCRIPT, are not touched any more when the connection gave
// its memory back, while the Configserver takes its time.
func TestLargeScriptCallWhileItIsLookedFor(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	k, p := scriptProxies(t, 1, shards...)
	c := p[0].dial()
	large := strings.Repeat("x", 3<<20)
	k.set(func() { k.hangs = true })
	c.want(noScript, "EVALSHA", strings.Repeat("0", 40), "0", large)
	for _, e := range p[0].SlowLog() {
		if e.Args[0] == "EVALSHA" && e.Args[1] != strings.Repeat("0", 40) {
			t.Errorf("the slow log has %q", e.Args)
		}
	}
	k.set(func() { k.hangs = false })
	sha := c.do("SCRIPT", "LOAD", "return #ARGV[1]")
	c.want("OK", "SCRIPT", "FLUSH")
	k.set(func() { k.kept[sha] = "return #ARGV[1]" })
	c.want("3145728", "EVALSHA", sha, "0", large)
}
