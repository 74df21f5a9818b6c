package store

import (
	"crypto/sha1" //nolint:gosec // it is the name that Redis gives to scripts, not a proof
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// Sources of Lua scripts, kept for EVALSHA.
//
// A redis-server neither replicates its script cache nor keeps it over a
// restart. So that EVALSHA finds a script at every master, also at one that was
// a replica a moment ago, the sources that any proxy saw are kept here, each
// under the SHA-1 of its bytes.
//
// A put needs no lease and no fence: an entry never changes, its name says what
// it must be, and no decision about the cluster depends on it. However late a
// put arrives, and whoever sends it, it is right or it is refused. What it must
// not do is bring back scripts that somebody flushed meanwhile: every flush is
// counted, and a put names the count that its sender knew, which is compared in
// the same transaction.
//
// Their number and size are bounded. What is dropped first: scripts that came
// with EVAL, for their sender has the source and sends it each time, before
// those of SCRIPT LOAD, whose sender may have nothing but the SHA-1; of each
// kind the one that was put, or put again, the longest ago. Proxies put again
// what they use.

// ErrFlushed: the scripts were flushed since the caller last looked; nothing was
// put.
var ErrFlushed = errors.New("the scripts were flushed meanwhile")

// Limits of scripts; KeepScripts and KeepScriptBytes are per cluster.
const (
	KeepScripts     = 1000
	KeepScriptBytes = 16 << 20
	// MaxScriptBytes is the longest source in bytes.
	MaxScriptBytes = 512 << 10
	// MaxScripts is how many are put or read at once.
	MaxScripts = 32
	// MaxPutBytes bounds the sources of one put; etcd takes 1.5 MiB at once.
	MaxPutBytes = 1 << 20
	// touchAfter is how old an entry must be for another put to make it new.
	touchAfter = 10 * time.Minute
	// mostDropped is how many one put drops; what is too many then is dropped by
	// the next ones. etcd takes 128 operations in one transaction.
	mostDropped = 90
)

// Script is the source of a Lua script.
type Script struct {
	// SHA is the SHA-1 of Source, 40 lower case hexadecimal digits.
	SHA string
	// Source are any bytes.
	Source string
	// Loaded: it came with SCRIPT LOAD.
	Loaded bool
}

// ScriptSHA names a source.
func ScriptSHA(source string) string {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}

// CheckScripts says what is wrong with scripts that are to be put. Every
// implementation calls it in PutScripts.
func CheckScripts(scripts []Script) error {
	if len(scripts) > MaxScripts {
		return topology.Invalidf("scripts", "%d at once, at most %d", len(scripts), MaxScripts)
	}
	total := 0
	for _, s := range scripts {
		if len(s.Source) > MaxScriptBytes {
			return topology.Invalidf("scripts", "the source of %.40q has %d bytes, at most %d are kept", s.SHA, len(s.Source), MaxScriptBytes)
		}
		if total += len(s.Source); total > MaxPutBytes {
			return topology.Invalidf("scripts", "more than %d bytes at once", MaxPutBytes)
		}
		if ScriptSHA(s.Source) != s.SHA {
			return topology.Invalidf("scripts", "%.40q is not the SHA-1 of its source", s.SHA)
		}
	}
	return nil
}

// ScriptIndex is what is kept, without the sources, in the order of the last
// put. Both implementations decide by it.
type ScriptIndex struct {
	Entries []ScriptEntry `json:"entries"`
}

// ScriptEntry is one script of the index.
type ScriptEntry struct {
	SHA    string `json:"sha"`
	Bytes  int    `json:"bytes"`
	Loaded bool   `json:"loaded,omitempty"`
	// PutAt is when it was last put, in Unix seconds of whoever wrote it. It
	// decides what is dropped, and nothing else.
	PutAt int64 `json:"put_at"`
}

// Put notes scripts. It returns which sources must be added and which removed,
// and whether the index changed at all.
func (x *ScriptIndex) Put(scripts []Script, now time.Time, keep int, keepBytes int64) (added []Script, dropped []string, changed bool) {
	for _, s := range scripts {
		e := ScriptEntry{SHA: s.SHA, Bytes: len(s.Source), Loaded: s.Loaded, PutAt: now.Unix()}
		at := slices.IndexFunc(x.Entries, func(e ScriptEntry) bool { return e.SHA == s.SHA })
		if at < 0 {
			added = append(added, s)
		} else {
			old := x.Entries[at]
			if (old.Loaded || !s.Loaded) && now.Sub(time.Unix(old.PutAt, 0)) < touchAfter {
				continue
			}
			e.Loaded = e.Loaded || old.Loaded
			x.Entries = slices.Delete(x.Entries, at, at+1)
		}
		x.Entries = append(x.Entries, e)
		changed = true
	}
	count, total := len(x.Entries), int64(0)
	for _, e := range x.Entries {
		total += int64(e.Bytes)
	}
	// What this call put stays: it is in use.
	fresh := func(e ScriptEntry) bool {
		return slices.ContainsFunc(scripts, func(s Script) bool { return s.SHA == e.SHA })
	}
	for _, loaded := range []bool{false, true} {
		x.Entries = slices.DeleteFunc(x.Entries, func(e ScriptEntry) bool {
			enough := count <= keep && total <= keepBytes
			if enough || len(dropped) == mostDropped || e.Loaded != loaded || fresh(e) {
				return false
			}
			count, total = count-1, total-int64(e.Bytes)
			dropped = append(dropped, e.SHA)
			return true
		})
	}
	return added, dropped, changed
}
