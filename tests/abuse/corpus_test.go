package abuse

import (
	_ "embed"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/tests/consistency"
)

// input is what a client sends on one connection.
type input struct {
	name  string
	bytes []byte
	// random inputs are not looked at one by one.
	random bool
}

//go:embed testdata/corpus.txt
var corpusText string

// corpus is the kept part: testdata/corpus.txt.
func corpus(t testing.TB) []input {
	t.Helper()
	var inputs []input
	for i, line := range strings.Split(corpusText, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, quoted, ok := strings.Cut(line, ": ")
		text, err := strconv.Unquote(quoted)
		if !ok || err != nil {
			t.Fatalf("testdata/corpus.txt:%d: want name: \"bytes\": %v", i+1, err)
		}
		inputs = append(inputs, input{name: name, bytes: []byte(text)})
	}
	return inputs
}

// generated is what is too regular or too long to be written down.
func generated() []input {
	var inputs []input
	add := func(name, text string) { inputs = append(inputs, input{name: name, bytes: []byte(text)}) }

	for c := range 256 {
		if c != '$' {
			add(fmt.Sprintf("dollar-%02x", c), "*1\r\n"+string([]byte{byte(c)})+"4\r\nPING\r\n")
		}
	}
	const inlineLimit = 64 << 10
	add("inline-no-end", strings.Repeat("x", inlineLimit+5000))
	add("inline-no-end-nuls", strings.Repeat("\x00", inlineLimit+5000))
	add("inline-long-name", strings.Repeat("x", 300)+"\r\n")
	add("inline-many-words", strings.Repeat("w ", 2000)+"\r\n")
	add("count-line-no-end", "*"+strings.Repeat("1", inlineLimit+5000))
	add("bulk-line-no-end", "*1\r\n$"+strings.Repeat("1", inlineLimit+5000))
	add("second-bulk-line-no-end", "*2\r\n$3\r\nGET\r\n$"+strings.Repeat("1", inlineLimit+5000))
	add("name-200-bytes", "*1\r\n$200\r\n"+strings.Repeat("n", 200)+"\r\n")
	add("name-64-kib", fmt.Sprintf("*1\r\n$%d\r\n%s\r\n", inlineLimit, strings.Repeat("n", inlineLimit)))
	add("unknown-many-arguments", "*101\r\n$3\r\nfoo\r\n"+strings.Repeat("$8\r\nargument\r\n", 100))
	add("empty-requests", strings.Repeat("\r\n", 50_000)+"PING\r\n")
	add("zero-counts", strings.Repeat("*0\r\n", 50_000)+"PING\r\n")
	return inputs
}

// random makes bytes from a fixed seed that look more or less like requests.
func random(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 42))
	const alphabet = "*$+-:0123456789\r\n \"'\\x\x00GETPINGsetfoo"
	b := make([]byte, 1+r.IntN(2000))
	for i := range b {
		if seed%2 == 0 {
			b[i] = byte(r.Uint32())
		} else {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
	}
	if seed%3 == 0 {
		b[0] = '*'
	}
	return b
}

// mutated is a valid pipeline with a few bytes changed.
func mutated(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 43))
	var b []byte
	for range 1 + r.IntN(8) {
		key, value := fmt.Sprintf("abuse:%d:%d", seed, r.IntN(10)), strings.Repeat("v", r.IntN(200))
		switch r.IntN(4) {
		case 0:
			b = consistency.AppendCommand(b, "SET", key, value)
		case 1:
			b = consistency.AppendCommand(b, "GET", key)
		case 2:
			b = consistency.AppendCommand(b, "APPEND", key, value)
		default:
			b = consistency.AppendCommand(b, "ECHO", value)
		}
	}
	for range 1 + r.IntN(3) {
		b[r.IntN(len(b))] = byte(r.Uint32())
	}
	return b[:1+r.IntN(len(b))]
}
