package local

import (
	"os"
	"runtime"
	"syscall"
)

// No process may outlive the runner, not even when it is killed with -9. The
// kernel sees to it: each child asks for SIGKILL when its parent dies
// (PR_SET_PDEATHSIG). Two things need care:
//
//  1. "Parent" means the thread that forked. Go ends threads as it likes, so all
//     children are forked by one goroutine that is locked to its thread and
//     never returns.
//  2. The parent may die between fork and prctl. Go's runtime looks at getppid
//     after the prctl, in the child, and kills it when the parent is gone.
//
// Children get process groups of their own, so that Ctrl-C in a terminal
// reaches the runner alone, which then stops them in good order.

type spawnRequest struct {
	path  string
	argv  []string
	attr  *os.ProcAttr
	reply chan<- spawnReply
}

type spawnReply struct {
	process *os.Process
	err     error
}

// spawner starts processes that die with this one.
type spawner chan<- spawnRequest

func newSpawner() spawner {
	requests := make(chan spawnRequest)
	go func() {
		runtime.LockOSThread()
		for {
			r := <-requests
			p, err := os.StartProcess(r.path, r.argv, r.attr)
			r.reply <- spawnReply{p, err}
		}
	}()
	return requests
}

// start runs path with arguments; output goes to log.
func (s spawner) start(path string, args, env []string, dir string, log *os.File) (*os.Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	reply := make(chan spawnReply, 1)
	s <- spawnRequest{
		path: path,
		argv: append([]string{path}, args...),
		attr: &os.ProcAttr{
			Dir:   dir,
			Env:   env,
			Files: []*os.File{null, log, log},
			Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
		},
		reply: reply,
	}
	r := <-reply
	return r.process, r.err
}
