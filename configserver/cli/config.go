package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) clusterConfig() *cobra.Command {
	return group("config", "Parameters of the servers' configuration that every node of a cluster has",
		a.configGet(), a.configSet(), a.configUnset())
}

func (a *app) configGet() *cobra.Command {
	return &cobra.Command{
		Use: "get [CLUSTER]", Short: "Show the parameters that are kept with a cluster", Args: between(0, 1),
		Long: `Show the parameters that are kept with a cluster. What the servers have of
themselves, CONFIG GET at a proxy shows.`,
		RunE: a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
			c, err := read(ctx, a.clusters().GetCluster, &basaltv1.GetClusterRequest{Name: name})
			if err != nil {
				return err
			}
			return a.printConfig(c)
		}),
	}
}

func (a *app) printConfig(c *basaltv1.Cluster) error {
	if a.output == "json" {
		return a.printProto(c)
	}
	if len(c.GetConfig()) == 0 {
		return a.say("nothing is set for cluster %s: its nodes have what they were started with", c.GetName())
	}
	return configTable(c.GetConfig()).print(a.out)
}

func configTable(parameters []*basaltv1.ConfigParameter) *table {
	t := newTable("PARAMETER", "VALUE")
	for _, p := range parameters {
		t.row(p.GetName(), fmt.Sprintf("%q", p.GetValue()))
	}
	return t
}

// configLine names the first few parameters.
func configLine(parameters []*basaltv1.ConfigParameter) string {
	const few = 6
	var parts []string
	for _, p := range parameters[:min(few, len(parameters))] {
		parts = append(parts, fmt.Sprintf("%s %q", p.GetName(), p.GetValue()))
	}
	line := strings.Join(parts, ", ")
	if more := len(parameters) - few; more > 0 {
		line += fmt.Sprintf(" and %d more (basaltctl cluster config get)", more)
	}
	return line
}

func (a *app) configSet() *cobra.Command {
	return &cobra.Command{
		Use: "set [CLUSTER] PARAMETER VALUE [PARAMETER VALUE]...", Short: "Set parameters on every node, for good", Args: between(2, 1001),
		Long: `Set parameters on every node of a cluster, and again on each that starts or
joins. All of them or none, as CONFIG SET.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := a.within(cmd.Context(), callTimeout)
			defer cancel()
			pick := func(ctx context.Context, args []string) (string, []string, error) {
				return a.clusterAnd(ctx, args, allArguments)
			}
			if len(args)%2 != 0 {
				pick = a.eitherEnd
			}
			name, rest, err := pick(ctx, args)
			switch {
			case err != nil:
				return err
			case name == "":
				return usagef("a parameter without a value, or a cluster that is not there; usage: %s", cmd.UseLine())
			}
			request := &basaltv1.SetConfigRequest{Cluster: name}
			for i := 0; i < len(rest); i += 2 {
				request.Parameters = append(request.Parameters, &basaltv1.ConfigParameter{Name: rest[i], Value: rest[i+1]})
			}
			c, err := call(ctx, a.clusters().SetConfig, request)
			if err != nil {
				return err
			}
			return a.printConfig(c)
		},
	}
}

func (a *app) configUnset() *cobra.Command {
	return &cobra.Command{
		Use: "unset [CLUSTER] PARAMETER...", Short: "Keep parameters no longer", Args: between(1, 1001),
		Long: `Keep parameters no longer. Nodes have them until they start again; then the
file they are started with decides.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := a.within(cmd.Context(), callTimeout)
			defer cancel()
			name, rest, err := a.clusterOr(ctx, args)
			if err != nil {
				return err
			}
			c, err := call(ctx, a.clusters().UnsetConfig, &basaltv1.UnsetConfigRequest{Cluster: name, Names: rest})
			if err != nil {
				return err
			}
			return a.printConfig(c)
		},
	}
}
