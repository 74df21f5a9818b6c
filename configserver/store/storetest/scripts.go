package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// scriptsOf makes one script of each source.
func scriptsOf(loaded bool, sources ...string) (list []store.Script) {
	for _, source := range sources {
		list = append(list, store.Script{SHA: store.ScriptSHA(source), Source: source, Loaded: loaded})
	}
	return list
}

// kept returns which of some sources are kept, and how many flushes there were.
func (s *suite) kept(t testing.TB, sources ...string) (kept []string, flushes uint64) {
	t.Helper()
	for chunk := range slices.Chunk(sources, store.MaxScripts) {
		var shas []string
		for _, source := range chunk {
			shas = append(shas, store.ScriptSHA(source))
		}
		list, n, err := s.Other.Scripts(s.ctx, "a", shas, true)
		ok(t, err)
		flushes = n
		for _, script := range list {
			if store.ScriptSHA(script.Source) != script.SHA {
				t.Fatalf("%s is not the SHA-1 of %q", script.SHA, script.Source)
			}
			kept = append(kept, script.Source)
		}
	}
	return kept, flushes
}

func (s *suite) wantKept(t testing.TB, want, sources []string) {
	t.Helper()
	if kept, _ := s.kept(t, sources...); !slices.Equal(kept, want) {
		t.Fatalf("kept are %.30q, want %.30q", kept, want)
	}
}

func scriptsAreKept(t *testing.T, s *suite) {
	s.create(t, "a")
	odd := "return '\x00\xff\r\n'"
	ok(t, s.Store.PutScripts(s.ctx, "a", 0, scriptsOf(true, "return 1", odd, "")))
	ok(t, s.Other.PutScripts(s.ctx, "a", 0, scriptsOf(false, "return 1", "return 2")))
	ok(t, s.Store.PutScripts(s.ctx, "a", 0, nil))
	all := []string{"return 1", odd, "", "return 2"}
	s.wantKept(t, all, append(all, "return 3"))
	list, flushes, err := s.Other.Scripts(s.ctx, "a", []string{store.ScriptSHA("return 3"), store.ScriptSHA("return 1")}, false)
	if err != nil || flushes != 0 || len(list) != 1 || list[0].SHA != store.ScriptSHA("return 1") || list[0].Source != "" {
		t.Errorf("names only: %+v, %d, %v", list, flushes, err)
	}
}

