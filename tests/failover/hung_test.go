package failover

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

const (
	hungFor        = 20 * time.Second
	hungReplacedIn = 5 * time.Second
)

// TestHungMaster stops a master for 20 s and lets it go on. Every SET it ever
// executed is accounted for: it executed those that clients got an
// acknowledgement for before it hung and, on waking, commands that already lay
// in its socket buffers, whose clients got an error. Nothing else.
func TestHungMaster(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	old := c.Master(t, 0)
	admin := c.Admin(t, old.GetAddress())
	l := c.StartLoad(t, consistency.Config{})
	// From here on its counter of SETs must agree with what clients saw. Nothing
	// may be in flight while it is set to zero.
	l.Pause()
	do(t, admin, "CONFIG", "RESETSTAT")
	counted := l.Now()
	l.Continue()
	time.Sleep(2 * time.Second)

	process := c.Process(t, old.GetId())
	events := c.LastEvent(t)
	l.LossBegins(0)
	o := outage{at: l.Now(), shard: 0}
	harness.Signal(t, process, syscall.SIGSTOP)
	took := waitNewMaster(t, c, 0, old.GetId(), 10*time.Second)
	l.LossEnds(0)
	for _, r := range c.Reports(t, events) {
		t.Log(harness.ReportLine(r))
	}
	time.Sleep(hungFor - (l.Now() - o.at))
	o.until = l.Now()
	looks := make(chan woken, 1)
	go func() { looks <- watchWaking(admin, l.Keys(0)) }()
	time.Sleep(100 * time.Millisecond) // for the first look to lie in its buffer
	harness.Signal(t, process, syscall.SIGCONT)
	woken := <-looks
	if woken.err != nil {
		t.Fatal(woken.err)
	}
	healthy := c.WaitHealthy(t, 20*time.Second)
	if m := c.Master(t, 0); m == nil || m.GetId() == old.GetId() {
		t.Errorf("the woken server is master again: %v", m)
	}
	if info := string(do(t, admin, "INFO", "replication").Text); !strings.Contains(info, "role:slave") {
		t.Errorf("the woken server is no replica:\n%s", info)
	}
	errorstats := string(do(t, admin, "INFO", "errorstats").Text)
	if strings.Contains(errorstats, "READONLY") {
		t.Errorf("writes reached the woken server after it became a replica:\n%s", errorstats)
	}
	l.Judge(t)
	line := l.Timeline()
	resumed := o.resumed(t, line)
	// Until somebody notices, requests are sent to a server that hangs: each
	// connection's next one counts as in flight.
	o.requireOnlyInFlight(t, line, hungReplacedIn)
	o.requireUnnoticed(t, l)
	if resumed >= hungReplacedIn {
		t.Errorf("writes resumed %s after the server hung, want less than %s", resumed, hungReplacedIn)
	}

	acked, executedLate, inFlight := 0, 0, 0
	for _, r := range line.Shard(0) {
		if !r.Write || r.Start < counted {
			continue
		}
		switch {
		case r.Class == consistency.OK && r.End() < o.at+resumed/2:
			acked++
		case r.Class == consistency.InFlight:
			inFlight++
			version, err := l.Version(r.Key, woken.values[r.Key])
			if err != nil {
				t.Error(err)
			}
			if version == r.Version {
				executedLate++
			}
			if version > r.Version {
				t.Errorf("%s at the woken server has version %d, sent after its takeover", r.Key, version)
			}
		}
	}
	t.Logf("hung master replaced: new master after %s, writes resumed after %s; woken and in sync as a replica after %s",
		took.Round(time.Millisecond), resumed.Round(time.Millisecond), healthy.Round(time.Millisecond))
	t.Logf("it executed %d SETs: %d acknowledged before it hung, %d of %d that were in flight when it hung; %d looks at it before it was told to be a replica",
		woken.sets, acked, executedLate, inFlight, woken.looks)
	if woken.sets != acked+executedLate {
		t.Errorf("the server executed %d SETs, %d are accounted for", woken.sets, acked+executedLate)
	}
}

// woken is a server as it was just before it was told to be a replica.
type woken struct {
	sets   int
	values map[string][]byte
	looks  int
	err    error
}

// watchWaking looks at a stopped server again and again until it is a replica,
// and returns the last look before.
func watchWaking(admin *consistency.Conn, keys []string) (w woken) {
	for begin := time.Now(); time.Since(begin) < 20*time.Second; {
		replies, err := admin.Pipeline([]string{"MULTI"}, []string{"INFO", "replication"}, []string{"INFO", "commandstats"},
			append([]string{"MGET"}, keys...), []string{"EXEC"})
		if err != nil {
			return woken{err: err}
		}
		exec := replies[4].Array
		if replies[4].Err != nil || len(exec) != 3 {
			return woken{err: fmt.Errorf("look at the woken server: %+v", replies[4])}
		}
		if !bytes.Contains(exec[0].Text, []byte("role:master")) {
			if w.looks == 0 {
				return woken{err: errors.New("the server was a replica before anybody could look at it")}
			}
			return w
		}
		sets, err := calls(string(exec[1].Text), "set")
		if err != nil {
			return woken{err: err}
		}
		w = woken{sets: sets, values: map[string][]byte{}, looks: w.looks + 1}
		for i, key := range keys {
			w.values[key] = exec[2].Array[i].Text
		}
	}
	return woken{err: errors.New("the woken server was not made a replica within 20 s")}
}

// calls reads a counter of INFO commandstats; a command never called has none.
func calls(stats, command string) (int, error) {
	_, rest, ok := strings.Cut(stats, fmt.Sprintf("cmdstat_%s:calls=", command))
	if !ok {
		return 0, nil
	}
	number, _, _ := strings.Cut(rest, ",")
	return strconv.Atoi(number)
}
