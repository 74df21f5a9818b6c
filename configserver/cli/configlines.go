package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) configLines() *cobra.Command {
	var file string
	var before7 bool
	cmd := &cobra.Command{
		Use: "config-lines --password-file FILE [CLUSTER] [NODE]", Short: "Print the lines that a server's configuration needs", Args: between(0, 2),
		Long: `Print the lines that a server's configuration needs beside its port: its users, with
the SHA-256 of the admin password. Line 1 of the file is the current password, line 2
the one before; with or without an end of the last line. With a NODE that is
registered there is also the line that says which node the server is.`,
		Example: `  basaltctl config-lines --password-file admin-password >> redis.conf`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usagef("name the file with the admin password: --password-file FILE")
			}
			passwords, err := credentials.ReadAdminPasswords(file)
			if err != nil {
				return err
			}
			mark := ""
			if len(args) > 0 {
				err = a.about(callTimeout, 1, func(ctx context.Context, name string, rest []string) error {
					mark, err = a.markOf(ctx, name, rest[0])
					return err
				})(cmd, args)
			}
			if err != nil {
				return err
			}
			lines := credentials.ServerLines(passwords, mark, before7)
			if a.output == "json" {
				return a.printJSON(map[string][]string{"lines": lines})
			}
			return a.say("%s", strings.Join(lines, "\n"))
		},
	}
	cmd.Flags().StringVar(&file, "password-file", "", "`file` with the admin password")
	cmd.Flags().BoolVar(&before7, "before-7", false, "for a server before Redis 7.0, which ends at lines that it does not know")
	return cmd
}

// markOf is the user by which a server says that it is a node.
func (a *app) markOf(ctx context.Context, cluster, node string) (string, error) {
	c, err := a.clusters().GetCluster(ctx, &basaltv1.GetClusterRequest{Name: cluster})
	if err != nil {
		return "", err
	}
	t, err := a.topologyAt(ctx, cluster, 0)
	if err != nil {
		return "", err
	}
	for _, s := range t.GetShards() {
		for _, n := range s.GetNodes() {
			if n.GetId() == node {
				return topology.Mark(&topology.Cluster{Name: c.GetName(), UID: c.GetUid()}, s.GetId(), n.GetId()), nil
			}
		}
	}
	return "", usagef("node %s is not registered in cluster %s; `basaltctl topology show %s` lists those that are", node, cluster, cluster)
}
