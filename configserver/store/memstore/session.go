package memstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// session is one Configserver's lease. Everything in it is guarded by the
// store's mutex; lost closes once.
type session struct {
	store *Store
	self  store.Replica
	lost  chan struct{}
	ended bool
}

// ownership is the right to change one cluster.
type ownership struct {
	session *session
	name    string
	lost    chan struct{}
	ended   bool
}

// Join implements store.Store. A second session of the same id takes the place
// of the first in Replicas, as a restarted process does; the first keeps its
// lease.
func (s *Store) Join(ctx context.Context, self store.Replica) (store.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	if self.ID == "" {
		return nil, errors.New("join: a Configserver needs an id")
	}
	session := &session{store: s, self: self, lost: make(chan struct{})}
	s.replicas[self.ID] = session
	s.changedLocked()
	return session, nil
}

// endLocked ends a lease and every ownership under it.
func (s *Store) endLocked(session *session) {
	if session.ended {
		return
	}
	session.ended = true
	if s.replicas[session.self.ID] == session {
		delete(s.replicas, session.self.ID)
	}
	close(session.lost)
	for _, o := range s.owners {
		if o.session == session {
			s.dropLocked(o)
		}
	}
	s.changedLocked()
}

// dropLocked ends one ownership.
func (s *Store) dropLocked(o *ownership) {
	if o.ended {
		return
	}
	o.ended = true
	if s.owners[o.name] == o {
		delete(s.owners, o.name)
	}
	close(o.lost)
	s.changedLocked()
}

func (s *session) Lost() <-chan struct{} { return s.lost }

func (s *session) Claim(ctx context.Context, name string) (store.Ownership, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if err := s.store.check(ctx); err != nil {
		return nil, err
	}
	if s.ended {
		return nil, fmt.Errorf("claim %s: %w", name, store.ErrLeaseLost)
	}
	if _, err := s.store.clusterLocked(name); err != nil {
		return nil, err
	}
	if other := s.store.owners[name]; other != nil {
		return nil, fmt.Errorf("cluster %s belongs to %s: %w", name, other.session.self.ID, store.ErrOwned)
	}
	o := &ownership{session: s, name: name, lost: make(chan struct{})}
	s.store.owners[name] = o
	s.store.changedLocked()
	return o, nil
}

func (s *session) Close(context.Context) error {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.endLocked(s)
	return nil
}

func (o *ownership) Lost() <-chan struct{} { return o.lost }

// write runs one fenced change, with injected faults around it.
func (o *ownership) write(ctx context.Context, what string, change func(*cluster) error) error {
	s := o.session.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return err
	}
	fault := Outcome(0)
	if len(s.faults) > 0 {
		fault, s.faults = s.faults[0], s.faults[1:]
	}
	if fault == Dropped {
		return fmt.Errorf("%s %s: %w", what, o.name, store.ErrUncertain)
	}
	err := o.changeLocked(change)
	if fault == Landed {
		return fmt.Errorf("%s %s: %w", what, o.name, store.ErrUncertain)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, o.name, err)
	}
	return nil
}

func (o *ownership) changeLocked(change func(*cluster) error) error {
	if o.ended {
		return store.ErrLeaseLost
	}
	c, err := o.session.store.clusterLocked(o.name)
	if err != nil {
		return err
	}
	return change(c)
}

func (o *ownership) Commit(ctx context.Context, next topology.Cluster, events ...topology.Event) error {
	if err := store.CheckCommit(o.name, next, events); err != nil {
		return err
	}
	return o.replace(ctx, "commit", next.Epoch-1, next, events)
}

func (o *ownership) Adopt(ctx context.Context, before, next topology.Cluster, events ...topology.Event) error {
	if err := store.CheckAdopt(o.name, before, next, events); err != nil {
		return err
	}
	return o.replace(ctx, "adopt", before.Epoch, next, events)
}

// replace replaces the record of an epoch.
func (o *ownership) replace(ctx context.Context, operation string, epoch uint64, next topology.Cluster, events []topology.Event) error {
	if most := o.session.store.commitBytes; most > 0 {
		if text, err := json.Marshal(next); err != nil || len(text) > most {
			return errors.Join(err, store.ErrTooLarge)
		}
	}
	return o.write(ctx, operation, func(c *cluster) error {
		if c.newest().Epoch != epoch {
			return fmt.Errorf("epoch %d after epoch %d: %w", next.Epoch, c.newest().Epoch, store.ErrConflict)
		}
		if next.Epoch != epoch+1 {
			c.epochs = nil
		}
		c.epochs = append(c.epochs, next.Clone())
		c.epochs = slices.Clone(c.epochs[max(0, len(c.epochs)-o.session.store.keepEpochs):])
		if len(events) > 0 {
			c.append(events, o.session.store.keepEvents)
		}
		return nil
	})
}

func (o *ownership) Append(ctx context.Context, events ...topology.Event) error {
	if err := store.CheckEvents(o.name, events); err != nil || len(events) == 0 {
		return err
	}
	return o.write(ctx, "append events to", func(c *cluster) error {
		c.append(events, o.session.store.keepEvents)
		return nil
	})
}

func (o *ownership) PutMember(ctx context.Context, m store.Member) error {
	if err := store.CheckMember(m); err != nil {
		return err
	}
	return o.write(ctx, "put member of", func(c *cluster) error {
		c.members[m.ID] = m
		return nil
	})
}

func (o *ownership) RemoveMembers(ctx context.Context, ids ...string) error {
	return o.write(ctx, "remove members of", func(c *cluster) error {
		for _, id := range ids {
			delete(c.members, id)
		}
		return nil
	})
}

func (o *ownership) Delete(ctx context.Context, epoch uint64) error {
	return o.write(ctx, "delete", func(c *cluster) error {
		if c.newest().Epoch != epoch {
			return fmt.Errorf("epoch is %d, not %d: %w", c.newest().Epoch, epoch, store.ErrConflict)
		}
		s := o.session.store
		c.deleted = true
		c.wake()
		delete(s.clusters, o.name)
		s.dropLocked(o)
		s.changedLocked()
		return nil
	})
}

func (o *ownership) Release(context.Context) error {
	o.session.store.mu.Lock()
	defer o.session.store.mu.Unlock()
	o.session.store.dropLocked(o)
	return nil
}
