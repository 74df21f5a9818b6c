package session

import (
	"math"
	"slices"
	"strings"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/resp"
)

// Client-side caching: CLIENT TRACKING.
//
// Goal: a client that keeps what it read is told of every change, as by one
// Redis, and never keeps a value that is older than what it was told last.
// One message too many is harmless, one too few is not.
//
//  1. A server remembers per connection which keys were read through it, and
//     tells that connection once when one of them changes. Server connections
//     in RESP3 are shared by all clients of a loop and log in with TRACKING ON
//     OPTIN: only what is read behind a CLIENT CACHING YES is remembered. The
//     proxy puts that in front of the reads of clients that track
//     (Client.track), in one piece with them (backend.Block).
//  2. When such a read was answered, and not before, the client is entered in
//     the loop's table under the keys (Invalidations). Replies and
//     invalidations come on the same connection, so the table always says the
//     same as the server's. Entered any earlier, an invalidation of a previous
//     read would take out a client whose own read is still to come.
//  3. An invalidation goes to all clients under the key, and takes them out. A
//     key that nobody is under (it was read by a script, or through another
//     connection) goes to all clients that track.
//  4. A reply may have to wait in its client's order for that of another
//     shard. Invalidations that arrive meanwhile go out behind it
//     (Request.After): the other way round the client would keep an old value.
//  5. When a connection ends, the server forgets what was read through it, and a
//     new master of a key knows of no reads. All clients that track are told to
//     drop everything.
//  6. In BCAST mode nothing is remembered: servers tell of every change, on the
//     loop's connections for subscriptions, and the loop passes on what has
//     one of a client's prefixes. As that is another connection than that of the
//     replies, a client that is reading is told twice (Client.invalidate). When
//     a server begins to tell, because such a connection was made again or the master
//     is new, clients that were answered before are told to drop everything, for
//     changes may have been missed.
//
// A read on a connection that is only pinned (EXEC behind WATCH, XREAD BLOCK) is
// not tracked: the client is told to drop its keys at once (unkept). Reads of clients that track go to
// masters.
//
// A client with NOLOOP does not share connections (noloop.go).
//
// Differences: REDIRECT is refused. In RESP2 nothing is sent, as in Redis without
// REDIRECT.

// tracking is what CLIENT TRACKING set.
type tracking struct {
	bcast, optin, optout, noloop bool
	prefixes                     []string
	// ready: the servers tell of all changes, and the client was told so.
	ready bool
	// caching: CLIENT CACHING was sent for the next command, or the transaction;
	// cached: it was before the command that is handled.
	caching, cached bool
	// now: the command that is handled is to be tracked if it reads.
	now bool
	// own is the identity of the client's own connections, with noloop. dropped: it
	// was told to forget what it read there, and read nothing since.
	own     *backend.Identity
	dropped bool
	// missed: changes may have been missed until the servers tell of all.
	missed bool
	// unheard: something was read in RESP2, in which no server tracks for us.
	unheard bool
}

// tellings tell what a client is told of, or was not, beside what it set.
type tellings struct {
	// bcast: it tracks in BCAST mode. hears: it is told over the connections for
	// subscriptions.
	bcast, hears bool
	// shared: some of what it read is tracked by connections that others share.
	// untold: the servers forgot what it read through its own, and it was not told, for
	// it did not track then, or not in RESP3.
	shared, untold bool
}

var (
	rawCaching = []byte("*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n")

	lineRedirect     = []byte("-ERR REDIRECT is not supported behind the proxy: use RESP3 (HELLO 3), which brings invalidations on the same connection\r\n")
	linePrefixes     = []byte("-ERR PREFIX option requires BCAST mode to be enabled\r\n")
	lineBcastSwitch  = []byte("-ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.\r\n")
	lineBcastOpt     = []byte("-ERR OPTIN and OPTOUT are not compatible with BCAST\r\n")
	lineBothOpts     = []byte("-ERR You can't specify both OPTIN mode and OPTOUT mode\r\n")
	lineOptSwitch    = []byte("-ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.\r\n")
	lineNoCaching    = []byte("-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled\r\n")
	lineCachingYes   = []byte("-ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.\r\n")
	lineCachingNo    = []byte("-ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.\r\n")
	lineManyPrefixes = []byte("-ERR too many prefixes, or too long ones\r\n")
)

