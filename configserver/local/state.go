package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// State is the state file: how the other commands find the runner.
type State struct {
	PID           int      `json:"pid"`
	Socket        string   `json:"socket"`
	Cluster       string   `json:"cluster"`
	Configservers []string `json:"configservers"`
	Proxies       []string `json:"proxies"`
	DataDir       string   `json:"dataDir"`
	// Temporary: the data directory goes with the runner.
	Temporary      bool   `json:"temporary"`
	CredentialsDir string `json:"credentialsDir"`
}

// DefaultStatePath is where the state file is: BASALT_LOCAL_STATE (a directory,
// or a file that ends in .json), else basalt-UID/local.json in XDG_RUNTIME_DIR
// or /tmp.
func DefaultStatePath() string {
	if path := os.Getenv("BASALT_LOCAL_STATE"); path != "" {
		return StatePathIn(path)
	}
	root := os.Getenv("XDG_RUNTIME_DIR")
	if root == "" {
		root = "/tmp"
	}
	return StatePathIn(filepath.Join(root, "basalt-"+strconv.Itoa(os.Getuid())))
}

// StatePathIn returns the state file of a state directory; a path that ends in
// .json is the file itself.
func StatePathIn(path string) string {
	if strings.HasSuffix(path, ".json") {
		return path
	}
	return filepath.Join(path, "local.json")
}

// ErrNoPlayground: there is no state file.
var ErrNoPlayground = errors.New("no local playground is running; start one with `basaltctl local up`")

// ReadState reads a state file; ErrNoPlayground when there is none. The runner
// it names may be gone.
func ReadState(path string) (State, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, ErrNoPlayground
	}
	var s State
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return State{}, fmt.Errorf("state file %s: %w", path, err)
	}
	return s, nil
}

// stateInUse: another playground has the state file.
type stateInUse struct{ who string }

func (e stateInUse) Error() string {
	return e.who + " is running already; stop it with `basaltctl local down`, or give this one a PORT of its own"
}

func (stateInUse) Unwrap() error { return errLocked }

// write replaces the state file in one step.
func (s State) write(path string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(data, '\n'))
}

// lockState makes the state directory and takes the lock of the state file. A
// lock ends with its holder, however that ends.
func lockState(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	// In /tmp anyone could have made it before us.
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Getuid() {
		return nil, fmt.Errorf("state directory %s belongs to somebody else; choose another with --state-dir", dir)
	}
	lock, err := lockFile(path + ".lock")
	if errors.Is(err, errLocked) {
		who := "another `basaltctl local up`"
		if s, err := ReadState(path); err == nil {
			who = fmt.Sprintf("a playground (pid %d, configserver %s)", s.PID, strings.Join(s.Configservers, ","))
		}
		return nil, stateInUse{who}
	}
	return lock, err
}

// claimState is lockState of the state file of o, or of one beside it that has the
// port of the first proxy in its name. It returns the path of what it locked.
func claimState(o *Options) (*os.File, string, error) {
	lock, err := lockState(o.StatePath)
	if !errors.Is(err, errLocked) || !o.AnyPort || o.Port == 0 {
		return lock, o.StatePath, err
	}
	path := StatePathIn(filepath.Dir(o.StatePath) + "-" + strconv.Itoa(o.Port))
	lock, err = lockState(path)
	return lock, path, err
}

var errLocked = errors.New("locked")

// lockFile takes an exclusive lock that lasts as long as the returned file and
// this process; errLocked when somebody has it.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// writeFile replaces a file in one step; only the owner may read it.
func writeFile(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
