package load

// The fan-out: one client publishes, many subscribers of its channel take the
// message, and when the last of them has it the next one is published. So at
// most one message is under way, nothing is under way when a measurement ends,
// and every message is verified at every subscriber.

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// FanOut holds a publisher and its subscribers at one target. It is not safe
// for concurrent use.
type FanOut struct {
	addr        netip.AddrPort
	epoll       int
	publisher   int
	subscribers []subscriber
	events      []unix.EpollEvent
	scratch     []byte
	sequence    uint32
	size        int
}

// subscriber has read have bytes of the message under way.
type subscriber struct{ fd, have int }

const channel = "bench:channel"

// subscribeLimit ends the wait for the confirmations of SUBSCRIBE, and for a
// message, in milliseconds.
const subscribeLimit = int(stallLimit / time.Millisecond)

// DialFanOut connects and subscribes. The caller closes it.
func DialFanOut(addr netip.AddrPort, subscribers, size int) (f *FanOut, err error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	f = &FanOut{addr: addr, epoll: epoll, publisher: -1, events: make([]unix.EpollEvent, 256), scratch: make([]byte, inputSize), size: size}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.publisher, err = dial(addr); err != nil {
		return f, err
	}
	request := "*2\r\n$9\r\nSUBSCRIBE\r\n$" + strconv.Itoa(len(channel)) + "\r\n" + channel + "\r\n"
	for i := range subscribers {
		fd, err := dial(addr)
		if err != nil {
			return f, fmt.Errorf("subscriber %d: %w", i, err)
		}
		f.subscribers = append(f.subscribers, subscriber{fd: fd})
		e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
			return f, fmt.Errorf("epoll_ctl: %w", err)
		}
		if _, err := unix.Write(fd, []byte(request)); err != nil {
			return f, fmt.Errorf("subscriber %d: %w", i, err)
		}
	}
	return f, f.collect([]byte("*3\r\n$9\r\nsubscribe\r\n$" + strconv.Itoa(len(channel)) + "\r\n" + channel + "\r\n:1\r\n"))
}

// Close closes all connections.
func (f *FanOut) Close() error {
	var errs []error
	for _, s := range f.subscribers {
		errs = append(errs, unix.Close(s.fd))
	}
	if f.publisher >= 0 {
		errs = append(errs, unix.Close(f.publisher))
	}
	return errors.Join(append(errs, unix.Close(f.epoll))...)
}

// Run publishes for about d. Result counts deliveries; its latency is from the
// write of PUBLISH to the read that brought a subscriber the message.
func (f *FanOut) Run(d time.Duration) (*Result, error) {
	r := &Result{}
	start := time.Now()
	for time.Since(start) < d {
		f.sequence++
		if err := f.publish(r); err != nil {
			return nil, err
		}
	}
	r.Elapsed = time.Since(start)
	return r, nil
}

func (f *FanOut) publish(r *Result) error {
	size := strconv.Itoa(f.size)
	message := appendValue([]byte("$"+size+"\r\n"), f.sequence, f.size)
	message = append(message, '\r', '\n')
	header := "$" + strconv.Itoa(len(channel)) + "\r\n" + channel + "\r\n"
	request := append([]byte("*3\r\n$7\r\nPUBLISH\r\n"+header), message...)
	sent := time.Now()
	if n, err := unix.Write(f.publisher, request); err != nil || n < len(request) {
		return fmt.Errorf("PUBLISH took %d of %d bytes: %w", n, len(request), err)
	}
	if err := f.collect(append([]byte("*3\r\n$7\r\nmessage\r\n"+header), message...)); err != nil {
		return err
	}
	// All at once, at the last one's time: subscribers that were served early
	// do not flatter the result.
	r.Latency.Record(time.Since(sent), len(f.subscribers))
	r.Requests += uint64(len(f.subscribers))
	return f.receivers()
}

// collect waits until every subscriber has read exactly want.
func (f *FanOut) collect(want []byte) error {
	for missing := len(f.subscribers); missing > 0; {
		n, err := unix.EpollWait(f.epoll, f.events, subscribeLimit)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return fmt.Errorf("%d of %d subscribers wait for %q: %w", missing, len(f.subscribers), want, errors.Join(err, errStalled))
		}
		for _, e := range f.events[:n] {
			s := &f.subscribers[e.Fd]
			n, errno := rawRead(s.fd, f.scratch)
			if errno == unix.EAGAIN || errno == unix.EINTR {
				continue
			}
			if errno != 0 || n == 0 {
				return fmt.Errorf("%s ended a subscriber's connection: %w", f.addr, errors.Join(errno, errStalled))
			}
			if s.have+n > len(want) || !bytes.Equal(f.scratch[:n], want[s.have:s.have+n]) {
				return fmt.Errorf("a subscriber read %q behind %d bytes of %q", f.scratch[:min(n, 120)], s.have, want)
			}
			if s.have += n; s.have == len(want) {
				s.have = 0
				missing--
			}
		}
	}
	return nil
}

var errStalled = errors.New("no more messages")

// receivers reads the reply to PUBLISH, which tells how many got the message.
func (f *FanOut) receivers() error {
	want := ":" + strconv.Itoa(len(f.subscribers)) + "\r\n"
	got := make([]byte, 0, 16)
	deadline := time.Now().Add(stallLimit)
	for len(got) < len(want) {
		n, errno := rawRead(f.publisher, got[len(got):cap(got)])
		switch {
		case errno == unix.EAGAIN || errno == unix.EINTR:
			if time.Now().After(deadline) {
				return fmt.Errorf("no reply to PUBLISH for %v", stallLimit)
			}
			wait := []unix.PollFd{{Fd: int32(f.publisher), Events: unix.POLLIN}}
			if _, err := unix.Poll(wait, subscribeLimit); err != nil && err != unix.EINTR {
				return fmt.Errorf("poll: %w", err)
			}
		case errno != 0 || n == 0:
			return fmt.Errorf("%s ended the publisher's connection: %w", f.addr, errors.Join(errno, errStalled))
		default:
			got = got[:len(got)+n]
		}
	}
	if string(got) != want {
		return fmt.Errorf("PUBLISH was answered %q, want %q", got, want)
	}
	return nil
}