// maxPrefixBytes bounds the prefixes of one client, each counted with 64 bytes
// more.
const maxPrefixBytes = 64 << 10

// track serves CLIENT TRACKING, CACHING, GETREDIR and TRACKINGINFO. It returns
// nil when the answer must wait until the servers tell of all changes.
func (c *Client) track(dst []byte, name string, args [][]byte) []byte {
	switch name {
	case "client|tracking":
		line := c.setTracking(args[2], args[3:])
		if c.tracking != nil && c.tracking.bcast && &line[0] == &lineOK[0] {
			return nil // trackAll answers
		}
		return append(dst, line...)
	case "client|caching":
		return append(dst, c.setCaching(args[2])...)
	case "client|getredir":
		return redcon.AppendInt(dst, c.redirection())
	default:
		return c.trackingInfo(dst)
	}
}

// redirection is 0 for none, -1 without tracking.
func (c *Client) redirection() int64 {
	if c.tracking == nil {
		return -1
	}
	return 0
}

func (c *Client) setTracking(mode []byte, options [][]byte) []byte {
	var t tracking
	for i := 0; i < len(options); i++ {
		switch option := strings.ToUpper(string(options[i])); {
		case option == "REDIRECT" && i+1 < len(options):
			return lineRedirect
		case option == "BCAST":
			t.bcast = true
		case option == "OPTIN":
			t.optin = true
		case option == "OPTOUT":
			t.optout = true
		case option == "NOLOOP":
			t.noloop = true
		case option == "PREFIX" && i+1 < len(options):
			i++
			t.prefixes = append(t.prefixes, string(options[i]))
		default:
			return lineSyntax
		}
	}
	switch strings.ToUpper(string(mode)) {
	case "ON":
		if line := c.tracking.refuse(&t); line != nil {
			return line
		}
		if t.noloop && (c.tracking == nil || c.tracking.own == nil) {
			if line := c.sh.Router.MayBePrivate(); line != nil {
				return line
			}
		}
		c.startTracking(&t)
	case "OFF":
		c.stopTracking()
	default:
		return lineSyntax
	}
	return lineOK
}

// refuse tells what speaks against a change from t, which may be nil, to next.
// (Redis 7.0 answers twice, error and OK, when prefixes overlap that are not the
// first: a client would take the second for the answer to its next command.)
func (t *tracking) refuse(next *tracking) []byte {
	switch {
	case !next.bcast && len(next.prefixes) > 0:
		return linePrefixes
	case t != nil && t.bcast != next.bcast:
		return lineBcastSwitch
	case next.bcast && (next.optin || next.optout):
		return lineBcastOpt
	case next.optin && next.optout:
		return lineBothOpts
	case t != nil && (next.optin && t.optout || next.optout && t.optin):
		return lineOptSwitch
	}
	const must = "'. Prefixes for a single client must not overlap."
	// First of all, for what follows compares each prefix with all others.
	size := next.prefixBytes()
	if t != nil {
		size += t.prefixBytes()
	}
	if size > maxPrefixBytes {
		return lineManyPrefixes
	}
	for i, p := range next.prefixes {
		if t != nil {
			for _, old := range t.prefixes {
				if overlap(p, old) {
					return command.ErrorLine("Prefix '", []byte(p), "' overlaps with an existing prefix '"+oneLine(old)+must)
				}
			}
		}
		for _, other := range next.prefixes[i+1:] {
			if overlap(p, other) {
				return command.ErrorLine("Prefix '", []byte(p), "' overlaps with another provided prefix '"+oneLine(other)+must)
			}
		}
	}
	return nil
}

