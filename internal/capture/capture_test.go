package capture

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// Whoever reads in between sees whole writes, and the end has all of them.
func TestBuffer(t *testing.T) {
	var b Buffer
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for n := range 100 {
				fmt.Fprintf(&b, "%d:%d\n", i, n)
			}
		})
	}
	for range 50 {
		if s := b.String(); s != "" && !strings.HasSuffix(s, "\n") {
			t.Fatalf("half a line: %q", s)
		}
	}
	writers.Wait()
	if n := strings.Count(b.String(), "\n"); n != 400 {
		t.Errorf("%d lines", n)
	}
}
