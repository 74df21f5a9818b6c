package session

import (
	"bytes"
	"strings"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
	"github.com/basalt-redis/basalt/proxy/pubsub"
)

// An execution is a transaction with commands that one shard cannot answer:
// those about the client or the proxy (CLIENT, CONFIG GET, COMMAND) and those
// about every shard (DBSIZE, KEYS, SCAN, FLUSHALL, INFO, PUBSUB). Libraries wrap whole
// pipelines in MULTI, so such commands are to be expected there.
//
// Goal: they happen only if EXEC does, in their order, and their replies stand
// in the array of EXEC where they belong.
//
//  1. The transaction's shard executes the block as always. If that fails, or
//     WATCH finds a change, its reply is the reply of EXEC, and no more happens.
//  2. DBSIZE, KEYS, FLUSHALL, FLUSHDB and SLOWLOG RESET are in the block themselves, so that
//     they see, and clear, the state of that shard at their place in the
//     transaction. Then the other shards, which the transaction cannot change
//     in any other way, are asked, and the replies joined.
//  3. SELECT is in the block as well, and its answer there tells the database of
//     what follows it. The block ends with a SELECT that gives the connection,
//     which is others' too, its own database again; its element is left out.
//  4. PUBLISH goes where all messages of ordinary channels go (pubsub), so that it has
//     its place among them, and is in the block only where there is a single shard.
//  5. All others are answered now, in their order. SCAN, RANDOMKEY and INFO
//     thereby show the state behind the transaction, which what they promise
//     allows.
//
// A transaction is atomic on its shard only: between EXEC there and FLUSHALL
// at other shards others may be served. That is so without MULTI, too. When a
// shard cannot be asked, the element is an error, as for a command that failed.
//
// The client's next commands wait until all is answered (Client.exec), for they
// may depend on what AUTH or READONLY changed.
type execution struct {
	client *Client
	// whole is EXEC in the client's order.
	whole  *backend.Request
	asides []aside
	count  int
	// slot, or if that is -1 the shard, that executes the block.
	slot  int
	shard string
	// elements are the server's, replies those of asides.
	elements, replies [][]byte
	missing           int
	// sent is the number of elements that the server returns, and homing how many
	// of those stand behind the client's own.
	sent, homing int
	// running is the index of the aside that was begun last, next that of the one
	// to begin next; beginning is set while proceed runs.
	running, next int
	beginning     bool
}

// aside is a command that is answered by an execution.
type aside struct {
	spec *command.Spec
	args [][]byte
	// at is its index in the transaction, own that in the block, or -1.
	at, own int
	// tag is that of the master whose cursor it has in the block; 0 for one that any
	// takes.
	tag uint8
	// line is the answer when the user may not run it any more.
	line []byte
}

// handling is how a transaction deals with a command.
type handling uint8

const (
	// served: the server answers it, in the block.
	served handling = iota
	// alsoOthers: in the block, and then by all other shards. alsoHere: in the
	// block, and then by the proxy.
	alsoOthers
	alsoHere
	// passedOn: in the block, and the cursor in the reply is the proxy's matter.
	passedOn
	// aloneAfter: by the proxy, after the block.
	aloneAfter
	// refused: it cannot be in a transaction.
	refused
)

// handlingOf decides. What is not known to be right is refused.
func handlingOf(spec *command.Spec) handling {
	switch spec.Kind {
	case command.Keyed, command.Split, command.Script, command.AnyShard:
		if spec.Cursor > 0 {
			return passedOn
		}
		return served
	case command.ScriptAdmin:
		return scriptHandling(spec)
	case command.AllShards:
		switch spec.Name {
		case "dbsize", "keys", "flushall", "flushdb", "slowlog|reset", "lastsave", "bgsave", "bgrewriteaof":
			return alsoOthers
		case "scan", "randomkey", "info", "role", "debug":
			return aloneAfter
		}
		switch container, _, _ := strings.Cut(spec.Name, "|"); container {
		case "slowlog", "latency", "memory", "config":
			return aloneAfter
		}
		return refused
	}
	switch spec.Name {
	case "publish":
		return aloneAfter
	case "spublish":
		return alsoHere
	case "pubsub|channels", "pubsub|numpat", "pubsub|numsub", "pubsub|shardchannels", "pubsub|shardnumsub", "pubsub|help":
		return aloneAfter
	case "ping", "echo", "time", "unwatch", "wait", "waitaof":
		return served
	case "select":
		return alsoHere
	case "acl|whoami", "acl|cat", "acl|list", "acl|users", "acl|getuser", "acl|setuser", "acl|deluser", "acl|genpass", "acl|dryrun", "acl|log",
		"acl|load", "acl|save", "acl|help":
		return aloneAfter
	case "auth", "hello", "readonly", "readwrite", "command", "config|set",
		"command|count", "command|docs", "command|getkeys", "command|getkeysandflags", "command|info", "command|list",
		"client|id", "client|getname", "client|setname", "client|setinfo", "client|info", "client|list", "client|kill", "client|pause", "client|unpause", "client|unblock", "monitor", "client|no-evict", "client|no-touch", "client|capa", "client|help",
		"client|tracking", "client|caching", "client|getredir", "client|trackinginfo":
		return aloneAfter
	case "asking", "cluster|slots", "cluster|shards", "cluster|nodes", "cluster|info", "cluster|myid", "cluster|myshardid", "cluster|keyslot", "cluster|links", "cluster|help":
		return aloneAfter
	}
	return refused
}

