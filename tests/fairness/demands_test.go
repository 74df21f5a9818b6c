package fairness

import (
	"fmt"
	"strings"

	"github.com/basalt-redis/basalt/tests/consistency"
)

// demand is what one client asks for that is much.
type demand struct {
	name string
	// prepare makes what is asked for; it may take its time.
	prepare func(h *hog) error
	// ask asks once, and takes the reply.
	ask func(h *hog) error
	// clean removes what prepare and ask left.
	clean func(h *hog) error
	// alone: only the shard of the key "hog" has work.
	alone bool
}

const (
	huge      = 512 << 20 // bytes, the most a value can be
	pipelined = 100_000
	million   = 1_000_000
)

// tag is the hash tag of keys that are in the shard of the key "hog".
const tag = "{hog}"

func hogKey(i int) string { return fmt.Sprintf("hog:%d", i) }

func taggedKey(i int) string { return fmt.Sprintf(tag+":%d", i) }

// words is a command whose arguments from some on are made by a function.
func words(n int, arg func(i int) string, first ...string) []byte {
	args := first
	for i := range n {
		args = append(args, arg(i))
	}
	return consistency.AppendCommand(nil, args...)
}

// once is an ask of one request.
func once(request []byte) func(*hog) error {
	return func(h *hog) error { return h.discard(request) }
}

func demands() []demand {
	nothing := func(*hog) error { return nil }
	unlink := func(h *hog) error { return h.want("UNLINK", "hog") }
	flush := func(h *hog) error { return h.want("FLUSHALL", "ASYNC") }
	pipeline := makePipeline(hogKey)
	pairs := func(i int) string {
		if i%2 == 0 {
			return hogKey(i / 2)
		}
		return "value"
	}
	mset := once(words(2*pipelined, pairs, "MSET"))
	del := once(words(pipelined, hogKey, "DEL"))
	subscribe := words(pipelined, hogKey, "SUBSCRIBE")
	transaction := makeTransaction()
	return []demand{
		{"pipeline of 100,000, read at the end", nothing, func(h *hog) error { return h.pipeline(pipeline) }, nothing, false},
		{"pipeline of 100,000 to one shard", nothing, func(h *hog) error { return h.pipeline(makePipeline(taggedKey)) }, nothing, true},
		{"pipelines of 100,000, never read", nothing, func(h *hog) error { return h.neverRead(pipeline) }, nothing, false},
		{"SET of 512 MB", nothing, (*hog).setHuge, unlink, true},
		{"GET of 512 MB", (*hog).setHuge, (*hog).getHuge, unlink, true},
		{"16 GETs of 8 MB, read slowly", (*hog).setLarge, (*hog).readSlowly, unlink, true},
		{"MGET of 100,000 keys", nothing, once(words(pipelined, hogKey, "MGET")), nothing, false},
		{"MGET of 1,000,000 keys", nothing, once(words(million, hogKey, "MGET")), nothing, false},
		{"MSET and DEL of 100,000 keys", nothing, func(h *hog) error {
			if err := mset(h); err != nil {
				return err
			}
			return del(h)
		}, nothing, false},
		{"EVAL with 100,000 keys", nothing, once(words(pipelined, taggedKey, "EVAL", "return #KEYS", "100000")), nothing, true},
		{"SUBSCRIBE to 100,000 channels", nothing, func(h *hog) error { return h.subscribe(subscribe) }, nothing, false},
		{"KEYS * of 300,000", (*hog).makeKeys, func(h *hog) error { return h.want("KEYS", "*") }, flush, false},
		{"SCAN COUNT 1000000 of 300,000", (*hog).makeKeys, func(h *hog) error { return h.want("SCAN", "0", "COUNT", "1000000") }, flush, false},
		{"HGETALL of 1,000,000 fields", (*hog).makeHash, func(h *hog) error { return h.want("HGETALL", "hog") }, unlink, true},
		{"LRANGE of 1,000,000 elements", (*hog).makeList, func(h *hog) error { return h.want("LRANGE", "hog", "0", "-1") }, unlink, true},
		{"MULTI of 100,000 commands", nothing, func(h *hog) error { return h.transaction(transaction) }, nothing, true},
		{"CLIENT LIST of 5000", (*hog).makeClients, func(h *hog) error { return h.want("CLIENT", "LIST") }, (*hog).dropClients, false},
		{"INFO with 5000 clients", (*hog).makeClients, func(h *hog) error { return h.want("INFO", "everything") }, (*hog).dropClients, false},
	}
}

// makePipeline writes 100,000 SETs and GETs of ordinary values.
func makePipeline(key func(int) string) (b []byte) {
	value := strings.Repeat("p", ordinary)
	for i := range pipelined {
		k := key(i % 5000)
		if i%2 == 0 {
			b = consistency.AppendCommand(b, "SET", k, value)
		} else {
			b = consistency.AppendCommand(b, "GET", k)
		}
	}
	return b
}

// makeTransaction writes 100,000 SETs between MULTI and EXEC.
func makeTransaction() []byte {
	b := consistency.AppendCommand(nil, "MULTI")
	for i := range pipelined {
		b = consistency.AppendCommand(b, "SET", taggedKey(i%5000), "value")
	}
	return consistency.AppendCommand(b, "EXEC")
}
