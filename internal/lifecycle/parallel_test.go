package lifecycle

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done, now, most atomic.Int32
		begun := time.Now()
		Parallel(10, 3, func(int) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			done.Add(1)
		})
		if done.Load() != 10 || most.Load() != 3 || time.Since(begun) != 4*time.Second {
			t.Errorf("%d done, %d at once, in %v", done.Load(), most.Load(), time.Since(begun))
		}
	})
}

func TestParallelHandsPanicsToItsCaller(t *testing.T) {
	var done atomic.Int32
	defer func() {
		if p, _ := recover().(string); !strings.Contains(p, "index out of range") || !strings.Contains(p, "parallel_test.go") {
			t.Errorf("recovered %q", p)
		}
		if done.Load() != 4 {
			t.Errorf("%d of the others ended", done.Load())
		}
	}()
	Parallel(5, 0, func(i int) {
		var few [4]int
		few[i]++
		done.Add(1)
	})
	t.Error("no panic")
}
