package session

import (
	"fmt"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
)

// Bounds of a gathering. A merge that has them ends with an error when a shard
// does not answer in time, and when the answers together are longer than a
// proxy should hold for one client. Answers that come afterwards are dropped;
// the order on the servers' connections stays.
//
// What only tells about servers (INFO, ROLE, SLOWLOG, PUBSUB …) is partial: it
// does not need a shard that is not there.
//
//  1. A shard whose master has been away for Patience is not asked.
//  2. The others have Patience to answer. A failover of a master that died is
//     shorter, so its shard is in the answer.
//  3. The answer is joined from those that came. Where there is room for a line, it
//     says which shards are missing. When none came, it is an error.
//
// What changes something at all servers (CONFIG RESETSTAT, SLOWLOG RESET …) does so
// where it can, and is an error that names the shards that are missing. It does not
// wait for one that is away, either, but for one that is slow.

// Patience is how long, in nanoseconds, a shard that is not there is waited for by
// those who can do without it. With the time until somebody looks at it (100 ms) it
// is less than the second in which monitoring expects an answer.
const Patience = int64(800 * time.Millisecond)

// bound gives a merge its bounds; nodes are who answers its parts.
func (m *merge) bound(nodes []string) {
	m.nodes, m.limit = nodes, m.sh.GatherLimit
	if m.sh.GatherTimeout > 0 {
		m.until(m.sh.Now + m.sh.GatherTimeout)
	}
}

// until ends a merge at a time, unless it ended before.
func (m *merge) until(deadline int64) {
	m.deadline = deadline
	m.sh.gathering = append(m.sh.gathering, m)
}

// patient is when a partial merge that begins now is over.
func (s *Shared) patient() int64 {
	if s.GatherTimeout > 0 {
		return s.Now + min(Patience, s.GatherTimeout)
	}
	return s.Now + Patience
}

// Overdue ends the gatherings that are past their time. The loop calls it now
// and then.
func (s *Shared) Overdue() {
	if len(s.gathering) == 0 {
		return
	}
	due := s.gathering
	s.gathering = nil
	for _, m := range due {
		switch {
		case m.over || m.waiting == 0 || m.deadline == 0:
		case m.deadline > s.Now:
			s.gathering = append(s.gathering, m)
		case m.partial && !m.whole.ReadOnly && m.mayAnswer():
			// It is slow, not away.
			m.partial = false
			m.until(m.began + s.GatherTimeout)
		case m.partial:
			m.over = true
			m.finish()
		default:
			m.end([]byte(m.late()))
		}
	}
}

// mayAnswer tells if all that have not answered have connections.
func (m *merge) mayAnswer() bool {
	for i, reply := range m.replies {
		if reply == nil && i < len(m.sh.Table.Shards) && m.sh.Router.Away(i) {
			return false
		}
	}
	return m.began+m.sh.GatherTimeout > m.sh.Now
}

// late is the error of a gathering that took too long.
func (m *merge) late() string {
	who := "a shard"
	for i, reply := range m.replies {
		if reply == nil && i < len(m.nodes) {
			who = m.nodes[i]
			break
		}
	}
	what := ""
	if !m.whole.ReadOnly {
		what = "; it may or may not have done it, the others did"
	}
	return fmt.Sprintf("-ERR %s did not answer within %s%s\r\n", who, time.Duration(m.sh.GatherTimeout), what)
}

// ask sends a part of a partial merge, unless the shard is away.
func (m *merge) ask(i, shard int, raw []byte) {
	if m.sh.Router.Away(shard) {
		m.miss(nil)
		return
	}
	m.send(i, shard, raw)
}

// miss does without a part; line, if not nil, is why.
func (m *merge) miss(line []byte) {
	if m.failed == nil {
		m.failed = line
	}
	if m.waiting--; m.waiting == 0 && !m.over {
		m.finish()
	}
}

// failPart is Fail for a part of a partial merge.
func (m *merge) failPart(r *backend.Request, line []byte) {
	m.sh.Requests.Put(r)
	if !m.over {
		m.miss(line)
	}
}

var lineAllAway = []byte("-CLUSTERDOWN no shard has a master that answers; retry later\r\n")

// nobody is an error line when none of the first n parts came.
func (m *merge) nobody(n int) []byte {
	for _, reply := range m.replies[:n] {
		if reply != nil {
			return nil
		}
	}
	if m.failed != nil {
		return m.failed
	}
	return lineAllAway
}

