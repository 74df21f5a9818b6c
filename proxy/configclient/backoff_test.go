package configclient

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A Configserver that is away is told of once, and then every minute, whatever each of
// its addresses answers.
func TestAwayIsToldOnceAndThenEveryMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		warnings := func() int { return strings.Count(out.String(), "level=WARN") }
		told := newTeller(slog.New(slog.NewTextHandler(&out, nil)))
		at := Status{Epoch: 17}
		told.tell(true, "a:1", errors.New("Unavailable: the cluster is moving"), at) // a graceful stop
		for i := range 3 {                                                           // in whose place another one goes on
			told.tell(false, fmt.Sprintf("a:%d", i), fmt.Errorf("dial a:%d: connection refused", i), at)
			time.Sleep(500 * time.Millisecond)
		}
		if warnings() != 0 {
			t.Errorf("warned:\n%s", out.String())
		}
		told.tell(true, "a:2", nil, at) // it was connected, and is lost for long
		for i := range 5 * 60 {
			told.tell(false, fmt.Sprintf("a:%d", i%3), fmt.Errorf("dial a:%d: connection refused", i%3), at)
			time.Sleep(time.Second)
		}
		if n := warnings(); n != 5 {
			t.Errorf("%d warnings in five minutes:\n%s", n, out.String())
		}
		for range 10 {
			told.tell(false, "a:1", fmt.Errorf("%w: snapshot of epoch 1", errRefused), at)
		}
		if n := warnings(); n != 6 || !strings.Contains(out.String(), "topology refused: snapshot of epoch 1") {
			t.Errorf("what is refused is told at once, and once: %d\n%s", n, out.String())
		}
	})
}
