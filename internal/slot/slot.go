// Package slot maps keys to the 16384 hash slots of Redis Cluster: CRC16
// (XMODEM) of the key, or of its {hash tag}, modulo 16384.
package slot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Count is the number of slots.
const Count = 16384

var table = makeTable()

// makeTable computes the CRC16 table of polynomial 0x1021 (XMODEM), the one
// Redis Cluster uses.
func makeTable() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return t
}

// Of returns the slot of a key, 0 to 16383. Only the part between the first
// '{' and the first '}' after it counts, when that part is not empty.
func Of(key []byte) uint16 {
	if open := bytes.IndexByte(key, '{'); open >= 0 {
		if n := bytes.IndexByte(key[open+1:], '}'); n > 0 {
			key = key[open+1 : open+1+n]
		}
	}
	crc := uint16(0)
	for _, b := range key {
		crc = crc<<8 ^ table[byte(crc>>8)^b]
	}
	return crc & (Count - 1)
}

// Set is a set of slots, one bit each. The zero value is empty. Its text form
// is ranges as Redis writes them, "0-5460 5462", which is also its JSON form.
type Set struct {
	bits [Count / 64]uint64
}

// Range returns the slots first to last, both included. It panics on slots out
// of range, which is a mistake of the caller.
func Range(first, last int) (s Set) {
	for i := first; i <= last; i++ {
		s.Add(i)
	}
	return s
}

// Even splits all slots into n shares of nearly equal size and returns share i.
func Even(i, n int) Set {
	return Range(i*Count/n, (i+1)*Count/n-1)
}

// Add puts one slot into the set.
func (s *Set) Add(slot int) { s.bits[slot/64] |= 1 << (slot % 64) }

// Has tells if a slot is in the set.
func (s *Set) Has(slot int) bool { return s.bits[slot/64]&(1<<(slot%64)) != 0 }

// Len counts the slots.
func (s *Set) Len() (n int) {
	for _, w := range s.bits {
		n += bits.OnesCount64(w)
	}
	return n
}

// Union adds all slots of other.
func (s *Set) Union(other *Set) {
	for i, w := range other.bits {
		s.bits[i] |= w
	}
}

// Intersects tells if a slot is in both sets.
func (s *Set) Intersects(other *Set) bool {
	for i, w := range other.bits {
		if s.bits[i]&w != 0 {
			return true
		}
	}
	return false
}

// Ranges calls yield for each maximal run of slots, in order, both ends
// included.
func (s *Set) Ranges(yield func(first, last int) bool) {
	for first := s.next(0, 0); first < Count; {
		end := s.next(first, ^uint64(0))
		if !yield(first, end-1) {
			return
		}
		first = s.next(end, 0)
	}
}

// next finds, from a slot on, the first that is in the set, or that is not when flip
// has all bits set; Count when there is none. It looks at 64 slots at a time: the
// ranges of a thousand shards are listed at every epoch.
func (s *Set) next(from int, flip uint64) int {
	if from >= Count {
		return Count
	}
	i := from / 64
	word := (s.bits[i] ^ flip) >> (from % 64) << (from % 64)
	for word == 0 {
		if i++; i == len(s.bits) {
			return Count
		}
		word = s.bits[i] ^ flip
	}
	return i*64 + bits.TrailingZeros64(word)
}

// String returns the ranges: "0-5460 5462".
func (s Set) String() string {
	var b strings.Builder
	for first, last := range s.Ranges {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.Itoa(first))
		if last > first {
			b.WriteString("-" + strconv.Itoa(last))
		}
	}
	return b.String()
}

// Parse reads what String writes.
func Parse(text string) (s Set, err error) {
	for _, part := range strings.Fields(text) {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		b := a
		if err == nil && isRange {
			b, err = strconv.Atoi(last)
		}
		if err != nil || a < 0 || b < a || b >= Count {
			return Set{}, fmt.Errorf("slot range %q: want FIRST-LAST within 0-%d", part, Count-1)
		}
		for i := a; i <= b; i++ {
			s.Add(i)
		}
	}
	return s, nil
}

// MarshalJSON writes the text form.
func (s Set) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON reads the text form.
func (s *Set) UnmarshalJSON(data []byte) error {
	var text string
	err := json.Unmarshal(data, &text)
	if err == nil {
		*s, err = Parse(text)
	}
	return err
}
