package session

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/scripts"
)

// Scripts: EVAL, EVALSHA and FCALL.
//
// Goal: EVALSHA finds every script that was loaded through any proxy, at any
// master; a client's commands keep their order; nothing is executed twice; and
// a script that is where it is expected costs no more than any other command.
//
//  1. A script runs at the shard that owns the slot of its keys, or, without
//     keys, at the first shard that serves. What it does with keys that were not
//     named is its own problem, as in a Redis Cluster.
//  2. The source of an EVAL is new to this proxy, or found in a map; a new one is
//     remembered when the server has answered anything but that it did not take
//     it (package scripts). The client gets its reply when the Configserver keeps
//     it, so that EVALSHA finds it through any proxy from then on.
//  3. EVALSHA goes out as it came. When the server says NOSCRIPT it has not been
//     executed, so it may be sent again: the source is looked for, and SCRIPT
//     LOAD and EVALSHA go as one Block, of which only the second reply is passed
//     on. A second NOSCRIPT is passed on, too. (A script that itself returns this
//     error, to the letter, lies and runs twice: the README says so. Clients would
//     send it again as well.)
//  4. So that the client's next commands do not overtake an EVALSHA that has to be
//     sent again, they wait for its answer as long as it is not known that the
//     server has the script (Loaded). That is known from the first good answer
//     until the connection to the master is a new one.
//  5. If the script was flushed in spite of that, and later commands are on their
//     way, NOSCRIPT is passed on: order is worth more than a script that somebody
//     flushed at the same time.
//  6. EVALSHA in a transaction cannot be sent again. Those that are not known to
//     be there are looked for before it is sent, and put in front of MULTI.
//  7. What waits for a new master is given the sources that this proxy remembers
//     when it is released (WithSources), without asking whether they were flushed
//     meanwhile: it was accepted when they were not.

// Loaded are the scripts, by lower case SHA-1, that one server certainly has.
type Loaded map[string]struct{}

// maxLoaded bounds it; then it is learned anew.
const maxLoaded = 4096

func (l Loaded) add(sha string) {
	if l == nil {
		return
	}
	if len(l) >= maxLoaded {
		clear(l)
	}
	l[sha] = struct{}{}
}

// How long the Configserver may take: somebody waits.
const (
	findTimeout   = 500 * time.Millisecond
	settleTimeout = 500 * time.Millisecond
	keepTimeout   = time.Second
	flushTimeout  = 3 * time.Second
)

var (
	lineNoScript  = []byte("-NOSCRIPT No matching script. Please use EVAL.\r\n")
	lineNoScript8 = []byte("-NOSCRIPT No matching script.\r\n") // of Valkey from 8.0
	rawScriptLoad = []byte("*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n")
)

// knownScripts are those of the library that the loop has seen, by source.
type knownScripts struct {
	version uint64
	bySHA   map[string]*scripts.Script
}

// knows tells if the proxy remembers a source.
func (s *Shared) knows(source []byte) bool {
	k := &s.known
	if v := s.Scripts.Version(); v != k.version || k.bySHA == nil {
		k.version, k.bySHA = v, map[string]*scripts.Script{}
	}
	script := k.bySHA[string(source)]
	if script == nil {
		return false
	}
	s.Scripts.Use(script)
	return true
}

// remember adds a source of EVAL. It returns the script if the Configserver is to
// be waited for, which does not keep it yet; else nil.
func (s *Shared) remember(source []byte) *scripts.Script {
	if s.knows(source) {
		return nil
	}
	script := s.Scripts.Add(string(source))
	if script == nil {
		return nil
	}
	s.known.bySHA[script.Source] = script
	if !s.Scripts.Unsettled(script) {
		return nil
	}
	return script
}

// settle passes the reply to a request on to its owner when the Configserver keeps
// the scripts that came with it, or does not answer. piece is the last of the reply.
func (s *Shared) settle(r *backend.Request, piece []byte, kind byte, fresh []*scripts.Script) {
	r.Keep(bytes.Clone(r.Raw()))
	r.Out.Append(&s.Pool, piece)
	library := s.Scripts
	s.Router.Async(func() {
		ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
		defer cancel()
		for _, script := range fresh {
			library.Settle(ctx, script)
		}
	}, func() {
		if r.Owner == nil { // the client left
			r.Out.Reset(&s.Pool)
			s.Requests.Put(r)
			return
		}
		r.Owner.Reply(r, nil, true, kind)
	})
}

