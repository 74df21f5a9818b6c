package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) nodeMark() *cobra.Command {
	return &cobra.Command{
		Use: "mark [CLUSTER] NODE", Short: "Print the line that lets a server say which node it is", Args: between(1, 2),
		Long: `Print the line of a server's configuration that lets it say which node it is.

The Configserver marks every server that it admits with an ACL user that nobody
can log in as. A server that restarts has lost it, as all that is not in its
configuration, and is known by its address alone; but an address may have gone to
another server meanwhile. With this line in its configuration (or its ACL file) a
server says who it is as soon as it runs.`,
		RunE: a.about(callTimeout, 1, func(ctx context.Context, name string, rest []string) error {
			mark, err := a.markOf(ctx, name, rest[0])
			if err != nil {
				return err
			}
			return a.say("user %s off", mark)
		}),
	}
}
