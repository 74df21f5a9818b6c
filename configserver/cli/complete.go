package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// completeAll gives every command that takes a cluster, a shard, a node or a
// process of the playground its shell completion, and flags that take such a thing or
// one of a few words.
func (a *app) completeAll(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		a.completeAll(sub)
	}
	switch {
	case strings.Contains(cmd.Use, "TARGET"):
		cmd.ValidArgsFunction = a.completeTargets
	case strings.Contains(cmd.Use, "CLUSTER"):
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return a.completeArgument(cmd.Context(), cmd.Use, args), cobra.ShellCompDirectiveNoFileComp
		}
	}
	words := map[string][]string{
		"output": {"table", "json"}, "severity": severities(), "read-policy": {"master", "read-set"}, "prefer": {"data", "availability"},
	}
	things := map[string]string{"to": "NODE", "shard": "SHARD", "cluster": "CLUSTER"}
	for _, flags := range []*pflag.FlagSet{cmd.LocalNonPersistentFlags(), cmd.PersistentFlags()} {
		flags.VisitAll(func(f *pflag.Flag) {
			complete := func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
				if thing := things[f.Name]; thing != "" {
					return a.completeThing(cmd.Context(), thing, args), cobra.ShellCompDirectiveNoFileComp
				}
				return words[f.Name], cobra.ShellCompDirectiveNoFileComp
			}
			if words[f.Name] != nil || things[f.Name] != "" {
				_ = cmd.RegisterFlagCompletionFunc(f.Name, complete) // fails for a flag that has one already
			}
		})
	}
}

// completeArgument completes the argument that follows args with what the command's
// usage calls it. The cluster may be left out.
func (a *app) completeArgument(ctx context.Context, use string, args []string) []string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	names, err := a.clusterNames(ctx)
	if err != nil {
		return nil
	}
	var wanted []string
	for _, word := range strings.Fields(strings.ReplaceAll(use, "|", " "))[1:] {
		if word = strings.Trim(word, "[]."); word == strings.ToUpper(word) && word != "CLUSTER" && !strings.HasPrefix(word, "--") {
			wanted = append(wanted, word)
		}
	}
	rest := args
	if len(args) > 0 && slices.Contains(names, args[0]) {
		rest = args[1:]
	}
	var out []string
	if len(args) == 0 {
		out = names
	}
	if len(rest) < len(wanted) && (len(rest) < len(args) || len(names) == 1 || a.clusterName != "") {
		out = append(out, a.completeThing(ctx, wanted[len(rest)], args)...)
	}
	return out
}

// completeThing lists clusters, or the shards, nodes, proxies or users of the cluster that args
// name, or of the only one.
func (a *app) completeThing(ctx context.Context, thing string, args []string) (out []string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if thing == "CLUSTER" {
		out, _ = a.clusterNames(ctx)
		return out
	}
	if !slices.Contains([]string{"SHARD", "NODE", "USER", "PROXY"}, thing) {
		return nil
	}
	cluster, _, err := a.eitherEnd(ctx, args)
	if cluster == "" && err == nil {
		cluster, _, err = a.clusterAnd(ctx, args, allArguments)
	}
	if err != nil {
		return nil
	}
	if thing == "USER" {
		list, _ := a.users().ListUsers(ctx, &basaltv1.ListUsersRequest{Cluster: cluster})
		for _, u := range list.GetUsers() {
			if words := strings.Fields(u.GetRules()); len(words) > 1 {
				out = append(out, words[1])
			}
		}
		return out
	}
	if thing == "PROXY" {
		st, _ := a.status(ctx, cluster)
		for _, p := range st.GetProxies() {
			out = append(out, p.GetId())
		}
		return out
	}
	t, err := a.topologyAt(ctx, cluster, 0)
	if err != nil {
		return nil
	}
	for _, s := range t.GetShards() {
		if thing == "SHARD" {
			out = append(out, s.GetId())
			continue
		}
		for _, n := range s.GetNodes() {
			out = append(out, n.GetId())
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
