package reactor

import (
	"log/slog"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/basalt-redis/basalt/proxy/session"
)

// adopt makes a client of an accepted socket.
func (l *loop) adopt(fd int, id uint64, addr netip.AddrPort) {
	if l.draining || l.stopped {
		_ = unix.Close(fd)
		l.clients.Add(-1)
		return
	}
	c := session.New(&l.sh, fd, id, addr)
	c.Slot = l.settle(place{client: c})
	c.Events = unix.EPOLLIN | unix.EPOLLRDHUP
	if err := l.control(unix.EPOLL_CTL_ADD, fd, c.Slot, c.Events); err != nil {
		l.log.Warn("client cannot be watched", "client", addr, "error", err)
		c.Close()
		return
	}
	l.counters.accepted++
}

// clientEvent serves one client. A stalled one is not read; its interest ends
// only when it would wake the loop in vain. The end of what a client sends is
// heard of even then, once, for it may be blocked.
func (l *loop) clientEvent(c *session.Client, events uint32) {
	if c.Closed {
		return
	}
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		c.Close()
		return
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP) != 0 {
		before := l.sh.BytesIn
		if !c.Stalled() {
			c.Readable(l.scratch)
		}
		if c.Received() > giant && l.rests(int(l.sh.BytesIn-before)) {
			l.restClient(c)
		}
		interest := c.Events
		if events&unix.EPOLLRDHUP != 0 && !c.Closed {
			c.HangUp()
			l.hungUp(c)
			interest &^= unix.EPOLLRDHUP
		}
		if c.Stalled() {
			interest &^= unix.EPOLLIN
		}
		if !c.Closed {
			l.watchClient(c, interest)
		}
	}
	if events&unix.EPOLLOUT != 0 && !c.Dirty {
		c.Dirty = true
		l.flushClients = append(l.flushClients, c)
	}
}

// watchClient changes what epoll tells about a client.
func (l *loop) watchClient(c *session.Client, events uint32) {
	if c.Events == events {
		return
	}
	c.Events = events
	if err := l.control(unix.EPOLL_CTL_MOD, c.FD, c.Slot, events); err != nil {
		c.Close()
	}
}

// Flush notes a client that has output, or was closed.
func (l *loop) FlushClient(c *session.Client) { l.flushClients = append(l.flushClients, c) }

// Resume notes a client that may be able to go on.
func (l *loop) Resume(c *session.Client) { l.resume = append(l.resume, c) }

// Yield notes a client that did its share of this wake-up and goes on in the
// next one.
func (l *loop) Yield(c *session.Client) { l.yielded = append(l.yielded, c) }

// resumeAll lets clients go on that had to wait. What they do may let others.
func (l *loop) resumeAll() {
	for i := 0; i < len(l.resume); i++ {
		c := l.resume[i]
		c.Resuming = false
		c.Resume()
		if !c.Closed && !c.Stalled() {
			l.watchClient(c, c.Events|unix.EPOLLIN)
		}
		l.resume[i] = nil
	}
	l.resume = l.resume[:0]
}

// flushAllClients writes what clients wait for, once each.
func (l *loop) flushAllClients() {
	for i := 0; i < len(l.flushClients); i++ {
		c := l.flushClients[i]
		l.flushClients[i] = nil
		if !c.Closed {
			left, full := c.Flush()
			switch {
			case c.Closed:
			case full && c.TooSlow():
				l.counters.tooSlow++
				if c.Subscribed() {
					l.counters.subscribersTooSlow++
				}
				l.eng.logs.tooSlow.log(l.eng, slog.LevelWarn, "client does not read its replies and is closed", "client", c.Address(), "name", c.Name(), "unread_bytes", c.Unsent())
				c.Close()
			case left:
				l.watchClient(c, c.Events|unix.EPOLLOUT)
			case c.Events&unix.EPOLLOUT != 0:
				l.watchClient(c, c.Events&^unix.EPOLLOUT)
			}
		}
		c.Dirty = false
		if c.Closed {
			l.forgetClient(c)
		}
	}
	l.flushClients = l.flushClients[:0]
}

// forgetClient closes the socket of a closed client.
func (l *loop) forgetClient(c *session.Client) {
	if c.FD < 0 {
		return
	}
	l.leave(c.Slot)
	l.clients.Add(-1) // before others can know that it is gone
	// Nothing can be done about an error of close.
	_ = unix.Close(c.FD)
	c.FD = -1
}

// eachClient calls fn for every open client.
func (l *loop) eachClient(fn func(c *session.Client)) {
	for i := range l.places {
		if c := l.places[i].client; c != nil && !c.Closed {
			fn(c)
		}
	}
}

// drain lets clients finish what they sent, then the loop ends.
func (l *loop) drain() {
	l.draining = true
	l.eachClient(func(c *session.Client) { c.Drain(l.scratch) })
}
