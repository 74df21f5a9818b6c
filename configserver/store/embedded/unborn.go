package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
)

// An etcd that is killed within the first moments of its first start may leave
// a write-ahead log without its first entry, the one that makes it a member of
// its own cluster. Such a log never gets a leader: every later start waits for
// ever. Nothing can have been stored through it, so it is removed and etcd
// begins anew.

// removeUnborn removes the data directory of an etcd that was never born.
func removeUnborn(dir string) error {
	if !isUnborn(dir) {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove an etcd that was never born: %w", err)
	}
	return nil
}

// isUnborn is sure of what it says yes to; a log that cannot be read is left
// to etcd, which says what is wrong with it.
func isUnborn(dir string) bool {
	logs := filepath.Join(dir, "member", "wal")
	if !wal.Exist(logs) {
		return false
	}
	// A snapshot holds what was stored, and only an etcd that lived made one.
	snapshots, err := filepath.Glob(filepath.Join(dir, "member", "snap", "*.snap"))
	if err != nil || len(snapshots) > 0 {
		return false
	}
	w, err := wal.OpenForRead(nil, logs, walpb.Snapshot{})
	if err != nil {
		return false
	}
	defer w.Close()
	_, _, entries, err := w.ReadAll()
	// An entry that was cut off in the middle is none: etcd drops it as well.
	return len(entries) == 0 && (err == nil || errors.Is(err, io.ErrUnexpectedEOF))
}
