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
		Use: "set PARAMETER VALUE [PARAMETER VALUE]...", Short: "Set parameters on every node, for good", Args: between(2, 1000),
		Long: `Set parameters on every node of a cluster, and again on each that starts or
joins. All of them or none, as CONFIG SET. The cluster is that of --cluster,
or the only one there is.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args)%2 != 0 {
				return usagef("a parameter without a value; usage: %s", cmd.UseLine())
			}
			var parameters []*basaltv1.ConfigParameter
			for i := 0; i < len(args); i += 2 {
				parameters = append(parameters, &basaltv1.ConfigParameter{Name: args[i], Value: args[i+1]})
			}
			return a.about(callTimeout, allArguments, func(ctx context.Context, name string, _ []string) error {
				c, err := call(ctx, a.clusters().SetConfig, &basaltv1.SetConfigRequest{Cluster: name, Parameters: parameters})
				if err != nil {
					return err
				}
				return a.printConfig(c)
			})(cmd, args)
		},
	}
}

func (a *app) configUnset() *cobra.Command {
	return &cobra.Command{
		Use: "unset PARAMETER...", Short: "Keep parameters no longer", Args: between(1, 1000),
		Long: `Keep parameters no longer. Nodes have them until they start again; then the
file they are started with decides. The cluster is that of --cluster, or the
only one there is.`,
		RunE: a.about(callTimeout, allArguments, func(ctx context.Context, name string, args []string) error {
			c, err := call(ctx, a.clusters().UnsetConfig, &basaltv1.UnsetConfigRequest{Cluster: name, Names: args})
			if err != nil {
				return err
			}
			return a.printConfig(c)
		}),
	}
}
