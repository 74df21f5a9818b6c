package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/basalt-redis/basalt/configserver/local"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) localCommand() *cobra.Command {
	return group("local", "Run a playground on this machine, and break it",
		a.localUp(), a.localDown(), a.localStatus(), a.localEnv(),
		a.localAction("kill TARGET...", "Kill processes with SIGKILL"),
		a.localAction("stop TARGET...", "Stop processes with SIGTERM"),
		a.localAction("pause TARGET...", "Freeze processes with SIGSTOP"),
		a.localAction("resume TARGET...", "Let paused processes go on"),
		a.localAction("start TARGET...", "Start dead processes again"),
		a.localAction("restart TARGET...", "Stop processes and start them again"),
	)
}

func (a *app) localUp() *cobra.Command {
	o, optionsErr := local.DefaultOptions()
	cmd := &cobra.Command{
		Use: "up", Short: "Start a sharded Redis behind one endpoint; Ctrl-C stops it", Args: between(0, 0),
		Long: `Start a sharded Redis behind one endpoint, from real processes: a Configserver
with etcd, redis-servers and proxies. It stays in the foreground; Ctrl-C stops
every process it started.

Flags have their defaults from the environment: SHARDS, REPLICAS, PROXIES, PORT,
CONFIGSERVERS, DATA_DIR, REDIS_SERVER, CLIENT_PASSWORD_FILE, DEBUG (1 is
--enable-debug).`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if optionsErr != nil {
				return usageError{optionsErr}
			}
			o.StatePath = a.statePath()
			o.AnyPort = a.stateDir == "" && !cmd.Flags().Changed("configserver-port")
			ctx, hurry, stop := untilInterrupted(cmd.Context())
			defer stop()
			o.Hurry = hurry
			out := newUpOutput(ctx, a)
			err := local.Up(ctx, o, out)
			out.events.Wait()
			return err
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.IntVar(&o.Shards, "shards", o.Shards, "shards (default 3)")
	fs.IntVar(&o.Replicas, "replicas", o.Replicas, "replicas of each shard besides its master, -1 for the default (1, or as DATA_DIR says)")
	fs.IntVar(&o.Proxies, "proxies", o.Proxies, "proxies, 0 for the default (1, or as many as were there last in DATA_DIR)")
	fs.IntVar(&o.Port, "port", o.Port, "port of the first proxy, the others follow; 0 takes free ones")
	fs.IntVar(&o.Configservers, "configservers", o.Configservers, "Configservers; several share a separate etcd")
	fs.IntVar(&o.ConfigserverPort, "configserver-port", o.ConfigserverPort, "gRPC port of the first Configserver; 0 takes free ones")
	fs.BoolVar(&o.SeparateEtcd, "separate-etcd", o.SeparateEtcd, "run etcd as its own process even for one Configserver")
	fs.StringVar(&o.DataDir, "data-dir", o.DataDir, "`directory` that is kept between runs (default: a temporary one)")
	fs.StringVar(&o.RedisServer, "redis-server", o.RedisServer, "server `binary`, Redis or Valkey")
	fs.StringVar(&o.BinDir, "bin-dir", o.BinDir, "`directory` of the programs configserver and proxy")
	fs.StringVar(&o.ClientPasswordFile, "client-password-file", o.ClientPasswordFile, "`file` with the password clients must AUTH with (default: none needed)")
	fs.BoolVar(&o.EnableDebug, "enable-debug", o.EnableDebug, "let clients use DEBUG, as the tests of Redis do")
	fs.StringArrayVar(&o.RedisConfig, "redis-config", nil, "further `line` of every redis.conf, repeatable")
	fs.StringArrayVar(&o.ConfigserverFlags, "configserver-flag", nil, "further `flag` of every Configserver, --name=value, repeatable")
	fs.StringArrayVar(&o.ConfigserverEnv, "configserver-env", nil, "`KEY=VALUE` in the environment of every Configserver, repeatable")
	fs.StringArrayVar(&o.ProxyFlags, "proxy-flag", nil, "further `flag` of every proxy, --name=value, repeatable")
	fs.StringArrayVar(&o.ProxyEnv, "proxy-env", nil, "`KEY=VALUE` in the environment of every proxy, repeatable")
	return cmd
}

// impatience is how long after the first signal another one means more than
// the first: tools and terminals may send the same one twice.
const impatience = time.Second

// untilInterrupted returns a context that ends with the first signal to stop,
// be it from a terminal that is closed, and a channel that closes when another
// one comes later.
func untilInterrupted(parent context.Context) (ctx context.Context, hurry <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	again := make(chan struct{})
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		var first time.Time
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			cancel()
			switch {
			case first.IsZero():
				first = time.Now()
			case time.Since(first) > impatience:
				close(again)
				return
			}
		}
	}()
	return ctx, again, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}

