package session

import "github.com/basalt-redis/basalt/proxy/command"

// Pause is which commands wait because of CLIENT PAUSE.
type Pause uint8

// Modes of CLIENT PAUSE, the more restrictive ones above.
const (
	// PauseNone: nothing waits.
	PauseNone Pause = iota
	// PauseWrite: what may change data, or is passed on to replicas, waits.
	PauseWrite
	// PauseAll: every command waits, CLIENT UNPAUSE as well.
	PauseAll
)

// A command that has to wait is not taken out of the client's input, and the
// client is not read on: so a paused client takes no more memory than what one
// read brought, and all it sent is handled in its order afterwards, or not at
// all when it hangs up before. Requests that were handled before the pause, or
// that Redis refuses before it looks at the pause, are not concerned, nor are
// messages of subscriptions.

// postpone tells if a request must wait for the end of a pause, and notes it.
func (c *Client) postpone(spec *command.Spec, args [][]byte) bool {
	if c.Monitoring() || c.sh.Pause == PauseWrite && !c.replicates(spec, args) {
		return false
	}
	c.stalled, c.postponed = true, true
	c.sh.Postponed++
	return true
}

// replicates tells if a request may change data or is passed on to replicas.
func (c *Client) replicates(spec *command.Spec, args [][]byte) bool {
	if spec.Name == "exec" {
		return c.inMulti() && c.tx.replicates
	}
	return spec.MayReplicate(args)
}

// unpostpone ends the waiting, because the pause ended or the client goes.
func (c *Client) unpostpone() {
	if c.postponed {
		c.postponed = false
		c.sh.Postponed--
	}
}

// Postponed tells if a command of the client waits for the end of a pause.
func (c *Client) Postponed() bool { return c.postponed }
