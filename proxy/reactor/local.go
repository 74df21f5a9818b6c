package reactor

import (
	"bytes"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/session"
)

// Commands that are answered from more than one client's state run outside of
// the loops: they may ask all loops for something, and take their time.

var lineNoAnswer = []byte("-ERR this proxy was built without an answer to that command\r\n")

// Local answers COMMAND, CONFIG, CLUSTER and CLIENT LIST.
func (l *loop) Local(c *session.Client, r *backend.Request, args [][]byte) {
	own := make([][]byte, len(args))
	for i, a := range args {
		own[i] = bytes.Clone(a)
	}
	if r.Spec.Name == "client|list" {
		l.clientList(c, r, own)
		return
	}
	answer := l.eng.cfg.ConfigGet
	switch name, _, _ := strings.Cut(r.Spec.Name, "|"); {
	case name == "command":
		answer = l.eng.cfg.Command
	case name == "cluster" && l.eng.cfg.Cluster != nil:
		local := localAddress(c.FD)
		answer = func(dst []byte, args [][]byte, proto int) []byte {
			return l.eng.cfg.Cluster(dst, args, proto, local)
		}
	}
	if answer == nil {
		c.Complete(r, lineNoAnswer)
		return
	}
	proto := int(r.Proto)
	go func() {
		reply := answer(nil, own, proto)
		l.post(func() { c.Complete(r, reply) })
	}()
}

// localAddress is what the other end of a socket is connected to.
func localAddress(fd int) netip.AddrPort {
	name, _ := syscall.Getsockname(fd)
	switch a := name.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// Info answers INFO from the texts of the shards.
func (l *loop) Info(c *session.Client, r *backend.Request, args, shards [][]byte) {
	if l.eng.cfg.Info == nil {
		c.Complete(r, redcon.AppendBulk(nil, bytes.Join(shards, []byte("\r\n"))))
		return
	}
	proto := int(r.Proto)
	go func() {
		reply := session.AppendText(nil, l.eng.cfg.Info(nil, args, shards), proto)
		l.post(func() { c.Complete(r, reply) })
	}()
}

// clientList asks every loop for its clients.
func (l *loop) clientList(c *session.Client, r *backend.Request, args [][]byte) {
	wanted, kind, line := listFilter(args)
	if line != nil {
		c.Complete(r, line)
		return
	}
	lists := make([][]listed, len(l.eng.loops))
	proto := int(r.Proto)
	l.everywhere(func(at *loop, i int) {
		at.eachClient(func(c *session.Client) {
			if (wanted == nil || wanted[c.ID()]) && (kind == "" || (kind == "pubsub") == c.Subscribed()) {
				lists[i] = append(lists[i], listed{c.ID(), append(c.Describe(nil), '\n')})
			}
		})
	}, func() { c.Complete(r, session.AppendText(nil, joinLists(lists), proto)) })
}

// listed is one line of CLIENT LIST.
type listed struct {
	id   uint64
	line []byte
}

func joinLists(lists [][]listed) []byte {
	var all []listed
	for _, list := range lists {
		all = append(all, list...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].id < all[j].id })
	var text []byte
	for _, e := range all {
		text = append(text, e.line...)
	}
	return text
}

// listFilter reads the options of CLIENT LIST: those wanted, nil means all, and
// of what kind, "normal", "pubsub" or "" for both.
func listFilter(args [][]byte) (wanted map[uint64]bool, kind string, line []byte) {
	if len(args) == 2 {
		return nil, "", nil
	}
	option := strings.ToUpper(string(args[2]))
	switch {
	case option == "TYPE" && len(args) == 4:
		switch kind := strings.ToLower(string(args[3])); kind {
		case "normal", "pubsub":
			return nil, kind, nil
		case "master", "replica", "slave":
			return map[uint64]bool{}, "", nil
		default:
			return nil, "", command.ErrorLine("Unknown client type '", args[3], "'")
		}
	case option == "ID" && len(args) > 3:
		wanted = map[uint64]bool{}
		for _, arg := range args[3:] {
			id, err := strconv.ParseUint(string(arg), 10, 64)
			if err != nil || id == 0 {
				return nil, "", []byte("-ERR Invalid client ID\r\n")
			}
			wanted[id] = true
		}
		return wanted, "", nil
	}
	return nil, "", []byte("-ERR syntax error\r\n")
}
