package reactor_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
)

// TestReadsAndLaterWritesLost: a read that is sent again sees everything that the
// broken connection carried, so it is not when its client wrote to the slot behind
// it. Other slots and other clients do not matter.
func TestReadsAndLaterWritesLost(t *testing.T) {
	t.Parallel()
	const x = "x"
	for _, test := range []struct {
		pipeline [][]string
		want     []string
	}{
		{[][]string{{"GET", "k"}, {"DEL", "k"}}, []string{lost, lost}},
		{[][]string{{"GET", "{k}1"}, {"GET", "other"}, {"SET", "{k}2", "2"}}, []string{lost, x, lost}},
		{[][]string{{"SET", "k", "1"}, {"GET", "k"}}, []string{lost, x}},
		{[][]string{{"GET", "other"}, {"SET", "k", "2"}, {"GET", "k"}, {"SET", "other", "1"}, {"GET", "other"}}, []string{lost, lost, x, lost, x}},
		{[][]string{{"GET", "other"}, {"MSET", "k", "1", "other", "2"}, {"GET", "k"}}, []string{lost, lost, x}},
		{[][]string{{"EXISTS", "k", "other"}, {"SET", "other", "2"}, {"EXISTS", "k", "other"}}, []string{lost, lost, x}},
		{[][]string{{"GET", "k"}, {"FLUSHALL"}, {"GET", "k"}}, []string{lost, lost, x}},
		{[][]string{{"DBSIZE"}, {"SET", "k", "1"}, {"GET", "k"}}, []string{lost, lost, x}},
	} {
		f := startFake(t, never)
		p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
		reader, c := p.dial(), p.dial()
		reader.send("GET", "k")
		f.waitGot(1)
		var raw strings.Builder
		for _, args := range test.pipeline {
			raw.WriteString(encode(args...))
		}
		c.write(raw.String())
		f.waitGot(1 + len(test.pipeline))
		f.set(func([]string) string { return "$1\r\nx\r\n" })
		f.cut()
		for i, want := range test.want {
			if got := c.read(); got != want {
				t.Errorf("%v: the reply to %v is %q, want %q", test.pipeline, test.pipeline[i], got, want)
			}
		}
		reader.wantNext(x)
	}
}

// TestAsidesOfALostConnection: what a transaction asks next, because a connection
// broke under what it asked before, waits for that connection to be logged in to
// the database again.
func TestAsidesOfALostConnection(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	f := startFake(t, never)
	f.set(func(args []string) string {
		switch args[0] {
		case "FLUSHALL":
			f.cut()
			return ""
		case "DBSIZE":
			return ":7\r\n"
		}
		return "+OK\r\n"
	})
	shards[1] = one(1, 2, f.ln.Addr().String())
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c := p.dial()
	near, far := "bar", "foo" // in the first shard, and in the second
	c.want("OK", "SELECT", "9")
	c.want("OK", "SET", far, "1")
	c.want("OK", "MULTI")
	for _, args := range [][]string{{"SET", near, "1"}, {"FLUSHALL"}, {"DBSIZE"}} {
		c.want("QUEUED", args...)
	}
	c.want("[OK "+lost+" 7]", "EXEC")
	got := slices.DeleteFunc(f.waitGot(5), func(s string) bool { return strings.HasPrefix(s, "INFO") })
	if want := "[SELECT 9 SET foo 1 FLUSHALL SELECT 9 DBSIZE]"; fmt.Sprint(got) != want {
		t.Errorf("the server got %q, want %q", got, want)
	}
}

// TestVeryManyDivertedKeys: what is sent of a very long request after a part of it
// was diverted does not overtake that part, when there is a connection for bulk.
func TestVeryManyDivertedKeys(t *testing.T) {
	t.Parallel()
	first, rest := make(chan struct{}), make(chan struct{})
	var batches atomic.Int64
	a := startFake(t, func(args []string) string {
		if args[0] == "GET" {
			<-rest
		}
		return "+OK\r\n"
	})
	b := startFake(t, func([]string) string { return "+OK\r\n" })
	g := startGate(t, b.ln.Addr().String())
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 2, a.ln.Addr().String()), one(1, 2, g.ln.Addr().String()))
	near, far := "bar", "foo" // in the first shard, and in the second
	p.dial().want("OK", "SET", far, "0")
	g.turnedAway(t, 2)
	c := p.dial()
	c.want("OK", "SET", near, strings.Repeat("x", 100_000))
	c.send("GET", near) // in bulk, for the slot holds something large
	a.waitGot(2)
	n := b.set(func([]string) string {
		switch n := batches.Add(1); {
		case n == 1:
			<-first
		case n <= 4: // as many as may be in flight
			<-rest
		}
		return "+OK\r\n"
	})
	args := []string{"MSET"}
	for i := range 5000 {
		args = append(args, "{foo}", strconv.Itoa(i), "{foo1}", strconv.Itoa(i))
	}
	c.send(args...)
	b.waitGot(n + 1)
	g.letIn()
	for begin := time.Now(); g.full(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("no connection for bulk comes")
		}
	}
	c.silent(50 * time.Millisecond) // it takes requests now
	close(first)
	c.silent(50 * time.Millisecond)
	if got := b.waitGot(n + 1); len(got) != n+1 {
		t.Errorf("%d batches came before the first was answered, and the request in front of it", len(got)-n)
	}
	close(rest)
	c.wantNext("OK")
	c.wantNext("OK")
	all := b.waitGot(n + 2)
	if last := all[len(all)-1]; !strings.HasSuffix(last, " 4999") {
		t.Errorf("the last batch ends with %q", last[max(0, len(last)-20):])
	}
}
