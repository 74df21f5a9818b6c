package reactor

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/session"
)

var (
	lineOK           = []byte("+OK\r\n")
	lineSyntax       = []byte("-ERR syntax error\r\n")
	lineBadID        = []byte("-ERR Invalid client ID\r\n")
	lineKillID       = []byte("-ERR client-id should be greater than 0\r\n")
	lineNoSuchClient = []byte("-ERR No such client\r\n")
	linePauseMode    = []byte("-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n")
	lineTimeout      = []byte("-ERR timeout is not an integer or out of range\r\n")
	lineNegative     = []byte("-ERR timeout is negative\r\n")
	lineTooManyIDs   = []byte("-ERR too many ids in one CLIENT LIST of this proxy: ask for at most 10000 at once\r\n")
)

const (
	// mostIDs bounds the reply to CLIENT LIST ID, in which an id may come often.
	mostIDs = 10_000
	// longestPause is in milliseconds: a century.
	longestPause = int64(100 * 365 * 24 * 3600 * 1000)
)

// clientType is what TYPE of CLIENT LIST and KILL selects. Masters and replicas
// are types that no client of a proxy is of.
type clientType uint8

const (
	typeAny clientType = iota
	typeNormal
	typePubSub
	typeNobody
)

// typeOf reads a TYPE; line is an error.
func typeOf(name []byte) (t clientType, line []byte) {
	switch strings.ToLower(string(name)) {
	case "normal":
		return typeNormal, nil
	case "pubsub":
		return typePubSub, nil
	case "master", "replica", "slave":
		return typeNobody, nil
	}
	return typeAny, command.ErrorLine("Unknown client type '", name, "'")
}

func (t clientType) matches(c *session.Client) bool {
	switch t {
	case typeAny:
		return true
	case typeNormal:
		return !c.Subscribed()
	case typePubSub:
		return c.Subscribed()
	}
	return false
}

// listed are the lines of CLIENT LIST that one loop wrote: thousands of clients are
// one piece of memory.
type listed struct {
	text  []byte
	lines []listedLine
}

// listedLine is the line of a client, with its line end.
type listedLine struct {
	id   uint64
	line []byte
}

// describe writes the lines of some clients.
func (l *loop) describe(wanted func(c *session.Client) bool) (list listed) {
	type place struct {
		id  uint64
		end int
	}
	var places []place
	l.eachClient(func(c *session.Client) {
		if wanted(c) {
			list.text = append(c.Describe(list.text), '\n')
			places = append(places, place{c.ID(), len(list.text)})
		}
	})
	list.lines = make([]listedLine, len(places))
	begin := 0
	for i, p := range places {
		list.lines[i] = listedLine{p.id, list.text[begin:p.end]}
		begin = p.end
	}
	return list
}

// clientList serves CLIENT LIST.
func (l *loop) clientList(c *session.Client, r *backend.Request, args [][]byte) {
	kind, ids, line := listOptions(args)
	if line != nil {
		c.AnswerList(r, line)
		return
	}
	lists := make([]listed, len(l.eng.loops))
	wanted := make(map[uint64]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	proto := int(r.Proto)
	l.everywhere(func(at *loop, i int) {
		lists[i] = at.describe(func(c *session.Client) bool { return kind.matches(c) && (ids == nil || wanted[c.ID()]) })
	}, func() { c.AnswerList(r, session.AppendText(nil, joinLists(lists, ids), proto)) })
}

// joinLists joins the lines in the order of the ids that were asked for, as
// often as they were, or else in that in which the clients came.
func joinLists(lists []listed, ids []uint64) (text []byte) {
	var all []listedLine
	size := 0
	for i := range lists {
		all = append(all, lists[i].lines...)
		size += len(lists[i].text)
	}
	byID := func(a listedLine, id uint64) int { return cmp.Compare(a.id, id) }
	slices.SortFunc(all, func(a, b listedLine) int { return cmp.Compare(a.id, b.id) })
	text = make([]byte, 0, size)
	if ids == nil {
		for _, e := range all {
			text = append(text, e.line...)
		}
		return text
	}
	for _, id := range ids {
		if i, found := slices.BinarySearchFunc(all, id, byID); found {
			text = append(text, all[i].line...)
		}
	}
	return text
}

// listOptions reads what CLIENT LIST is asked for; ids is nil for all.
func listOptions(args [][]byte) (kind clientType, ids []uint64, line []byte) {
	if len(args) == 2 {
		return typeAny, nil, nil
	}
	switch option := strings.ToLower(string(args[2])); {
	case option == "type" && len(args) == 4:
		kind, line = typeOf(args[3])
		return kind, nil, line
	case option == "id" && len(args) > 3+mostIDs:
		return 0, nil, lineTooManyIDs
	case option == "id" && len(args) > 3:
		for _, arg := range args[3:] {
			id, ok := command.Integer(arg)
			if !ok {
				return 0, nil, lineBadID
			}
			ids = append(ids, uint64(id))
		}
		return typeAny, ids, nil
	}
	return 0, nil, lineSyntax
}

// killFilter is what CLIENT KILL is asked for.
type killFilter struct {
	id        uint64 // 0 for any
	addr      string // "" for any
	laddr     string
	kind      clientType
	user      *acl.User // nil for any
	withSelf  bool
	oldSyntax bool
}

// killOptions reads the arguments of CLIENT KILL; line is an error.
func killOptions(args [][]byte, users *acl.Users) (f killFilter, line []byte) {
	if len(args) == 3 {
		return killFilter{addr: string(args[2]), withSelf: true, oldSyntax: true}, nil
	}
	for rest := args[2:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) == 1 {
			return f, lineSyntax
		}
		value := rest[1]
		switch strings.ToLower(string(rest[0])) {
		case "id":
			id, ok := command.Integer(value)
			if !ok || id < 1 {
				return f, lineKillID
			}
			f.id = uint64(id)
		case "type":
			if f.kind, line = typeOf(value); line != nil {
				return f, line
			}
		case "addr":
			f.addr = string(value)
		case "laddr":
			f.laddr = string(value)
		case "user":
			if f.user = users.Find(value); f.user == nil {
				return f, command.ErrorLine("No such user '", value, "'")
			}
		case "skipme":
			switch {
			case bytes.EqualFold(value, []byte("yes")):
				f.withSelf = false
			case bytes.EqualFold(value, []byte("no")):
				f.withSelf = true
			default:
				return f, lineSyntax
			}
		default:
			return f, lineSyntax
		}
	}
	return f, nil
}

