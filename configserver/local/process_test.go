package local

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the runner that TestNoOrphans kills.
func TestMain(m *testing.M) {
	if os.Getenv("PLAYGROUND_RUNNER") != "" {
		spawnForever()
	}
	os.Exit(m.Run())
}

// spawnForever starts processes, from goroutines that come and go, so that Go
// uses many threads.
func spawnForever() {
	spawn := newSpawner()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	for range 60 {
		for range 4 {
			go func() {
				p, err := spawn.start("/bin/sleep", []string{"600"}, os.Environ(), "/", null)
				if err != nil {
					fmt.Println("error", err)
					return
				}
				fmt.Println("started", p.Pid)
				_, _ = p.Wait()
				fmt.Println("ended", p.Pid)
			}()
		}
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(time.Hour)
}

// marked lists the processes whose environment holds a mark.
func marked(t *testing.T, mark string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, path := range paths {
		env, err := os.ReadFile(path)
		if err == nil && bytes.Contains(env, []byte(mark)) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

// Whenever the runner is killed with -9, also in the middle of starting
// something, nothing of it is left.
func TestNoOrphans(t *testing.T) {
	for round := range 8 {
		mark := fmt.Sprintf("PLAYGROUND_RUNNER=%d-%d", os.Getpid(), rand.Int64())
		runner := exec.Command(os.Args[0])
		runner.Env = append(os.Environ(), mark)
		out, err := runner.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := runner.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + round*5 {
			if !lines.Scan() || !strings.HasPrefix(lines.Text(), "started") {
				t.Fatalf("the runner said %q", lines.Text())
			}
		}
		if len(marked(t, mark)) == 0 {
			t.Fatal("the test finds no process of the runner")
		}
		if err := runner.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = runner.Wait()
		var left []string
		for range 200 {
			if left = marked(t, mark); len(left) == 0 {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if len(left) > 0 {
			t.Fatalf("round %d: processes %v outlived their runner", round, left)
		}
	}
}

func newProcess(t *testing.T, script string) (*process, chan string) {
	t.Helper()
	dir := t.TempDir()
	died := make(chan string, 1)
	p := &process{
		name: "shard-0-0", kind: KindNode, path: "/bin/sh", args: []string{"-c", script}, dir: dir,
		logPath: filepath.Join(dir, "log"), spawn: newSpawner(),
		died: func(_ *process, how string) { died <- how },
	}
	t.Cleanup(func() { _, _ = p.kill() })
	return p, died
}

// waitLog waits until the process wrote text.
func waitLog(t *testing.T, p *process, text string) {
	t.Helper()
	for range 500 {
		data, err := os.ReadFile(p.logPath)
		if err == nil && strings.Contains(string(data), text) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("%s never wrote %q", p.name, text)
}

func TestProcessLife(t *testing.T) {
	p, died := newProcess(t, "echo up $EXTRA; exec sleep 600")
	if state, _, _ := p.state(); state != StateExited {
		t.Fatal(state)
	}
	pid, err := p.start("EXTRA=armed")
	if err != nil {
		t.Fatal(err)
	}
	waitLog(t, p, "up armed")
	if _, err := p.start(); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Fatal(err)
	}
	if state, statePid, _ := p.state(); state != StateRunning || statePid != pid {
		t.Fatal(state, statePid)
	}
	if _, err := p.kill(); err != nil {
		t.Fatal(err)
	}
	if state, _, exit := p.state(); state != StateExited || exit != "signal: killed" {
		t.Fatal(state, exit)
	}
	if _, err := p.kill(); !errors.Is(err, errNotRunning) {
		t.Fatal(err)
	}
	// It was asked for, so it is no news.
	select {
	case how := <-died:
		t.Fatal("reported as died by itself:", how)
	default:
	}
	if _, err := p.start(); err != nil {
		t.Fatal(err)
	}
}

func TestProcessThatDiesByItselfIsNews(t *testing.T) {
	p, died := newProcess(t, "echo out of luck; exit 3")
	if _, err := p.start(); err != nil {
		t.Fatal(err)
	}
	if how := <-died; how != "exit status 3" {
		t.Fatal(how)
	}
	if p.lastLog() != "out of luck" {
		t.Fatal(p.lastLog())
	}
}

func TestStopWakesAPausedProcess(t *testing.T) {
	p, _ := newProcess(t, "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done")
	if _, err := p.start(); err != nil {
		t.Fatal(err)
	}
	waitLog(t, p, "up")
	if _, _, err := p.signal(syscall.SIGSTOP, false); err != nil {
		t.Fatal(err)
	}
	// The kernel delivers it to a sleeping process in its own time.
	for range 500 {
		if state, _, _ := p.state(); state == StatePaused {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if state, _, _ := p.state(); state != StatePaused {
		t.Fatal(state)
	}
	if _, killed, err := p.stop(5*time.Second, nil); killed || err != nil {
		t.Fatal(killed, err)
	}
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	p, _ := newProcess(t, "trap '' TERM; echo up; while :; do sleep 0.01; done")
	if _, err := p.start(); err != nil {
		t.Fatal(err)
	}
	waitLog(t, p, "up")
	if _, killed, err := p.stop(50*time.Millisecond, nil); !killed || err != nil {
		t.Fatal(killed, err)
	}
}

func TestActions(t *testing.T) {
	g := &playground{dir: &dataDir{path: t.TempDir()}}
	p, _ := newProcess(t, "echo up $EXTRA; exec sleep 600")
	data := filepath.Join(p.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "dump.rdb"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.processes = append(g.processes, p)
	act := func(r Request) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r.Targets = []string{"shard-0-0"}
		done, err := g.act(ctx, r)
		if err != nil {
			return err.Error()
		}
		return done[0].What
	}
	for _, step := range []struct {
		request Request
		want    string
	}{
		{Request{Action: "kill"}, "shard-0-0 is not running"},
		{Request{Action: "start"}, "started shard-0-0 (pid "},
		{Request{Action: "pause"}, "paused shard-0-0 (pid "},
		{Request{Action: "resume"}, "resumed shard-0-0 (pid "},
		{Request{Action: "start", Empty: true}, "is running (pid"},
		{Request{Action: "restart", Kill: true, Env: []string{"EXTRA=again"}}, "restarted shard-0-0 (pid "},
		{Request{Action: "kill"}, "killed shard-0-0 (pid "},
		{Request{Action: "start", Empty: true}, ", empty)"},
		{Request{Action: "stop"}, "stopped shard-0-0 (pid "},
		{Request{Action: "start", Env: []string{"nonsense"}}, "want KEY=VALUE"},
		{Request{Action: "explode"}, "unknown action"},
	} {
		if got := act(step.request); !strings.Contains(got, step.want) {
			t.Errorf("%+v: %q, want %q", step.request, got, step.want)
		}
		if len(step.request.Env) > 0 && step.request.Action == "restart" {
			waitLog(t, p, "up again") // before the next step kills it
		}
	}
	if entries, err := os.ReadDir(data); err != nil || len(entries) != 0 {
		t.Fatal(entries, err)
	}
}

// A group may be partly in the state that is asked for.
func TestActionsOnGroups(t *testing.T) {
	g := &playground{dir: &dataDir{path: t.TempDir()}}
	for _, name := range []string{"shard-0-0", "shard-0-1"} {
		p, _ := newProcess(t, "exec sleep 600")
		p.name = name
		g.processes = append(g.processes, p)
	}
	for _, step := range []struct {
		action, target string
		done           int
		problem        string
	}{
		{"start", "shard-0-1", 1, ""},
		{"start", "shard-0", 1, ""},
		{"start", "shard-0", 0, "in that state already"},
		{"kill", "nodes", 2, ""},
		{"pause", "nodes", 0, "in that state already"},
		{"restart", "nodes", 2, ""},
	} {
		done, err := g.act(t.Context(), Request{Action: step.action, Targets: []string{step.target}})
		if len(done) != step.done || (err != nil) != (step.problem != "") || err != nil && !strings.Contains(err.Error(), step.problem) {
			t.Fatalf("%s %s: %v %v", step.action, step.target, done, err)
		}
	}
}
