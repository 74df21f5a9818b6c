package embedded

import (
	"context"
	"strings"
	"testing"
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
