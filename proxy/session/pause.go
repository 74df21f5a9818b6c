package session

import (
	"context"

	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
	"github.com/basalt-redis/basalt/proxy/resp"
)

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
//
// PauseWrite lets scripts and functions through that have the flag no-writes.
// Redis knows them all; here the source of a script is looked up, and functions
// are asked for at the servers, once in each pause: none can be loaded meanwhile.
// Until the answer comes, and when there is none, the command waits as if nothing
// were declared.

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
	switch {
	case spec.Name == "exec":
		return c.inMulti() && (c.tx.replicates || c.tx.calls && c.callsReplicate())
	case spec.Kind == command.Script:
		return spec.ScriptMayReplicate(c.declared(spec, args))
	}
	return spec.MayReplicate(args)
}

// callsReplicate tells if a script that a transaction runs may change data.
func (c *Client) callsReplicate() bool {
	if c.tx.block == nil {
		return false
	}
	var scan resp.Scanner
	for rest := c.tx.block.B; len(rest) > 0; {
		n, err := scan.Scan(rest, &anyLimits, true)
		if n == 0 || err != nil {
			return true
		}
		args, err := resp.Args(rest[:n], nil)
		if err != nil {
			return true
		}
		rest = rest[n:]
		if spec, _ := command.Lookup(args); spec != nil && spec.Kind == command.Script && c.replicates(spec, args) {
			return true
		}
	}
	return false
}

// declared is what is known of the flags of the script that a request runs. When
// it is asked for, the client looks at its request again with the answer.
func (c *Client) declared(spec *command.Spec, args [][]byte) command.Declared {
	sh := c.sh
	switch spec.Name {
	case "eval", "eval_ro":
		return command.DeclaredBy(args[1])
	case "evalsha", "evalsha_ro":
		sha := string(sh.lowerSHA(args[1]))
		if sha == "" {
			break
		}
		if source, ok := sh.Scripts.Peek(sha); ok {
			return command.DeclaredBy([]byte(source))
		}
		library := sh.Scripts
		var found map[string]string
		sh.Router.Async(func() {
			ctx, cancel := context.WithTimeout(context.Background(), findTimeout)
			defer cancel()
			found = library.Find(ctx, []string{sha})
		}, func() {
			if _, ok := library.Peek(sha); ok && found[sha] != "" {
				c.lookAgain()
			}
		})
	case "fcall", "fcall_ro":
		return sh.functionDeclares(c, args[1])
	}
	return command.DeclaredNothing
}

// lookAgain has the client look at its request again that waits for the end of a
// pause.
func (c *Client) lookAgain() {
	if c.postponed && !c.Closed {
		c.unpostpone()
		c.unstall()
	}
}

// pausedFunctions are the functions of the servers during a pause.
type pausedFunctions struct {
	// reads is nil until the servers told, and then has every function: true for
	// those with the flag no-writes.
	reads   map[string]bool
	waiting []*Client
}

var rawFunctionList = []byte("*2\r\n$8\r\nFUNCTION\r\n$4\r\nLIST\r\n")

// functionDeclares is what a function declares. It asks the servers when they were
// not asked in this pause.
func (s *Shared) functionDeclares(c *Client, name []byte) command.Declared {
	if s.functions == nil {
		s.functions = &pausedFunctions{}
	}
	f := s.functions
	if f.reads != nil {
		reads, known := f.reads[string(name)]
		switch {
		case !known:
			return command.DeclaredNothing
		case reads:
			return command.DeclaredReads
		}
		return command.DeclaredWrites
	}
	f.waiting = append(f.waiting, c)
	if len(f.waiting) > 1 {
		return command.DeclaredNothing
	}
	line := s.Router.Control(2, rawFunctionList, func(replies [][]byte) {
		waiting := f.waiting
		f.waiting = nil
		reads, err := fanout.ReadingFunctions(replies)
		if err != nil || s.functions != f {
			return // whoever comes next asks again
		}
		f.reads = reads
		for _, c := range waiting {
			c.lookAgain()
		}
	})
	if line != nil {
		f.waiting = nil
	}
	return command.DeclaredNothing
}

// EndPause ends what CLIENT PAUSE began.
func (s *Shared) EndPause() { s.Pause, s.functions = PauseNone, nil }

// unpostpone ends the waiting, because the pause ended or the client goes.
func (c *Client) unpostpone() {
	if c.postponed {
		c.postponed = false
		c.sh.Postponed--
	}
}

// Postponed tells if a command of the client waits for the end of a pause.
func (c *Client) Postponed() bool { return c.postponed }