// leaveOut takes the parts out that did not come, of which missing has the names.
// It returns an error line when there is nothing left, or when something was to be
// changed there.
func (m *merge) leaveOut() (line []byte) {
	if line := m.nobody(len(m.replies)); line != nil {
		return line
	}
	var replies [][]byte
	var nodes []string
	for i, reply := range m.replies {
		if reply == nil {
			m.missing = append(m.missing, m.nodes[i])
			continue
		}
		replies, nodes = append(replies, reply), append(nodes, m.nodes[i])
	}
	if len(m.missing) > 0 && !m.whole.ReadOnly {
		return fmt.Appendf(nil, "-ERR %s did not answer; it may or may not have been done there, at the others it was\r\n", strings.Join(m.missing, ", "))
	}
	m.replies, m.nodes = replies, nodes
	return nil
}

// oneOf has any shard answer what all know, and calls take with the reply, which may
// be an error. A shard that does not answer in time is given up for the next.
func (c *Client) oneOf(whole *backend.Request, raw []byte, take func(m *merge, reply []byte) ([]byte, error), tried ...string) {
	sh := c.sh
	whole.ReadOnly = true
	at := sh.servingShard(tried...)
	m := &merge{sh: sh, client: c, whole: whole, replies: make([][]byte, 1), waiting: 1, next: c.merges, tolerant: true}
	c.merges = m
	m.join = func(m *merge, _ []byte) ([]byte, error) {
		if m.replies[0] != nil {
			return take(m, m.replies[0])
		}
		if len(tried)+1 < len(sh.Table.Shards) && whole.Owner != nil {
			c.oneOf(whole, raw, take, append(tried, sh.idOf(at))...)
			return nil, nil
		}
		return m.nobody(1), nil
	}
	m.partly()
	m.send(0, at, raw)
}

// idOf is the id of a shard, "" when there is none.
func (s *Shared) idOf(shard int) string {
	if shard < len(s.Table.Shards) {
		return s.Table.Shards[shard].ID
	}
	return ""
}

// end completes the whole before all parts have ended.
func (m *merge) end(line []byte) {
	m.over = true
	m.settle()
	m.client.Complete(m.whole, line)
}

// tooLong ends a gathering whose answers are more than may be held.
func (m *merge) tooLong(more int) {
	if m.size += more; m.limit > 0 && m.size > m.limit && !m.over {
		m.end(fmt.Appendf(nil, "-ERR the answers of the shards are longer than %d bytes together; ask one server as its admin\r\n", m.limit))
	}
}

// gather sends a command to every shard and joins the answers, within bounds.
func (c *Client) gather(spec *command.Spec, args [][]byte, join func(*merge, []byte) ([]byte, error)) *merge {
	m := c.newMerge(spec, len(c.sh.Table.Shards), join)
	m.whole.ReadOnly = readsOnly(spec)
	m.bound(c.sh.masters())
	raw := appendCommand(nil, args)
	for i := range m.replies {
		m.send(i, i, raw)
	}
	return m
}

// survey does so without the shards that are not there: join finds the answers that
// came.
func (c *Client) survey(spec *command.Spec, args [][]byte, join func(*merge, []byte) ([]byte, error)) *merge {
	m := c.newSurvey(spec, len(c.sh.Table.Shards), func(m *merge, dst []byte) ([]byte, error) {
		if line := m.leaveOut(); line != nil {
			return line, nil
		}
		return join(m, dst)
	})
	m.whole.ReadOnly = readsOnly(spec)
	raw := appendCommand(nil, args)
	for i := range m.replies {
		m.ask(i, i, raw)
	}
	return m
}

// newSurvey begins a command of n parts that is answered without those that do not
// come; join finds nil in their place.
func (c *Client) newSurvey(spec *command.Spec, n int, join func(*merge, []byte) ([]byte, error)) *merge {
	m := c.newMerge(spec, n, join)
	m.whole.ReadOnly = true
	m.partly()
	return m
}

// partly makes a merge partial.
func (m *merge) partly() {
	m.partial, m.began, m.nodes, m.limit = true, m.sh.Now, m.sh.masters(), m.sh.GatherLimit
	m.until(m.sh.patient())
}

// masters names the masters of all shards.
func (s *Shared) masters() []string {
	nodes := make([]string, len(s.Table.Shards))
	for i := range nodes {
		nodes[i] = s.nodeOf(i)
	}
	return nodes
}
