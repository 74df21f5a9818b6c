package session

import (
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/redcon"

	rules "github.com/basalt-redis/basalt/internal/acl"
	"github.com/basalt-redis/basalt/proxy/command"
)

// Replies to local commands, in Redis's words.
var (
	lineOK        = []byte("+OK\r\n")
	linePong      = []byte("+PONG\r\n")
	lineReset     = []byte("+RESET\r\n")
	lineSyntax    = []byte("-ERR syntax error\r\n")
	lineInteger   = []byte("-ERR value is not an integer or out of range\r\n")
	lineDatabase  = []byte("-ERR DB index is out of range\r\n")
	lineNoProto   = []byte("-NOPROTO unsupported protocol version\r\n")
	lineNotProto  = []byte("-ERR Protocol version is not an integer or out of range\r\n")
	lineWrongPass = []byte("-WRONGPASS invalid username-password pair or user is disabled.\r\n")
	lineNoPass    = []byte("-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n")
	lineHelloAuth = []byte("-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n")
	lineBadName   = []byte("-ERR Client names cannot contain spaces, newlines or special characters.\r\n")
	lineNoCluster = []byte("-ERR This instance has cluster support disabled\r\n")
	lineClientAge = []byte("-ERR Unrecognized option\r\n")
)

// mustWait tells if a command changes how later requests are routed, so that
// all earlier ones must have been answered.
func (c *Client) mustWait(spec *command.Spec, args [][]byte) bool {
	switch spec.Name {
	case "hello", "reset", "watch", "wait", "waitaof", "monitor", "config|set":
		return true
	case "exec":
		return c.watching()
	case "select":
		db, line := database(args[1])
		return line == nil && db != c.db
	}
	return false
}

// local answers a command in the proxy.
func (c *Client) local(spec *command.Spec, args [][]byte, raw []byte) {
	text := c.sh.text[:0]
	switch spec.Name {
	case "ping":
		text = c.ping(text, args)
	case "echo":
		text = redcon.AppendBulk(text, args[1])
	case "auth":
		text = append(text, c.auth(args)...)
	case "hello":
		text = c.hello(text, args)
		if t := c.tracking; t != nil && c.proto == 3 && (t.unheard || c.untold && !t.bcast) {
			t.unheard, c.untold = false, c.untold && t.bcast
			r := c.begin(spec)
			follow(r, invalidateAll)
			c.Complete(r, text)
			return
		}
	case "select":
		db, line := database(args[1])
		if line == nil {
			c.db, line = db, lineOK
		}
		text = append(text, line...)
	case "quit":
		c.answer(spec, lineOK)
		c.End()
		return
	case "reset":
		c.dropTransaction()
		c.unsubscribeAll()
		c.stopTracking()
		c.proto, c.db, c.readonly, c.extra = 2, 0, false, nil
		if c.mode == replyOff {
			c.mode = replyOn // SKIP is about this reply, as in Redis
		}
		c.becomeDefault()
		text = append(text, lineReset...)
	case "time":
		now := time.Now()
		text = redcon.AppendArray(text, 2)
		text = redcon.AppendBulkString(text, strconv.FormatInt(now.Unix(), 10))
		text = redcon.AppendBulkString(text, strconv.Itoa(now.Nanosecond()/1000))
	case "readonly", "readwrite":
		c.readonly = spec.Name == "readonly"
		text = append(text, lineOK...)
	case "multi", "exec", "discard", "watch", "unwatch":
		c.transact(spec, args, raw)
		return
	case "wait", "waitaof":
		c.askReplicas(spec, args, raw)
		return
	case "monitor":
		c.monitor(spec)
		return
	case "client|reply":
		c.replyMode(spec, args[2])
		return
	case "client|tracking", "client|caching", "client|getredir", "client|trackinginfo":
		if text = c.track(text, spec.Name, args); text == nil {
			c.trackAll(c.begin(spec))
			return
		}
	case "client|list", "client|info":
		c.asking = int32(len(raw))
		if spec.Name == "client|info" {
			text = AppendText(text, append(c.Describe(nil), '\n'), int(c.proto))
			c.asking = 0
			break
		}
		c.sh.Router.Local(c, c.begin(spec), args)
		return
	case "client|kill", "client|pause", "client|unpause":
		c.sh.Router.Local(c, c.begin(spec), args)
		c.waitForAll() // what follows finds it done
		return
	case "client|id", "client|getname", "client|setname", "client|setinfo", "client|no-evict", "client|no-touch", "client|capa":
		text = c.client(text, spec.Name, args)
	case "asking":
		if !c.sh.ClusterMode {
			text = append(text, lineNoCluster...)
			break
		}
		text = append(text, lineOK...)
	case "cluster|countkeysinslot", "cluster|getkeysinslot":
		c.keysInSlot(spec, args)
		return
	case "client|help":
		text = append(text, clientHelp...)
	case "acl|setuser", "acl|deluser":
		c.changeUsers(spec, args)
		return
	default:
		if !c.sh.ClusterMode && strings.HasPrefix(spec.Name, "cluster|") {
			// Clients know this answer, and go on without cluster mode.
			c.answer(spec, lineNoCluster)
			return
		}
		if strings.HasPrefix(spec.Name, "acl|") {
			text = c.askUsers(text, spec, args)
			break
		}
		r := c.begin(spec)
		c.sh.Router.Local(c, r, args)
		if spec.Name == "config|set" {
			c.waitForAll() // what follows may depend on it
		}
		return
	}
	c.sh.text = text
	c.answer(spec, text)
}

