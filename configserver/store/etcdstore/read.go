package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Replicas implements store.Store.
func (s *Store) Replicas(ctx context.Context) ([]store.Replica, error) {
	r, err := s.get(ctx, "replicas", s.keys.replicas(), clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	return decodeAll[store.Replica](r.Kvs)
}

// Owner implements store.Store.
func (s *Store) Owner(ctx context.Context, cluster string) (store.Replica, error) {
	return getOne[store.Replica](ctx, s, "owner", s.keys.owner(cluster), "owner of cluster "+cluster)
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, c topology.Cluster) error {
	if err := store.CheckCreate(c); err != nil {
		return err
	}
	value, err := encode(c)
	if err != nil {
		return fmt.Errorf("create cluster %s: %w", c.Name, err)
	}
	r, err := s.txn(ctx, "create",
		[]clientv3.Cmp{absent(s.keys.name(c.Name)), absent(s.keys.record(c.Name))},
		[]clientv3.Op{
			clientv3.OpPut(s.keys.name(c.Name), ""),
			clientv3.OpPut(s.keys.record(c.Name), value),
			clientv3.OpPut(s.keys.epoch(c.Name, 1), value),
			clientv3.OpPut(s.keys.sequence(c.Name), "0"),
		}, nil)
	if err != nil {
		return fmt.Errorf("create cluster %s: %w", c.Name, err)
	}
	if !r.Succeeded {
		return fmt.Errorf("cluster %s: %w", c.Name, store.ErrExists)
	}
	return nil
}

// Cluster implements store.Store.
func (s *Store) Cluster(ctx context.Context, name string) (topology.Cluster, error) {
	return getOne[topology.Cluster](ctx, s, "cluster", s.keys.record(name), "cluster "+name)
}

// recordsAtOnce is how many records are read by one transaction.
const recordsAtOnce = 64

// Clusters implements store.Store.
func (s *Store) Clusters(ctx context.Context) ([]topology.Cluster, error) {
	names, err := s.get(ctx, "clusters", s.keys.names(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	var list []topology.Cluster
	for chunk := range slices.Chunk(names.Kvs, recordsAtOnce) {
		var reads []clientv3.Op
		for _, kv := range chunk {
			reads = append(reads, clientv3.OpGet(s.keys.record(string(kv.Key)[len(s.keys.names()):])))
		}
		r, err := s.getAll(ctx, "clusters", nil, reads)
		if err != nil {
			return nil, err
		}
		for _, one := range r.Responses {
			// A cluster deleted since the names were read has no record.
			records, err := decodeAll[topology.Cluster](one.GetResponseRange().Kvs)
			if err != nil {
				return nil, err
			}
			list = append(list, records...)
		}
	}
	return list, nil
}

// Epoch implements store.Store.
func (s *Store) Epoch(ctx context.Context, name string, epoch uint64) (topology.Cluster, error) {
	return getOne[topology.Cluster](ctx, s, "epoch", s.keys.epoch(name, epoch),
		fmt.Sprintf("epoch %d of cluster %s", epoch, name))
}

// Epochs implements store.Store.
func (s *Store) Epochs(ctx context.Context, name string, limit int) ([]topology.Cluster, error) {
	newest, err := s.Cluster(ctx, name)
	if err != nil || limit <= 0 {
		return nil, err
	}
	from := uint64(1)
	if newest.Epoch > uint64(limit) {
		from = newest.Epoch - uint64(limit) + 1
	}
	r, err := s.get(ctx, "epochs", s.keys.epoch(name, from), clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.keys.epochs(name))))
	if err != nil {
		return nil, err
	}
	list, err := decodeAll[topology.Cluster](r.Kvs)
	if err != nil {
		return nil, err
	}
	slices.Reverse(list)
	return list[:min(limit, len(list))], nil
}

// Members implements store.Store.
func (s *Store) Members(ctx context.Context, name string) ([]store.Member, error) {
	r, err := s.getAll(ctx, "members", []clientv3.Cmp{present(s.keys.name(name))},
		[]clientv3.Op{clientv3.OpGet(s.keys.members(name), clientv3.WithPrefix())})
	if err != nil {
		return nil, err
	}
	if !r.Succeeded {
		return nil, fmt.Errorf("cluster %s: %w", name, store.ErrNotFound)
	}
	return decodeAll[store.Member](r.Responses[0].GetResponseRange().Kvs)
}

// Events implements store.Store.
func (s *Store) Events(ctx context.Context, name string, after uint64, limit int) ([]topology.Event, error) {
	list, _, err := s.eventsAt(ctx, name, after, limit)
	return list, err
}

// eventsAt is Events, and the revision after which newer events appear.
func (s *Store) eventsAt(ctx context.Context, name string, after uint64, limit int) ([]topology.Event, int64, error) {
	last, err := s.lastEvent(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	if limit <= 0 {
		return nil, 0, nil
	}
	from := after + 1
	if last > uint64(limit) {
		from = max(from, last-uint64(limit)+1)
	}
	r, err := s.get(ctx, "events", s.keys.event(name, from), clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.keys.events(name))))
	if err != nil {
		return nil, 0, err
	}
	list, err := decodeAll[topology.Event](r.Kvs)
	if err != nil {
		return nil, 0, err
	}
	return list[max(0, len(list)-limit):], r.Header.Revision, nil
}

// lastEvent returns the sequence number of the newest event, 0 before the first.
func (s *Store) lastEvent(ctx context.Context, name string) (uint64, error) {
	r, err := s.get(ctx, "sequence", s.keys.sequence(name))
	if err != nil {
		return 0, err
	}
	if len(r.Kvs) == 0 {
		return 0, fmt.Errorf("cluster %s: %w", name, store.ErrNotFound)
	}
	return decodeSequence(r.Kvs[0])
}

func decodeSequence(kv *mvccpb.KeyValue) (uint64, error) {
	n, err := strconv.ParseUint(string(kv.Value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("etcd key %s: %w", kv.Key, err)
	}
	return n, nil
}

// getOne reads and decodes one key; ErrNotFound about what when there is none.
func getOne[T any](ctx context.Context, s *Store, operation, key, what string) (v T, err error) {
	r, err := s.get(ctx, operation, key)
	if err != nil {
		return v, err
	}
	if len(r.Kvs) == 0 {
		return v, fmt.Errorf("%s: %w", what, store.ErrNotFound)
	}
	return v, decode(key, r.Kvs[0].Value, &v)
}

func decodeAll[T any](kvs []*mvccpb.KeyValue) ([]T, error) {
	var list []T
	var errs []error
	for _, kv := range kvs {
		var v T
		errs = append(errs, decode(string(kv.Key), kv.Value, &v))
		list = append(list, v)
	}
	return list, errors.Join(errs...)
}

func absent(key string) clientv3.Cmp  { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }
func present(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), ">", 0) }
