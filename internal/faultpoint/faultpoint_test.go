package faultpoint

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the tests run this binary again as a program that dies at a
// fault point.
func TestMain(m *testing.M) {
	if os.Getenv("FAULTPOINT_CHILD") != "" {
		_ = Hit("somewhere/else")
		_ = Hit("child/step")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func arm(t *testing.T, spec string) {
	t.Helper()
	if err := Arm(spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = Arm("") })
}

func TestUnarmed(t *testing.T) {
	if err := Hit("a"); err != nil {
		t.Error(err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = Hit("a") }); n != 0 {
		t.Errorf("%v allocations per hit", n)
	}
}

// TestPointsOfTheirOwn: what one set of points has armed is nothing to another.
func TestPointsOfTheirOwn(t *testing.T) {
	var own Points
	if err := own.Arm("a=error"); err != nil {
		t.Fatal(err)
	}
	if err := own.Hit("a"); !errors.Is(err, ErrInjected) {
		t.Errorf("its own point: %v", err)
	}
	if err := Process().Hit("a"); err != nil {
		t.Errorf("the process's point: %v", err)
	}
	if err := own.Arm(""); err != nil || own.Hit("a") != nil {
		t.Errorf("disarmed: %v, %v", err, own.Hit("a"))
	}
}

func TestError(t *testing.T) {
	arm(t, "a=error, b=error@2")
	if err := Hit("a"); !errors.Is(err, ErrInjected) {
		t.Errorf("a: %v", err)
	}
	if err := Hit("c"); err != nil {
		t.Errorf("c: %v", err)
	}
	for hit, want := range []bool{false, true, false} {
		if got := errors.Is(Hit("b"), ErrInjected); got != want {
			t.Errorf("hit %d of b fails: %v", hit+1, got)
		}
	}
}

func TestPause(t *testing.T) {
	arm(t, "a=pause:30ms")
	began := time.Now()
	if err := Hit("a"); err != nil || time.Since(began) < 30*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestRefused(t *testing.T) {
	for _, spec := range []string{"a", "a=", "=kill", "a=die", "a=pause", "a=pause:x", "a=pause:-1s", "a=kill:1s", "a=kill@0", "a=kill@x"} {
		if Arm(spec) == nil {
			t.Errorf("%q was armed", spec)
		}
	}
}

func child(t *testing.T, spec string) error {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), exe)
	c.Env = append(os.Environ(), "FAULTPOINT_CHILD=1", Env+"="+spec)
	return c.Run()
}

func TestKill(t *testing.T) {
	var exit *exec.ExitError
	if err := child(t, "child/step=kill"); !errors.As(err, &exit) ||
		exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the child ended with %v", err)
	}
	if err := child(t, "never=kill"); err != nil {
		t.Errorf("an unarmed child ended with %v", err)
	}
	if err := child(t, "misspelt"); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("a misspelt point: %v", err)
	}
}
