package scripts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// keeper is a Configserver in memory.
type keeper struct {
	mu      sync.Mutex
	kept    map[string]Source
	flushes uint64
	away    bool
	puts    int
	gets    int
	late    atomic.Bool
	// asked is called when an answer to GetScripts is on its way.
	asked func()
}

var errAway = errors.New("away")

func (k *keeper) PutScripts(_ context.Context, flushes uint64, list []Source) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.away:
		return 0, errAway
	case flushes == k.flushes:
		k.puts++
		for _, s := range list {
			k.kept[s.SHA] = s
		}
	}
	return k.flushes, nil
}

func (k *keeper) GetScripts(_ context.Context, shas []string, sources bool) (map[string]string, uint64, error) {
	if k.asked != nil {
		defer k.asked()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return nil, 0, errAway
	}
	k.gets++
	found := map[string]string{}
	for _, sha := range shas {
		if s, ok := k.kept[sha]; ok {
			if !sources {
				s.Text = ""
			}
			found[sha] = s.Text
		}
	}
	return found, k.flushes, nil
}

func (k *keeper) FlushScripts(context.Context) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return 0, errAway
	}
	k.flushes++
	clear(k.kept)
	flushes := k.flushes
	if k.late.Load() { // others are answered meanwhile
		k.mu.Unlock()
		time.Sleep(40 * time.Millisecond)
		k.mu.Lock()
	}
	return flushes, nil
}

func (k *keeper) set(away bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = away
}

// slow makes the answers of FlushScripts late.
func (k *keeper) slow() { k.late.Store(true) }

func (k *keeper) has(source string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept[SHA(source)].Text == source
}

