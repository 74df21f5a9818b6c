package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// ownership is one owner key, named by the revision that created it.
type ownership struct {
	session *session
	cluster string
	created int64
	// ctx ends when the right is gone.
	ctx  context.Context
	lose context.CancelFunc

	// mu makes writes that number events wait for each other.
	mu sync.Mutex
	// last is the number of the newest event, as far as is known.
	last uint64
}

func (o *ownership) store() *Store { return o.session.store }

// mine is the fence: the owner key is still the one this ownership created.
func (o *ownership) mine() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(o.store().keys.owner(o.cluster)), "=", o.created)
}

// Lost implements store.Ownership.
func (o *ownership) Lost() <-chan struct{} { return o.ctx.Done() }

// Expired implements store.Punctual.
func (o *ownership) Expired() bool {
	until := o.session.until.Load()
	return until != nil && time.Now().After(*until)
}

// alive refuses at once what the fence would refuse later.
func (o *ownership) alive() error {
	if o.ctx.Err() != nil {
		return store.ErrLeaseLost
	}
	return nil
}

// Commit implements store.Ownership.
func (o *ownership) Commit(ctx context.Context, next topology.Cluster, events ...topology.Event) error {
	if err := store.CheckCommit(o.cluster, next, events); err != nil {
		return err
	}
	oldest := uint64(1)
	if keep := uint64(o.store().cfg.KeepEpochs); next.Epoch > keep {
		oldest = next.Epoch - keep + 1
	}
	if err := o.replace(ctx, "commit", next.Epoch-1, next, oldest, events); err != nil {
		return fmt.Errorf("commit epoch %d of %s: %w", next.Epoch, o.cluster, err)
	}
	return nil
}

// Adopt implements store.Ownership.
func (o *ownership) Adopt(ctx context.Context, before, next topology.Cluster, events ...topology.Event) error {
	if err := store.CheckAdopt(o.cluster, before, next, events); err != nil {
		return err
	}
	// No epoch of before is kept: an attempt to commit one of them, or the one after
	// them, that lands only now must find nothing to follow.
	if err := o.replace(ctx, "adopt", before.Epoch, next, before.Epoch+1, events); err != nil {
		return fmt.Errorf("adopt epoch %d of %s: %w", next.Epoch, o.cluster, err)
	}
	return nil
}

// replace replaces the record of an epoch by next. The epochs from oldest are kept.
func (o *ownership) replace(ctx context.Context, operation string, epoch uint64, next topology.Cluster, oldest uint64, events []topology.Event) error {
	value, err := encode(next)
	if err != nil {
		return err
	}
	history := value
	if len(next.Users) > 0 {
		if history, err = encode(next.WithoutUsers()); err != nil {
			return err
		}
	}
	k := o.store().keys
	compare := []clientv3.Cmp{
		present(k.epoch(o.cluster, epoch)),
		absent(k.epoch(o.cluster, epoch+1)),
	}
	then := []clientv3.Op{
		clientv3.OpPut(k.record(o.cluster), value),
		clientv3.OpPut(k.epoch(o.cluster, next.Epoch), history),
	}
	if oldest > 1 {
		then = append(then, clientv3.OpDelete(k.epoch(o.cluster, 0), clientv3.WithRange(k.epoch(o.cluster, oldest))))
	}
	return o.write(ctx, operation, epoch, compare, then, events)
}

// Append implements store.Ownership.
func (o *ownership) Append(ctx context.Context, events ...topology.Event) error {
	if err := store.CheckEvents(o.cluster, events); err != nil || len(events) == 0 {
		return err
	}
	if err := o.write(ctx, "append", 0, nil, nil, events); err != nil {
		return fmt.Errorf("append %d events to %s: %w", len(events), o.cluster, err)
	}
	return nil
}

// write runs a fenced transaction and numbers events in it. epoch is the
// newest epoch the comparisons ask for, 0 when they do not.
func (o *ownership) write(ctx context.Context, operation string, epoch uint64, compare []clientv3.Cmp, then []clientv3.Op, events []topology.Event) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := o.store().keys
	otherwise := []clientv3.Op{
		clientv3.OpGet(k.owner(o.cluster)),
		clientv3.OpGet(k.record(o.cluster)),
		clientv3.OpGet(k.sequence(o.cluster)),
	}
	// The number is stale only after an uncertain write, so it is corrected
	// once, and once more if that write lands just then.
	for range 3 {
		if err := o.alive(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		compares, ops, err := o.number(events)
		if err != nil {
			return err
		}
		compares = append(append(compares, o.mine()), compare...)
		r, err := o.store().txn(ctx, operation, compares, append(ops, then...), otherwise)
		if err != nil {
			return o.failed(err)
		}
		if r.Succeeded {
			o.last += uint64(len(events))
			return nil
		}
		if err := o.refusal(r, epoch); err != nil {
			return err
		}
	}
	return store.ErrConflict
}

