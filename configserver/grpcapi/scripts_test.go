package grpcapi

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/basalt-redis/basalt/configserver/store"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// TestScripts: what one Configserver was given, another has; neither owns the
// cluster.
func TestScripts(t *testing.T) {
	st := newStore(t)
	one := basaltv1.NewScriptServiceClient(startConfigserver(t, st, "cs-0").conn)
	two := basaltv1.NewScriptServiceClient(startConfigserver(t, st, "cs-1").conn)
	ctx := t.Context()
	source := "return '\xff'"
	sha := store.ScriptSHA(source)
	put := &basaltv1.PutScriptsRequest{Cluster: "blue", Scripts: []*basaltv1.Script{{Sha: sha, Source: []byte(source), Loaded: true}}}
	if r, err := one.PutScripts(ctx, put); err != nil || r.GetFlushes() != 0 {
		t.Fatal(r, err)
	}
	get := &basaltv1.GetScriptsRequest{Cluster: "blue", Shas: []string{store.ScriptSHA("other"), sha}}
	got, err := two.GetScripts(ctx, get)
	if err != nil || len(got.GetScripts()) != 1 || string(got.GetScripts()[0].GetSource()) != source {
		t.Fatal(got, err)
	}
	get.NamesOnly = true
	if got, err = two.GetScripts(ctx, get); err != nil || len(got.GetScripts()) != 1 || got.GetScripts()[0].GetSha() != sha || len(got.GetScripts()[0].GetSource()) != 0 {
		t.Fatal(got, err)
	}
	if r, err := two.FlushScripts(ctx, &basaltv1.FlushScriptsRequest{Cluster: "blue"}); err != nil || r.GetFlushes() != 1 {
		t.Fatal(r, err)
	}
	// The put of one who does not know of the flush says so, and does nothing.
	if r, err := one.PutScripts(ctx, put); err != nil || r.GetFlushes() != 1 {
		t.Fatal(r, err)
	}
	if got, err = one.GetScripts(ctx, get); err != nil || got.GetFlushes() != 1 || len(got.GetScripts()) != 0 {
		t.Fatal(got, err)
	}
}

func TestScriptErrors(t *testing.T) {
	scripts := basaltv1.NewScriptServiceClient(startConfigserver(t, newStore(t), "cs-0").conn)
	ctx := t.Context()
	put := func(cluster string, s *basaltv1.Script) error {
		_, err := scripts.PutScripts(ctx, &basaltv1.PutScriptsRequest{Cluster: cluster, Scripts: []*basaltv1.Script{s}})
		return err
	}
	get := func(cluster string, shas ...string) error {
		_, err := scripts.GetScripts(ctx, &basaltv1.GetScriptsRequest{Cluster: cluster, Shas: shas})
		return err
	}
	good := &basaltv1.Script{Sha: store.ScriptSHA("x"), Source: []byte("x")}
	wantStatus(t, put("", good), codes.InvalidArgument, "cluster")
	wantStatus(t, put("green", good), codes.NotFound, "green", "cluster list")
	wantStatus(t, put("blue", &basaltv1.Script{Sha: good.GetSha(), Source: []byte("y")}), codes.InvalidArgument, "SHA-1")
	long := strings.Repeat("x", store.MaxScriptBytes+1)
	wantStatus(t, put("blue", &basaltv1.Script{Sha: store.ScriptSHA(long), Source: []byte(long)}), codes.InvalidArgument, "bytes")
	wantStatus(t, get("Blue"), codes.InvalidArgument, "cluster")
	wantStatus(t, get("green"), codes.NotFound, "green")
	wantStatus(t, get("blue", "../record"), codes.InvalidArgument, "shas")
	wantStatus(t, get("blue", make([]string, store.MaxScripts+1)...), codes.InvalidArgument, "at most")
	_, err := scripts.FlushScripts(ctx, &basaltv1.FlushScriptsRequest{Cluster: "green"})
	wantStatus(t, err, codes.NotFound, "green")
}
