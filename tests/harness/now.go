package harness

import (
	"context"
	"time"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// StatusNow asks each Configserver once, for at most patience, what the owner
// of the cluster sees: for tests that go on when nobody answers.
func (c *Cluster) StatusNow(patience time.Duration) (st *pb.ClusterStatus, err error) {
	for _, a := range c.apis {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		st, err = a.Clusters.GetStatus(ctx, &pb.GetStatusRequest{Cluster: c.Name})
		cancel()
		if err == nil {
			return st, nil
		}
	}
	return nil, err
}
