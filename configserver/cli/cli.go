// Package cli is basaltctl: it speaks gRPC to a Configserver and nothing else,
// except for `basaltctl local`, which speaks to the playground's runner.
//
// Tables are for people and may change; `-o json` is for programs: it prints
// the messages of the API in protobuf's JSON form, and errors as JSON too.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/configserver/local"
	"github.com/basalt-redis/basalt/internal/lifecycle"
	"github.com/basalt-redis/basalt/internal/version"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	// exitNotServing is that of `cluster status` alone.
	exitNotServing = 2
)

// exitError ends the program with an exit code when all that is to be said was said.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// app is one run of the program.
type app struct {
	out, err io.Writer
	in       io.Reader
	now      func() time.Time

	configserver string
	clusterName  string
	output       string
	timeout      time.Duration
	stateDir     string

	// conn leads to the Configservers dialled, once one was needed.
	conn    *grpc.ClientConn
	dialled []string
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// Main runs the program with arguments, without its name, and returns its exit
// code: 0 done, 1 failed, 2 wrong usage, or a cluster that does not serve.
func Main(args []string, out, errOut io.Writer) int {
	ctx, stop := lifecycle.Context(context.Background())
	defer stop()
	a := &app{out: out, err: errOut, in: os.Stdin, now: time.Now}
	return a.main(ctx, args)
}

func (a *app) main(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if a.conn != nil {
		a.conn.Close()
	}
	var usage usageError
	var exit exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"):
		a.complain(wantsJSON(args), "Usage", err.Error())
		return exitUsage
	}
	code := "Failed"
	if s, ok := status.FromError(err); ok {
		code = s.Code().String()
	}
	a.complain(wantsJSON(args), code, a.explain(err))
	return exitFailed
}

// complain prints an error, for programs or for people. code is Usage, Failed or the
// name of a gRPC code.
func (a *app) complain(asJSON bool, code, message string) {
	if !asJSON {
		fmt.Fprintln(a.err, "basaltctl: "+oneLine(message))
		return
	}
	type failure struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	data, err := json.Marshal(map[string]failure{"error": {code, oneLine(message)}})
	if err != nil {
		data = []byte(err.Error())
	}
	fmt.Fprintf(a.err, "%s\n", data)
}

// wantsJSON tells if the arguments ask for JSON, even where a mistake kept them from
// being parsed.
func wantsJSON(args []string) bool {
	for i, arg := range args {
		switch arg {
		case "--":
			return false
		case "-ojson", "-o=json", "--output=json":
			return true
		case "-o", "--output":
			if i+1 < len(args) && args[i+1] == "json" {
				return true
			}
		}
	}
	return false
}

func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "basaltctl",
		Short: "Administer Basalt clusters",
		Long: `Administer Basalt clusters through a Configserver, or run one on this machine.

The Configserver is the one of --configserver, else of BASALT_CONFIGSERVER, else
of the playground that runs here (basaltctl local up), else 127.0.0.1:7400.
CLUSTER stands first or last, or is left out when there is only one, or when
--cluster or BASALT_CLUSTER names it.

Tables are for people and may change. With -o json the output is the messages of
the API as JSON, with every field; streams (events watch, --watch) print one on a
line. Fields are only ever added. An error is then one line on stderr,
{"error":{"code":…,"message":…}}: code is Usage, Failed, or gRPC's name, as
NotFound or FailedPrecondition.`,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != "table" && a.output != "json" {
				return usagef("--output %s: want table or json", a.output)
			}
			return nil
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v; see `%s --help`", err, cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.configserver, "configserver", "", "`addresses` of Configservers, HOST:PORT, comma separated")
	flags.StringVar(&a.clusterName, "cluster", os.Getenv("BASALT_CLUSTER"), "`cluster` that is meant when none is named")
	flags.StringVarP(&a.output, "output", "o", "table", "`format` of output: table or json")
	flags.DurationVar(&a.timeout, "timeout", 0, "how long to wait for an answer (default 10s; operations 1m)")
	flags.StringVar(&a.stateDir, "state-dir", "", "`directory` of the playground's state file (default BASALT_LOCAL_STATE, else "+local.DefaultStatePath()+")")
	root.SetVersionTemplate("basaltctl version {{.Version}}\n")
	root.AddCommand(
		a.clusterCommand(), a.nodeCommand(), a.proxyCommand(), a.maintenanceCommand(), a.switchoverCommand(), a.failoverCommand(),
		a.topologyCommand(), a.divergedCommand(), a.eventsCommand(), a.credentialsCommand(), a.aclCommand(), a.configLines(), a.localCommand(), a.versionCommand(),
	)
	a.completeAll(root)
	return root
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = ", did you mean " + strings.Join(near, " or ") + "?"
	}
	return usagef("unknown command %q%s; see `%s --help`", args[0], hint, cmd.CommandPath())
}