func scriptsRefuse(t *testing.T, s *suite) {
	wantIs(t, "put of an unknown cluster", s.Store.PutScripts(s.ctx, "a", 0, scriptsOf(true, "x")), store.ErrNotFound)
	_, _, err := s.Store.Scripts(s.ctx, "a", nil, false)
	wantIs(t, "scripts of an unknown cluster", err, store.ErrNotFound)
	_, err = s.Store.FlushScripts(s.ctx, "a")
	wantIs(t, "flush of an unknown cluster", err, store.ErrNotFound)
	s.create(t, "a")
	many := make([]string, store.MaxScripts+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for what, list := range map[string][]store.Script{
		"wrong name": {{SHA: strings.Repeat("0", 40), Source: "return 1"}},
		"too long":   scriptsOf(true, strings.Repeat("x", store.MaxScriptBytes+1)),
		"too many":   scriptsOf(true, many...),
		"too much":   scriptsOf(true, strings.Repeat("x", store.MaxScriptBytes), strings.Repeat("y", store.MaxScriptBytes), "z"),
	} {
		var invalid *topology.InvalidError
		if err := s.Store.PutScripts(s.ctx, "a", 0, list); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.wantKept(t, nil, many)
}

func scriptsAreFlushed(t *testing.T, s *suite) {
	s.create(t, "a")
	ok(t, s.Store.PutScripts(s.ctx, "a", 0, scriptsOf(true, "1", "2")))
	if n := must[uint64](t)(s.Other.FlushScripts(s.ctx, "a")); n != 1 {
		t.Errorf("%d flushes after the first", n)
	}
	// One who knows of no flush cannot bring a script back.
	wantIs(t, "put after a flush", s.Store.PutScripts(s.ctx, "a", 0, scriptsOf(true, "1")), store.ErrFlushed)
	wantIs(t, "put from the future", s.Store.PutScripts(s.ctx, "a", 2, scriptsOf(true, "1")), store.ErrFlushed)
	if kept, flushes := s.kept(t, "1", "2"); kept != nil || flushes != 1 {
		t.Errorf("kept after a flush: %q, %d flushes", kept, flushes)
	}
	ok(t, s.Store.PutScripts(s.ctx, "a", 1, scriptsOf(true, "1")))
	s.wantKept(t, []string{"1"}, []string{"1", "2"})
	if n := must[uint64](t)(s.Store.FlushScripts(s.ctx, "a")); n != 2 {
		t.Errorf("%d flushes after the second", n)
	}
	s.wantKept(t, nil, []string{"1", "2"})
}

func scriptsAreLimited(t *testing.T, s *suite) {
	s.create(t, "a")
	var all []string
	put := func(loaded bool, source string) {
		t.Helper()
		ok(t, s.Store.PutScripts(s.ctx, "a", 0, scriptsOf(loaded, source)))
		if !slices.Contains(all, source) {
			all = append(all, source)
		}
	}
	put(true, "loaded 0")
	put(false, "eval 0")
	for i := 1; i <= 8; i++ {
		put(i%2 == 1, fmt.Sprint("mixed ", i))
	}
	// Ten are kept; EVAL's go first, the oldest first. One of them becomes loaded.
	put(true, "mixed 2")
	put(false, "eval 1")
	put(true, "loaded 1")
	s.wantKept(t, []string{"loaded 0", "mixed 1", "mixed 2", "mixed 3", "mixed 5", "mixed 6", "mixed 7", "mixed 8", "eval 1", "loaded 1"}, all)
	// A long one pushes out as many as it takes, but never itself.
	long := strings.Repeat("x", KeepScriptBytes-2*len("mixed 1")-len("loaded 1"))
	put(false, long)
	s.wantKept(t, []string{"mixed 7", "mixed 2", "loaded 1", long}, []string{"eval 1", "mixed 5", "mixed 7", "mixed 8", "mixed 2", "loaded 1", long})
	over := strings.Repeat("y", KeepScriptBytes+1)
	put(false, over)
	s.wantKept(t, []string{over}, all)
}

// scriptsArePutAtOnce: nothing is lost when several put at the same time.
func scriptsArePutAtOnce(t *testing.T, s *suite) {
	s.create(t, "a")
	var wg sync.WaitGroup
	var all []string
	for i := range KeepScripts {
		source := fmt.Sprint("return ", i)
		all = append(all, source)
		on := s.Store
		if i%2 > 0 {
			on = s.Other
		}
		wg.Go(func() {
			for {
				err := on.PutScripts(s.ctx, "a", 0, scriptsOf(false, source))
				if err == nil {
					return
				}
				if !errors.Is(err, store.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	s.wantKept(t, all, all)
}

func scriptsEndWithTheCluster(t *testing.T, s *suite) {
	c, o := s.own(t)
	must[uint64](t)(s.Store.FlushScripts(s.ctx, "a"))
	ok(t, s.Store.PutScripts(s.ctx, "a", 1, scriptsOf(true, "1")))
	ok(t, o.Delete(s.ctx, c.Epoch))
	wantIs(t, "put to a deleted cluster", s.Store.PutScripts(s.ctx, "a", 1, scriptsOf(true, "1")), store.ErrNotFound)
	s.create(t, "a")
	if kept, flushes := s.kept(t, "1"); kept != nil || flushes != 0 {
		t.Errorf("a new cluster has %q, %d flushes", kept, flushes)
	}
}
