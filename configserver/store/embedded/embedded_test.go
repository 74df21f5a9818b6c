package embedded

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
)

func TestRefuses(t *testing.T) {
	for _, address := range []string{"0.0.0.0:2379", "192.0.2.1:2379", "example.com:2379", ":2379", "2379"} {
		if s, err := Start(t.Context(), Config{Dir: t.TempDir(), ListenClient: address}); err == nil {
			_ = s.Close()
			t.Errorf("listens on %s", address)
		}
		if s, err := Start(t.Context(), Config{Dir: t.TempDir(), ListenPeer: address}); err == nil {
			_ = s.Close()
			t.Errorf("listens for peers on %s", address)
		}
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(context.Background(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if second, err := Start(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server on the directory: %v, %v", second, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The data may be opened again, at other ports.
	if s, err = Start(context.Background(), Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Killed between making its log and writing the first entry, etcd leaves what
// this test makes. It begins anew, and what an etcd that lived has is kept.
func TestKilledWhileStartingForTheFirstTime(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if isUnborn(filepath.Join(dir, "etcd")) {
		t.Fatal("an etcd that lived is taken for one that did not")
	}
	logs := filepath.Join(dir, "etcd", "member", "wal")
	w, err := wal.OpenForRead(nil, logs, walpb.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	metadata, _, _, err := w.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := os.RemoveAll(logs); err != nil {
		t.Fatal(err)
	}
	if w, err = wal.Create(nil, logs, metadata); err != nil {
		t.Fatal(err)
	}
	w.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if s, err = Start(ctx, Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