// upOutput shows what `local up` does. Progress goes to stderr, one line that
// changes on a terminal, and at most one line a second elsewhere.
type upOutput struct {
	ctx context.Context // ends when the playground is to stop
	app *app
	tty bool
	// events shows what happens, from when all is ready.
	events sync.WaitGroup

	mu    sync.Mutex
	shown string
	last  time.Time
}

func newUpOutput(ctx context.Context, a *app) *upOutput {
	return &upOutput{ctx: ctx, app: a, tty: isTerminal(a.err)}
}

func (u *upOutput) Progress(line string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if line == u.shown {
		return
	}
	if u.tty {
		fmt.Fprintf(u.app.err, "\r\x1b[K%.200s", line)
		u.shown = line
		return
	}
	if now := time.Now(); now.Sub(u.last) >= time.Second {
		fmt.Fprintln(u.app.err, line)
		u.shown, u.last = line, now
	}
}

// clear removes the line of progress. The caller holds mu.
func (u *upOutput) clear() {
	if u.tty && u.shown != "" {
		fmt.Fprint(u.app.err, "\r\x1b[K")
	}
	u.shown = ""
}

func (u *upOutput) Notice(line string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	fmt.Fprintln(u.app.err, line)
}

func (u *upOutput) Ready(r local.Ready) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	if u.app.output == "json" {
		data, err := json.Marshal(r)
		if err != nil {
			data = []byte(err.Error())
		}
		fmt.Fprintf(u.app.out, "%s\n", data)
		return
	}
	host, port, _ := net.SplitHostPort(r.Endpoint)
	fmt.Fprintf(u.app.out, "ready  redis://%s  (%d shards × %d nodes, configserver %s)\n",
		r.Endpoint, r.Shards, r.Replicas+1, strings.Join(r.Configservers, ","))
	self := program()
	if r.StatePath != local.DefaultStatePath() {
		self += " --state-dir " + strings.TrimSuffix(r.StatePath, "/local.json")
	}
	fmt.Fprintf(u.app.out, `
Try:
  redis-cli -h %s -p %s set hello world
  %s local kill shard-0/master           # and watch a replica take over:
  %s cluster status local --watch
  %s local status
`, host, port, self, self, self)
	for _, p := range r.Proxies[1:] {
		fmt.Fprintf(u.app.out, "Another proxy: redis://%s\n", p)
	}
	kept := "is kept"
	if r.Temporary {
		kept = "goes with it (DATA_DIR=… keeps it)"
	}
	fmt.Fprintf(u.app.out, "Ctrl-C stops everything. Data and logs are in %s, which %s.\n", r.DataDir, kept)
	u.app.configserver = strings.Join(r.Configservers, ",")
	u.events.Go(func() { u.showEvents(r.Cluster) })
}

// showEvents prints what happens from now on, until the playground is to stop.
func (u *upOutput) showEvents(cluster string) {
	list, err := u.app.events().ListEvents(u.ctx, &basaltv1.ListEventsRequest{Cluster: cluster, Limit: 1})
	request := &basaltv1.WatchEventsRequest{Cluster: cluster}
	for _, e := range list.GetEvents() {
		request.After = e.GetSequence()
	}
	if err == nil {
		err = u.app.followEvents(u.ctx, request, func(e *basaltv1.Event) error {
			u.Notice(eventLine(e))
			return nil
		})
	}
	if err != nil && u.ctx.Err() == nil {
		u.Notice("events are not shown any more: " + oneLine(u.app.explain(err)))
	}
}