// between accepts lowest to highest arguments.
func between(lowest, highest int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < lowest || len(args) > highest {
			return usagef("usage: %s", cmd.UseLine())
		}
		return nil
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: between(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if a.output == "json" {
				return a.printJSON(map[string]string{"version": version.String()})
			}
			_, err := fmt.Fprintln(a.out, version.String())
			return err
		},
	}
}

func (a *app) statePath() string {
	if a.stateDir != "" {
		return local.StatePathIn(a.stateDir)
	}
	return local.DefaultStatePath()
}

// within limits a call to --timeout, or to usual when that was not given.
func (a *app) within(ctx context.Context, usual time.Duration) (context.Context, context.CancelFunc) {
	if a.timeout > 0 {
		usual = a.timeout
	}
	return context.WithTimeout(ctx, usual)
}

// Usual time limits.
const (
	callTimeout      = 10 * time.Second
	operationTimeout = time.Minute
)

// allArguments of a command are its own; only --cluster names a cluster.
const allArguments = math.MaxInt

// about runs a command about one cluster that takes n further arguments: do gets
// the cluster and those, and has --timeout or the usual time, which finding the
// cluster counts for.
func (a *app) about(usual time.Duration, n int, do func(ctx context.Context, cluster string, rest []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, cancel := a.within(cmd.Context(), usual)
		defer cancel()
		cluster, rest, err := a.clusterAnd(ctx, args, n)
		if err != nil {
			return err
		}
		return do(ctx, cluster, rest)
	}
}

// clusterAnd splits arguments into the cluster and n others. Without the
// cluster it is the one of --cluster, or the only one there is.
func (a *app) clusterAnd(ctx context.Context, args []string, n int) (string, []string, error) {
	if len(args) > n && n == 0 {
		return args[0], nil, nil
	}
	if len(args) > n {
		cluster, rest, err := a.eitherEnd(ctx, args)
		if cluster == "" {
			cluster, rest = args[0], args[1:]
		}
		return cluster, rest, err
	}
	if a.clusterName != "" {
		return a.clusterName, args, nil
	}
	names, err := a.clusterNames(ctx)
	if err != nil {
		return "", nil, err
	}
	switch len(names) {
	case 1:
		return names[0], args, nil
	case 0:
		return "", nil, errors.New("there is no cluster yet; make one with `basaltctl cluster create`")
	}
	return "", nil, usagef("name the cluster: %s", strings.Join(names, ", "))
}

// eitherEnd takes the cluster off the arguments, which stands first or last; "" when
// neither is the name of one.
func (a *app) eitherEnd(ctx context.Context, args []string) (string, []string, error) {
	names, err := a.clusterNames(ctx)
	if err != nil || len(args) == 0 {
		return "", args, err
	}
	last := len(args) - 1
	switch {
	case slices.Contains(names, args[0]):
		return args[0], args[1:], nil
	case slices.Contains(names, args[last]):
		return args[last], args[:last], nil
	}
	return "", args, nil
}

// clusterOr splits arguments of any number into the cluster and the others, which are
// all of them when --cluster names it, or when none of them does and there is only one.
func (a *app) clusterOr(ctx context.Context, args []string) (string, []string, error) {
	if a.clusterName == "" {
		if cluster, rest, err := a.eitherEnd(ctx, args); cluster != "" || err != nil {
			if len(rest) == 0 && err == nil {
				err = usagef("nothing is named but cluster %s; see --help", cluster)
			}
			return cluster, rest, err
		}
	}
	return a.clusterAnd(ctx, args, allArguments)
}

func (a *app) clusterNames(ctx context.Context) (names []string, err error) {
	list, err := call(ctx, a.clusters().ListClusters, &basaltv1.ListClustersRequest{})
	for _, c := range list.GetClusters() {
		names = append(names, c.GetName())
	}
	return names, err
}
