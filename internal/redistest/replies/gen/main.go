// Command gen starts servers and keeps their replies, see package replies.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	to := flag.String("to", "redistest/replies/testdata", "directory of the replies")
	flag.Parse()
	for _, binary := range flag.Args() {
		if err := capture(binary, *to); err != nil {
			log.Fatalf("gen: %s: %v", binary, err)
		}
	}
}

// capture keeps the replies of one server, twice when it can be compatible with Redis.
func capture(binary, to string) error {
	says, err := exec.Command(binary, "--version").Output()
	if err != nil {
		return err
	}
	name := "valkey" // which says "Valkey server" or, before 8.0, "Server"
	if bytes.HasPrefix(says, []byte("Redis ")) {
		name = "redis"
	}
	_, rest, _ := strings.Cut(string(says), " v=")
	version, _, _ := strings.Cut(rest, " ")
	for _, compatible := range []string{"", "yes"} {
		c := &session{binary: binary, compatible: compatible != "", to: filepath.Join(to, name+"-"+version)}
		if c.compatible {
			c.to += "-compatible"
		}
		err := c.run(string(says))
		c.stop()
		if errors.Is(err, errIncompatible) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errIncompatible = errors.New("the server has no extended-redis-compatibility")

// password of the administrator.
const password = "capture"

// session is one capture.
type session struct {
	binary     string
	compatible bool
	to         string
	servers    []*server
}

type server struct {
	port    int
	dir     string
	cmd     *exec.Cmd
	conn    net.Conn
	in      *bufio.Reader
	logFile string
}

func (c *session) stop() {
	for _, s := range c.servers {
		_ = s.conn.Close()
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		_ = os.RemoveAll(s.dir)
	}
}

// start runs a fenced server, as a node of a cluster is started.
func (c *session) start(more ...string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	dir, err := os.MkdirTemp("", "capture-")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(password))
	lines := append([]string{
		"bind 127.0.0.1", "port " + strconv.Itoa(port), "dir " + dir, "repl-diskless-sync-delay 0", "repl-diskless-sync yes",
		"user default off ~* &* +@all", "user basalt-admin on #" + hex.EncodeToString(sum[:]) + " ~* &* +@all",
		"user basalt-probe on nopass resetkeys resetchannels -@all +ping", "user basalt-node:u:shard-0:shard-0-0 off",
	}, more...)
	if c.compatible {
		lines = append(lines, "extended-redis-compatibility yes")
	}
	s := &server{port: port, dir: dir, logFile: filepath.Join(dir, "log")}
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	out, err := os.Create(s.logFile)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	s.cmd = exec.Command(c.binary, conf)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		if s.conn, err = net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		said, _ := os.ReadFile(s.logFile)
		_ = s.cmd.Wait()
		if bytes.Contains(said, []byte("extended-redis-compatibility")) {
			return nil, errIncompatible
		}
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	s.in = bufio.NewReader(s.conn)
	c.servers = append(c.servers, s)
	return s, nil
}

// ask returns the raw reply to a command; words have no spaces.
func (s *server) ask(command string) ([]byte, error) {
	words := strings.Fields(command)
	for i, w := range words {
		words[i] = strings.ReplaceAll(w, "_", " ")
	}
	return s.do(words...)
}

func (s *server) do(words ...string) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	_ = s.conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := s.conn.Write(b.Bytes()); err != nil {
		return nil, err
	}
	var reply bytes.Buffer
	err := read(s.in, &reply)
	return reply.Bytes(), err
}

// read copies one reply.
func read(in *bufio.Reader, out *bytes.Buffer) error {
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	out.WriteString(line)
	n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
	switch line[0] {
	case '$', '=':
		if n >= 0 {
			_, err = io.CopyN(out, in, int64(n)+2)
		}
	case '%':
		n *= 2
		fallthrough
	case '*', '~', '>':
		for i := 0; i < n && err == nil; i++ {
			err = read(in, out)
		}
	}
	return err
}