// script serves the commands that run a script or a function. It returns false
// when the client's earlier commands must be answered first.
func (c *Client) script(spec *command.Spec, args [][]byte, raw []byte, chunk *buffer.Chunk) bool {
	slot, line := spec.Slot(args)
	crosses := slot == command.ManySlots
	if crosses {
		slot, line = c.crossing(spec, args)
	}
	if c.extra != nil && c.extra.debugs {
		line = lineNoDebugger
	}
	if line != nil {
		c.answer(spec, line)
		c.release(chunk)
		return true
	}
	if !c.enter(slot, len(raw)) {
		return false
	}
	c.runScript(spec, slot, crosses, args, raw, chunk)
	return true
}

var lineNoDebugger = []byte("-ERR the script was not run: this connection asked for the debugger, and SCRIPT DEBUG is not supported behind the proxy, debug against a server of your own\r\n")

// noteDebugger remembers that a client asked for the debugger, which is refused.
// One that does not look at the answer, as redis-cli --ldb, believes that its
// scripts change nothing; so they are not run.
func (c *Client) noteDebugger(spec *command.Spec, args [][]byte, line []byte) {
	if spec == nil || spec.Name != "script|debug" || len(args) != 3 || !spec.Refuses(line) {
		return
	}
	switch strings.ToLower(string(args[2])) {
	case "yes", "sync":
		c.more().debugs = true
	case "no":
		c.more().debugs = false
	}
}

// runScript sends a script to the shard of its keys, which cross slots or not. It needs the
// first three arguments only, and uses up the chunk.
func (c *Client) runScript(spec *command.Spec, slot int, crosses bool, args [][]byte, raw []byte, chunk *buffer.Chunk) {
	sh := c.sh
	r := c.forward(spec, slot)
	if crosses {
		c.cross(r)
	}
	sure := true
	switch spec.Name {
	case "eval", "eval_ro":
		if !sh.knows(args[1]) {
			r.Owner = (*newScript)(c)
		}
	case "evalsha", "evalsha_ro":
		if sha := sh.lowerSHA(args[1]); sha != nil {
			r.Scripted = true
			loaded := sh.Router.Loaded(r)
			if _, sure = loaded[string(sha)]; sure || r.Replica {
				// Reads of a replica have no order among others.
				r.Owner, sure = (*bySHA)(c), true
			} else {
				r.Owner = &firstBySHA{client: c, sha: string(sha), loaded: loaded}
			}
		}
	}
	if raw[0] != '*' {
		raw = sh.encode(args)
	}
	switch {
	case c.tracks(spec):
		sh.Router.Route(r, c.tracked(r, raw))
		c.release(chunk)
	case chunk != nil:
		sh.Router.RouteChunk(r, chunk)
	default:
		sh.Router.Route(r, raw)
	}
	if !sure {
		c.waitForAll()
	}
}

// ClientOf is the client that gets a reply in pieces, as it comes; nil when the
// owner of the request is something else.
func ClientOf(owner backend.Owner) *Client {
	switch o := owner.(type) {
	case *Client:
		return o
	case *newScript:
		return (*Client)(o)
	case *bySHA:
		return (*Client)(o)
	case *firstBySHA:
		return o.client
	case *page:
		return (*Client)(o)
	case *unfit:
		return o.client
	case *publisher:
		return (*Client)(o)
	case *blockOwner:
		return ClientOf(o.inner)
	}
	return nil
}

// SenderOf is the client that sent what the owner of a request waits for; nil when
// there is none, or the request is about no key.
func SenderOf(owner backend.Owner) *Client {
	switch o := owner.(type) {
	case *split:
		return o.client
	case *merge:
		return o.client
	case *execution:
		return o.client
	case *publication:
		return o.client
	case *blockOwner:
		return o.client
	}
	return ClientOf(owner)
}

