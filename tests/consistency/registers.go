package consistency

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
)

// Registers is a load of several writers and readers on a few hot keys, whose
// history is judged by a linearizability checker: some order of all writes and
// reads, each between its begin and its end, must explain every reply.
type Registers struct {
	begin time.Time
	halt  chan struct{}
	done  sync.WaitGroup
	next  atomic.Int64

	mu  sync.Mutex
	ops []porcupine.Operation
	// failures are requests that ended in an error, by text.
	failures map[string]int
}

type registerInput struct {
	key   string
	write bool
	value string
}

// registerModel is one register per key; unknown writes may take effect at any
// time after they began, since they never return.
var registerModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(registerInput).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range byKey {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in := input.(registerInput)
		if in.write {
			return true, in.value
		}
		return output.(string) == state.(string), state
	},
	DescribeOperation: func(input, output any) string {
		in := input.(registerInput)
		if in.write {
			return fmt.Sprintf("set %s %s", in.key, in.value)
		}
		return fmt.Sprintf("get %s = %v", in.key, output)
	},
}

// StartRegisters begins with clients connections on the keys, which must not
// exist yet. pace is the mean pause of a client between two requests.
func StartRegisters(ctx context.Context, addr, user, password string, keys []string, clients int, pace time.Duration) (*Registers, error) {
	r := &Registers{begin: time.Now(), halt: make(chan struct{}), failures: map[string]int{}}
	for id := range clients {
		c, err := Dial(ctx, addr, user, password)
		if err != nil {
			r.Stop()
			return nil, err
		}
		r.done.Go(func() {
			r.client(c, id, keys, pace)
		})
	}
	return r, nil
}

func (r *Registers) client(c *Conn, id int, keys []string, pace time.Duration) {
	defer c.Close()
	rng := rand.New(rand.NewPCG(uint64(id), 11)) //nolint:gosec // not a secret
	// A client whose write has an unknown end is a new client afterwards: to the
	// checker the old one never returned.
	for client := id; ; {
		select {
		case <-r.halt:
			return
		case <-time.After(time.Duration(rng.Int64N(int64(2*pace) + 1))):
		}
		in := registerInput{key: keys[rng.IntN(len(keys))], write: rng.IntN(2) == 0}
		args := []string{"GET", in.key}
		if in.write {
			in.value = fmt.Sprintf("v%d", r.next.Add(1))
			args = []string{"SET", in.key, in.value}
		}
		op := porcupine.Operation{ClientId: client, Input: in, Output: "", Call: int64(time.Since(r.begin))}
		reply, err := c.Do(args...)
		op.Return = int64(time.Since(r.begin))
		if err == nil {
			err = reply.Err
		}
		if err == nil && !in.write {
			op.Output = string(reply.Text)
		}
		r.record(op, err)
		if err != nil {
			if _, isReply := err.(ReplyError); !isReply { //nolint:errorlint // Do never wraps
				return
			}
			client += 1000
		}
	}
}

func (r *Registers) record(op porcupine.Operation, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failures[err.Error()]++
		if !op.Input.(registerInput).write || classify(err).neverSent() {
			return
		}
		op.Return = -1 // Stop sets it to the end of the history
	}
	r.ops = append(r.ops, op)
}

// Stop ends the load.
func (r *Registers) Stop() {
	close(r.halt)
	r.done.Wait()
	end := int64(time.Since(r.begin))
	for i := range r.ops {
		if r.ops[i].Return < 0 {
			r.ops[i].Return = end
		}
	}
}

// Check judges the history after Stop: how many operations it has, which errors
// clients saw, and an error when no order explains it or the checker did not
// finish in time.
func (r *Registers) Check(timeout time.Duration) (operations int, failures map[string]int, err error) {
	switch porcupine.CheckOperationsTimeout(registerModel, r.ops, timeout) {
	case porcupine.Illegal:
		err = fmt.Errorf("the history of %d operations is not linearizable", len(r.ops))
	case porcupine.Unknown:
		err = fmt.Errorf("no verdict on %d operations within %s", len(r.ops), timeout)
	}
	return len(r.ops), r.failures, err
}
