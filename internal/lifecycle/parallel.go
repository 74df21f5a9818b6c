package lifecycle

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// Parallel calls f for 0 to n-1, at most limit of them at once (0 for all), and
// returns when all returned. A panic in one of them becomes a panic of the
// caller, with the stack of where it happened: whoever contains the panics of
// the caller contains these too, and not the whole program ends.
func Parallel(n, limit int, f func(i int)) {
	if limit <= 0 || limit > n {
		limit = n
	}
	var (
		wg    sync.WaitGroup
		first sync.Once
		cause string
		slots = make(chan struct{}, max(limit, 1))
	)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					first.Do(func() { cause = fmt.Sprintf("%v\n%s", p, debug.Stack()) })
				}
				<-slots
			}()
			f(i)
		})
	}
	wg.Wait()
	if cause != "" {
		panic(cause)
	}
}