// prefixBytes is what counts for maxPrefixBytes.
func (t *tracking) prefixBytes() (size int) {
	for _, p := range t.prefixes {
		size += len(p) + 64
	}
	return size
}

// oneLine makes a text fit for an error.
func oneLine(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s
}

func overlap(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }

func (c *Client) startTracking(t *tracking) {
	if t.bcast && len(t.prefixes) == 0 {
		t.prefixes = []string{""} // beside what there may be: it overlaps, and is not refused
	}
	if old := c.tracking; old != nil {
		t.ready, t.caching, t.unheard = old.ready, old.caching, old.unheard
		t.prefixes = append(old.prefixes, t.prefixes...)
	}
	// The order in which Redis goes through them.
	slices.Sort(t.prefixes)
	t.prefixes = slices.Compact(t.prefixes)
	old := c.tracking
	c.tracking = t
	c.sh.Invalidations.join(c)
	if old != nil && old.own != nil {
		c.keepPrivate(old)
		return
	}
	c.tellUntold()
}

// trackAll answers when the servers tell of all changes.
func (c *Client) trackAll(r *backend.Request) {
	t := c.tracking
	done := func() {
		t.ready = true
		c.Complete(r, lineOK)
		if t.missed {
			t.missed = false
			c.invalidate(invalidateAll, true)
		}
	}
	c.sh.Invalidations.hear(c, !t.noloop)
	switch {
	case !t.noloop:
		c.sh.Invalidations.Broadcast(done)
	case t.own != nil:
		done()
	default:
		t.missed = t.missed || t.ready
		t.own = &backend.Identity{Private: true, Listener: (*privately)(c), Prefixes: slices.Clone(t.prefixes), DB: c.db}
		c.sh.Router.HearPrivately(t.own, done)
	}
	c.waitForAll()
}

// stopTracking ends it; messages on their way are not passed on any more.
func (c *Client) stopTracking() {
	if t := c.tracking; t != nil {
		c.tracking = nil
		c.sh.Invalidations.leave(c)
		c.endPrivate(t)
	}
}

func (c *Client) setCaching(mode []byte) []byte {
	t := c.tracking
	if t == nil {
		return lineNoCaching
	}
	switch strings.ToUpper(string(mode)) {
	case "YES":
		if !t.optin {
			return lineCachingYes
		}
	case "NO":
		if !t.optout {
			return lineCachingNo
		}
	default:
		return lineSyntax
	}
	t.caching = true
	return lineOK
}

func (c *Client) trackingInfo(dst []byte) []byte {
	flags, prefixes := []string{"off"}, []string(nil)
	if t := c.tracking; t != nil {
		flags[0], prefixes = "on", t.prefixes
		for _, f := range []struct {
			set  bool
			name string
		}{
			{t.bcast, "bcast"}, {t.optin, "optin"}, {t.optin && t.caching, "caching-yes"},
			{t.optout, "optout"}, {t.optout && t.caching, "caching-no"}, {t.noloop, "noloop"},
		} {
			if f.set {
				flags = append(flags, f.name)
			}
		}
	}
	dst = c.appendAggregate(dst, '%', 3)
	dst = c.appendAggregate(redcon.AppendBulkString(dst, "flags"), '~', len(flags))
	for _, f := range flags {
		dst = redcon.AppendBulkString(dst, f)
	}
	dst = redcon.AppendInt(redcon.AppendBulkString(dst, "redirect"), c.redirection())
	dst = redcon.AppendArray(redcon.AppendBulkString(dst, "prefixes"), len(prefixes))
	for _, p := range prefixes {
		dst = redcon.AppendBulkString(dst, p)
	}
	return dst
}

// appendAggregate begins a map or set of n entries, which is an array in RESP2.
func (c *Client) appendAggregate(dst []byte, kind byte, n int) []byte {
	at := len(dst)
	if c.proto == 2 && kind == '%' {
		n *= 2
	}
	dst = redcon.AppendArray(dst, n)
	if c.proto == 3 {
		dst[at] = kind
	}
	return dst
}

