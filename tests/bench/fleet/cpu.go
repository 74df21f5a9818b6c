package fleet

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime is the CPU time, user and system, that all threads of a process have
// used so far, ended threads included. It reads the process' CPU clock, which
// counts in nanoseconds as the scheduler does; /proc/PID/stat holds the same
// sum in steps of 10 ms.
func CPUTime(pid int) (time.Duration, error) {
	// The clock id of another process, as clock_getcpuclockid(3) makes it: the
	// complement of the pid and CPUCLOCK_SCHED.
	const (
		cpuclockSched = 2
		maxPID        = 1 << 22 // PID_MAX_LIMIT
	)
	if pid <= 0 || pid > maxPID {
		return 0, fmt.Errorf("CPU clock of process %d: no such process", pid)
	}
	clock := int32(^pid)<<3 | cpuclockSched
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// CPUTimes is the sum of CPUTime over pids.
func CPUTimes(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		t, err := CPUTime(pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// MachineCPU is the CPU time the whole machine spent working since boot, from
// /proc/stat in steps of 10 ms. Its difference to what the measured processes
// used is the noise of everything else.
func MachineCPU() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("machine CPU time: %w", err)
	}
	return parseMachineCPU(text)
}

func parseMachineCPU(text []byte) (time.Duration, error) {
	// cpu user nice system idle iowait irq softirq steal guest guest_nice
	const idle, iowait, last = 4, 5, 8
	sc := bufio.NewScanner(bytes.NewReader(text))
	if !sc.Scan() {
		return 0, errors.New("machine CPU time: /proc/stat is empty")
	}
	fields := bytes.Fields(sc.Bytes())
	if len(fields) <= last || string(fields[0]) != "cpu" {
		return 0, fmt.Errorf("machine CPU time: no cpu line but %q", sc.Text())
	}
	var ticks int64
	for i, field := range fields[1 : last+1] {
		if n := i + 1; n == idle || n == iowait {
			continue
		}
		v, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("machine CPU time: %w", err)
		}
		ticks += v
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux of today
	return time.Duration(ticks) * tick, nil
}
