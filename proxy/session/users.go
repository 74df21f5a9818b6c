package session

import (
	"crypto/rand"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/redcon"

	rules "github.com/basalt-redis/basalt/internal/acl"
	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/command"
)

// The subcommands of ACL that ask.

var (
	lineNoACLFile = []byte("-ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis configuration.\r\n")
	lineGenPass   = []byte("-ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096\r\n")
)

const (
	genPassBits    = 256
	maxGenPassBits = 4096
	logEntries     = 10
)

// askUsers answers a subcommand of ACL that changes no users.
func (c *Client) askUsers(dst []byte, spec *command.Spec, args [][]byte) []byte {
	users := c.sh.Table.Users
	optional := strings.HasSuffix(spec.Name, "|cat") || strings.HasSuffix(spec.Name, "|genpass") || strings.HasSuffix(spec.Name, "|log")
	if optional && len(args) > 3 {
		return append(dst, command.ErrorLine("unknown subcommand or wrong number of arguments for '", args[1], "'. Try ACL HELP.")...)
	}
	switch spec.Name {
	case "acl|whoami":
		return redcon.AppendBulkString(dst, c.user.Name())
	case "acl|users":
		dst = redcon.AppendArray(dst, len(users.All()))
		for _, u := range users.All() {
			dst = redcon.AppendBulkString(dst, u.Name())
		}
		return dst
	case "acl|list":
		dst = redcon.AppendArray(dst, len(users.All()))
		for _, u := range users.All() {
			dst = redcon.AppendBulkString(dst, "user "+u.Name()+" "+u.Describe())
		}
		return dst
	case "acl|getuser":
		if u := users.Find(args[2]); u != nil {
			return c.appendUser(dst, u.Rules)
		}
		return c.null(dst)
	case "acl|cat":
		return c.appendCategory(dst, args)
	case "acl|genpass":
		return appendPassword(dst, args)
	case "acl|dryrun":
		return c.dryRun(dst, args)
	case "acl|log":
		return c.appendDenied(dst, args)
	case "acl|load", "acl|save":
		return append(dst, lineNoACLFile...)
	default:
		return append(dst, aclHelp...)
	}
}

// appendMap and appendSet begin a map of n pairs, and a set.
func (c *Client) appendMap(dst []byte, n int) []byte {
	if c.proto == 3 {
		return append(strconv.AppendInt(append(dst, '%'), int64(n), 10), "\r\n"...)
	}
	return redcon.AppendArray(dst, 2*n)
}

func (c *Client) appendSet(dst []byte, n int) []byte {
	if c.proto == 3 {
		return append(strconv.AppendInt(append(dst, '~'), int64(n), 10), "\r\n"...)
	}
	return redcon.AppendArray(dst, n)
}

func appendWords(dst []byte, words []string) []byte {
	for _, w := range words {
		dst = redcon.AppendBulkString(dst, w)
	}
	return dst
}

// appendUser is ACL GETUSER.
func (c *Client) appendUser(dst []byte, u *rules.User) []byte {
	dst = c.appendMap(dst, 6)
	dst = redcon.AppendBulkString(dst, "flags")
	dst = appendWords(c.appendSet(dst, len(u.Flags())), u.Flags())
	dst = redcon.AppendBulkString(dst, "passwords")
	dst = appendWords(redcon.AppendArray(dst, len(u.Passwords)), u.Passwords)
	dst = appendSelector(dst, &u.Selectors[0])
	dst = redcon.AppendBulkString(dst, "selectors")
	dst = redcon.AppendArray(dst, len(u.Selectors)-1)
	for i := range u.Selectors[1:] {
		dst = appendSelector(c.appendMap(dst, 3), &u.Selectors[i+1])
	}
	return dst
}

func appendSelector(dst []byte, s *rules.Selector) []byte {
	dst = appendPair(dst, "commands", s.DescribeCommands())
	dst = appendPair(dst, "keys", s.DescribeKeys())
	return appendPair(dst, "channels", s.DescribeChannels())
}

// appendCategory is ACL CAT.
func (c *Client) appendCategory(dst []byte, args [][]byte) []byte {
	if len(args) == 2 {
		return appendWords(redcon.AppendArray(dst, len(rules.Categories())), rules.Categories())
	}
	names, ok := rules.InCategory(string(args[2]))
	if !ok {
		return append(dst, command.ErrorLine("Unknown category '", args[2][:min(len(args[2]), 128)], "'")...)
	}
	return appendWords(redcon.AppendArray(dst, len(names)), names)
}

