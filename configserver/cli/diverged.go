package cli

import (
	"context"

	"github.com/spf13/cobra"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) divergedCommand() *cobra.Command {
	return group("diverged", "Data that nodes had written alone and that is kept aside", a.divergedList())
}

func (a *app) divergedList() *cobra.Command {
	return &cobra.Command{
		Use: "list [CLUSTER]", Aliases: []string{"ls"}, Short: "List data that nodes had written alone", Args: between(0, 1),
		Long: `List data that nodes had written alone and that their shard's master does not
have: an old master may hold writes that were acknowledged and not replicated when
it was replaced. Before it was made a replica, it wrote all it had to the file
named here, in the folder that its CONFIG GET dir names. To look into it, copy the
file, and start a server of the same version on it, alone and on another port:

  redis-server --port 7999 --bind 127.0.0.1 --dir COPY --dbfilename FILE --appendonly no

The file may be written over from the time under UNTIL on, which is set when the
node has copied its master's data (policy keep-diverged). Basalt does not delete it.`,
		RunE: a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
			s, err := a.status(ctx, name)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(&basaltv1.ClusterStatus{Diverged: s.GetDiverged()})
			}
			if len(s.GetDiverged()) == 0 {
				return a.say("no node of cluster %s had written anything alone", name)
			}
			t := newTable("SHARD", "NODE", "FOUND", "BYTES", "FILE", "UNTIL").numbers(3)
			for _, d := range s.GetDiverged() {
				file, until := d.GetFile(), "in sync again"
				switch {
				case d.GetError() != "":
					file, until = "not kept: "+d.GetError(), "-"
				case file == "":
					file, until = "being written", "-"
				case d.GetUntil() != nil:
					until = "in " + span(d.GetUntil().AsTime().Sub(a.now()))
				}
				t.row(d.GetShard(), d.GetNode(), a.age(d.GetFoundAt())+" ago", count(d.GetBytes()), file, until)
			}
			return t.print(a.out)
		}),
	}
}
