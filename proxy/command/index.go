package command

import (
	"encoding/binary"
	"strings"
)

// The index finds a command by name in any case without an allocation.
//
// A name is folded (bit 0x20 set in every byte, which lowers letters) and
// packed into two words that cover its first and last 8 bytes. Up to 16 bytes
// the words and the length are the whole name, so comparing them compares the
// name, except that folding also maps a few other bytes onto '-', '_' and
// digits; names with those, and longer ones, are compared byte by byte too.
// The table is open addressing with linear probing at a load under a quarter.

const indexBits = 10

// entry is a slot of the index; a length of 0 means empty.
type entry struct {
	head, tail uint64
	length     uint16
	id         uint16
	compare    bool // the packed words alone do not prove equality
}

var index = buildIndex()

func buildIndex() *[1 << indexBits]entry {
	var t [1 << indexBits]entry
	for i := range specs {
		s := &specs[i]
		s.ID = i
		if s.Kind == Unsupported {
			s.refusal = []byte("-ERR " + s.Reason + "\r\n")
		}
		if strings.Contains(s.Name, "|") {
			continue
		}
		head, tail := pack([]byte(s.Name))
		e := entry{head, tail, uint16(len(s.Name)), uint16(i), false}
		e.compare = len(s.Name) > 16 || strings.ContainsFunc(s.Name, func(r rune) bool { return r < 'a' || r > 'z' })
		at := hash(head, tail)
		for t[at].length != 0 {
			at = (at + 1) % uint64(len(t))
		}
		t[at] = e
	}
	return &t
}

// pack folds a name and covers its first and last 8 bytes, overlapping when it
// is shorter. For one length, different foldings give different words.
func pack(name []byte) (head, tail uint64) {
	const fold8, fold4, fold2 = 0x2020202020202020, 0x20202020, 0x2020
	n := len(name)
	switch {
	case n >= 8:
		return binary.LittleEndian.Uint64(name) | fold8, binary.LittleEndian.Uint64(name[n-8:]) | fold8
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(name) | fold4), uint64(binary.LittleEndian.Uint32(name[n-4:]) | fold4)
	case n >= 2:
		return uint64(binary.LittleEndian.Uint16(name) | fold2), uint64(binary.LittleEndian.Uint16(name[n-2:]) | fold2)
	case n == 1:
		return uint64(name[0] | 0x20), 0
	}
	return 0, 0
}

func hash(head, tail uint64) uint64 {
	return (head*0x9E3779B97F4A7C15 ^ tail*0xC2B2AE3D27D4EB4F) >> (64 - indexBits)
}

// find returns the command of a name, nil when there is none.
func find(name []byte) *Spec {
	head, tail := pack(name)
	for at := hash(head, tail); ; at = (at + 1) % uint64(len(index)) {
		e := &index[at]
		if e.length == 0 {
			return nil
		}
		if e.head == head && e.tail == tail && int(e.length) == len(name) {
			s := &specs[e.id]
			if !e.compare || equalFold(name, s.Name) {
				return s
			}
		}
	}
}

// equalFold tells if a name of the same length as lower is lower, in any case.
func equalFold[T string | []byte](name T, lower string) bool {
	for i := range len(lower) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
