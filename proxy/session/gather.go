package session

import (
	"fmt"
	"time"
)

// Bounds of a gathering. A merge that has them ends with an error when a shard
// does not answer in time, and when the answers together are longer than a
// proxy should hold for one client. Answers that come afterwards are dropped;
// the order on the servers' connections stays.

// bound gives a merge its bounds; nodes are who answers its parts.
func (m *merge) bound(nodes []string) {
	m.nodes, m.limit = nodes, m.sh.GatherLimit
	if m.sh.GatherTimeout > 0 {
		m.deadline = m.sh.Now + m.sh.GatherTimeout
		m.sh.gathering = append(m.sh.gathering, m)
	}
}

// Overdue ends the gatherings that are past their time. The loop calls it now
// and then.
func (s *Shared) Overdue() {
	kept := s.gathering[:0]
	for _, m := range s.gathering {
		switch {
		case m.over || m.waiting == 0 || m.deadline == 0:
		case m.deadline <= s.Now:
			m.end([]byte(m.late()))
		default:
			kept = append(kept, m)
		}
	}
	clear(s.gathering[len(kept):])
	s.gathering = kept
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
