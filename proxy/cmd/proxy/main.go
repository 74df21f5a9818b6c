// Command proxy serves Redis clients in front of a cluster of servers.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/basalt-redis/basalt/internal/lifecycle"
	"github.com/basalt-redis/basalt/internal/version"
	"github.com/basalt-redis/basalt/proxy/config"
	"github.com/basalt-redis/basalt/proxy/server"
)

func main() {
	cfg, err := config.Load(os.Args[1:])
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintf(os.Stderr, "proxy: %v\nSee proxy --help.\n", err)
		os.Exit(2)
	case cfg.ShowVersion:
		fmt.Println("basalt proxy", version.String())
		return
	}
	if err := run(cfg); err != nil {
		fmt.Fprintf(os.Stderr, "proxy: %v\n", err)
		os.Exit(1)
	}
}

func run(cfg config.Config) error {
	ctx, stop := lifecycle.Context(context.Background())
	defer stop()
	s, err := server.New(cfg, os.Stderr)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
