package session

import (
	"math/rand/v2"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
)

// merge is a command that was sent to several shards: the owner of the parts.
// The client's own request, the whole, waits in the client's order.
type merge struct {
	sh      *Shared
	client  *Client
	whole   *backend.Request
	replies [][]byte
	waiting int
	// join makes the whole reply from all parts; it returns nil when somebody else
	// completes the whole.
	join func(m *merge, dst []byte) ([]byte, error)

	// nodes are who answers the parts; limit, size and deadline are the bounds of
	// a gathering (gather.go), over says that it ended before its parts did.
	nodes       []string
	limit, size int
	deadline    int64
	over        bool
	// tolerant: join looks at errors itself.
	tolerant bool
	// partial: it is answered without the parts that do not come. missing are who
	// should have sent them, failed is why one did not, if it is known, and began
	// when it was asked.
	partial bool
	missing []string
	failed  []byte
	began   int64

	// next is another one of the client's; heap is how many bytes of replies it
	// holds outside of the pool.
	next *merge
	heap int
}

// newMerge begins a command of n parts.
func (c *Client) newMerge(spec *command.Spec, n int, join func(*merge, []byte) ([]byte, error)) *merge {
	m := &merge{sh: c.sh, client: c, whole: c.begin(spec), replies: make([][]byte, n), waiting: n, join: join, next: c.merges}
	m.whole.Relayed = true
	c.merges = m
	return m
}

// settle takes it out of the accounts: it is about to be answered.
func (m *merge) settle() {
	for p := &m.client.merges; *p != nil; p = &(*p).next {
		if *p == m {
			*p = m.next
			break
		}
	}
	m.sh.Merging -= int64(m.heap)
	m.heap, m.replies = 0, nil
}

// dropMerges forgets answers that a client that is gone was to get. Those that
// change something are joined all the same, for others depend on it.
func (c *Client) dropMerges() {
	for m := c.merges; m != nil; {
		next := m.next
		if m.whole.ReadOnly && !m.over {
			m.end(lineEmpty)
		}
		m = next
	}
}

// send sends part i to a shard.
func (m *merge) send(i, shard int, raw []byte) {
	w := m.whole
	r := m.sh.part(w, m)
	r.Part, r.Slot, r.Shard = int32(i), command.NoSlot, int32(shard)
	r.ReadOnly, r.Replica = w.ReadOnly, w.Replica
	m.sh.Router.Route(r, raw)
}

// Reply takes a piece of the reply to a part.
func (m *merge) Reply(r *backend.Request, piece []byte, last bool, _ byte) {
	m.tooLong(len(piece))
	if m.over {
		r.Out.Reset(&m.sh.Pool)
		if last {
			m.sh.Requests.Put(r)
		}
		return
	}
	part := r.Part
	reply := m.sh.Collect(r, piece, last)
	if !last {
		return
	}
	m.replies[part] = reply
	m.heap += len(reply)
	m.sh.Merging += int64(len(reply))
	if m.waiting--; m.waiting == 0 {
		m.finish()
	}
}

// Fail fails the whole, once every part ended.
func (m *merge) Fail(r *backend.Request, line []byte) {
	r.Out.Reset(&m.sh.Pool)
	if m.partial {
		m.failPart(r, line)
		return
	}
	m.Reply(r, line, true, '-')
}

func (m *merge) finish() {
	if line := fanout.FirstError(m.replies); line != nil && !m.tolerant {
		m.settle()
		m.client.Complete(m.whole, line)
		return
	}
	reply, err := m.join(m, nil)
	m.settle()
	if err != nil {
		reply = []byte("-ERR " + err.Error() + "\r\n")
	}
	if reply != nil {
		m.client.Complete(m.whole, reply)
	}
}

// appendCommand appends a command as RESP.
func appendCommand(dst []byte, args [][]byte) []byte {
	dst = redcon.AppendArray(dst, len(args))
	for _, a := range args {
		dst = redcon.AppendBulk(dst, a)
	}
	return dst
}

