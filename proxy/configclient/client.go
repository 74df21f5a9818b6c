// Package configclient keeps a proxy in step with the Configserver: it receives
// the topology, tells when the proxy obeys it, and reports what the proxy sees.
//
// Goal: the loops always route by the newest epoch the proxy could learn of,
// and the Configserver learns within about a millisecond that they do.
//
//  1. One stream to one of the addresses, in turn. Hello names the cluster and
//     the proxy's id, which stays the same for the life of the process.
//  2. The server answers with a snapshot, then deltas. A delta that does not
//     follow the newest epoch ends the stream: the next one begins with a
//     snapshot again.
//  3. Each epoch becomes a routing.Table and goes to the engine. When all loops
//     obey it, Ack passes that on; of several only the newest is sent.
//  4. Sights of nodes are sent within 5 ms, those of one moment together. The
//     load follows every 2 s.
//  5. A Configserver that does not answer a health check in time is dead or
//     hung; gRPC's own keepalive is not allowed to look more often than every
//     10 s. Then the stream is cut and the next address is tried.
//  6. At the end Goodbye says that this proxy sends nothing more, so that no
//     epoch waits for its ack.
//
// Without any Configserver the newest epoch stays in force.
//
// # Epochs never go back
//
// A snapshot of a lower epoch than the newest known comes from a Configserver
// that is behind (its etcd was restored, it reads a lagging member). To obey it
// could send writes to a master that was replaced, so it is refused, loudly,
// and another address is tried. Each hello tells the Configserver what is known
// here, so that it does nothing by a record that is older; an admin has it take
// over what the servers say, under an epoch above all that were lost, and that one
// is obeyed like any other.
//
// A cluster that was deleted and created again begins at epoch 1. That is
// accepted after an epoch that said "deleting": from that epoch on, nothing is
// sent to the old nodes, so nothing can be harmed by forgetting it. A proxy that
// was away when the cluster was deleted cannot tell the new one from a stale
// answer; it refuses, says so, and must be started again. Safe and a nuisance
// was preferred to automatic and wrong.
//
// The engine, for which epochs only rise, is therefore given revisions: the
// epoch as a rule, and more when an epoch repeats (a credential arrived without
// a new epoch) or begins again. Ack and Status speak of epochs.
package configclient

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// Sight is what the proxy saw of a node.
type Sight = basaltv1.Sight

// Load is how busy the proxy is.
type Load struct {
	// Clients connected, Commands answered since the start.
	Clients, Commands uint64
	// Busy is the busy share of the busiest loop in the last interval, 0 to 1.
	Busy float64
	// CrossSlot counts requests over several slots.
	CrossSlot []*CrossSlotRequests
}

// CrossSlotRequests counts requests over several slots of one command and name of clients.
type CrossSlotRequests = basaltv1.CrossSlotRequests

// Config of a Client.
type Config struct {
	// Addresses of Configservers, "host:port", tried in turn.
	Addresses []string
	// Alone: nobody asks for Proxies, and the Configserver need not tell of them.
	Alone bool
	// Cluster to serve.
	Cluster string
	// Address where clients reach this proxy; Version of the program, for people.
	Address, Version string
	// Apply hands the engine a table with a higher epoch than any before. It is
	// called from one goroutine and must not block for long.
	Apply func(*routing.Table)
	// Load is asked every LoadInterval.
	Load func() Load
	// LoadInterval is 2 s when zero.
	LoadInterval time.Duration
	// HealthInterval is how often the Configserver must show life, and half of
	// how long it may take to: 1 s when zero.
	HealthInterval time.Duration
	Logger         *slog.Logger
}

// Status is where the client stands.
type Status struct {
	// ProxyID is random and made once per process.
	ProxyID string
	// Server is the address of the Configserver it is connected to; empty when
	// it is not.
	Server string
	// Problem is why it is not connected, empty when it is.
	Problem string
	// Epoch is the newest known, AckedEpoch the newest obeyed; 0 for none.
	Epoch, AckedEpoch uint64
	// Phase of the cluster in words; empty before the first snapshot.
	Phase string
	// Connects counts streams that delivered a snapshot; Refused counts
	// snapshots and deltas that were not obeyed.
	Connects, Refused uint64
}