func (c *Client) ping(dst []byte, args [][]byte) []byte {
	if c.confinedNow() && len(args) <= 2 {
		return pongAsMessage(dst, args)
	}
	switch len(args) {
	case 1:
		return append(dst, linePong...)
	case 2:
		return redcon.AppendBulk(dst, args[1])
	default:
		return append(dst, "-ERR wrong number of arguments for 'ping' command\r\n"...)
	}
}

// database reads the argument of SELECT; the second result is an error line.
func database(arg []byte) (uint8, []byte) {
	n, err := strconv.ParseInt(string(arg), 10, 32)
	switch {
	case err != nil || strconv.FormatInt(n, 10) != string(arg):
		return 0, lineInteger
	case n < 0 || n >= command.Databases:
		return 0, lineDatabase
	}
	return uint8(n), nil
}

// selectRequest is SELECT as it is sent to a server.
func selectRequest(db uint8) []byte {
	return appendCommand(nil, [][]byte{[]byte("SELECT"), strconv.AppendUint(nil, uint64(db), 10)})
}

// auth checks AUTH [user] password.
func (c *Client) auth(args [][]byte) []byte {
	switch {
	case len(args) > 3:
		return lineSyntax
	case len(args) == 2 && c.sh.Table.Users.Default.Rules.NoPass:
		return lineNoPass
	}
	user := []byte(rules.DefaultUser)
	if len(args) == 3 {
		user = args[1]
	}
	return c.login(args[0], user, args[len(args)-1])
}

// hello serves HELLO [version [AUTH user password] [SETNAME name]]. The options
// take effect one by one, whatever is wrong with those that follow, as in Redis.
func (c *Client) hello(dst []byte, args [][]byte) []byte {
	proto := int64(c.proto)
	if len(args) > 1 {
		var ok bool
		if proto, ok = command.Integer(args[1]); !ok {
			return append(dst, lineNotProto...)
		}
		if proto != 2 && proto != 3 {
			return append(dst, lineNoProto...)
		}
	}
	for rest := args[min(len(args), 2):]; len(rest) > 0; {
		switch option := strings.ToUpper(string(rest[0])); {
		case option == "AUTH" && len(rest) >= 3:
			if line := c.login(args[0], rest[1], rest[2]); line[0] == '-' {
				return append(dst, line...)
			}
			rest = rest[3:]
		case option == "SETNAME" && len(rest) >= 2:
			if line := refuseName(rest[1]); line != nil {
				return append(dst, line...)
			}
			c.more().name, rest = string(rest[1]), rest[2:]
		default:
			return append(dst, command.ErrorLine("Syntax error in HELLO option '", rest[0], "'")...)
		}
	}
	if !c.authed {
		return append(dst, lineHelloAuth...)
	}
	if c.proto != uint8(proto) && c.watching() {
		c.tx.pin.Speak(uint8(proto))
	}
	c.proto = uint8(proto)
	if proto == 3 {
		dst = append(dst, "%7\r\n"...)
	} else {
		dst = redcon.AppendArray(dst, 14)
	}
	software := c.sh.Software.Load()
	dst = appendPair(dst, "server", software.Name)
	dst = appendPair(dst, "version", software.Version)
	dst = redcon.AppendInt(redcon.AppendBulkString(dst, "proto"), proto)
	dst = redcon.AppendInt(redcon.AppendBulkString(dst, "id"), int64(c.id))
	mode := "standalone"
	if c.sh.ClusterMode {
		mode = "cluster"
	}
	dst = appendPair(dst, "mode", mode)
	dst = appendPair(dst, "role", "master")
	return redcon.AppendArray(redcon.AppendBulkString(dst, "modules"), 0)
}