// putAside keeps a command for the execution.
func (t *transaction) putAside(spec *command.Spec, args [][]byte, how handling) []byte {
	a := aside{spec: spec, at: t.count, own: -1, args: CloneArgs(args)}
	if how == alsoOthers || how == alsoHere || how == passedOn {
		a.own = t.sent
	}
	for _, arg := range args {
		t.asideBytes += len(arg)
	}
	if t.asideBytes > maxAsideBytes || len(t.asides) >= maxAsides {
		return lineTooMany
	}
	t.asides = append(t.asides, a)
	return nil
}

// execute makes the execution of a transaction. It returns the request for the
// server, or nil when none is needed; all is then on its way.
func (c *Client) execute(t *transaction, whole *backend.Request) *backend.Request {
	sh := c.sh
	whole.Relayed = true
	e := &execution{client: c, whole: whole, asides: t.asides, count: t.count, slot: t.slot, sent: t.sent + t.homing(), homing: t.homing(), replies: make([][]byte, len(t.asides)), running: -1}
	if t.sent == 0 && t.pin == nil {
		e.run()
		c.waitForAll()
		return nil
	}
	if t.slot < 0 && len(sh.Table.Shards) > 0 {
		e.shard = sh.Table.Shards[sh.servingShard()].ID
	}
	r := sh.part(whole, e)
	r.Part = -1
	return r
}

// Reply takes the server's reply to EXEC (Part -1), or that of an aside.
func (e *execution) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	sh := e.client.sh
	r.Out.Append(&sh.Pool, piece)
	if !last {
		return
	}
	if r.Block != nil && r.Block.Tracked {
		e.client.saw(r, e.whole)
	}
	reply, part := r.Out.Bytes(), r.Part
	r.Out.Reset(&sh.Pool)
	sh.Requests.Put(r)
	if part >= 0 {
		e.replies[part] = reply
		e.answered()
		return
	}
	elements, err := fanout.Elements(reply)
	switch {
	case kind == '-' || bytes.Equal(reply, nullArray(e.whole.Proto)):
		e.client.Complete(e.whole, reply)
	case err != nil || len(elements) != e.sent:
		e.client.Complete(e.whole, []byte("-ERR "+fanout.ErrReply.Error()+"\r\n"))
	default:
		e.elements = elements[:len(elements)-e.homing]
		e.run()
	}
}

// Fail ends the transaction, or one aside, without a reply of the server.
func (e *execution) Fail(r *backend.Request, line []byte) {
	r.Out.Reset(&e.client.sh.Pool)
	e.Reply(r, line, true, '-')
}

// run answers the asides, in order.
func (e *execution) run() {
	e.missing = len(e.asides) + 1
	e.proceed()
}

// proceed begins asides, up to one that must wait for an answer. While it does,
// requests that the client begins belong to the execution (Client.modal).
func (e *execution) proceed() {
	c := e.client
	mode, as := c.mode, c.as
	c.mode, c.inside, c.as, e.beginning = replyInside, e, nil, true
	for e.next < len(e.asides) {
		a := &e.asides[e.next]
		begun := len(e.asides) - e.next + 1
		if e.missing > begun && (a.ordered() || e.asides[e.next-1].ordered()) {
			break
		}
		e.running = e.next
		e.next++
		if a.line == nil && a.own < 0 {
			a.line = c.forbiddenInExec(a.spec, a.args) // AUTH may have come before it
		}
		switch {
		case a.line != nil:
			e.replies[e.running] = a.line
			e.answered()
		case a.spec.Name == "select":
			e.selected(a)
		case a.spec.Cursor > 0 && a.own >= 0:
			e.paged(a)
		case a.own >= 0 && a.spec.Kind == command.PubSub:
			e.published(a)
		case a.own >= 0:
			e.askOthers(a)
		case c.Closed:
			e.answered() // nobody would see it, and it changes nothing
		case a.spec.Kind == command.AllShards:
			c.allShards(a.spec, a.args)
		case a.spec.Name == "publish":
			c.publish(a.spec, pubsub.Channel, a.args, appendCommand(nil, a.args), nil)
		case a.spec.Kind == command.PubSub:
			c.askPubSub(a.spec, a.args)
		case a.spec.Kind == command.ScriptAdmin:
			c.scriptAdmin(a.spec, a.args)
		default:
			c.local(a.spec, a.args, nil)
			c.show(a.spec, a.args)
		}
	}
	c.mode, c.inside, c.as, e.beginning = mode, nil, as, false
	if e.next == len(e.asides) {
		e.answered()
	}
}

