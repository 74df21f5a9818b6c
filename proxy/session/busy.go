package session

import "github.com/basalt-redis/basalt/proxy/command"

var (
	prefixBusy   = []byte("-BUSY ")
	abortBecause = "-EXECABORT Transaction discarded because of: "
)

// servedBusy tells if Redis answers a command of those that the proxy answers
// itself while a script takes too long.
func servedBusy(spec *command.Spec) bool {
	switch spec.Name {
	case "auth", "hello", "reset", "quit", "multi", "discard", "watch", "unwatch":
		return true
	}
	return false
}

// refuseBusy answers a command that the proxy answers itself while all servers
// are busy. EXEC ends the transaction.
func (c *Client) refuseBusy(spec *command.Spec) {
	line := c.sh.Busy
	if spec.Name == "exec" {
		c.dropTransaction()
		line = append([]byte(abortBecause), line[1:]...)
	}
	c.answer(spec, line)
}