// matches tells if a client is among those to kill, whoever asks.
func (f *killFilter) matches(c *session.Client) bool {
	return (f.id == 0 || f.id == c.ID()) && f.kind.matches(c) && (f.user == nil || f.user.Name() == c.User()) &&
		(f.addr == "" || f.addr == c.Address().String()) && (f.laddr == "" || f.laddr == c.LocalAddress().String())
}

// clientKill serves CLIENT KILL. Others are closed at once, with what they wait
// for; the client that asks is closed behind the reply.
func (l *loop) clientKill(c *session.Client, r *backend.Request, args [][]byte) {
	filter, line := killOptions(args, l.sh.Table.Users)
	if line != nil {
		c.Complete(r, line)
		return
	}
	killed := make([]int, len(l.eng.loops))
	self := false
	l.everywhere(func(at *loop, i int) {
		at.eachClient(func(other *session.Client) {
			switch {
			case !filter.matches(other):
			case other != c:
				other.Close()
				killed[i]++
			case filter.withSelf:
				self = true
				killed[i]++
			}
		})
	}, func() {
		count := 0
		for _, n := range killed {
			count += n
		}
		switch {
		case !filter.oldSyntax:
			c.Complete(r, redcon.AppendInt(nil, int64(count)))
		case count == 0:
			c.Complete(r, lineNoSuchClient)
		default:
			c.Complete(r, lineOK)
		}
		if self && !c.Closed {
			c.End()
		}
	})
}

// clientPause serves CLIENT PAUSE. Loops share one clock, so a pause ends
// everywhere at the same time.
func (l *loop) clientPause(c *session.Client, r *backend.Request, args [][]byte) {
	mode := session.PauseAll
	if len(args) > 4 {
		c.Complete(r, command.ErrorLine("unknown subcommand or wrong number of arguments for '", args[1], "'. Try CLIENT HELP."))
		return
	}
	if len(args) == 4 {
		switch strings.ToLower(string(args[3])) {
		case "all":
		case "write":
			mode = session.PauseWrite
		default:
			c.Complete(r, linePauseMode)
			return
		}
	}
	millis, ok := command.Integer(args[2])
	switch {
	case !ok:
		c.Complete(r, lineTimeout)
		return
	case millis < 0:
		c.Complete(r, lineNegative)
		return
	}
	until := l.sh.Now // a pause of 0 ms only makes one that is in force stricter
	if millis > 0 {
		until += min(millis, longestPause) * int64(time.Millisecond)
	}
	l.everywhere(func(at *loop, _ int) { at.pause(mode, until) }, func() { c.Complete(r, lineOK) })
}

// pause makes the clients of this loop wait until a time. A pause that is in
// force becomes longer or stricter by it, never shorter.
func (l *loop) pause(mode session.Pause, until int64) {
	if until = max(until, l.pausedUntil); until <= l.sh.Now {
		return
	}
	l.pausedUntil = until
	l.sh.Pause = max(l.sh.Pause, mode)
	l.timerAt(until)
}

// unpause lets the clients go on.
func (l *loop) unpause() {
	l.pausedUntil = 0
	if l.sh.Pause == session.PauseNone {
		return
	}
	l.sh.EndPause()
	l.eachClient(func(c *session.Client) { c.Unstall() })
}

// pauseTimer ends a pause whose time is over.
func (l *loop) pauseTimer() {
	switch {
	case l.pausedUntil == 0:
	case l.pausedUntil <= l.sh.Now:
		l.unpause()
	default:
		l.timerAt(l.pausedUntil)
	}
}
