// Command configserver owns the truth about Basalt clusters: who owns which
// slot, who is master, who may be read.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/basalt-redis/basalt/configserver/config"
	"github.com/basalt-redis/basalt/configserver/server"
	"github.com/basalt-redis/basalt/configserver/store/embedded"
	"github.com/basalt-redis/basalt/internal/lifecycle"
	"github.com/basalt-redis/basalt/internal/observe"
	"github.com/basalt-redis/basalt/internal/settings"
	"github.com/basalt-redis/basalt/internal/version"
)

func main() {
	ctx, stop := lifecycle.Context(context.Background())
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "configserver:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "configserver",
		Short:         "The control plane of Basalt",
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(serveCommand(), etcdCommand())
	return root
}

func serveCommand() *cobra.Command {
	var cfg config.Serve
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve the API and run the control loops of clusters",
		Long: "Serve the API and run the control loops of clusters.\n\n" +
			"Without --etcd-endpoints it runs an etcd of its own in --data-dir.\n" +
			"Every flag can also be set in the --config file under its name, or in the\n" +
			"environment as " + config.EnvPrefix + "_ and its name in capitals with _ for -.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := settings.Apply(c.Flags(), config.EnvPrefix); err != nil {
				return err
			}
			if err := cfg.Check(); err != nil {
				return err
			}
			s, err := server.New(cfg)
			if err != nil {
				return err
			}
			return s.Run(c.Context())
		},
	}
	cfg.Flags(c.Flags())
	settings.AddConfigFlag(c.Flags())
	return c
}

func etcdCommand() *cobra.Command {
	var cfg config.Etcd
	c := &cobra.Command{
		Use:   "etcd",
		Short: "Run only the embedded etcd, for several configservers on one machine",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := settings.Apply(c.Flags(), config.EnvPrefix+"_ETCD"); err != nil {
				return err
			}
			if err := cfg.Check(); err != nil {
				return err
			}
			return runEtcd(c.Context(), cfg)
		},
	}
	cfg.Flags(c.Flags())
	settings.AddConfigFlag(c.Flags())
	return c
}

// runEtcd runs the embedded etcd until ctx ends.
func runEtcd(ctx context.Context, cfg config.Etcd) error {
	log, err := observe.NewLogger(os.Stderr, cfg.LogLevel, cfg.LogFormat)
	if err != nil {
		return fmt.Errorf("--%w", err)
	}
	etcd, err := embedded.Start(ctx, embedded.Config{Dir: cfg.DataDir, ListenClient: cfg.ListenClient, ListenPeer: cfg.ListenPeer, Fatal: func(err error) {
		log.Error("etcd ends", "error", err)
		fmt.Fprintln(os.Stderr, "configserver:", err)
	}})
	if err != nil {
		return err
	}
	log.Info("etcd started", "version", version.String(), "client", etcd.Endpoint(), "data", cfg.DataDir)
	select {
	case <-ctx.Done():
	case err = <-etcd.Failed():
		log.Error("etcd failed", "error", err)
	}
	err = errors.Join(err, etcd.Close())
	log.Info("etcd stopped")
	return err
}