var (
	noShards    = []byte("-CLUSTERDOWN the cluster has no shards yet\r\n")
	rawDBSize   = []byte("*1\r\n$6\r\nDBSIZE\r\n")
	rawRandom   = []byte("*1\r\n$9\r\nRANDOMKEY\r\n")
	nullBulk    = []byte("$-1\r\n")
	nullRESP3   = []byte("_\r\n")
	emptyRandom = map[uint8][]byte{2: nullBulk, 3: nullRESP3}
)

// allShards serves a command that concerns every shard.
func (c *Client) allShards(spec *command.Spec, args [][]byte) {
	sh := c.sh
	shards := len(sh.Table.Shards)
	if shards == 0 {
		c.answer(spec, noShards)
		return
	}
	if c.administer(spec, args) {
		return
	}
	switch spec.Name {
	case "scan":
		c.scanShards(spec, args, shards)
	case "dbsize", "flushall", "flushdb", "keys", "lastsave", "bgsave", "bgrewriteaof":
		c.broadcast(spec, args, joinReplies)
	case "save":
		c.save(spec)
	case "randomkey":
		c.randomKey(spec, shards)
	case "role":
		c.role(spec, args)
	case "info":
		if !c.infoOfShard(spec, args) {
			c.info(spec, args)
		}
	default:
		c.answer(spec, []byte("-ERR "+spec.Name+" cannot be joined from several shards\r\n"))
	}
}

// joinReplies joins the replies to commands that are the same for every shard.
func joinReplies(m *merge, dst []byte) ([]byte, error) {
	switch m.whole.Spec.Name {
	case "dbsize":
		return fanout.Sum(dst, m.replies)
	case "keys":
		return fanout.Concat(dst, m.replies)
	case "lastsave":
		return fanout.Least(dst, m.replies) // what was written before then is saved everywhere
	case "bgsave", "bgrewriteaof":
		return append(dst, m.replies[0]...), nil // started or, at some, scheduled
	default:
		return fanout.OK(dst, m.replies)
	}
}

// broadcast sends the command to every shard.
func (c *Client) broadcast(spec *command.Spec, args [][]byte, join func(*merge, []byte) ([]byte, error)) {
	sh := c.sh
	if spec.Write {
		c.touchAll()
	}
	m := c.newMerge(spec, len(sh.Table.Shards), join)
	m.whole.ReadOnly = spec.ReadOnly
	raw := appendCommand(nil, args)
	for i := range sh.Table.Shards {
		m.send(i, i, raw)
	}
}

// randomKey asks every shard for its number of keys and for one of them, and
// chooses among those with the weight of the numbers. It asks both at once: what
// the client sends behind it (FLUSHALL) must not come in between. A shard that is
// not there has none.
func (c *Client) randomKey(spec *command.Spec, shards int) {
	m := c.newSurvey(spec, 2*shards, chooseKey)
	for i := range shards {
		m.ask(i, i, rawDBSize)
		m.ask(shards+i, i, rawRandom)
	}
}

// chooseKey joins the replies of randomKey: first the numbers, then the keys. A
// shard all of whose keys have expired may have a number and no key.
func chooseKey(m *merge, dst []byte) ([]byte, error) {
	shards := len(m.replies) / 2
	sizes, keys := make([]int64, shards), m.replies[shards:]
	if line := m.nobody(shards); line != nil {
		return append(dst, line...), nil
	}
	var total int64
	for i := range shards {
		if m.replies[i] == nil || keys[i] == nil {
			continue
		}
		n, err := fanout.Integer(m.replies[i])
		if err != nil {
			return dst, err
		}
		if key, err := fanout.Bulk(keys[i]); err == nil && key != nil {
			sizes[i] = max(n, 1)
			total += sizes[i]
		}
	}
	if total == 0 {
		return append(dst, emptyRandom[m.whole.Proto]...), nil
	}
	at := rand.Int64N(total) //nolint:gosec // RANDOMKEY is no secret
	shard := 0
	for at >= sizes[shard] {
		at -= sizes[shard]
		shard++
	}
	return append(dst, keys[shard]...), nil
}
