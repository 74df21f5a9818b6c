package abuse

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/basalt-redis/basalt/tests/harness"
)

// Reasons for deviations.
const (
	// Who takes a line for ended where the other does not can be made to see
	// other commands than the other sees, so a proxy takes CRLF and nothing
	// else.
	onlyCRLF = "Redis takes any byte for an LF, and any two bytes behind a payload; the proxy refuses them"
	noWait   = "Redis waits for a CR that may never come; the proxy refuses what cannot become a number"
	afterNUL = "Redis searches line ends with strchr, so it waits for good behind a NUL; the proxy does not"
)

// deviations are inputs of the corpus whose answer differs from Redis's on
// purpose, and why.
var deviations = map[string]string{
	"crlf-count-cr-only":  onlyCRLF,
	"crlf-bulk-cr-only":   onlyCRLF,
	"crlf-cr-cr-lf":       onlyCRLF,
	"crlf-payload-none":   onlyCRLF,
	"crlf-payload-lf-lf":  onlyCRLF,
	"crlf-payload-longer": onlyCRLF,
	"crlf-smuggled":       onlyCRLF,
	"count-lf-only":       noWait,
	"count-nul":           afterNUL,
	"bulk-nul":            afterNUL,
	"inline-nul":          afterNUL,
	"tls-hello":           afterNUL,
	"dollar-00":           afterNUL,
}

// TestAnswersAreRedis replays the corpus, the generated inputs and random bytes
// from fixed seeds at the proxy and at a plain redis-server side by side. What
// both answer must be the same: the text and whether the connection stays.
func TestAnswersAreRedis(t *testing.T) {
	_, p := start(t)
	redis := harness.StartRedis(t)
	inputs := append(corpus(t), generated()...)
	for seed := range uint64(300) {
		inputs = append(inputs, input{fmt.Sprintf("random-%d", seed), random(seed), true})
		inputs = append(inputs, input{fmt.Sprintf("mutated-%d", seed), mutated(seed), true})
	}
	known := map[string]bool{}
	// Most of the time of an exchange is spent waiting for silence.
	const parallel = 40
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for _, in := range inputs {
		known[in.name] = true
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			compare(t, in, p.addr, redis.Address)
		})
	}
	wg.Wait()
	for name := range deviations {
		if !known[name] {
			t.Errorf("deviation %q is no input", name)
		}
	}
	p.requireAlive(t)
}

func compare(t *testing.T, in input, proxyAddr, redisAddr string) {
	var ours, theirs answer
	var both sync.WaitGroup
	both.Go(func() { ours = exchange(t, proxyAddr, in.bytes) })
	both.Go(func() { theirs = exchange(t, redisAddr, in.bytes) })
	both.Wait()
	// A server that hangs up with bytes unread resets the connection, and the
	// reset can overtake its last words: ask again.
	for range 5 {
		if ours.equal(theirs) || len(in.bytes) < 4096 {
			break
		}
		ours, theirs = exchange(t, proxyAddr, in.bytes), exchange(t, redisAddr, in.bytes)
	}
	if ours.equal(theirs) {
		if _, ok := deviations[in.name]; ok {
			t.Errorf("%s: no deviation any more: strike it off the list", in.name)
		}
		return
	}
	if why, ok := deviations[in.name]; ok {
		t.Logf("%s: on purpose: %s", in.name, why)
		return
	}
	if in.random && stricter(in, ours, theirs) {
		return
	}
	sent := fmt.Sprintf("%q", in.bytes)
	if len(sent) > 200 {
		sent = sent[:200] + "…"
	}
	t.Errorf("%s: sent %s\n   proxy: %s\n   redis: %s", in.name, sent, ours, theirs)
}

// stricter tells if a random input met onlyCRLF, noWait or afterNUL: the proxy
// refused, or with a NUL answered, earlier than Redis, and agreed up to there.
// Both refusing at the same place in different words is not that.
func stricter(in input, ours, theirs answer) bool {
	if bytes.IndexByte(in.bytes, 0) >= 0 && !theirs.closed && bytes.HasPrefix(ours.text, theirs.text) {
		return true
	}
	agreed, _, refused := bytes.Cut(ours.text, protocolError)
	theirAgreed, _, theyRefused := bytes.Cut(theirs.text, protocolError)
	samePlace := theyRefused && len(theirAgreed) == len(agreed)
	return refused && ours.closed && bytes.HasPrefix(theirs.text, agreed) && !samePlace
}

// TestCorpusIsUnique: a name that is used twice would hide one of the inputs.
func TestCorpusIsUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, in := range append(corpus(t), generated()...) {
		if seen[in.name] || strings.TrimSpace(in.name) == "" || len(in.bytes) == 0 {
			t.Errorf("input %q is there twice or empty", in.name)
		}
		seen[in.name] = true
	}
}
