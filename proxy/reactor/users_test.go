package reactor_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
)

// slowKeeper takes longer for a change the earlier it comes.
type slowKeeper struct {
	mu    sync.Mutex
	calls int
	done  []string
}

func (k *slowKeeper) SetUser(name string, _ []string) error {
	k.mu.Lock()
	k.calls++
	pause := time.Duration(10-k.calls) * 10 * time.Millisecond
	k.mu.Unlock()
	time.Sleep(pause)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.done = append(k.done, name)
	return nil
}

func (k *slowKeeper) DeleteUsers(names []string) (int, error) {
	return len(names), k.SetUser(strings.Join(names, " "), nil)
}

// TestChangesOfUsersInATransaction are made in their order.
func TestChangesOfUsersInATransaction(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	k := &slowKeeper{}
	p := startProxy(t, reactor.Config{Users: k}, shards...)
	c := p.dial()
	c.queued([]string{"ACL", "SETUSER", "a", "reset"}, []string{"ACL", "SETUSER", "b", "on"}, []string{"ACL", "DELUSER", "c"}, []string{"ACL", "SETUSER", "d"})
	c.want("[OK OK 1 OK]", "EXEC")
	k.mu.Lock()
	defer k.mu.Unlock()
	if want := []string{"a", "b", "c", "d"}; !slices.Equal(k.done, want) {
		t.Errorf("%v, want %v", k.done, want)
	}
}
