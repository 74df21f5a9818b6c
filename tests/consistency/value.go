package consistency

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"strconv"
	"sync"

	"github.com/basalt-redis/basalt/internal/slot"
)

// tags holds one hash tag per slot.
var tags = sync.OnceValue(func() (t [slot.Count]string) {
	for n, found := 0, 0; found < slot.Count; n++ {
		tag := strconv.Itoa(n)
		if s := slot.Of([]byte(tag)); t[s] == "" {
			t[s] = tag
			found++
		}
	}
	return t
})

// KeyInSlot returns a key "name:{tag}" that hashes to the slot.
func KeyInSlot(name string, s int) string { return name + ":{" + tags()[s] + "}" }

// encode returns the one value that version v of a key may have: the key, the
// version and a pad of padding bytes computed from both.
func encode(key string, version int64, padding int) string {
	b := make([]byte, 0, len(key)+padding+24)
	b = append(b, key...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, version, 10)
	b = append(b, ' ')
	h := fnv.New64a()
	_, _ = h.Write(b)
	for x := h.Sum64() | 1; padding > 0; padding-- {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = append(b, 'a'+byte(x%26))
	}
	return string(b)
}

// decode returns the version of a value that was read for key. An error means
// that nobody ever wrote this value to this key.
func decode(key string, value []byte, padding int) (int64, error) {
	parts := bytes.SplitN(value, []byte(" "), 3)
	if len(parts) != 3 || string(parts[0]) != key {
		return 0, fmt.Errorf("key %s holds %.80q, a value of something else", key, value)
	}
	version, err := strconv.ParseInt(string(parts[1]), 10, 64)
	if err != nil || string(value) != encode(key, version, padding) {
		return 0, fmt.Errorf("key %s holds %.80q, which was never written", key, value)
	}
	return version, nil
}
