package credentials

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
)

// The users of proxies.
//
// Goal: one proxy is shut out without another one noticing.
//
// A cluster has seats, more than it has proxies, and each proxy takes one. The
// servers of a shard have one ACL user for each seat. Who is to be shut out loses
// the version of its seat: the servers switch off the user of that version, and
// nobody else's. The generation of a shard is part of every name, too: the next one
// replaces the users of all proxies of that shard.
//
// A proxy is given the password of its own user only. The servers' users of
// applications (acl.NodeUser) are shared by all proxies of a generation, and have a
// password of their own, from which no other can be found.

// Seat is the place of one proxy among those of a cluster.
type Seat struct {
	// Number is from 0.
	Number int
	// Version is from 1; 0 is that of a proxy without a seat.
	Version uint32
}

// proxyPrefix begins the names of all users of proxies.
const proxyPrefix = "basalt-proxy-"

// ProxyUser is the ACL user of the proxy that has a seat: "basalt-proxy-7-3-1" is of
// generation 7, seat 3, version 1.
func ProxyUser(generation uint64, seat Seat) string {
	name := strconv.AppendUint(append(make([]byte, 0, 40), proxyPrefix...), generation, 10)
	name = strconv.AppendInt(append(name, '-'), int64(seat.Number), 10)
	return string(strconv.AppendUint(append(name, '-'), uint64(seat.Version), 10))
}

// ScriptUser is how the names of the users of applications begin that all proxies of
// a generation share (acl.NodeUser): "basalt-proxy-7". Until there were seats, it was
// the user of all proxies.
func ScriptUser(generation uint64) string {
	return proxyPrefix + strconv.FormatUint(generation, 10)
}

// IsProxyUser tells if a user is one of proxies, or one that they share, of any
// generation.
func IsProxyUser(name string) bool { return strings.HasPrefix(name, proxyPrefix) }

// GenerationOf finds the generation in the name of a user of proxies, with or without
// a seat; not of those that they share.
func GenerationOf(name string) (uint64, bool) {
	rest, ok := strings.CutPrefix(name, proxyPrefix)
	if !ok {
		return 0, false
	}
	generation, rest, ok := number(rest)
	return generation, ok && (rest == "" || rest[0] == '-')
}

// SeatOf finds the seat in the name of a user of a generation. It fails for every
// name that ProxyUser does not make.
func SeatOf(name string, generation uint64) (Seat, bool) {
	rest, ok := strings.CutPrefix(name, proxyPrefix)
	if !ok {
		return Seat{}, false
	}
	var n [3]uint64
	for i := range n {
		if n[i], rest, ok = number(rest); !ok || i < 2 && rest == "" {
			return Seat{}, false
		}
		if i < 2 {
			if rest[0] != '-' {
				return Seat{}, false
			}
			rest = rest[1:]
		}
	}
	if rest != "" || n[0] != generation || n[1] > 1<<31-1 || n[2] > 1<<32-1 {
		return Seat{}, false
	}
	return Seat{int(n[1]), uint32(n[2])}, true
}

// number reads a decimal number as it is written, without leading zeros.
func number(text string) (n uint64, rest string, ok bool) {
	digits := 0
	for digits < len(text) && text[digits] >= '0' && text[digits] <= '9' {
		digit := uint64(text[digits] - '0')
		if n > (math.MaxUint64-digit)/10 {
			return 0, text, false
		}
		n = 10*n + digit
		digits++
	}
	if digits == 0 || digits > 1 && text[0] == '0' {
		return 0, text, false
	}
	return n, text[digits:], true
}

// SeatKey is what the passwords of a shard's proxies are made of, derived from the
// secret an id names. It never leaves the Configserver. uid is the cluster's: one
// that was deleted and created again begins with generation 1 again, and a proxy
// that missed it must not get in by what it knows.
func (s *Set) SeatKey(secretID, uid, shard string, generation uint64) (string, error) {
	return s.derive(secretID, "seats\x00"+s.of(uid, shard, generation))
}

// SeatPassword is the password of ProxyUser with a SeatKey.
func SeatPassword(key string, seat Seat) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(strconv.Itoa(seat.Number) + "\x00" + strconv.FormatUint(uint64(seat.Version), 10)))
	return hex.EncodeToString(mac.Sum(nil))
}

// ScriptPassword is the password of the users that begin with ScriptUser. It is
// derived as it was when it was that of all proxies: servers that were told of such
// users before there were seats know it.
func (s *Set) ScriptPassword(secretID, uid, shard string, generation uint64) (string, error) {
	return s.derive(secretID, "proxy\x00"+s.of(uid, shard, generation))
}

// of names a generation of a shard.
func (s *Set) of(uid, shard string, generation uint64) string {
	of := s.cluster
	if uid != "" { // clusters of before there were uids go on as they are
		of += "\x00" + uid
	}
	return of + "\x00" + shard + "\x00" + strconv.FormatUint(generation, 10)
}