// Client is one proxy's connection to the Configservers. Run it once; the other
// methods may be called from any goroutine.
type Client struct {
	cfg Config
	id  string
	log *slog.Logger
	// wake has room for one: there is something to send.
	wake chan struct{}

	mu     sync.Mutex
	status Status
	// online closes when there is a conn; offline is since when there is none.
	online  chan struct{}
	offline time.Time
	// sights are the newest of each node; unsent are those the stream must still
	// be told.
	sights map[string]*basaltv1.NodeSight
	seenAt map[string]time.Time
	// behindAt is when what a node is behind was sent.
	behindAt map[string]time.Time
	unsent   map[string]bool
	// conn is the connection whose stream is open.
	conn *grpc.ClientConn
	// ackUnsent: status.AckedEpoch was not told to this stream.
	ackUnsent bool
	// applied are the revisions given to the engine and not acked yet.
	applied []revision
	// proxies are those of the cluster, lost is when the stream that told them
	// ended; zero while it lasts.
	proxies []Proxy
	lost    time.Time

	// Only Run's goroutine uses these.
	state    state
	users    *acl.Users // those of state, compiled
	revision uint64
	// greeted: a hello was sent, so the proxy may be a member. left: a goodbye
	// was taken note of.
	greeted, left bool
}

// revision is a table given to the engine.
type revision struct{ number, epoch uint64 }

// New makes a client; it does nothing before Run.
func New(cfg Config) *Client {
	if cfg.LoadInterval == 0 {
		cfg.LoadInterval = 2 * time.Second
	}
	if cfg.HealthInterval == 0 {
		cfg.HealthInterval = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails, see crypto/rand
	c := &Client{
		cfg: cfg, id: "proxy-" + hex.EncodeToString(id), wake: make(chan struct{}, 1),
		online: make(chan struct{}), offline: time.Now(), sights: map[string]*basaltv1.NodeSight{}, seenAt: map[string]time.Time{}, behindAt: map[string]time.Time{}, unsent: map[string]bool{},
	}
	c.log = cfg.Logger
	c.status.ProxyID = c.id
	return c
}

// ID is the proxy's id.
func (c *Client) ID() string { return c.id }

// Status returns where the client stands.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Ack records that the engine obeys the table with this revision (its Epoch),
// and every one before.
func (c *Client) Ack(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.applied) > 0 && c.applied[0].number <= number {
		c.status.AckedEpoch = c.applied[0].epoch
		c.ackUnsent = true
		c.applied = c.applied[1:]
	}
	c.nudge()
}

// Seen is what the proxy saw of a node now.
type Seen struct {
	Sight Sight
	// SinceReply is how long ago a reply last arrived, negative when none ever did.
	SinceReply time.Duration
	// Behind is the command that may keep the node busy, "" for none, and SinceBehind
	// how long ago it was sent.
	Behind      string
	SinceBehind time.Duration
	Err         error
}

// Report records what the proxy saw of a node.
func (c *Client) Report(node string, seen Seen) {
	s := &basaltv1.NodeSight{Node: node, Sight: seen.Sight, Behind: seen.Behind}
	if seen.Err != nil {
		s.Error = seen.Err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sights[node] = s
	now := time.Now()
	delete(c.seenAt, node)
	if seen.SinceReply >= 0 {
		c.seenAt[node] = now.Add(-seen.SinceReply)
	}
	delete(c.behindAt, node)
	if seen.Behind != "" {
		c.behindAt[node] = now.Add(-seen.SinceBehind)
	}
	c.unsent[node] = true
	c.nudge()
}

// nudge wakes the sender; the caller holds the lock.
func (c *Client) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run stays connected until ctx ends; then it says goodbye. It returns no error:
// being without a Configserver is a state, not a failure.
func (c *Client) Run(ctx context.Context) error {
	retry := newBackoff()
	told := newTeller(c.log)
	for next := 0; ctx.Err() == nil; next++ {
		address := c.cfg.Addresses[next%len(c.cfg.Addresses)]
		began := time.Now()
		connected, err := c.stream(ctx, address)
		if ctx.Err() != nil {
			if !c.left {
				c.lastGoodbye(ctx, next)
			}
			return nil
		}
		c.disconnected(err)
		told.tell(connected, address, err, c.Status())
		if connected && time.Since(began) > maxWait {
			retry.reset() // a stream that breaks at once must not be tried without end
		}
		// All addresses are tried before waiting grows.
		if retry.wait(ctx, next%len(c.cfg.Addresses) == len(c.cfg.Addresses)-1) != nil {
			c.lastGoodbye(ctx, next+1)
		}
	}
	return nil
}

// lastGoodbye tries each address once when the proxy stops while it is not
// connected, so that the members do not keep a proxy that is gone.
func (c *Client) lastGoodbye(ctx context.Context, next int) {
	if !c.greeted {
		return // no Configserver ever heard of it
	}
	for i := range c.cfg.Addresses {
		if address := c.cfg.Addresses[(next+i)%len(c.cfg.Addresses)]; c.goodbyeTo(context.WithoutCancel(ctx), address) == nil {
			return
		}
	}
	c.log.Info("no configserver to say goodbye to; it forgets this proxy by itself")
}

func (c *Client) disconnected(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.Server != "" {
		c.lost = time.Now()
	}
	c.status.Server, c.status.Problem = "", "the configserver ended the stream"
	if err != nil {
		c.status.Problem = err.Error()
	}
}