// ordered tells if an aside waits until those before it are answered, and those
// behind it wait for it: only what reads may be under way together.
func (a *aside) ordered() bool {
	return a.spec.Write || a.spec.Kind != command.AllShards && a.spec.Kind != command.PubSub
}

// askOthers joins the reply of the transaction's shard with those of the others.
func (e *execution) askOthers(a *aside) {
	c := e.client
	sh := c.sh
	own := e.elements[a.own]
	home := e.home()
	if a.spec.Name == "slowlog|reset" {
		sh.Router.ForgetSlow()
	}
	var others []int
	for i := range sh.Table.Shards {
		if i != home {
			others = append(others, i)
		}
	}
	if own[0] == '-' || len(others) == 0 && a.spec.Name != "script|load" {
		e.replies[e.running] = own
		e.answered()
		return
	}
	if a.spec.Write {
		c.touchAll()
	}
	join := joinReplies
	if a.spec.Kind == command.ScriptAdmin {
		join = func(m *merge, _ []byte) ([]byte, error) { return joinScripts(m, a.args, append(others, home)) }
	}
	m := c.newMerge(a.spec, len(others)+1, join)
	m.whole.ReadOnly = a.spec.ReadOnly
	m.tolerant = a.spec.Kind == command.ScriptAdmin
	m.replies[len(others)] = own
	m.waiting--
	m.toScripts(others, appendCommand(nil, a.args))
	if len(others) == 0 {
		m.finish() // only the Configserver must still hear of it
	}
}

// published corrects the number of receivers of a message that was published in the
// block.
func (e *execution) published(a *aside) {
	r := e.client.sh.part(e.whole, e)
	r.Spec, r.Part = a.spec, int32(e.running)
	e.client.published(r, e, a.args, e.elements[a.own])
}

// selected follows a SELECT of the transaction.
func (e *execution) selected(a *aside) {
	own := e.elements[a.own]
	if db, line := database(a.args[1]); line == nil && bytes.Equal(own, lineOK) {
		e.client.db = db
	}
	e.replies[e.running] = own
	e.answered()
}

// paged puts the client's cursor in place of the server's in the reply to an HSCAN,
// SSCAN or ZSCAN of the transaction. When another master executed it than the one
// whose cursor it had, the iteration begins again.
func (e *execution) paged(a *aside) {
	own := e.elements[a.own]
	tag := e.client.sh.tagOf(e.home())
	head, server, err := fanout.PageHead(own)
	switch {
	case err != nil || head == 0: // an error of the server
	case a.tag != 0 && a.tag != tag:
		again, _ := fanout.Cursor{Tag: tag}.Encode(1) // it fits
		own = redcon.AppendArray(fanout.AppendPage(nil, again), 0)
	default:
		cursor, err := fanout.Passed(server, tag)
		if err != nil {
			own = []byte("-ERR " + err.Error() + "\r\n")
			break
		}
		own = append(fanout.AppendPage(nil, cursor), own[head:]...)
	}
	e.replies[e.running] = own
	e.answered()
}

// home is the index of the shard that executed the block, or -1.
func (e *execution) home() int {
	sh := e.client.sh
	if e.slot >= 0 {
		return sh.ownerOf(e.slot)
	}
	for i := range sh.Table.Shards {
		if sh.Table.Shards[i].ID == e.shard {
			return i
		}
	}
	return -1
}

// answered counts an answered aside; after the last it completes EXEC.
func (e *execution) answered() {
	if e.missing--; e.missing > 0 {
		if !e.beginning && e.next < len(e.asides) {
			e.proceed()
		}
		return
	}
	reply := redcon.AppendArray(nil, e.count)
	elements, asides, replies := e.elements, e.asides, e.replies
	for i := range e.count {
		if len(asides) == 0 || asides[0].at != i {
			reply = append(reply, elements[0]...)
			elements = elements[1:]
			continue
		}
		if asides[0].own >= 0 {
			elements = elements[1:]
		}
		reply = append(reply, replies[0]...)
		asides, replies = asides[1:], replies[1:]
	}
	e.client.Complete(e.whole, reply)
}
