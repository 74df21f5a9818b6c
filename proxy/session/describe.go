package session

import (
	"net/netip"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/pubsub"
)

// Describe appends the client's line in CLIENT LIST, without its line end: the
// fields of Redis 7.0 in its order, for programs that parse them, and behind
// them what the client said with CLIENT SETINFO, as Redis 7.2 has it.
//
// What has no exact counterpart here: qbuf is what was read and not handled,
// with the request that is being answered; argv-mem the requests in flight;
// rbs and rbp the first piece of memory for replies, obl what waits in it, oll
// and omem the further pieces.
func (c *Client) Describe(dst []byte) []byte {
	x := c.extra
	if x == nil {
		x = &extra{}
	}
	number := func(key string, n int64) {
		dst = strconv.AppendInt(append(append(append(dst, ' '), key...), '='), n, 10)
	}
	text := func(key, s string) { dst = append(append(append(append(dst, ' '), key...), '='), s...) }
	seconds := func(since int64) int64 { return (c.sh.Now - since) / int64(time.Second) }

	dst = strconv.AppendUint(append(dst, "id="...), c.id, 10)
	text("addr", c.addr.String())
	text("laddr", c.LocalAddress().String())
	number("fd", int64(c.FD))
	text("name", x.name)
	number("age", seconds(c.created))
	number("idle", seconds(c.active))
	text("flags", c.flags())
	number("db", int64(c.db))
	number("sub", c.listens(pubsub.Channel))
	number("psub", c.listens(pubsub.Pattern))
	number("ssub", c.listens(pubsub.Shard))
	queued, queuedBytes := int64(-1), int64(0)
	if c.inMulti() {
		queued = int64(c.tx.count)
		if c.tx.block != nil {
			queuedBytes = int64(len(c.tx.block.B))
		}
		queuedBytes += int64(c.tx.asideBytes)
	}
	number("multi", queued)
	kept, spare := int64(c.asking), int64(0)
	if c.in != nil {
		kept += int64(len(c.in.B))
		spare = int64(cap(c.in.B) - len(c.in.B))
	}
	number("qbuf", kept)
	number("qbuf-free", spare)
	inFlight := int64(c.asking)
	for r := c.first; r != nil; r = r.Following {
		inFlight += int64(len(r.Raw()))
	}
	number("argv-mem", inFlight)
	number("multi-mem", queuedBytes)
	first, pieces, further := c.out.Pieces()
	number("rbs", first)
	number("rbp", first)
	number("obl", int64(len(c.out.First())))
	number("oll", int64(max(pieces-1, 0)))
	number("omem", further)
	number("tot-mem", int64(unsafe.Sizeof(*c))+first+further+kept+spare+inFlight+queuedBytes)
	text("events", c.events())
	name := "NULL"
	if c.latest >= 0 {
		name = command.ByID(int(c.latest)).Name
	}
	text("cmd", name)
	text("user", c.user.Name())
	number("redir", c.redirection())
	number("resp", int64(c.proto))
	if x.libName != "" || x.libVersion != "" {
		text("lib-name", x.libName)
		text("lib-ver", x.libVersion)
	}
	return dst
}

// AnswerList answers the client's CLIENT LIST.
func (c *Client) AnswerList(r *backend.Request, reply []byte) {
	c.asking = 0
	c.Complete(r, reply)
}

// flags are the letters of Redis for what the client is.
func (c *Client) flags() string {
	var f []byte
	for _, flag := range []struct {
		letter byte
		on     bool
	}{
		{'O', c.Monitoring()},
		{'P', c.Subscribed()},
		{'x', c.inMulti()},
		{'b', c.postponed || c.IsBlocked()},
		{'t', c.tracking != nil},
		{'B', c.bcast},
		{'c', c.ending},
		{'r', c.readonly},
		{'e', c.extra != nil && c.extra.noEvict},
	} {
		if flag.on {
			f = append(f, flag.letter)
		}
	}
	if len(f) == 0 {
		return "N"
	}
	return string(f)
}

// events are those of the socket that the loop waits for.
func (c *Client) events() string {
	s := ""
	if c.Events&syscall.EPOLLIN != 0 {
		s = "r"
	}
	if c.Events&syscall.EPOLLOUT != 0 {
		s += "w"
	}
	return s
}

// LocalAddress is the address that the client connected to. It asks the kernel:
// it is not kept, for the sake of many idle clients.
func (c *Client) LocalAddress() netip.AddrPort {
	name, _ := syscall.Getsockname(c.FD)
	switch a := name.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// clientHelp is CLIENT HELP of Redis 7.0.
var clientHelp = helpLines(
	"CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"CACHING (YES|NO)",
	"    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
	"GETREDIR",
	"    Return the client ID we are redirecting to when tracking is enabled.",
	"GETNAME",
	"    Return the name of the current connection.",
	"ID",
	"    Return the ID of the current connection.",
	"INFO",
	"    Return information about the current client connection.",
	"KILL <ip:port>",
	"    Kill connection made from <ip:port>.",
	"KILL <option> <value> [<option> <value> [...]]",
	"    Kill connections. Options are:",
	"    * ADDR (<ip:port>|<unixsocket>:0)",
	"      Kill connections made from the specified address",
	"    * LADDR (<ip:port>|<unixsocket>:0)",
	"      Kill connections made to specified local address",
	"    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
	"      Kill connections by type.",
	"    * USER <username>",
	"      Kill connections authenticated by <username>.",
	"    * SKIPME (YES|NO)",
	"      Skip killing current connection (default: yes).",
	"LIST [options ...]",
	"    Return information about client connections. Options:",
	"    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
	"      Return clients of specified type.",
	"UNPAUSE",
	"    Stop the current client pause, resuming traffic.",
	"PAUSE <timeout> [WRITE|ALL]",
	"    Suspend all, or just write, clients for <timeout> milliseconds.",
	"REPLY (ON|OFF|SKIP)",
	"    Control the replies sent to the current connection.",
	"SETNAME <name>",
	"    Assign the name <name> to the current connection.",
	"UNBLOCK <clientid> [TIMEOUT|ERROR]",
	"    Unblock the specified blocked client.",
	"TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
	"         [OPTIN] [OPTOUT] [NOLOOP]",
	"    Control server assisted client side caching.",
	"TRACKINGINFO",
	"    Report tracking status for the current connection.",
	"NO-EVICT (ON|OFF)",
	"    Protect current client connection from eviction.",
	"HELP",
	"    Prints this help.",
)
