package lifecycle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// untilStopped runs until told to stop, and notes when it was.
func untilStopped(j *journal, name string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(time.Second)
		j.add(name)
		return nil
	}
}

func TestStopsInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		var j journal
		for _, name := range []string{"a", "b", "c"} {
			g.Add(name, untilStopped(&j, name))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
		if !slices.Equal(j.lines, []string{"c", "b", "a"}) {
			t.Errorf("stopped in order %v", j.lines)
		}
	})
}

func TestAFailedComponentStopsTheOthers(t *testing.T) {
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"error": {boom, "b: boom"},
		"early": {nil, "b: ended unexpectedly"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g Group
				var j journal
				g.Add("a", untilStopped(&j, "a"))
				g.Add("b", func(context.Context) error { return tc.err })
				g.Add("c", untilStopped(&j, "c"))
				err := g.Run(context.Background())
				if err == nil || err.Error() != tc.want {
					t.Errorf("got %v, want %s", err, tc.want)
				}
				if !slices.Equal(j.lines, []string{"c", "a"}) {
					t.Errorf("stopped in order %v", j.lines)
				}
			})
		})
	}
}

func TestStopTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := Group{StopTimeout: time.Second}
		var j journal
		release := make(chan struct{})
		g.Add("a", untilStopped(&j, "a"))
		g.Add("stuck", func(context.Context) error { <-release; return nil })
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		g.StopTimeout = 2 * time.Second
		err := g.Run(ctx)
		if err == nil || !strings.Contains(err.Error(), "stuck: did not stop within 2s") {
			t.Errorf("got %v", err)
		}
		if !slices.Equal(j.lines, []string{"a"}) {
			t.Errorf("stopped %v", j.lines)
		}
		close(release)
	})
}

func TestSignalEndsTheContext(t *testing.T) {
	ctx, stop := Context(context.Background())
	defer stop()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the context did not end")
	}
}
