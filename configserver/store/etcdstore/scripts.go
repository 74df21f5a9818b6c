package etcdstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/basalt-redis/basalt/configserver/store"
)

// Several Configservers put scripts of one cluster at once, so the index is
// replaced only if it is still the one that was read. scriptAttempts is how
// often that is tried again.
const scriptAttempts = 10

// PutScripts implements store.Store.
func (s *Store) PutScripts(ctx context.Context, name string, flushes uint64, scripts []store.Script) error {
	if err := store.CheckScripts(scripts); err != nil {
		return err
	}
	for range scriptAttempts {
		index, revision, err := s.scriptIndex(ctx, name, flushes)
		if err != nil {
			return err
		}
		added, dropped, changed := index.Put(scripts, time.Now(), s.cfg.KeepScripts, s.cfg.KeepScriptBytes)
		if !changed && len(dropped) == 0 {
			return nil
		}
		value, err := encode(index)
		if err != nil {
			return fmt.Errorf("scripts of %s: %w", name, err)
		}
		then := []clientv3.Op{clientv3.OpPut(s.keys.scriptIndex(name), value)}
		for _, sha := range dropped {
			then = append(then, clientv3.OpDelete(s.keys.source(name, sha)))
		}
		for _, script := range added {
			then = append(then, clientv3.OpPut(s.keys.source(name, script.SHA), script.Source))
		}
		r, err := s.txn(ctx, "put scripts", []clientv3.Cmp{
			present(s.keys.name(name)),
			clientv3.Compare(clientv3.ModRevision(s.keys.scriptIndex(name)), "=", revision),
			s.flushesAre(name, flushes),
		}, then, nil)
		if err != nil {
			return fmt.Errorf("scripts of %s: %w", name, err)
		}
		if r.Succeeded {
			return nil
		}
	}
	return fmt.Errorf("scripts of %s: %w", name, store.ErrConflict)
}

// scriptIndex reads the index and the revision it was written at, 0 when there
// is none.
func (s *Store) scriptIndex(ctx context.Context, name string, flushes uint64) (index store.ScriptIndex, revision int64, err error) {
	r, err := s.getAll(ctx, "script index", []clientv3.Cmp{present(s.keys.name(name)), s.flushesAre(name, flushes)},
		[]clientv3.Op{clientv3.OpGet(s.keys.scriptIndex(name))})
	if err != nil {
		return index, 0, err
	}
	if !r.Succeeded {
		if _, err := s.Cluster(ctx, name); err != nil {
			return index, 0, err
		}
		return index, 0, fmt.Errorf("scripts of %s: %w", name, store.ErrFlushed)
	}
	kvs := r.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return index, 0, nil
	}
	return index, kvs[0].ModRevision, decode(string(kvs[0].Key), kvs[0].Value, &index)
}

// flushesAre compares the number of flushes; before the first one there is no
// key.
func (s *Store) flushesAre(name string, n uint64) clientv3.Cmp {
	if n == 0 {
		return absent(s.keys.flushes(name))
	}
	return clientv3.Compare(clientv3.Value(s.keys.flushes(name)), "=", strconv.FormatUint(n, 10))
}

// Scripts implements store.Store.
func (s *Store) Scripts(ctx context.Context, name string, shas []string, sources bool) ([]store.Script, uint64, error) {
	reads := []clientv3.Op{clientv3.OpGet(s.keys.flushes(name))}
	var opts []clientv3.OpOption
	if !sources {
		opts = append(opts, clientv3.WithKeysOnly())
	}
	for _, sha := range shas[:min(len(shas), store.MaxScripts)] {
		reads = append(reads, clientv3.OpGet(s.keys.source(name, sha), opts...))
	}
	r, err := s.getAll(ctx, "scripts", []clientv3.Cmp{present(s.keys.name(name))}, reads)
	if err != nil {
		return nil, 0, err
	}
	if !r.Succeeded {
		return nil, 0, fmt.Errorf("cluster %s: %w", name, store.ErrNotFound)
	}
	flushes, err := decodeFlushes(r.Responses[0].GetResponseRange().Kvs)
	if err != nil {
		return nil, 0, err
	}
	var kept []store.Script
	for _, one := range r.Responses[1:] {
		for _, kv := range one.GetResponseRange().Kvs {
			kept = append(kept, store.Script{SHA: string(kv.Key)[len(s.keys.sources(name)):], Source: string(kv.Value)})
		}
	}
	return kept, flushes, nil
}

func decodeFlushes(kvs []*mvccpb.KeyValue) (uint64, error) {
	if len(kvs) == 0 {
		return 0, nil
	}
	return decodeSequence(kvs[0])
}

// FlushScripts implements store.Store.
func (s *Store) FlushScripts(ctx context.Context, name string) (uint64, error) {
	for range scriptAttempts {
		_, flushes, err := s.Scripts(ctx, name, nil, false)
		if err != nil {
			return 0, err
		}
		r, err := s.txn(ctx, "flush scripts", []clientv3.Cmp{present(s.keys.name(name)), s.flushesAre(name, flushes)},
			[]clientv3.Op{
				clientv3.OpPut(s.keys.flushes(name), strconv.FormatUint(flushes+1, 10)),
				clientv3.OpDelete(s.keys.scriptIndex(name)),
				clientv3.OpDelete(s.keys.sources(name), clientv3.WithPrefix()),
			}, nil)
		if err != nil {
			return 0, fmt.Errorf("flush scripts of %s: %w", name, err)
		}
		if r.Succeeded {
			return flushes + 1, nil
		}
	}
	return 0, fmt.Errorf("flush scripts of %s: %w", name, store.ErrConflict)
}
