package consistency

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// ReplicaAddress is a server that the topology calls a replica.
type ReplicaAddress struct {
	// Shard is the number of the shard in Config.Shards.
	Shard   int
	Address string
}

// ConfirmConfig tells how replicas are read.
type ConfirmConfig struct {
	// Replicas returns the replicas as of now; it is called every Interval.
	Replicas func() []ReplicaAddress
	// Username and Password of an admin at the servers.
	Username, Password string
	// Interval between two looks; 25 ms.
	Interval time.Duration
}

// Confirm reads the replicas directly until stop is called and notes which
// versions they hold: those must survive their master. A replica is believed
// only while it says in the same transaction that it is a replica whose link to
// its master is up; a former master that just woke up is not.
func (l *Load) Confirm(ctx context.Context, cfg ConfirmConfig) (stop func()) {
	if cfg.Interval == 0 {
		cfg.Interval = 25 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		conns := map[string]*Conn{}
		defer func() {
			for _, c := range conns {
				c.Close()
			}
		}()
		for ctx.Err() == nil {
			for _, r := range cfg.Replicas() {
				if !l.confirmOnce(ctx, conns, r, cfg) && conns[r.Address] != nil {
					conns[r.Address].Close()
					delete(conns, r.Address)
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(cfg.Interval):
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// confirmOnce looks at one replica; false when its connection must not be used
// again.
func (l *Load) confirmOnce(ctx context.Context, conns map[string]*Conn, r ReplicaAddress, cfg ConfirmConfig) bool {
	c := conns[r.Address]
	if c == nil {
		dialed, err := Dial(ctx, r.Address, cfg.Username, cfg.Password)
		if err != nil {
			return false
		}
		dialed.Timeout = time.Second
		c, conns[r.Address] = dialed, dialed
	}
	mget := []string{"MGET"}
	keys := l.byShard[r.Shard]
	for _, k := range keys {
		mget = append(mget, k.name)
	}
	replies, err := c.Pipeline([]string{"MULTI"}, []string{"INFO", "replication"}, mget, []string{"EXEC"})
	if err != nil {
		return false
	}
	exec := replies[3]
	if exec.Err != nil || len(exec.Array) != 2 {
		return true // loading, or busy: not an answer about data
	}
	info, values := exec.Array[0].Text, exec.Array[1].Array
	if !bytes.Contains(info, []byte("role:slave")) || !bytes.Contains(info, []byte("master_link_status:up")) || len(values) != len(keys) {
		return true
	}
	for i, v := range values {
		if v.Text != nil {
			l.model.confirm(keys[i], v.Text, l.cfg.Padding, "replica "+r.Address)
		}
	}
	return true
}
