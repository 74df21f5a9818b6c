package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// completeAll gives every command that takes a cluster, a shard, a node or a
// process of the playground its shell completion.
func (a *app) completeAll(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		a.completeAll(sub)
	}
	switch {
	case strings.Contains(cmd.Use, "TARGET"):
		cmd.ValidArgsFunction = a.completeTargets
	case strings.Contains(cmd.Use, "CLUSTER"):
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return a.completeCluster(cmd.Context(), strings.Fields(strings.ReplaceAll(cmd.Use, "|", " ")), args), cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// completeCluster completes the first argument with clusters, and the next
// with what the command's usage calls it.
func (a *app) completeCluster(ctx context.Context, usage, args []string) []string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var out []string
	if len(args) == 0 {
		list, err := a.clusters().ListClusters(ctx, &basaltv1.ListClustersRequest{})
		if err != nil {
			return nil
		}
		for _, c := range list.GetClusters() {
			out = append(out, c.GetName())
		}
		return out
	}
	if len(args)+1 >= len(usage) {
		return nil
	}
	if usage[len(args)+1] == "PROXY" {
		s, err := a.status(ctx, args[0])
		if err != nil {
			return nil
		}
		for _, p := range s.GetProxies() {
			out = append(out, p.GetId())
		}
		return out
	}
	t, err := a.topologyAt(ctx, args[0], 0)
	if err != nil {
		return nil
	}
	for _, s := range t.GetShards() {
		switch usage[len(args)+1] {
		case "SHARD":
			out = append(out, s.GetId())
		case "NODE":
			for _, n := range s.GetNodes() {
				out = append(out, n.GetId())
			}
		}
	}
	return out
}

func (a *app) completeTargets(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	client, err := a.playground()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	status, err := client.Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, p := range status.Processes {
		out = append(out, p.Name)
		if p.Role != "" {
			out = append(out, p.Node[:strings.LastIndexByte(p.Node, '-')]+"/"+p.Role)
		}
	}
	return append(out, "nodes", "proxies", "configservers"), cobra.ShellCompDirectiveNoFileComp
}
