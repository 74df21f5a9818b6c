package session

import (
	"bytes"
	"fmt"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
)

// SAVE.
//
// Goal: +OK means what it means in Redis, that everything that was written before
// is in the files of all masters, and no master stands still for it.
//
//  1. Every master is sent BGSAVE. A save that runs already at one of them is an
//     error, as it is for SAVE.
//  2. The masters are asked, at growing intervals, if the save has ended, and how.
//  3. A master that cannot begin, since it rewrites its append-only file, is sent
//     BGSAVE again when it is asked next. So is one that was replaced meanwhile
//     without a failure: what the one before it saved is not what counts.
//
// The client's next commands wait, as they would in Redis; others do not notice.
// A shard that fails is an error that names it; the saves of others go on.
type saving struct {
	client *Client
	whole  *backend.Request
	parts  []savingPart
	asked  []int // indices of the parts that are asked in this round
	until  int64 // on the loop's clock
	pause  time.Duration
	again  bool // not the first round
}

// savingPart is one shard.
type savingPart struct {
	shard string
	// master is who was asked last.
	master string
	state  savingState
}

type savingState uint8

const (
	savingDue savingState = iota
	savingRuns
	savingDone
)

const (
	// saveTimeout is how long a SAVE may take; the largest servers need minutes.
	saveTimeout = time.Hour
	// The first and the longest interval at which masters are asked.
	saveFirstPause = 10 * time.Millisecond
	saveLastPause  = 500 * time.Millisecond
)

var (
	rawBGSave      = []byte("*1\r\n$6\r\nBGSAVE\r\n")
	rawPersistence = []byte("*2\r\n$4\r\nINFO\r\n$11\r\npersistence\r\n")

	saveBegan    = []byte("+Background saving started")
	saveIsOn     = []byte("-ERR Background save already in progress")
	saveHindered = []byte("-ERR Another child process is active")
)

// save serves SAVE.
func (c *Client) save(spec *command.Spec) {
	s := &saving{client: c, whole: c.begin(spec), parts: make([]savingPart, len(c.sh.Table.Shards)), until: c.sh.Now + int64(saveTimeout), pause: saveFirstPause}
	for i := range s.parts {
		s.parts[i].shard = c.sh.Table.Shards[i].ID
	}
	s.ask()
	c.waitForAll()
}

// ask asks every shard that has not saved yet.
func (s *saving) ask() {
	sh := s.client.sh
	var shards []int
	var nodes []string
	s.asked = s.asked[:0]
	for i := range s.parts {
		p := &s.parts[i]
		if p.state == savingDone {
			continue
		}
		at := sh.shardNamed(p.shard)
		if at < 0 {
			s.fail(p, "it is not part of the cluster any more")
			return
		}
		master := sh.masterOf(at)
		if p.master != master {
			p.master, p.state = master, savingDue
		}
		s.asked, shards, nodes = append(s.asked, i), append(shards, at), append(nodes, sh.nodeOf(at))
	}
	n := len(s.asked)
	m := &merge{sh: sh, client: s.client, whole: s.whole, replies: make([][]byte, n), waiting: n, tolerant: true,
		join: func(m *merge, _ []byte) ([]byte, error) { s.take(m.replies); return nil, nil }}
	m.bound(nodes)
	for i, at := range shards {
		raw := rawBGSave
		if s.parts[s.asked[i]].state == savingRuns {
			raw = rawPersistence
		}
		m.send(i, at, raw)
	}
}

// take takes the answers of a round.
func (s *saving) take(replies [][]byte) {
	c := s.client
	sh := c.sh
	waits := -1
	for i, reply := range replies {
		p := &s.parts[s.asked[i]]
		at := sh.shardNamed(p.shard)
		switch {
		case at < 0 || sh.masterOf(at) != p.master:
			// It may have been either that answered: ask again.
		case p.state == savingRuns:
			text, err := fanout.Bulk(reply)
			switch {
			case err != nil:
				s.fail(p, said(reply))
				return
			case bytes.Contains(text, []byte("rdb_bgsave_in_progress:1")):
			case !bytes.Contains(text, []byte("rdb_last_bgsave_status:ok")):
				s.fail(p, "the file was not written, the log of "+sh.nodeOf(at)+" says why")
				return
			default:
				p.state = savingDone
			}
		case bytes.HasPrefix(reply, saveBegan):
			p.state = savingRuns
		case bytes.HasPrefix(reply, saveIsOn) && !s.again:
			c.Complete(s.whole, fmt.Appendf(nil, "%s at %s\r\n", saveIsOn, p.shard))
			return
		case bytes.HasPrefix(reply, saveIsOn), bytes.HasPrefix(reply, saveHindered):
		default:
			s.fail(p, said(reply))
			return
		}
		if p.state != savingDone {
			waits = s.asked[i]
		}
	}
	switch {
	case waits < 0:
		c.Complete(s.whole, lineOK)
	case s.whole.Owner == nil:
		c.Complete(s.whole, lineOK) // the client has gone
	case sh.Now >= s.until:
		s.fail(&s.parts[waits], "it did not end within "+saveTimeout.String()+" and goes on there, see LASTSAVE")
	default:
		pause := s.pause
		s.pause, s.again = min(2*pause, saveLastPause), true
		sh.Router.Async(func() { time.Sleep(pause) }, s.ask)
	}
}

// fail ends SAVE with an error that names the shard.
func (s *saving) fail(p *savingPart, why string) {
	s.client.Complete(s.whole, []byte("-ERR SAVE failed at "+p.shard+": "+why+"\r\n"))
}

// said is an error reply as part of a sentence.
func said(reply []byte) string {
	if len(reply) == 0 || reply[0] != '-' {
		return fanout.ErrReply.Error()
	}
	return string(bytes.TrimRight(bytes.TrimPrefix(reply[1:], []byte("ERR ")), "\r\n"))
}

// shardNamed is the index of a shard in the table, or -1.
func (s *Shared) shardNamed(id string) int {
	for i := range s.Table.Shards {
		if s.Table.Shards[i].ID == id {
			return i
		}
	}
	return -1
}

// masterOf says which incarnation of which node is a shard's master; "" while it
// has none.
func (s *Shared) masterOf(shard int) string {
	ts := &s.Table.Shards[shard]
	if i := ts.MasterIndex; i >= 0 && i < len(ts.Nodes) {
		return ts.Nodes[i].ID + " " + ts.Nodes[i].Incarnation
	}
	return ""
}