// until asks until the reply has a text, or has it no more (behind "!").
func (s *server) until(command, text string) error {
	var last []byte
	for range 400 {
		reply, err := s.ask(command)
		if err != nil {
			return err
		}
		without, absent := strings.CutPrefix(text, "!")
		if last = reply; bytes.Contains(reply, []byte(without)) != absent {
			return nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return fmt.Errorf("%s never says %s: %s", command, text, last)
}

func (c *session) keep(name string, reply []byte) error {
	return os.WriteFile(filepath.Join(c.to, name), anywhere(reply), 0o644)
}

// bulk is the head of a reply that says how long it is.
var bulk = regexp.MustCompile(`^([$=])[0-9]+\r\n`)

// anywhere is a reply without what is of one machine only: its kernel, and where its
// files are.
func anywhere(reply []byte) []byte {
	lines := strings.SplitAfter(string(reply), "\n")
	for i, line := range lines {
		text := strings.TrimRight(line, "\r\n")
		field, value, _ := strings.Cut(text, ":")
		switch end := line[len(text):]; field {
		case "os":
			lines[i] = "os:Linux x86_64" + end
		case "executable", "config_file":
			lines[i] = field + ":/" + filepath.Base(value) + end
		}
	}
	out := strings.Join(lines, "")
	if head := bulk.FindStringSubmatch(out); head != nil && len(out) != len(reply) {
		body := out[len(head[0]):]
		out = fmt.Sprintf("%s%d\r\n%s", head[1], len(body)-len("\r\n"), body)
	}
	return []byte(out)
}

func (c *session) run(says string) error {
	if err := os.MkdirAll(c.to, 0o755); err != nil { //nolint:gosec // no secrets
		return err
	}
	master, err := c.start()
	if err != nil {
		_ = os.Remove(c.to) // if it is empty
		return err
	}
	replica, err := c.start("masteruser basalt-admin", "masterauth "+password)
	if err != nil {
		return err
	}
	if err := c.keep("version", []byte(says)); err != nil {
		return err
	}
	// What is asked in this order, of whom, and the file for the reply; without a file
	// it only prepares what follows.
	master3, err := c.again(master)
	if err != nil {
		return err
	}
	admin := "AUTH basalt-admin " + password
	follow := fmt.Sprintf("REPLICAOF 127.0.0.1 %d", master.port)
	for _, step := range []struct {
		of           *server
		file, asks   string
		until, after string
	}{
		{of: master, file: "error-noauth", asks: "GET k"},
		{of: master, file: "error-wrongpass", asks: "AUTH basalt-admin wrong"},
		{of: master, file: "auth-probe", asks: "AUTH basalt-probe x"},
		{of: master, file: "error-noperm", asks: "GET k"},
		{of: master, file: "auth", asks: admin},
		{of: replica, asks: admin},
		{of: master3, asks: "HELLO 3 AUTH basalt-admin " + password},
		{of: master, file: "hello-2", asks: "HELLO 2"},
		{of: master3, file: "hello-3", asks: "HELLO 3"},
		{of: master, file: "acl-users", asks: "ACL USERS"},
		{of: master, file: "acl-list", asks: "ACL LIST"},
		{of: master, file: "acl-getuser-default", asks: "ACL GETUSER default"},
		{of: master, file: "acl-getuser-admin", asks: "ACL GETUSER basalt-admin"},
		{of: master, asks: "CLIENT SETNAME basalt-owner-1"},
		{of: master, asks: "SET k v"}, {of: master, asks: "SET volatile v EX 1000"}, {of: master, asks: "HSET h f v"},
		{of: master, asks: "SELECT 3"}, {of: master, asks: "SET other v"}, {of: master, asks: "SELECT 0"},
		{of: master, file: "error-no-persistence-name", asks: "CONFIG SET dbfilename other.rdb"},
		{of: master, file: "error-parameter", asks: "CONFIG SET nosuch 1"},
		{of: master, file: "config-get", asks: "CONFIG GET save"},
		{of: replica, file: "replicaof", asks: follow},
		{of: replica, asks: "INFO replication", until: "master_link_status:up"},
		{of: master, asks: "INFO replication", until: "state=online"},
		{of: master, asks: "SET k v"}, // the stream begins, and with it the acknowledgements
		{of: master, asks: "INFO replication", until: "!offset=0,"},
		{of: master, file: "info-master", asks: "INFO"},
		{of: master, file: "info-everything", asks: "INFO everything"},
		{of: replica, file: "info-replica", asks: "INFO"},
		{of: master, file: "role-master", asks: "ROLE"},
		{of: replica, file: "role-replica", asks: "ROLE"},
		{of: master, file: "client-list", asks: "CLIENT LIST TYPE normal"},
		{of: master, file: "client-list-replica", asks: "CLIENT LIST TYPE replica"},
		{of: master, asks: "CONFIG SET slowlog-log-slower-than 0"},
		{of: master, asks: "GET k"},
		{of: master, file: "slowlog-get", asks: "SLOWLOG GET 2"},
		{of: master, file: "latency-histogram", asks: "LATENCY HISTOGRAM get set"},
		{of: master, file: "memory-stats", asks: "MEMORY STATS"},
		{of: master, file: "memory-doctor", asks: "MEMORY DOCTOR"},
		{of: master, file: "function-stats", asks: "FUNCTION STATS"},
		{of: master, file: "error-noscript", asks: "EVALSHA 0000000000000000000000000000000000000000 0"},
		{of: replica, file: "error-readonly", asks: "SET k v"},
		{of: master, file: "bgsave-schedule", asks: "BGSAVE SCHEDULE"},
		{of: master, file: "bgsave", asks: "BGSAVE", until: "saving started"},
		{of: master, asks: "INFO persistence", until: "rdb_bgsave_in_progress:0"},
		{of: master, asks: "CONFIG SET min-replicas-to-write 5"},
		{of: master, file: "error-noreplicas", asks: "SET k v"},
		{of: master, asks: "CONFIG SET min-replicas-to-write 0"},
		{of: master, asks: "CONFIG SET maxmemory 1"},
		{of: master, file: "error-oom", asks: "SET k v"},
		{of: master, asks: "CONFIG SET maxmemory 0"},
		{of: replica, asks: "REPLICAOF 127.0.0.1 1"},
		{of: replica, asks: "INFO replication", until: "master_link_status:down"},
		{of: replica, file: "info-cut", asks: "INFO"},
		{of: replica, asks: "CONFIG SET replica-serve-stale-data no"},
		{of: replica, file: "error-masterdown", asks: "GET k"},
		{of: replica, file: "role-cut", asks: "ROLE"},
		{of: replica, file: "replicaof-no-one", asks: "REPLICAOF NO ONE"},
		{of: replica, file: "info-promoted", asks: "INFO"},
	} {
		if step.until != "" && step.file == "" {
			if err := step.of.until(step.asks, step.until); err != nil {
				return err
			}
			continue
		}
		reply, err := step.of.ask(step.asks)
		if err != nil {
			return fmt.Errorf("%s: %w", step.asks, err)
		}
		if step.file == "" && bytes.HasPrefix(reply, []byte("-")) {
			return fmt.Errorf("%s: %s", step.asks, reply)
		}
		if step.until != "" && !bytes.Contains(reply, []byte(step.until)) {
			// an earlier save is still going on
			if err := step.of.until(step.asks, step.until); err != nil {
				return err
			}
			reply = []byte("+Background saving started\r\n")
		}
		if step.file != "" {
			if err := c.keep(step.file, reply); err != nil {
				return err
			}
		}
	}
	return c.trouble(master, master3)
}

// again is another connection to a server.
func (c *session) again(s *server) (*server, error) {
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(s.port))
	return &server{port: s.port, conn: conn, in: bufio.NewReader(conn), logFile: s.logFile}, err
}

// trouble keeps what a server says while a script runs, when it cannot save, while it
// loads, and in its log.
func (c *session) trouble(s, other *server) error {
	for _, name := range []string{"busy-reply-threshold", "lua-time-limit"} {
		if reply, err := s.do("CONFIG", "SET", name, "50"); err != nil || reply[0] == '+' {
			break
		}
	}
	go func() { _, _ = other.do("EVAL", "while true do end", "0") }()
	for _, file := range []string{"error-busy", "error-busy-exec"} {
		if file == "error-busy-exec" {
			_, _ = s.ask("MULTI")
		}
		if err := s.until("PING", "-BUSY"); err != nil {
			return err
		}
		reply, err := s.ask(map[string]string{"error-busy": "PING", "error-busy-exec": "EXEC"}[file])
		if err == nil {
			err = c.keep(file, reply)
		}
		if err != nil {
			return err
		}
	}
	if _, err := s.ask("SCRIPT KILL"); err != nil {
		return err
	}
	if err := s.until("PING", "+PONG"); err != nil {
		return err
	}
	if _, err := s.ask("DISCARD"); err != nil {
		return err
	}
	// A directory in the place of the file makes each save fail.
	for _, name := range []string{"dump.rdb", "other.rdb"} {
		_ = os.Remove(filepath.Join(s.dir, name))
		if err := os.MkdirAll(filepath.Join(s.dir, name, "x"), 0o700); err != nil {
			return err
		}
	}
	for _, command := range []string{"CONFIG SET save 1_1", "SET k v", "BGSAVE"} {
		if _, err := s.ask(command); err != nil {
			return err
		}
	}
	if err := s.until("INFO persistence", "rdb_last_bgsave_status:err"); err != nil {
		return err
	}
	for file, command := range map[string]string{"error-misconf": "SET k v", "info-save-failed": "INFO persistence"} {
		reply, err := s.ask(command)
		if err == nil {
			err = c.keep(file, reply)
		}
		if err != nil {
			return err
		}
	}
	return c.loading()
}

// loading starts a server with enough data that it says so.
func (c *session) loading() error {
	s, err := c.start("appendonly no", "save 3600 1", "enable-debug-command yes")
	if errors.Is(err, syscall.ECONNREFUSED) || err != nil {
		s, err = c.start("appendonly no", "save 3600 1") // before 7.0
	}
	if err != nil {
		return err
	}
	for _, command := range []string{"AUTH basalt-admin " + password, "CONFIG SET rdbcompression no", "DEBUG POPULATE 50000 key 500", "SAVE", "CONFIG SET key-load-delay 50"} {
		if reply, err := s.ask(command); err != nil || reply[0] == '-' {
			return fmt.Errorf("%s: %s, %w", command, reply, err)
		}
	}
	if _, err := s.ask("CONFIG SET loading-process-events-interval-bytes 2048"); err != nil { // 6.2 has no such parameter
		return err
	}
	other, err := c.again(s)
	if err != nil {
		return err
	}
	if _, err := other.ask("AUTH basalt-admin " + password); err != nil {
		return err
	}
	go func() { _, _ = other.do("DEBUG", "RELOAD", "NOSAVE") }()
	if err := s.until("PING", "-LOADING"); err != nil {
		return err
	}
	for file, command := range map[string]string{"error-loading": "GET k", "info-loading": "INFO"} {
		reply, err := s.ask(command)
		if err == nil {
			err = c.keep(file, reply)
		}
		if err != nil {
			return err
		}
	}
	said, err := os.ReadFile(s.logFile)
	if err != nil {
		return err
	}
	return c.keep("log", said)
}