// program is how the user calls this program from here.
func program() string {
	exe, err := os.Executable()
	if err != nil {
		return "basaltctl"
	}
	wd, err := os.Getwd()
	if err != nil {
		return exe
	}
	if relative, err := filepath.Rel(wd, exe); err == nil && !strings.HasPrefix(relative, "..") {
		return relative
	}
	return exe
}

func (a *app) playground() (*local.Client, error) { return local.Open(a.statePath()) }

func (a *app) localDown() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Stop the playground", Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := a.within(cmd.Context(), 30*time.Second)
			defer cancel()
			client, err := a.playground()
			if err != nil {
				return err
			}
			if err := client.Down(ctx); err != nil {
				return err
			}
			if a.output == "json" {
				return a.printJSON(map[string]int{"pid": client.State.PID})
			}
			return a.say("stopped the playground (pid %d)", client.State.PID)
		},
	}
}

func (a *app) localStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "List the playground's processes", Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := a.within(cmd.Context(), callTimeout)
			defer cancel()
			client, err := a.playground()
			if err != nil {
				return err
			}
			s, err := client.Status(ctx)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printJSON(s)
			}
			t := newTable("PROCESS", "STATE", "PID", "ROLE", "ADDRESS", "HTTP", "LOG").numbers(2)
			for _, p := range s.Processes {
				state, pid := p.State, fmt.Sprint(p.PID)
				if p.Exit != "" {
					state, pid = state+" ("+p.Exit+")", "-"
				}
				t.row(p.Name, state, pid, orDash(p.Role), p.Address, orDash(p.HTTPAddress), p.Log)
			}
			return t.print(a.out)
		},
	}
}

func (a *app) localEnv() *cobra.Command {
	return &cobra.Command{
		Use: "env", Short: "Print shell variables that name the playground's parts", Args: between(0, 0),
		RunE: func(*cobra.Command, []string) error {
			client, err := a.playground()
			if err != nil {
				return err
			}
			s := client.State
			if a.output == "json" {
				return a.printJSON(s)
			}
			for _, v := range [][2]string{
				{"BASALT_CONFIGSERVER", strings.Join(s.Configservers, ",")},
				{"BASALT_CLUSTER", s.Cluster},
				{"BASALT_LOCAL_STATE", a.statePath()},
				{"BASALT_ENDPOINTS", strings.Join(s.Proxies, ",")},
				{"BASALT_DATA_DIR", s.DataDir},
				{"BASALT_CREDENTIALS_DIR", s.CredentialsDir},
			} {
				if err := a.say("export %s='%s'", v[0], strings.ReplaceAll(v[1], "'", `'\''`)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *app) localAction(use, short string) *cobra.Command {
	action, _, _ := strings.Cut(use, " ")
	r := local.Request{Action: action}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: between(1, 1000),
		Long: short + `.

TARGET is one of shard-0/master, shard-0/replica (the first one), shard-0/replicas,
shard-0 (all its nodes), shard-0-1 (a node), proxy-0, configserver-0, etcd, or
nodes, proxies, configservers (all of them).`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := a.within(cmd.Context(), operationTimeout)
			defer cancel()
			client, err := a.playground()
			if err != nil {
				return err
			}
			r.Targets = args
			done, err := client.Act(ctx, r)
			if a.output == "json" && err == nil {
				return a.printJSON(done)
			}
			for _, d := range done {
				if sayErr := a.say("%s", d.What); sayErr != nil {
					return sayErr
				}
			}
			if errors.Is(err, context.DeadlineExceeded) {
				err = errors.New("the playground does not answer; see `basaltctl local status`")
			}
			return err
		},
	}
	if action == "start" || action == "restart" {
		cmd.Flags().BoolVar(&r.Empty, "empty", false, "remove a redis node's data first")
		cmd.Flags().StringArrayVar(&r.Env, "env", nil, "`KEY=VALUE` in the environment of the process, repeatable")
	}
	if action == "restart" {
		cmd.Flags().BoolVar(&r.Kill, "kill", false, "end the process with SIGKILL")
	}
	return cmd
}