// appendPassword is ACL GENPASS: so many random bits, in hex.
func appendPassword(dst []byte, args [][]byte) []byte {
	bits := int64(genPassBits)
	if len(args) == 3 {
		var ok bool
		if bits, ok = command.Integer(args[2]); !ok {
			return append(dst, lineInteger...)
		}
	}
	if bits <= 0 || bits > maxGenPassBits {
		return append(dst, lineGenPass...)
	}
	digits := int(bits+3) / 4
	random := make([]byte, (digits+1)/2)
	_, _ = rand.Read(random) // never fails, see crypto/rand
	return redcon.AppendBulkString(dst, hex.EncodeToString(random)[:digits])
}

// dryRun is ACL DRYRUN.
func (c *Client) dryRun(dst []byte, args [][]byte) []byte {
	u := c.sh.Table.Users.Find(args[2])
	if u == nil {
		return append(dst, command.ErrorLine("User '", args[2], "' not found")...)
	}
	request := args[3:]
	spec, line := command.Lookup(request)
	if spec == nil {
		return append(dst, command.ErrorLine("Command '", request[0], "' not found")...)
	}
	if line != nil && spec.Kind != command.Unsupported {
		return append(dst, line...)
	}
	if u.Limits == nil {
		return append(dst, lineOK...)
	}
	denied := "This user has no permissions to "
	switch verdict, at := u.Limits.Check(spec, request, &c.sh.rights); verdict {
	case acl.DeniedCommand:
		denied += "run the '" + spec.Name + "' command"
	case acl.DeniedKey:
		denied += "access the '" + string(request[at]) + "' key"
	case acl.DeniedChannel:
		denied += "access the '" + string(request[at]) + "' channel"
	default: // a server does not look at the patterns of SORT here
		return append(dst, lineOK...)
	}
	return redcon.AppendBulkString(dst, denied)
}

// reasons are the words of ACL LOG.
var reasons = map[acl.Verdict]string{acl.DeniedKey: "key", acl.DeniedChannel: "channel", acl.DeniedAuth: "auth"}

// appendDenied is ACL LOG.
func (c *Client) appendDenied(dst []byte, args [][]byte) []byte {
	n := int64(logEntries)
	if len(args) == 3 {
		if strings.EqualFold(string(args[2]), "reset") {
			c.sh.Denied.Reset()
			return append(dst, lineOK...)
		}
		var ok bool
		if n, ok = command.Integer(args[2]); !ok {
			return append(dst, lineInteger...)
		}
	}
	entries := c.sh.Denied.Entries(int(min(max(n, 0), math.MaxInt32)))
	dst = redcon.AppendArray(dst, len(entries))
	for _, e := range entries {
		reason := reasons[e.Reason]
		if reason == "" {
			reason = "command"
		}
		dst = c.appendMap(dst, 7)
		dst = redcon.AppendInt(redcon.AppendBulkString(dst, "count"), e.Count)
		dst = appendPair(dst, "reason", reason)
		dst = appendPair(dst, "context", e.Context)
		dst = appendPair(dst, "object", e.Object)
		dst = appendPair(dst, "username", e.User)
		dst = c.appendDouble(redcon.AppendBulkString(dst, "age-seconds"), float64(time.Since(e.At).Milliseconds())/1000)
		dst = appendPair(dst, "client-info", e.Client)
	}
	return dst
}

// appendDouble writes a number as Redis does: a double in RESP3, else a string.
func (c *Client) appendDouble(dst []byte, f float64) []byte {
	text := strconv.FormatFloat(f, 'g', 17, 64)
	if c.proto == 3 {
		return append(append(append(dst, ','), text...), "\r\n"...)
	}
	return redcon.AppendBulkString(dst, text)
}

// aclHelp is ACL HELP of Redis 7.0.
var aclHelp = helpLines(
	"ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"CAT [<category>]",
	"    List all commands that belong to <category>, or all command categories",
	"    when no category is specified.",
	"DELUSER <username> [<username> ...]",
	"    Delete a list of users.",
	"DRYRUN <username> <command> [<arg> ...]",
	"    Returns whether the user can execute the given command without executing the command.",
	"GETUSER <username>",
	"    Get the user's details.",
	"GENPASS [<bits>]",
	"    Generate a secure 256-bit user password. The optional `bits` argument can",
	"    be used to specify a different size.",
	"LIST",
	"    Show users details in config file format.",
	"LOAD",
	"    Reload users from the ACL file.",
	"LOG [<count> | RESET]",
	"    Show the ACL log entries.",
	"SAVE",
	"    Save the current config to the ACL file.",
	"SETUSER <username> <attribute> [<attribute> ...]",
	"    Create or modify a user with the specified attributes.",
	"USERS",
	"    List all the registered usernames.",
	"WHOAMI",
	"    Return the current connection username.",
	"HELP",
	"    Prints this help.",
)