// IsUnwanted tells if the client that sent what an owner waits for is gone. A request
// that is sent little by little is wanted: what was begun goes on.
func IsUnwanted(owner backend.Owner) bool {
	if o, ok := owner.(*split); ok && o.long != nil {
		return false
	}
	c := SenderOf(owner)
	return c != nil && c.Closed
}

// finalArgs are the first three arguments of the last command of a request, and
// how many it has; there may be others of the proxy in front of it.
func finalArgs(spec *command.Spec, raw []byte) (args [][]byte, count int) {
	for {
		if args, count = resp.FirstArgs(raw, nil, 3); len(args) > 0 && strings.EqualFold(string(args[0]), spec.Name) {
			return args, count
		}
		var scan resp.Scanner
		n, err := scan.Scan(raw, &anyLimits, true)
		if n == 0 || err != nil || n == len(raw) {
			return nil, 0
		}
		raw = raw[n:]
	}
}

// lowerSHA returns a SHA-1 in lower case, in scratch memory; nil if it is none.
func (s *Shared) lowerSHA(arg []byte) []byte {
	if len(arg) != len(s.sha) {
		return nil
	}
	for i, b := range arg {
		if 'A' <= b && b <= 'F' {
			b |= 0x20
		}
		if (b < '0' || b > '9') && (b < 'a' || b > 'f') {
			return nil
		}
		s.sha[i] = b
	}
	return s.sha[:]
}

// newScript is a Client as the owner of an EVAL whose source is new.
type newScript Client

// Reply remembers the source, if the server took it.
func (o *newScript) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	c := (*Client)(o)
	if last {
		args, count := finalArgs(r.Spec, r.Raw())
		if len(args) > 2 && (kind != '-' || tookSource(args, count, r, piece)) {
			if script := c.sh.remember(args[1]); script != nil {
				r.Owner = c
				c.sh.settle(r, piece, kind, []*scripts.Script{script})
				return
			}
		}
	}
	c.Reply(r, piece, last, kind)
}

// Fail ends the request.
func (o *newScript) Fail(r *backend.Request, line []byte) { (*Client)(o).Fail(r, line) }

// notTaken begin the errors to a well-formed EVAL of a server that did not get as
// far as to keep the source.
var notTaken = [][]byte{
	[]byte("-ERR Error compiling"), []byte("-ERR Unexpected"), []byte("-ERR Unknown lua shebang"), []byte("-ERR Invalid script shebang"),
	[]byte("-BUSY"), []byte("-LOADING"), []byte("-MASTERDOWN"), []byte("-NOPERM"), []byte("-NOAUTH"),
}

// tookSource tells if a server that answered EVAL with an error has the source:
// most errors are of the script itself.
func tookSource(args [][]byte, count int, r *backend.Request, piece []byte) bool {
	if n, ok := command.Integer(args[2]); !ok || n < 0 || n > int64(count-3) {
		return false
	}
	text := whole(r, piece)
	for _, prefix := range notTaken {
		if bytes.HasPrefix(text, prefix) {
			return false
		}
	}
	return true
}

// whole is a reply of which piece is the last part.
func whole(r *backend.Request, piece []byte) []byte {
	if r.Out.Len() == 0 {
		return piece
	}
	return append(r.Out.Bytes(), piece...)
}

// bySHA is a Client as the owner of an EVALSHA of which it is known that the
// server has the script, or which goes to a replica.
type bySHA Client

// Reply passes a reply on, unless it is NOSCRIPT and the script can be found.
func (o *bySHA) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	c := (*Client)(o)
	if last && kind == '-' && isNoScript(whole(r, piece)) && (r.Following == nil || r.Replica) {
		if args, _ := finalArgs(r.Spec, r.Raw()); len(args) > 1 {
			c.findScript(r, string(c.sh.lowerSHA(args[1])), whole(r, piece))
			return
		}
	}
	c.Reply(r, piece, last, kind)
}

// Fail ends the request.
func (o *bySHA) Fail(r *backend.Request, line []byte) { (*Client)(o).Fail(r, line) }

// firstBySHA is the owner of an EVALSHA whose script the server may not have, and
// of one that is sent again.
type firstBySHA struct {
	client *Client
	sha    string
	loaded Loaded
	// again: it was sent again already.
	again bool
}

