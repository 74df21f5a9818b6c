package cli

import (
	"context"

	"github.com/spf13/cobra"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) divergedCommand() *cobra.Command {
	return group("diverged", "Writes that only one node had, and the files they were saved to", a.divergedList())
}

func (a *app) divergedList() *cobra.Command {
	return &cobra.Command{
		Use: "list [CLUSTER]", Aliases: []string{"ls"}, Short: "List writes that only one node had, and the files they were saved to", Args: between(0, 1),
		Long: `List writes that only one node had, and the files they were saved to. An old
master may hold writes that were acknowledged and not replicated when it was
replaced. Before it is made a replica, it saves everything it has, these writes
among it, to FILE in its data directory. To see what is in there, on its host:

  redis-cli -p PORT --user basalt-admin --askpass config get dir
  mkdir /tmp/look && cp DIR/FILE /tmp/look
  redis-server --port 7999 --bind 127.0.0.1 --dir /tmp/look --dbfilename FILE --appendonly no

The server must not be of an older version than the node's. What is missing in the
cluster has to be copied from it by hand, for example with DUMP and RESTORE.

KEPT says how long FILE is not written over by a later one: for the policy's
keep-diverged after the node is in sync again. Basalt never deletes it; remove it
when it is of no use.`,
		RunE: a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
			s, err := a.status(ctx, name)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(&basaltv1.ClusterStatus{Diverged: s.GetDiverged()})
			}
			if len(s.GetDiverged()) == 0 {
				return a.say("no node of cluster %s had writes that its shard's master lacks", name)
			}
			t := newTable("SHARD", "NODE", "FOUND", "BYTES", "FILE", "KEPT").numbers(3)
			for _, d := range s.GetDiverged() {
				file, kept := d.GetFile(), "until it is in sync"
				switch {
				case d.GetError() != "":
					file, kept = "not saved: "+d.GetError(), "-"
				case file == "":
					file, kept = "being written", "-"
				case d.GetUntil() != nil:
					kept = span(d.GetUntil().AsTime().Sub(a.now())) + " more"
				}
				bytes := "unknown"
				if d.GetBytes() >= 0 {
					bytes = size(d.GetBytes())
				}
				t.row(d.GetShard(), d.GetNode(), a.age(d.GetFoundAt())+" ago", bytes, file, kept)
			}
			return t.print(a.out)
		}),
	}
}
