package reactor

import (
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/session"
)

// startLoops runs an engine without any server, and connects clients to it.
func startLoops(t *testing.T, loops, clients int) (*Engine, []net.Conn) {
	t.Helper()
	e, err := New(Config{Loops: loops, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- e.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = e.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	var conns []net.Conn
	for range clients {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
	}
	return e, conns
}

// say sends a line and returns the line of the answer.
func say(t *testing.T, conn net.Conn, line string) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	var reply []byte
	for !strings.HasSuffix(string(reply), "\r\n") {
		if _, err := conn.Read(b); err != nil {
			t.Fatal(err)
		}
		reply = append(reply, b...)
	}
	return strings.TrimSpace(string(reply))
}

// TestWithClient: every client of the proxy is found by its id, on its own loop,
// and no other.
func TestWithClient(t *testing.T) {
	t.Parallel()
	e, conns := startLoops(t, 3, 6)
	var found []uint64
	act := func(from *loop, id uint64) (acted bool) {
		done := make(chan struct{})
		from.post(func() {
			from.withClient(id, func(at *loop, c *session.Client) bool {
				if at.places[c.Slot].client != c {
					t.Error("the client is not on the loop")
				}
				found = append(found, c.ID())
				return c.ID() != 2
			}, func(a bool) {
				acted = a
				close(done)
			})
		})
		<-done
		return acted
	}
	var want []uint64
	for i, conn := range conns {
		id, err := strconv.ParseUint(strings.TrimPrefix(say(t, conn, "CLIENT ID"), ":"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if acted := act(e.loops[i%3], id); acted != (id != 2) {
			t.Errorf("client %d: acted %v", id, acted)
		}
		want = append(want, id)
	}
	if !slices.Equal(found, want) {
		t.Errorf("found %d, want %d", found, want)
	}
	if act(e.loops[0], 999) {
		t.Error("a client that does not exist was found")
	}
}

// TestEverywhereWithoutALoop: a loop that ended while others go on keeps nobody
// waiting.
func TestEverywhereWithoutALoop(t *testing.T) {
	t.Parallel()
	e, _ := startLoops(t, 3, 0)
	gone := e.loops[1]
	gone.post(func() { gone.stopped = true })
	<-gone.done
	visited, done := make(chan int, 3), make(chan struct{})
	e.loops[0].post(func() {
		e.loops[0].everywhere(func(_ *loop, i int) { visited <- i }, func() { close(done) })
	})
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("it waits for a loop that has ended")
	}
	close(visited)
	var all []int
	for i := range visited {
		all = append(all, i)
	}
	slices.Sort(all)
	if !slices.Equal(all, []int{0, 2}) {
		t.Errorf("visited loops %d", all)
	}
}