// Reply learns from a reply and passes it on, or looks for the script.
func (o *firstBySHA) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	c := o.client
	switch {
	case !last:
	case kind == '-' && isNoScript(whole(r, piece)):
		if !o.again {
			c.findScript(r, o.sha, whole(r, piece))
			return
		}
	case kind != '-':
		o.loaded.add(o.sha)
		c.sh.fetch(o.sha)
	}
	c.Reply(r, piece, last, kind)
}

// Fail ends the request.
func (o *firstBySHA) Fail(r *backend.Request, line []byte) { o.client.Fail(r, line) }

// fetch has a script remembered that was loaded through another proxy, so that
// it is here when the Configserver is not.
func (s *Shared) fetch(sha string) {
	if _, ok := s.Scripts.Peek(sha); ok {
		return
	}
	library := s.Scripts
	s.Router.Async(func() {
		ctx, cancel := context.WithTimeout(context.Background(), findTimeout)
		defer cancel()
		library.Find(ctx, []string{sha})
	}, nil)
}

// isNoScript tells if a server says that it does not have the script. It says no more
// than that: what else begins with NOSCRIPT is of a script that ran.
func isNoScript(line []byte) bool {
	return bytes.Equal(line, lineNoScript) || bytes.Equal(line, lineNoScript8)
}

// findScript looks for the source of an EVALSHA that was answered with NOSCRIPT,
// and sends it again. The request keeps its place in the order. said is the answer.
func (c *Client) findScript(r *backend.Request, sha string, said []byte) {
	sh := c.sh
	line := lineNoScript // said is not ours to keep
	if bytes.Equal(said, lineNoScript8) {
		line = lineNoScript8
	}
	r.Keep(bytes.Clone(r.Raw()))
	r.Out.Reset(&sh.Pool)
	// If the client closes meanwhile, this is not the owner any more.
	r.Owner = &firstBySHA{client: c, sha: sha}
	c.waitForAll()
	var found map[string]string
	sh.find([]string{sha}, &found, func() {
		if r.Owner == nil {
			sh.Requests.Put(r)
			return
		}
		if r.Slot < 0 {
			c.toAnyShard(r) // the table may be another
		}
		source, ok := found[sha]
		if !ok {
			c.Reply(r, line, true, '-')
			return
		}
		o := &firstBySHA{client: c, sha: sha, again: true}
		if !r.Replica {
			o.loaded = sh.Router.Loaded(r)
		}
		r.Owner, r.HeldSince = o, 0
		if r.Block == nil {
			r.Block = &backend.Block{}
		}
		r.Block.Before++
		r.Keep(append(appendLoad(nil, source), r.Raw()...))
		sh.Router.Route(r, r.Raw())
	})
}

// find asks the library, and calls done in the loop.
func (s *Shared) find(shas []string, found *map[string]string, done func()) {
	library := s.Scripts
	s.Router.Async(func() {
		ctx, cancel := context.WithTimeout(context.Background(), findTimeout)
		defer cancel()
		*found = library.Find(ctx, shas)
	}, done)
}

// appendLoad appends SCRIPT LOAD.
func appendLoad(dst []byte, source string) []byte {
	return redcon.AppendBulkString(append(dst, rawScriptLoad...), source)
}

// WithSources returns the bytes of a request that is released to a server that
// it may not have been meant for: with the sources of its scripts in front, as
// far as they are remembered.
func (s *Shared) WithSources(r *backend.Request, loaded Loaded, raw []byte) []byte {
	var shas []string
	if r.Block != nil {
		shas = r.Block.Scripts
	}
	if args, _ := finalArgs(r.Spec, raw); len(shas) == 0 && len(args) > 1 {
		if sha := s.lowerSHA(args[1]); sha != nil {
			shas = []string{string(sha)}
		}
	}
	var front []byte
	n := 0
	for _, sha := range shas {
		if _, ok := loaded[sha]; ok {
			continue
		}
		if source, ok := s.Scripts.Peek(sha); ok {
			front = appendLoad(front, source)
			loaded.add(sha) // whatever comes next comes after this
			n++
		}
	}
	if n == 0 {
		return raw
	}
	if r.Block == nil {
		r.Block = &backend.Block{}
	}
	r.Block.Before += n
	r.Block.Scripts = nil
	return append(front, raw...)
}
