package configclient

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/proxy/scripts"
)

// fakeScripts is what a fake Configserver knows of scripts.
type fakeScripts struct {
	basaltv1.UnimplementedScriptServiceServer
	*fake
}

// asked records a call and does it, unless scriptError says otherwise.
func (f fakeScripts) asked(request any, do func()) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scriptCalls = append(f.scriptCalls, request)
	if f.scriptError != nil {
		return f.scriptError
	}
	do()
	return nil
}

func (f fakeScripts) PutScripts(_ context.Context, r *basaltv1.PutScriptsRequest) (answer *basaltv1.PutScriptsResponse, err error) {
	err = f.asked(r, func() {
		if f.scripts == nil {
			f.scripts = map[string]*basaltv1.Script{}
		}
		for _, s := range r.GetScripts() {
			f.scripts[s.GetSha()] = s
		}
		answer = &basaltv1.PutScriptsResponse{Flushes: f.flushes}
	})
	return answer, err
}

func (f fakeScripts) GetScripts(_ context.Context, r *basaltv1.GetScriptsRequest) (answer *basaltv1.GetScriptsResponse, err error) {
	err = f.asked(r, func() {
		answer = &basaltv1.GetScriptsResponse{Flushes: f.flushes}
		for _, sha := range r.GetShas() {
			if s := f.scripts[sha]; s != nil && r.GetNamesOnly() {
				answer.Scripts = append(answer.Scripts, &basaltv1.Script{Sha: sha})
			} else if s != nil {
				answer.Scripts = append(answer.Scripts, s)
			}
		}
	})
	return answer, err
}

func (f fakeScripts) FlushScripts(_ context.Context, r *basaltv1.FlushScriptsRequest) (answer *basaltv1.FlushScriptsResponse, err error) {
	err = f.asked(r, func() {
		f.flushes++
		f.scripts = nil
		answer = &basaltv1.FlushScriptsResponse{Flushes: f.flushes}
	})
	return answer, err
}

// TestScripts: scripts are kept, found with and without their source, and
// flushed, at the cluster of this proxy; the number of flushes comes with each.
func TestScripts(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	f.stream(0).snapshot(topologyAt(1, "a"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	f.do(func() { f.flushes = 7 })
	const text = "return '\x00\xff'" // not UTF-8
	if n, err := p.PutScripts(ctx, 5, []scripts.Source{{SHA: "a", Text: text, Loaded: true}, {SHA: "b", Text: "return 2"}}); n != 7 || err != nil {
		t.Errorf("put: %d flushes, %v", n, err)
	}
	for _, c := range []struct {
		sources bool
		want    map[string]string
	}{
		{true, map[string]string{"a": text, "b": "return 2"}},
		{false, map[string]string{"a": "", "b": ""}},
	} {
		kept, n, err := p.GetScripts(ctx, []string{"a", "none", "b"}, c.sources)
		if n != 7 || err != nil || !reflect.DeepEqual(kept, c.want) {
			t.Errorf("get, sources %v: %q, %d flushes, %v", c.sources, kept, n, err)
		}
	}
	if n, err := p.FlushScripts(ctx); n != 8 || err != nil {
		t.Errorf("flush: %d flushes, %v", n, err)
	}
	if kept, n, err := p.GetScripts(ctx, []string{"a"}, true); len(kept) != 0 || n != 8 || err != nil {
		t.Errorf("get after the flush: %q, %d flushes, %v", kept, n, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	put, ok := f.scriptCalls[0].(*basaltv1.PutScriptsRequest)
	if !ok || put.GetFlushes() != 5 || len(put.GetScripts()) != 2 || !put.GetScripts()[0].GetLoaded() || put.GetScripts()[1].GetLoaded() {
		t.Errorf("the request was %+v", f.scriptCalls[0])
	}
	for _, r := range f.scriptCalls {
		if c, ok := r.(interface{ GetCluster() string }); !ok || c.GetCluster() != "local" {
			t.Errorf("asked of another cluster: %+v", r)
		}
	}
}

// TestScriptsAreRefused: what the Configserver refuses, and the end of the time
// that there is, are errors, and nothing is made up.
func TestScriptsAreRefused(t *testing.T) {
	f := startFake(t)
	f.do(func() { f.scriptError = status.Error(codes.ResourceExhausted, "too many scripts") })
	p := startProxy(t, nil, f)
	refused := func(what string, n uint64, err error) {
		t.Helper()
		if n != 0 || status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: %d flushes, %v", what, n, err)
		}
	}
	f.stream(0).snapshot(topologyAt(1, "a"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n, err := p.PutScripts(ctx, 0, []scripts.Source{{SHA: "a", Text: "return 1"}})
	refused("put", n, err)
	kept, n, err := p.GetScripts(ctx, []string{"a"}, true)
	if refused("get", n, err); kept != nil {
		t.Errorf("get: %q", kept)
	}
	n, err = p.FlushScripts(ctx)
	refused("flush", n, err)

	gone := startFake(t)
	gone.server.Stop()
	alone := startProxy(t, nil, gone)
	short, end := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer end()
	if _, err := alone.PutScripts(short, 0, nil); !errors.Is(err, errOffline) {
		t.Errorf("put without a Configserver: %v", err)
	}
	if _, err := alone.FlushScripts(short); !errors.Is(err, errOffline) {
		t.Errorf("flush without a Configserver: %v", err)
	}
}