// consider tells for a command that is about to be handled whether its reads
// are tracked. CLIENT CACHING is for one command, or one transaction.
func (t *tracking) consider(c *Client, spec *command.Spec) {
	t.cached = t.caching
	t.now = !t.bcast && (!t.optin || t.caching) && (!t.optout || !t.caching)
	if t.now && c.proto == 2 {
		t.now, t.unheard = false, t.unheard || mayRead(spec)
	}
	t.uncache(c, spec)
}

// uncache ends what CLIENT CACHING said, behind most commands. spec is nil for one
// that is not known.
func (t *tracking) uncache(c *Client, spec *command.Spec) {
	switch {
	case spec == nil:
		t.caching = t.caching && c.inMulti()
	case strings.HasPrefix(spec.Name, "client|"), spec.Name == "multi":
	case c.inMulti() && spec.Name != "exec" && spec.Name != "discard":
	default:
		t.caching = false
	}
}

// again is called when a command must wait and will be handled again.
func (c *Client) again() {
	if c.tracking != nil {
		c.tracking.caching = c.tracking.cached
	}
}

// tracks tells if the command that is handled is to be tracked.
func (c *Client) tracks(spec *command.Spec) bool {
	return c.tracking != nil && c.tracking.now && mayRead(spec)
}

// mayRead tells if a server tracks the keys of a command: those of scripts may
// be read, too.
func mayRead(spec *command.Spec) bool {
	return spec.ReadOnly || spec.IsScript()
}

// tracked puts CLIENT CACHING YES in front of a request.
func (c *Client) tracked(r *backend.Request, raw []byte) []byte {
	before := 0
	if r.Block != nil {
		before = r.Block.Before
	} else {
		r.Block = &backend.Block{}
	}
	r.Block.Before, r.Block.Tracked = before+1, true
	c.sh.marked = append(append(c.sh.marked[:0], rawCaching...), raw...)
	marked := c.sh.marked
	if cap(marked) > keptScratch {
		c.sh.marked = nil
	}
	return marked
}

// saw enters the client under the keys of a tracked request whose reply is
// there. whole is its place in the client's order.
func (c *Client) saw(r, whole *backend.Request) {
	if c.Closed || c.tracking == nil || c.tracking.bcast {
		return
	}
	if r.As.IsPrivate() {
		c.sawPrivately(r, whole)
		return
	}
	keysRead(r.Raw(), func(key []byte) { c.sh.Invalidations.remember(string(key), c) })
	whole.Registered, c.shared, c.sh.Invalidations.dropped = true, true, false
}

// unkept is for what is read through a connection of the client's own, where it
// is not tracked: behind the reply the client is told to forget the keys.
func (c *Client) unkept(whole *backend.Request, raw []byte) {
	if c.tracking != nil && !c.tracking.bcast && c.proto == 3 {
		keysRead(raw, func(key []byte) { follow(whole, invalidation(key)) })
	}
}

// anyLimits are for requests that were accepted.
var anyLimits = resp.Limits{RequestBytes: math.MaxInt32, Args: math.MaxInt32, InlineBytes: math.MaxInt32}

// keysRead calls use with the keys that the commands in raw may read.
func keysRead(raw []byte, use func(key []byte)) {
	var args [][]byte
	var keys []int
	for len(raw) > 0 {
		var scan resp.Scanner
		n, err := scan.Scan(raw, &anyLimits, true)
		if n == 0 || err != nil {
			return
		}
		args, err = resp.Args(raw[:n], args[:0])
		raw = raw[n:]
		if err != nil || len(args) == 0 {
			return
		}
		spec, line := command.Lookup(args)
		if line != nil || !mayRead(spec) {
			continue
		}
		keys = spec.Keys(args, keys[:0])
		for _, k := range keys {
			use(args[k])
		}
	}
}
