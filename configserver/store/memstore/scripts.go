package memstore

import (
	"context"
	"fmt"
	"time"

	"github.com/basalt-redis/basalt/configserver/store"
)

// scripts of one cluster.
type scripts struct {
	index   store.ScriptIndex
	sources map[string]store.Script
	flushes uint64
}

// PutScripts implements store.Store.
func (s *Store) PutScripts(ctx context.Context, name string, flushes uint64, list []store.Script) error {
	if err := store.CheckScripts(list); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.askedLocked(ctx, name)
	if err != nil {
		return err
	}
	k := &c.scripts
	if k.flushes != flushes {
		return fmt.Errorf("scripts of %s: %w", name, store.ErrFlushed)
	}
	added, dropped, _ := k.index.Put(list, time.Now(), s.keepScripts, s.keepScriptBytes)
	if k.sources == nil {
		k.sources = map[string]store.Script{}
	}
	for _, sha := range dropped {
		delete(k.sources, sha)
	}
	for _, script := range added {
		k.sources[script.SHA] = script
	}
	return nil
}

// Scripts implements store.Store.
func (s *Store) Scripts(ctx context.Context, name string, shas []string, sources bool) ([]store.Script, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.askedLocked(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	var kept []store.Script
	for _, sha := range shas {
		if script, ok := c.scripts.sources[sha]; ok {
			if !sources {
				script.Source = ""
			}
			kept = append(kept, store.Script{SHA: sha, Source: script.Source})
		}
	}
	return kept, c.scripts.flushes, nil
}

// FlushScripts implements store.Store.
func (s *Store) FlushScripts(ctx context.Context, name string) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.askedLocked(ctx, name)
	if err != nil {
		return 0, err
	}
	c.scripts = scripts{flushes: c.scripts.flushes + 1}
	return c.scripts.flushes, nil
}
