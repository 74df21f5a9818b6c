package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, "WARN", "json")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hidden")
	log.Warn("seen", "shard", "shard-0")
	if got := out.String(); strings.Contains(got, "hidden") || !strings.Contains(got, `"shard":"shard-0"`) {
		t.Errorf("logged %q", got)
	}
	for _, bad := range [][2]string{{"loud", "text"}, {"info", "xml"}} {
		if _, err := NewLogger(&out, bad[0], bad[1]); err == nil {
			t.Errorf("NewLogger(%q) took it", bad)
		}
	}
}

// Trouble that lasts does not fill the log.
func TestLinesAboutTheSameAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log, err := NewLogger(&out, "info", "text")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 600 { // for two minutes
			log.With("shard", "shard-0").Warn("will be tried again", "error", fmt.Sprint("attempt ", i))
			log.Warn("will be tried again", "shard", "shard-1", "error", "no")
			time.Sleep(200 * time.Millisecond)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2*(firstLines+1) {
			t.Errorf("%d lines:\n%s", len(lines), out.String())
		}
		if last := lines[len(lines)-1]; !strings.Contains(last, "shard=shard-1") || !strings.Contains(last, "left_out=299") {
			t.Errorf("the last line: %s", last)
		}
		out.Reset()
		time.Sleep(lineEvery)
		for range 5 {
			log.Warn("will be tried again", "shard", "shard-1", "error", "no")
			log.Info("all of these", "shard", "shard-1")
		}
		if again := out.String(); strings.Count(again, "tried again") != firstLines || strings.Count(again, "all of these") != 5 {
			t.Errorf("after a quiet minute:\n%s", again)
		}
		out.Reset()
		for i := range 2 * maxSubjects {
			log.Error("much", "node", i)
		}
		if lines := strings.Count(out.String(), "\n"); lines != 2*maxSubjects {
			t.Errorf("%d lines about %d nodes", lines, 2*maxSubjects)
		}
	})
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestHTTP(t *testing.T) {
	ready := errors.New("no topology yet")
	h := &HTTP{Address: "127.0.0.1:0", Metrics: NewRegistry(), Ready: func() error { return ready }}
	h.Handle("GET /slowlog", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "[]") }))
	if err := h.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	base := "http://" + h.Addr().String()
	for _, tc := range []struct {
		path string
		code int
		want string
	}{
		{"/healthz", 200, "ok"},
		{"/readyz", 503, "no topology yet"},
		{"/metrics", 200, "basalt_build_info"},
		{"/slowlog", 200, "[]"},
		{"/debug/pprof/", 404, ""},
	} {
		if code, body := get(t, base+tc.path); code != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("%s: %d %q", tc.path, code, body)
		}
	}
	busy := &HTTP{Address: h.Addr().String()}
	if err := busy.Listen(); err == nil || !strings.Contains(err.Error(), "http-listen") {
		t.Errorf("a busy port: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHTTPOff(t *testing.T) {
	h := &HTTP{}
	if err := h.Listen(); err != nil || h.Addr() != nil {
		t.Fatalf("listen: %v, addr %v", err, h.Addr())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestPprof(t *testing.T) {
	handler := (&HTTP{Pprof: true}).Handler()
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/symbol", "/debug/pprof/heap"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
