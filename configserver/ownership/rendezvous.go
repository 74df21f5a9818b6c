package ownership

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/basalt-redis/basalt/configserver/store"
)

// Rank orders live Configservers by how well placed they are for a cluster,
// the best first. Everybody computes the same order from the same set, and a
// replica that joins or leaves moves only the clusters it is best for
// (rendezvous hashing).
func Rank(replicas []store.Replica, cluster string) []store.Replica {
	list := slices.Clone(replicas)
	slices.SortFunc(list, func(a, b store.Replica) int {
		return cmp.Or(cmp.Compare(score(b.ID, cluster), score(a.ID, cluster)), cmp.Compare(a.ID, b.ID))
	})
	return list
}

func score(replica, cluster string) uint64 {
	return xxhash.Sum64String(replica + "\x00" + cluster)
}
