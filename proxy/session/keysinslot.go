package session

import (
	"fmt"
	"strconv"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
)

// slotScan serves CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT. A server without
// cluster mode has no list of the keys of a slot, so all keys of the shard are
// looked at: one SCAN after the other, between which others are served. It is
// the owner of these. A key that SCAN returns twice is counted once, so all are
// kept, as long as they are not more than a proxy should hold for one client. A
// cursor means nothing to another master: then the scan begins again.
type slotScan struct {
	client *Client
	whole  *backend.Request
	slot   int
	// most is how many keys are wanted; -1 to count all.
	most  int64
	found map[string]struct{}
	// size of what was found, in bytes; asked is the master that was asked last.
	size  int
	asked string
}

// scanStep is how many keys one SCAN looks at. keyOverhead is about what a key
// takes beside its name, in bytes.
const (
	scanStep    = 1000
	keyOverhead = 32
)

var (
	lineBadSlot  = []byte("-ERR Invalid slot\r\n")
	lineBadRange = []byte("-ERR Invalid slot or number of keys\r\n")
)

func (c *Client) keysInSlot(spec *command.Spec, args [][]byte) {
	at, ok := command.Integer(args[2])
	most, refusal := int64(-1), lineBadSlot
	if len(args) > 3 && ok {
		most, ok = command.Integer(args[3])
		if refusal = lineBadRange; most < 0 {
			at = -1
		}
	}
	switch {
	case !c.sh.ClusterMode:
		c.answer(spec, lineNoCluster)
	case !ok:
		c.answer(spec, lineInteger)
	case at < 0 || at >= slot.Count:
		c.answer(spec, refusal)
	case most == 0:
		c.answer(spec, lineEmpty)
	default:
		s := &slotScan{client: c, whole: c.begin(spec), slot: int(at), most: most, found: map[string]struct{}{}}
		s.whole.ReadOnly = true
		s.ask("0")
	}
}

// master is the master of the slot in the present table.
func (s *slotScan) master() string {
	sh := s.client.sh
	if owner := sh.ownerOf(s.slot); owner >= 0 {
		return sh.masterOf(owner)
	}
	return ""
}

func (s *slotScan) ask(cursor string) {
	sh := s.client.sh
	s.asked = s.master()
	r := sh.part(s.whole, s)
	r.Slot, r.ReadOnly = int32(s.slot), true
	sh.Router.Route(r, appendCommand(nil, [][]byte{[]byte("SCAN"), []byte(cursor), []byte("COUNT"), strconv.AppendInt(nil, scanStep, 10)}))
}

// Reply takes the reply to a SCAN.
func (s *slotScan) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	sh := s.client.sh
	reply := sh.Collect(r, piece, last)
	if !last {
		return
	}
	if kind == '-' {
		s.end(reply)
		return
	}
	cursor, err := s.collect(reply)
	switch {
	case err != nil:
		s.end([]byte("-ERR " + err.Error() + "\r\n"))
	case s.whole.Owner == nil || s.most >= 0 && int64(len(s.found)) >= s.most:
		s.end(s.answer())
	case sh.GatherLimit > 0 && s.size > sh.GatherLimit:
		s.end(fmt.Appendf(nil, "-ERR the names of the slot's keys are longer than %d bytes together; SCAN tells them in pieces\r\n", sh.GatherLimit))
	case s.master() != s.asked: // the cursor may be that of another one
		clear(s.found)
		sh.Merging -= int64(s.size)
		s.size = 0
		s.ask("0")
	case cursor == "0":
		s.end(s.answer())
	default:
		s.ask(cursor)
	}
}

// Fail ends it.
func (s *slotScan) Fail(r *backend.Request, line []byte) {
	r.Out.Reset(&s.client.sh.Pool)
	s.Reply(r, line, true, '-')
}

// collect takes the keys of the slot from one reply, and returns the cursor.
func (s *slotScan) collect(reply []byte) (cursor string, err error) {
	parts, err := fanout.Elements(reply)
	if err != nil || len(parts) != 2 {
		return "", fanout.ErrReply
	}
	text, err := fanout.Bulk(parts[0])
	if err != nil {
		return "", err
	}
	keys, err := fanout.Elements(parts[1])
	if err != nil {
		return "", err
	}
	for _, k := range keys {
		key, err := fanout.Bulk(k)
		if err != nil {
			return "", err
		}
		if int(slot.Of(key)) != s.slot {
			continue
		}
		if _, known := s.found[string(key)]; !known {
			s.found[string(key)] = struct{}{}
			s.size += len(key) + keyOverhead
			s.client.sh.Merging += int64(len(key) + keyOverhead)
		}
	}
	return string(text), nil
}

// end completes it.
func (s *slotScan) end(reply []byte) {
	s.client.sh.Merging -= int64(s.size)
	s.client.Complete(s.whole, reply)
}

func (s *slotScan) answer() []byte {
	if s.most < 0 {
		return redcon.AppendInt(nil, int64(len(s.found)))
	}
	n := min(int64(len(s.found)), s.most)
	reply := redcon.AppendArray(nil, int(n))
	for key := range s.found {
		if n--; n < 0 {
			break
		}
		reply = redcon.AppendBulkString(reply, key)
	}
	return reply
}
