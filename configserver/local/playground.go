package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/basalt-redis/basalt/configserver/client"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// stopWithin bounds how long stopping everything may take before what is left
// gets SIGKILL.
const stopWithin = 10 * time.Second

// Ready is what `local up` tells once every slot serves.
type Ready struct {
	Ready bool `json:"ready"`
	// Endpoint is the first proxy, "127.0.0.1:6380".
	Endpoint string `json:"endpoint"`
	State
	// StatePath is the state file.
	StatePath string `json:"statePath"`
	Shards    int    `json:"shards"`
	Replicas  int    `json:"replicas"`
	TookMS    int64  `json:"tookMs"`
}

// Output is where the runner speaks to its user.
type Output interface {
	// Progress says what is being waited for; it may replace the line before.
	Progress(line string)
	// Ready is called once.
	Ready(r Ready)
	// Notice is one line about something that happened.
	Notice(line string)
}

// playground is everything one runner owns.
type playground struct {
	opts   Options
	out    Output
	spawn  spawner
	dir    *dataDir
	layout *layout
	// since7: the servers know the config lines of Redis 7.0.
	since7 bool

	// processes in the order in which they start.
	processes     []*process
	configservers []string
	proxies       []string

	conn *grpc.ClientConn
	// topology is the newest one seen, for when no Configserver answers.
	topology atomic.Pointer[basaltv1.Topology]

	// died gets the first process that ended by itself while forming.
	died     chan error
	stopping atomic.Bool
	// acting serialises what `local kill` and the like do.
	acting sync.Mutex
	down   context.CancelFunc
}

// Up runs a playground until ctx ends; it returns nil when that ended it, or an
// error when it could not be formed. Every process it started is gone when it
// returns.
func Up(ctx context.Context, opts Options, out Output) (err error) {
	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lock, statePath, err := claimState(&opts)
	if err != nil {
		return err
	}
	opts.StatePath = statePath
	defer lock.Close()
	removeLeftovers(opts.StatePath)

	dir, err := openDataDir(opts.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	g := &playground{opts: opts, out: out, spawn: newSpawner(), dir: dir, died: make(chan error, 1), down: cancel}
	if g.layout, err = dir.layout(&g.opts); err != nil {
		return err
	}
	if err := g.opts.check(); err != nil {
		return err
	}
	if err := dir.makeCredentials(g.opts.ClientPasswordFile); err != nil {
		return err
	}
	g.since7 = isSince7(g.opts.RedisServer)
	if err := g.plan(); err != nil {
		return err
	}
	if g.conn, err = client.Dial(g.configservers); err != nil {
		return err
	}
	defer g.conn.Close()

	socket, closeSocket, err := g.listen()
	if err != nil {
		return err
	}
	defer closeSocket()
	state := State{
		PID: os.Getpid(), Socket: socket, Cluster: Cluster,
		Configservers: g.configservers, Proxies: g.proxies,
		DataDir: dir.path, Temporary: dir.temporary, CredentialsDir: dir.in("credentials"),
	}
	if err := state.write(opts.StatePath); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	defer os.Remove(opts.StatePath)

	defer g.stop()
	if err := g.form(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	out.Ready(Ready{
		Ready: true, Endpoint: g.proxies[0], State: state, StatePath: opts.StatePath,
		Shards: g.layout.Shards, Replicas: g.layout.Replicas,
		TookMS: time.Since(began).Milliseconds(),
	})
	g.follow(ctx)
	return nil
}

// removeLeftovers clears what a runner that was killed could not: its socket
// and its temporary data directory. The caller holds the state file's lock, so
// that runner is gone.
func removeLeftovers(statePath string) {
	state, err := ReadState(statePath)
	if err != nil {
		return
	}
	_ = os.Remove(state.Socket)
	_ = os.Remove(statePath)
	if !state.Temporary {
		return
	}
	// A directory that is locked or is no playground is somebody else's.
	if _, err := os.Stat(state.DataDir + "/playground.json"); err != nil {
		return
	}
	lock, err := lockFile(state.DataDir + "/.lock")
	if err != nil {
		return
	}
	defer lock.Close()
	_ = os.RemoveAll(state.DataDir)
}

// ofKind returns the processes of some kinds, in the order they start.
func (g *playground) ofKind(kinds ...Kind) []*process {
	var out []*process
	for _, p := range g.processes {
		if slices.Contains(kinds, p.kind) {
			out = append(out, p)
		}
	}
	return out
}

// processDied is called when a process ended though nobody here ended it. It
// is not started again: a playground is there to watch things die.
func (g *playground) processDied(p *process, how string) {
	if g.stopping.Load() {
		return
	}
	select {
	case g.died <- fmt.Errorf("%s ended (%s); its log %s ends with: %s", p.name, how, p.logPath, p.lastLog()):
	default:
	}
	g.out.Notice(fmt.Sprintf("%s ended by itself: %s; log: %s; start it again with `basaltctl local start %s`", p.name, how, p.logPath, p.name))
}

// follow keeps the last known topology fresh until ctx ends.
func (g *playground) follow(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			g.refreshTopology(ctx, time.Second)
		}
	}
}

// refreshTopology asks for the topology, for wait at most; it tells whether
// somebody answered.
func (g *playground) refreshTopology(ctx context.Context, wait time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	t, err := basaltv1.NewTopologyServiceClient(g.conn).GetTopology(ctx, &basaltv1.GetTopologyRequest{Cluster: Cluster})
	if err != nil {
		return false
	}
	if known := g.topology.Load(); known == nil || known.GetEpoch() <= t.GetEpoch() {
		g.topology.Store(t)
	}
	return true
}

// stop ends every process: proxies, Configservers, nodes, etcd, each kind at
// once, within stopWithin altogether; whatever is left then gets SIGKILL.
func (g *playground) stop() {
	g.stopping.Store(true)
	g.acting.Lock()
	defer g.acting.Unlock()
	g.out.Notice("stopping")
	deadline := time.Now().Add(stopWithin)
	for _, kind := range []Kind{KindProxy, KindConfigserver, KindNode, KindEtcd} {
		// No kind may use up what the ones after it need.
		wait := min(stopWithin*2/5, max(time.Until(deadline), 100*time.Millisecond))
		var group sync.WaitGroup
		for _, p := range g.ofKind(kind) {
			group.Go(func() {
				if _, killed, err := p.stop(wait, g.opts.Hurry); killed && err == nil {
					g.out.Notice(p.name + " did not stop in time and was killed")
				}
			})
		}
		group.Wait()
	}
}
