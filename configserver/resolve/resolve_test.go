package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

func TestSystem(t *testing.T) {
	for _, address := range []string{"127.0.0.1:6379", "[::1]:6379"} {
		if got, err := System(t.Context(), address); err != nil || !slices.Equal(got, []string{address}) {
			t.Errorf("%s: %v, %v", address, got, err)
		}
	}
	got, err := System(t.Context(), "localhost:6379")
	if err != nil || len(got) == 0 {
		t.Fatalf("localhost: %v, %v", got, err)
	}
	for _, at := range got {
		if a, err := netip.ParseAddrPort(at); err != nil || !a.Addr().IsLoopback() || a.Port() != 6379 {
			t.Errorf("localhost leads to %s", at)
		}
	}
	for _, address := range []string{"localhost", "localhost:http", "localhost:70000"} {
		if got, err := System(t.Context(), address); err == nil {
			t.Errorf("%s: %v", address, got)
		}
	}
}

func TestCached(t *testing.T) {
	asked := map[string]int{}
	away := errors.New("away")
	look := Cached(func(_ context.Context, address string) ([]string, error) {
		asked[address]++
		if address == "b:1" {
			return nil, away
		}
		return []string{"10.0.0.1:1"}, nil
	})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = look(ended, "a:1")
	_, _ = look(ended, "a:1")
	for range 3 {
		if got, err := look(t.Context(), "a:1"); err != nil || len(got) != 1 {
			t.Errorf("a: %v, %v", got, err)
		}
		if _, err := look(t.Context(), "b:1"); !errors.Is(err, away) {
			t.Errorf("b: %v", err)
		}
	}
	if asked["a:1"] != 3 || asked["b:1"] != 1 {
		t.Errorf("asked %v; what nobody waited for does not count, and failures do", asked)
	}
}

// TestLocate: the node was admitted as old, at 127.0.0.2; other is another process.
func TestLocate(t *testing.T) {
	t.Parallel()
	port := redistest.FreePort(t)
	at := func(i int) string { return fmt.Sprintf("127.0.0.%d:%d", i, port) }
	old := redistest.Start(t, redistest.Options{Address: at(2), Config: []string{"bind 127.0.0.2 127.0.0.3"}})
	redistest.Start(t, redistest.Options{Address: at(4)})
	const nobody, nobodyToo = 5, 6
	run := old.Info("run_id")
	away := errors.New("away")
	for _, tc := range []struct {
		name     string
		resolved int
		run      string
		means    []int
		prefer   int
		want     Place
		err      error
	}{
		{name: "not admitted", means: []int{nobody}, want: Place{Endpoint: at(nobody)}},
		{name: "not admitted, one of two is there", means: []int{nobody, 4}, want: Place{Endpoint: at(4)}},
		{name: "not admitted, connected", means: []int{4, 2}, prefer: 2, want: Place{Endpoint: at(2)}},
		{name: "not admitted, no DNS", err: away},
		{name: "admitted", resolved: 2, run: run, means: []int{2}, want: Place{Endpoint: at(2)}},
		{name: "admitted, and dead", resolved: nobody, run: "gone", means: []int{4, nobody}, want: Place{Endpoint: at(nobody)}},
		{name: "admitted, several addresses", resolved: 2, run: run, means: []int{3, 2}, want: Place{Endpoint: at(2)}},
		{name: "admitted, connected to another", resolved: 2, run: run, means: []int{3, 2}, prefer: 3, want: Place{Endpoint: at(3)}},
		{name: "admitted, connected to what it was", resolved: 3, run: run, means: []int{3}, prefer: 2, want: Place{Endpoint: at(3)}},
		{name: "admitted, no DNS", resolved: nobody, run: "gone", want: Place{Endpoint: at(nobody), Guess: true}},
		{name: "it moved", resolved: 2, run: run, means: []int{4, 3}, want: Place{Endpoint: at(3)}},
		{name: "the name leads to another", resolved: 2, run: run, means: []int{4}, want: Place{Endpoint: at(2), Astray: at(4)}},
		{name: "the name leads to nobody", resolved: 2, run: run, means: []int{nobody}, want: Place{Endpoint: at(2), Astray: at(nobody)}},
		{name: "it is gone, another is there", resolved: nobody, run: "gone", means: []int{nobodyToo, 4}, want: Place{Endpoint: at(4)}},
		{name: "another process where it was", resolved: 2, run: "gone", means: []int{4}, want: Place{Endpoint: at(4)}},
		{name: "nobody anywhere", resolved: nobody, run: "gone", means: []int{nobodyToo}, want: Place{Endpoint: at(nobodyToo)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			look := func(context.Context, string) (list []string, err error) {
				for _, i := range tc.means {
					list = append(list, at(i))
				}
				if list == nil {
					err = away
				}
				return list, err
			}
			n := &topology.Node{Address: fmt.Sprint("db.test:", port), Incarnation: tc.run}
			if tc.resolved > 0 {
				n.Resolved = at(tc.resolved)
			}
			var prefer []string
			if tc.prefer > 0 {
				prefer = append(prefer, at(tc.prefer))
			}
			got, err := Locate(t.Context(), look, n, []string{old.AdminPassword}, prefer...)
			if got != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("%+v, %v; want %+v, %v", got, err, tc.want, tc.err)
			}
		})
	}
	literal := &topology.Node{Address: at(nobody), Resolved: ""}
	if got, err := Locate(t.Context(), nil, literal, nil); err != nil || got != (Place{Endpoint: at(nobody)}) {
		t.Errorf("an ip:port: %+v, %v", got, err)
	}
}
