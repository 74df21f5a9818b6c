package conformance

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// how says in what sense two replies must be equal.
type how uint8

const (
	// exact: byte for byte.
	exact how = iota
	// unordered: the same elements in any order. pairs: the same pairs. deep:
	// the same at every depth.
	unordered
	pairs
	deep
	// scanned: an iteration that ran to its end returned the same elements; one
	// may come twice.
	scanned
	// near: byte for byte, but for integers up to 5000 apart: times in
	// milliseconds or seconds.
	near
	// shape: of the same kind, and as many elements: random, or about the server.
	shape
	// kinds: of the same kind; maps, lists and texts about the server itself.
	kinds
)

// hows are the commands whose replies are not compared byte for byte. Errors
// always are.
var hows = func() map[string]how {
	m := map[string]how{}
	for h, names := range map[how]string{
		unordered: "smembers sinter sunion sdiff hkeys hvals keys command|list acl|cat pubsub|channels pubsub|shardchannels",
		pairs:     "hgetall config|get",
		deep:      "command command|info command|docs function|list",
		scanned:   "scan hscan sscan zscan",
		near:      "httl hpttl hexpiretime hpexpiretime ttl pttl expiretime pexpiretime object|idletime xpending xinfo|consumers xinfo|stream xautoclaim xclaim",
		shape:     "time randomkey spop srandmember hrandfield zrandmember client|id memory|usage lastsave acl|genpass",
		kinds: "dump info client|list client|info hello lolwut memory|stats memory|doctor memory|malloc-stats latency|doctor latency|graph " +
			"latency|latest latency|history latency|histogram slowlog|get slowlog|len role acl|list acl|log function|stats function|dump client|trackinginfo",
	} {
		for name := range strings.FieldsSeq(names) {
			m[name] = h
		}
	}
	return m
}()

// howOf says how replies to a request are compared.
func howOf(name string, args [][]byte) how {
	switch name {
	case "debug":
		if len(args) > 1 && slices.Contains([]string{"OBJECT", "SDSLEN", "LISTPACK", "HTSTATS-KEY"}, strings.ToUpper(string(args[1]))) {
			return kinds // addresses and sizes in memory
		}
	case "xadd":
		if slices.ContainsFunc(args, func(a []byte) bool { return string(a) == "*" }) {
			return shape
		}
	case "pexpire":
		if len(args) > 3 {
			return near // GT and LT of the same time again depend on the millisecond
		}
	case "sort":
		// Elements that compare equal keep the order they have in a set: any.
		if slices.ContainsFunc(args, func(a []byte) bool { return strings.EqualFold(string(a), "by") }) {
			return unordered
		}
	case "scan", "hscan", "sscan", "zscan":
		if !iterates(args) {
			return kinds // a cursor out of thin air may mean any place
		}
	}
	return hows[name]
}

// same compares two replies to the request.
func same(h how, a, b reply) bool {
	if a.kind == noReply || a.kind == hungUp || b.kind == noReply || b.kind == hungUp {
		return a.kind == b.kind
	}
	if bytes.Equal(a.raw, b.raw) {
		return true
	}
	if h == exact || a.kind != b.kind || a.isError() || b.isError() || a.null != b.null {
		return false
	}
	switch h {
	case unordered, pairs, deep:
		return canonical(h, a) == canonical(h, b)
	case scanned:
		return slices.Equal(scannedElements(a), scannedElements(b))
	case near:
		return alike(a, b, func(a, b reply) bool {
			x, errA := strconv.ParseInt(string(a.text), 10, 64)
			y, errB := strconv.ParseInt(string(b.text), 10, 64)
			const apart = 5000
			return a.kind == ':' && errA == nil && errB == nil && math.Abs(float64(x-y)) <= apart && (x < 0) == (y < 0)
		})
	case shape:
		return alike(a, b, func(a, b reply) bool { return true })
	}
	return true // kinds
}

// alike compares kinds and numbers of elements, and leaves that differ by leaf.
func alike(a, b reply, leaf func(a, b reply) bool) bool {
	if a.kind != b.kind || a.null != b.null || len(a.items) != len(b.items) {
		return false
	}
	if !a.aggregate() {
		return bytes.Equal(a.raw, b.raw) || leaf(a, b)
	}
	for i := range a.items {
		if !alike(a.items[i], b.items[i], leaf) {
			return false
		}
	}
	return true
}

// canonical is the same for replies that are equal but for their order.
func canonical(h how, p reply) string {
	if !p.aggregate() || p.null {
		return string(p.raw)
	}
	parts := make([]string, len(p.items))
	for i, item := range p.items {
		parts[i] = string(item.raw)
		if h == deep {
			parts[i] = canonical(h, item)
		}
	}
	if h == pairs || p.kind == '%' {
		for i := 0; i+1 < len(parts); i += 2 {
			parts[i/2] = parts[i] + parts[i+1]
		}
		parts = parts[:len(parts)/2]
	}
	slices.Sort(parts)
	return fmt.Sprintf("%c%d\n%s", p.kind, len(p.items), strings.Join(parts, "\n"))
}

// scannedElements are the elements of all pages of an iteration, sorted, each
// once: run puts the pages one behind the other into items.
func scannedElements(p reply) (all []string) {
	for _, page := range p.items {
		if len(page.items) != 2 || page.items[0].kind != '$' || page.items[1].kind != '*' {
			return []string{fmt.Sprintf("no page: %q", page.raw)}
		}
		for _, e := range page.items[1].items {
			all = append(all, string(e.raw))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