func appendPair(dst []byte, key, value string) []byte {
	return redcon.AppendBulkString(redcon.AppendBulkString(dst, key), value)
}

// goodName tells if a client may have this name.
func goodName(name []byte) bool {
	for _, c := range name {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}

// maxName bounds what a client may call itself, in bytes: it is kept as long as
// the client stays, is no part of the memory budget, and stands in each CLIENT
// LIST and in ACL LOG.
const maxName = 4096

var lineLongName = []byte("-ERR Client names and what CLIENT SETINFO says may have at most 4096 bytes behind the proxy\r\n")

// refuseName is an error line for a name that a client may not have.
func refuseName(name []byte) []byte {
	switch {
	case len(name) > maxName:
		return lineLongName
	case !goodName(name):
		return lineBadName
	}
	return nil
}

func (c *Client) more() *extra {
	if c.extra == nil {
		c.extra = &extra{}
	}
	return c.extra
}

// replyMode serves CLIENT REPLY, the only command that may have no reply.
func (c *Client) replyMode(spec *command.Spec, mode []byte) {
	switch strings.ToUpper(string(mode)) {
	case "ON":
		c.mode = replyOn
		c.answer(spec, lineOK)
	case "OFF":
		c.mode = replyOff
	case "SKIP":
		if c.mode != replyOff {
			c.mode = replySkip
		}
	default:
		c.answer(spec, lineSyntax)
	}
}

// client serves the subcommands of CLIENT that concern only the client itself.
func (c *Client) client(dst []byte, name string, args [][]byte) []byte {
	switch name {
	case "client|id":
		return redcon.AppendInt(dst, int64(c.id))
	case "client|getname":
		if c.Name() == "" {
			return c.null(dst)
		}
		return redcon.AppendBulkString(dst, c.Name())
	case "client|setname":
		if line := refuseName(args[2]); line != nil {
			return append(dst, line...)
		}
		c.more().name = string(args[2])
	case "client|setinfo":
		return append(dst, c.setInfo(args[2], args[3])...)
	case "client|no-evict":
		return append(dst, setSwitch(&c.more().noEvict, args[2])...)
	case "client|no-touch":
		return append(dst, setSwitch(&c.more().noTouch, args[2])...)
	case "client|capa": // servers take all, too: what a client can do that it need not do here
	}
	return append(dst, lineOK...)
}

// AppendText appends a text for people (INFO, CLIENT LIST): a verbatim string in
// RESP3.
func AppendText(dst, text []byte, proto int) []byte {
	if proto < 3 {
		return redcon.AppendBulk(dst, text)
	}
	dst = strconv.AppendInt(append(dst, '='), int64(len("txt:")+len(text)), 10)
	return append(append(append(dst, "\r\ntxt:"...), text...), "\r\n"...)
}

func (c *Client) null(dst []byte) []byte {
	if c.proto == 3 {
		return append(dst, nullRESP3...)
	}
	return append(dst, nullBulk...)
}

func (c *Client) setInfo(attribute, value []byte) []byte {
	field := strings.ToLower(string(attribute))
	if field != "lib-name" && field != "lib-ver" {
		return lineClientAge
	}
	if len(value) > maxName {
		return lineLongName
	}
	if !goodName(value) {
		return append([]byte("-ERR "+field), " cannot contain spaces, newlines or special characters.\r\n"...)
	}
	if field == "lib-name" {
		c.more().libName = string(value)
	} else {
		c.more().libVersion = string(value)
	}
	return lineOK
}

func setSwitch(on *bool, arg []byte) []byte {
	switch strings.ToUpper(string(arg)) {
	case "ON":
		*on = true
	case "OFF":
		*on = false
	default:
		return lineSyntax
	}
	return lineOK
}
