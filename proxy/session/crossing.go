package session

import (
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
)

// Requests whose keys lie in several slots.
//
// Goal: a cluster of one shard is one Redis. Whoever adds shards later knows before
// who uses what then fails.
//
//  1. While one shard owns every slot, and the policy lets them (Table.CrossSlot), such
//     requests, transactions and WATCHes are served as any other: by the slot of their
//     first key. They are marked (Request.Crosses), for another table may part the keys:
//     what was not sent by then is refused (reactor, astray), a wait is ended at
//     its server first, and what is watched counts as changed.
//  2. MGET, DEL and the like go to the one shard whole, whatever the policy says: nothing
//     of them can fail with more shards.
//  3. Both what is let through and what is refused is counted, by command and by the
//     name of the client, and told to the Configserver. A transaction counts once.

// Crossing is what requests over several slots are counted by.
type Crossing struct {
	// Command is the ID of its spec, that of MULTI for transactions.
	Command int
	// Client is the name that the client gave itself; OtherClients when there were too
	// many.
	Client string
}

const (
	// maxCrossings bounds what is counted apart, for names are the clients'.
	maxCrossings = 64
	// OtherClients stands for all that are not counted apart.
	OtherClients = "(others)"
)

// crossed counts a request over several slots.
func (c *Client) crossed(spec *command.Spec) {
	k := Crossing{spec.ID, c.Name()}
	counts := c.sh.Crossings
	if _, known := counts[k]; !known {
		if counts == nil {
			counts = map[Crossing]uint64{}
			c.sh.Crossings = counts
		}
		if len(counts) >= maxCrossings {
			k.Client = OtherClients
		}
	}
	counts[k]++
}

// crossing finds where a request of command.ManySlots that cannot be taken apart goes,
// or the error line.
func (c *Client) crossing(spec *command.Spec, args [][]byte) (at int, line []byte) {
	if c.sh.Table.CrossSlot {
		return spec.FirstSlot(args), nil
	}
	c.crossed(spec)
	return command.NoSlot, spec.CrossSlot(args)
}

// cross marks and counts a request over several slots that is about to be sent.
func (c *Client) cross(r *backend.Request) {
	r.Crosses = true
	if r.Spec.Write {
		c.touchAll()
	}
	if r.Spec.Kind != command.Split {
		c.crossed(r.Spec)
	}
}

var (
	lineCrosses = []byte("-CROSSSLOT Keys in request don't hash to the same slot: there are several shards now; use one {tag} in all of its keys\r\n")
	lineAgain   = []byte("-TRYAGAIN the number of shards has just changed, and the request was not executed; send it again\r\n")
	lineAborted = []byte("-EXECABORT Transaction discarded because of: CROSSSLOT Keys in request don't hash to the same slot: they had to when it was executed; use one {tag} in all of its keys\r\n")
)

// LineCrosses is the reply to a request over several slots that waited while the
// number of shards changed.
func LineCrosses(spec *command.Spec) []byte {
	if spec != nil && spec.Kind == command.Split {
		return lineAgain
	}
	return lineCrosses
}
