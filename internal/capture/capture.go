// Package capture keeps what processes and loggers write while a test reads it.
package capture

import (
	"bytes"
	"sync"
)

// Buffer is a bytes.Buffer for several goroutines: some write, others read what
// came so far. Its zero value is ready.
type Buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends p; it never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns all that was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