// number returns what adds events after the last known one.
func (o *ownership) number(events []topology.Event) (compare []clientv3.Cmp, ops []clientv3.Op, err error) {
	if len(events) == 0 {
		return nil, nil, nil
	}
	k := o.store().keys
	next := o.last
	for _, e := range events {
		next++
		e.Sequence, e.Cluster = next, o.cluster
		value, err := encode(e)
		if err != nil {
			return nil, nil, err
		}
		ops = append(ops, clientv3.OpPut(k.event(o.cluster, next), value))
	}
	ops = append(ops, clientv3.OpPut(k.sequence(o.cluster), strconv.FormatUint(next, 10)))
	if keep := uint64(o.store().cfg.KeepEvents); next > keep {
		// Never further than what this transaction writes: etcd refuses to put
		// and delete one key at once.
		end := min(next-keep, o.last) + 1
		ops = append(ops, clientv3.OpDelete(k.event(o.cluster, 0), clientv3.WithRange(k.event(o.cluster, end))))
	}
	return []clientv3.Cmp{
		clientv3.Compare(clientv3.Value(k.sequence(o.cluster)), "=", strconv.FormatUint(o.last, 10)),
	}, ops, nil
}

// refusal says why a transaction's comparisons failed. It returns nil when
// only the number of the last event was stale, and corrects it.
func (o *ownership) refusal(r *clientv3.TxnResponse, epoch uint64) error {
	owner := r.Responses[0].GetResponseRange().Kvs
	if len(owner) == 0 || owner[0].CreateRevision != o.created {
		o.lose()
		return store.ErrLeaseLost
	}
	record := r.Responses[1].GetResponseRange().Kvs
	sequence := r.Responses[2].GetResponseRange().Kvs
	if len(record) == 0 || len(sequence) == 0 {
		return store.ErrNotFound
	}
	if epoch > 0 {
		var c topology.Cluster
		if err := decode(string(record[0].Key), record[0].Value, &c); err != nil {
			return err
		}
		if c.Epoch != epoch {
			return fmt.Errorf("the epoch is %d: %w", c.Epoch, store.ErrConflict)
		}
	}
	last, err := decodeSequence(sequence[0])
	if err != nil {
		return err
	}
	if last == o.last {
		return store.ErrConflict
	}
	o.last = last
	return nil
}

// failed ends the ownership when etcd says that the lease is gone.
func (o *ownership) failed(err error) error {
	if errors.Is(err, store.ErrLeaseLost) {
		o.session.lose()
	}
	return err
}

// fenced runs a transaction that compares nothing but the fence.
func (o *ownership) fenced(ctx context.Context, operation string, ops []clientv3.Op) error {
	if err := o.alive(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := o.store().txn(ctx, operation, []clientv3.Cmp{o.mine()}, ops, nil)
	if err != nil {
		return o.failed(err)
	}
	if !r.Succeeded {
		o.lose()
		return store.ErrLeaseLost
	}
	return nil
}

// PutMember implements store.Ownership.
func (o *ownership) PutMember(ctx context.Context, m store.Member) error {
	if err := store.CheckMember(m); err != nil {
		return err
	}
	value, err := encode(m)
	if err != nil {
		return err
	}
	put := clientv3.OpPut(o.store().keys.member(o.cluster, m.ID), value)
	if err := o.fenced(ctx, "put member", []clientv3.Op{put}); err != nil {
		return fmt.Errorf("put member %s of %s: %w", m.ID, o.cluster, err)
	}
	return nil
}

// membersAtOnce is how many members one transaction removes.
const membersAtOnce = 100

// RemoveMembers implements store.Ownership.
func (o *ownership) RemoveMembers(ctx context.Context, ids ...string) error {
	// One id twice would be two deletions of a key, which etcd refuses.
	ids = slices.Clone(ids)
	slices.Sort(ids)
	for chunk := range slices.Chunk(slices.Compact(ids), membersAtOnce) {
		var ops []clientv3.Op
		for _, id := range chunk {
			ops = append(ops, clientv3.OpDelete(o.store().keys.member(o.cluster, id)))
		}
		if err := o.fenced(ctx, "remove members", ops); err != nil {
			return fmt.Errorf("remove members of %s: %w", o.cluster, err)
		}
	}
	return nil
}

// Delete implements store.Ownership.
func (o *ownership) Delete(ctx context.Context, epoch uint64) error {
	k := o.store().keys
	err := o.write(ctx, "delete", epoch,
		[]clientv3.Cmp{present(k.epoch(o.cluster, epoch)), absent(k.epoch(o.cluster, epoch+1))},
		[]clientv3.Op{
			clientv3.OpDelete(k.name(o.cluster)),
			clientv3.OpDelete(k.cluster(o.cluster), clientv3.WithPrefix()),
			clientv3.OpDelete(k.owner(o.cluster)),
		}, nil)
	if err != nil {
		return fmt.Errorf("delete %s: %w", o.cluster, err)
	}
	o.lose()
	return nil
}

// Release implements store.Ownership.
func (o *ownership) Release(ctx context.Context) error {
	if o.ctx.Err() != nil {
		return nil
	}
	o.lose()
	_, err := o.store().txn(ctx, "release", []clientv3.Cmp{o.mine()},
		[]clientv3.Op{clientv3.OpDelete(o.store().keys.owner(o.cluster))}, nil)
	if err != nil && !errors.Is(err, store.ErrLeaseLost) {
		return fmt.Errorf("release %s: %w", o.cluster, err)
	}
	return nil
}