// open returns n libraries that run, of one keeper.
func open(t *testing.T, n int) (*keeper, []*Library) {
	t.Helper()
	k := &keeper{kept: map[string]Source{}}
	var all []*Library
	for range n {
		l := New(k, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		all = append(all, l)
	}
	return k, all
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (l *Library) find1(t *testing.T, source string) bool {
	t.Helper()
	found := l.Find(t.Context(), []string{SHA(source)})
	text, ok := found[SHA(source)]
	if ok && text != source {
		t.Fatalf("found %q for %q", text, source)
	}
	if exists := l.Exists(t.Context(), []string{SHA(source)})[SHA(source)]; exists != ok {
		t.Fatalf("%q: exists %v, found %v", source, exists, ok)
	}
	return ok
}

func TestWhatOneKeepsAnotherFinds(t *testing.T) {
	k, l := open(t, 2)
	if l[1].find1(t, "one") {
		t.Error("found before it was there")
	}
	if err := l[0].Keep(t.Context(), "one"); err != nil || !k.has("one") {
		t.Fatal("SCRIPT LOAD is not kept when it returns", err)
	}
	if l[0].Add("two") == nil {
		t.Fatal("not added")
	}
	eventually(t, "EVAL's is kept", func() bool { return k.has("two") })
	if !l[1].find1(t, "one") || !l[1].find1(t, "two") {
		t.Error("the other does not find them")
	}
	// What it found, it remembers.
	k.set(true)
	if !l[1].find1(t, "one") || l[1].find1(t, "three") {
		t.Error("without the Configserver, what is remembered counts")
	}
}

func TestManyAtOnceAndInBatches(t *testing.T) {
	k, l := open(t, 1)
	var all []string
	for i := range 200 {
		source := fmt.Sprint("return ", i)
		all = append(all, SHA(source))
		l[0].Add(source)
	}
	eventually(t, "all are kept", func() bool { return l[0].Waiting() == 0 })
	k.mu.Lock()
	puts := k.puts
	k.mu.Unlock()
	if puts > 20 {
		t.Errorf("%d puts for 200 scripts", puts)
	}
	if found := l[0].Find(t.Context(), all); len(found) != 200 {
		t.Errorf("found %d", len(found))
	}
}

func TestConfigserverAway(t *testing.T) {
	k, l := open(t, 1)
	k.set(true)
	if err := l[0].Keep(t.Context(), "one"); err == nil {
		t.Error("no error")
	}
	l[0].Add("two")
	if err := l[0].Flush(t.Context()); err == nil || !l[0].find1(t, "one") {
		t.Error("a flush that failed forgot something", err)
	}
	if !l[0].find1(t, "two") {
		t.Error("it must be usable meanwhile")
	}
	k.set(false)
	eventually(t, "both are kept when it is back", func() bool { return k.has("one") && k.has("two") })
	if !k.kept[SHA("one")].Loaded || k.kept[SHA("two")].Loaded {
		t.Errorf("kept as %+v", slices.Collect(maps.Values(k.kept)))
	}
}

func TestFlush(t *testing.T) {
	k, l := open(t, 2)
	for i := range l {
		if err := l[i].Keep(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
	}
	version := l[1].Version()
	if err := l[0].Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l[0].find1(t, "one") || l[1].find1(t, "one") {
		t.Error("found after a flush")
	}
	if l[1].Version() == version {
		t.Error("the loops do not learn that a script was forgotten")
	}
	// It is not brought back by what another proxy remembers.
	k.set(true)
	if l[1].find1(t, "one") {
		t.Error("brought back")
	}
}

// TestAddWhileFlushedElsewhere: a script that came after a flush that this proxy
// does not know of is kept.
func TestAddWhileFlushedElsewhere(t *testing.T) {
	k, l := open(t, 2)
	if err := l[0].Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	l[1].Add("one")
	eventually(t, "kept after a refusal", func() bool { return k.has("one") })
	if err := l[0].Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l[1].Keep(t.Context(), "two"); err != nil || !k.has("two") {
		t.Fatal(err)
	}
	if k.has("one") {
		t.Error("a flushed script came back")
	}
}

// TestPutMeetsFlush: a put on its way while the same proxy flushes brings nothing
// back.
func TestPutMeetsFlush(t *testing.T) {
	k, l := open(t, 1)
	k.slow()
	for i := range 15 {
		source := fmt.Sprint("return ", i)
		s := l[0].Add(source)
		time.Sleep(time.Duration(2*i) * time.Millisecond) // puts begin after some 20 ms
		l[0].Use(s)
		if err := l[0].Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Millisecond)
		if k.has(source) || l[0].find1(t, source) {
			t.Fatalf("%d: a script came back", i)
		}
	}
}

// TestUseAfterFlushElsewhere: scripts that are sent again and again are kept
// again after a flush.
func TestUseAfterFlushElsewhere(t *testing.T) {
	k, l := open(t, 2)
	s := l[1].Add("one")
	l[1].Add("unused")
	eventually(t, "kept", func() bool { return l[1].Waiting() == 0 })
	if err := l[0].Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	l[1].Use(s)
	eventually(t, "kept again", func() bool { return k.has("one") })
	if k.has("unused") {
		t.Error("a flushed script came back")
	}
}

func TestBounds(t *testing.T) {
	l := New(nil, slog.New(slog.DiscardHandler))
	if l.Add(strings.Repeat("x", MaxBytes+1)) != nil {
		t.Error("too long, and added")
	}
	if err := l.Keep(t.Context(), "loaded"); err != nil {
		t.Fatal(err)
	}
	version := l.Version()
	for i := range 2 * maxCount {
		l.Add(fmt.Sprint(i))
	}
	if n, _ := l.Count(); n > maxCount || n < maxCount/2 {
		t.Errorf("%d scripts", n)
	}
	if l.Version() == version {
		t.Error("the loops do not learn that scripts were forgotten")
	}
	if _, ok := l.Peek(SHA("loaded")); !ok {
		t.Error("one of SCRIPT LOAD was forgotten before those of EVAL")
	}
	if _, ok := l.Peek(SHA("0")); ok {
		t.Error("the oldest is there")
	}
	for i := range 100 {
		l.Add(fmt.Sprint(i) + strings.Repeat("x", MaxBytes-10))
	}
	if _, bytes := l.Count(); bytes > maxTotal {
		t.Errorf("%d bytes", bytes)
	}
}

// TestOneQuestion: those who ask for the same at once share the answer.
// TestPutBeforeTheAnswer: a script is put while the answer that does not know it
// yet is on its way. It is there all the same.
func TestPutBeforeTheAnswer(t *testing.T) {
	k := &keeper{kept: map[string]Source{}}
	l := New(k, slog.New(slog.DiscardHandler))
	k.asked = func() {
		if err := l.putWaiting(t.Context()); err != nil {
			t.Error(err)
		}
	}
	l.Add("one")
	if !l.Exists(t.Context(), []string{SHA("one")})[SHA("one")] || !k.has("one") {
		t.Error("it does not exist")
	}
	l.Add("two")
	if found := l.Find(t.Context(), []string{SHA("two")}); found[SHA("two")] != "two" || !k.has("two") {
		t.Errorf("found %q", found)
	}
}

func TestOneQuestion(t *testing.T) {
	k, l := open(t, 1)
	if err := l[0].Keep(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	k.mu.Lock() // nobody is answered yet
	before := k.gets
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if len(l[0].Find(context.Background(), []string{SHA("one")})) != 1 {
				t.Error("not found")
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	k.mu.Unlock()
	wg.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := k.gets - before; n > 10 {
		t.Errorf("%d questions for 50", n)
	}
}

// TestNewScriptsAllTheTime: a client whose every EVAL is another script does not
// fill the Configserver's store, and a flush is noticed meanwhile.
func TestNewScriptsAllTheTime(t *testing.T) {
	k := &keeper{kept: map[string]Source{}}
	l := New(k, slog.New(slog.DiscardHandler))
	ctx := t.Context()
	for i := range 1000 {
		if err := l.Keep(ctx, fmt.Sprintf("return %d", i)); err != nil && !errors.Is(err, errOften) {
			t.Fatal(err)
		}
	}
	if most := putBurst/putCost + 5; k.puts > most || k.puts < most/2 {
		t.Errorf("%d puts, want at most %d", k.puts, most)
	}
	done := make(chan error, 1)
	run, stop := context.WithCancel(ctx)
	go func() { done <- l.Run(run) }()
	used := l.Add("return 0")
	k.mu.Lock()
	k.flushes++
	clear(k.kept)
	k.mu.Unlock()
	for begin := time.Now(); l.Flushed() == 0; time.Sleep(10 * time.Millisecond) {
		if l.Use(used); time.Since(begin) > 10*time.Second {
			t.Fatal("the flush was not noticed")
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
