package size

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Servers that are none: they answer what a Configserver asks as a redis-server 7.0
// does, and keep no data. A real one takes 10 MiB and a tenth of a per cent of a core,
// which is too much for a thousand of them on one machine. All of them live in one
// process, which is not that of the test: who measures must not be what is measured.

// info is INFO of a real redis-server 7.0.15 without its section about replication.
//
//go:embed testdata/info.txt
var info string

// serversEnv makes the test binary that process; its value is how many there are.
const serversEnv = "SIZE_TEST_SERVERS"

// serve runs servers until stdin ends. It prints their addresses as one line of JSON.
// A line "kill ADDRESS" on stdin ends one as kill -9 does.
func serve(count int) error {
	all := &servers{at: map[string]*server{}}
	var addresses []string
	for i := range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s := &server{all: all, listener: l, address: l.Addr().String(), users: map[string]bool{"default": true, "basalt-admin": true, "basalt-probe": true},
			runID: fmt.Sprintf("%040x", i+1), replID: fmt.Sprintf("%040x", 1<<40+i+1), conns: map[net.Conn]bool{}, followers: map[string]bool{}}
		all.at[s.address] = s
		addresses = append(addresses, s.address)
	}
	for _, s := range all.at {
		go s.accept()
	}
	if err := json.NewEncoder(os.Stdout).Encode(addresses); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if address, is := strings.CutPrefix(in.Text(), "kill "); is {
			all.kill(address)
		}
	}
	return nil
}

// servers are all of them, by address. The lock is that of every server's state.
type servers struct {
	mu sync.Mutex
	at map[string]*server
	// promoted counts promotions, each of which begins a history.
	promoted int
}

type server struct {
	all      *servers
	listener net.Listener
	address  string
	users    map[string]bool

	runID, replID, before string
	offset, second        int64
	master                string // address; "" when it is a master itself
	followers             map[string]bool
	conns                 map[net.Conn]bool
}

func (a *servers) kill(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.at[address]
	delete(a.at, address)
	s.leave()
	_ = s.listener.Close()
	for c := range s.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
}

func (s *server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.all.mu.Lock()
		s.conns[c] = true
		s.all.mu.Unlock()
		go func() {
			s.converse(c)
			s.all.mu.Lock()
			delete(s.conns, c)
			s.all.mu.Unlock()
			_ = c.Close()
		}()
	}
}

func (s *server) converse(c net.Conn) {
	in, out := bufio.NewReader(c), bufio.NewWriter(c)
	for {
		args, err := command(in)
		if err != nil {
			return
		}
		s.all.mu.Lock()
		s.answer(out, args)
		s.all.mu.Unlock()
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

// command reads one command: an array of bulk strings.
func command(in *bufio.Reader) ([]string, error) {
	n, err := header(in)
	args := make([]string, 0, max(0, n))
	for ; err == nil && n > 0; n-- {
		var size int
		if size, err = header(in); err != nil {
			break
		}
		arg := make([]byte, size+2)
		_, err = io.ReadFull(in, arg)
		args = append(args, string(arg[:size]))
	}
	return args, err
}

func header(in *bufio.Reader) (int, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(line[1:])))
}

func (s *server) answer(out *bufio.Writer, args []string) {
	word := func(i int) string {
		if i < len(args) {
			return strings.ToUpper(args[i])
		}
		return ""
	}
	switch word(0) {
	case "PING":
		_, _ = out.WriteString("+PONG\r\n")
	case "HELLO":
		_, _ = out.WriteString("-ERR unknown command 'HELLO'\r\n") // then clients say AUTH
	case "INFO":
		bulk(out, s.info(word(1)))
	case "CONFIG":
		if word(1) == "GET" {
			_, _ = out.WriteString("*0\r\n")
			return
		}
		_, _ = out.WriteString("+OK\r\n")
	case "CLIENT":
		switch word(1) {
		case "LIST":
			bulk(out, "")
		case "KILL":
			_, _ = out.WriteString(":0\r\n")
		default:
			_, _ = out.WriteString("+OK\r\n")
		}
	case "REPLICAOF":
		s.follow(args[1:])
		_, _ = out.WriteString("+OK\r\n")
	case "ACL":
		s.acl(out, word(1), args[2:])
	default: // AUTH, SELECT, BGSAVE
		_, _ = out.WriteString("+OK\r\n")
	}
}

func (s *server) acl(out *bufio.Writer, what string, args []string) {
	switch what {
	case "USERS":
		array(out, s.names()...)
	case "LIST":
		array(out, "user default off ~* &* +@all")
	case "GETUSER":
		_, _ = out.WriteString("*8\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\ncommands\r\n$5\r\n+@all\r\n$4\r\nkeys\r\n$2\r\n~*\r\n$8\r\nchannels\r\n$2\r\n&*\r\n")
	case "DELUSER":
		for _, user := range args {
			delete(s.users, user)
		}
		_, _ = fmt.Fprintf(out, ":%d\r\n", len(args))
	case "SETUSER":
		s.users[args[0]] = true
		_, _ = out.WriteString("+OK\r\n")
	default:
		_, _ = out.WriteString("+OK\r\n")
	}
}

func (s *server) names() (names []string) {
	for name := range s.users {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// follow is REPLICAOF. A replica has all its master has at once.
func (s *server) follow(of []string) {
	s.leave()
	if of[0] == "NO" {
		if s.master == "" {
			return
		}
		s.all.promoted++
		s.master, s.before, s.second = "", s.replID, s.offset+1
		s.replID = fmt.Sprintf("%040x", 1<<44+s.all.promoted)
		return
	}
	s.master = net.JoinHostPort(of[0], of[1])
	if m := s.all.at[s.master]; m != nil {
		m.followers[s.address] = true
		s.replID, s.offset = m.replID, m.offset
	}
}

// leave ends the link to the server's master.
func (s *server) leave() {
	if m := s.all.at[s.master]; m != nil {
		delete(m.followers, s.address)
	}
}

func (s *server) info(section string) string {
	replication := s.replication()
	if section == "REPLICATION" {
		return replication
	}
	return strings.ReplaceAll(strings.NewReplacer("{{run_id}}", s.runID, "{{replication}}", replication).Replace(info), "\n", "\r\n")
}

func (s *server) replication() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Replication\r\n")
	if s.master != "" {
		host, port, _ := net.SplitHostPort(s.master)
		link := "down"
		if m := s.all.at[s.master]; m != nil && m.users["basalt-replication"] {
			link = "up"
			s.replID, s.offset = m.replID, m.offset
		}
		fmt.Fprintf(&b, "role:slave\r\nmaster_host:%s\r\nmaster_port:%s\r\nmaster_link_status:%s\r\nmaster_last_io_seconds_ago:0\r\nmaster_sync_in_progress:0\r\n", host, port, link)
		fmt.Fprintf(&b, "slave_read_repl_offset:%d\r\nslave_repl_offset:%d\r\n", s.offset, s.offset)
		if link == "down" {
			b.WriteString("master_link_down_since_seconds:0\r\n")
		}
		b.WriteString("slave_priority:100\r\nslave_read_only:1\r\nreplica_announced:1\r\nconnected_slaves:0\r\n")
	} else {
		var lines []string
		for _, replica := range slices.Sorted(maps.Keys(s.followers)) {
			host, port, _ := net.SplitHostPort(replica)
			lines = append(lines, fmt.Sprintf("slave%d:ip=%s,port=%s,state=online,offset=%d,lag=0\r\n", len(lines), host, port, s.offset+1))
		}
		fmt.Fprintf(&b, "role:master\r\nconnected_slaves:%d\r\n%s", len(lines), strings.Join(lines, ""))
	}
	before := s.before
	if before == "" {
		before = strings.Repeat("0", 40)
	}
	second := s.second
	if second == 0 {
		second = -1
	}
	fmt.Fprintf(&b, "master_failover_state:no-failover\r\nmaster_replid:%s\r\nmaster_replid2:%s\r\nmaster_repl_offset:%d\r\nsecond_repl_offset:%d\r\n", s.replID, before, s.offset, second)
	b.WriteString("repl_backlog_active:1\r\nrepl_backlog_size:1048576\r\nrepl_backlog_first_byte_offset:1\r\nrepl_backlog_histlen:0\r\n")
	return b.String()
}

func bulk(out *bufio.Writer, text string) {
	_, _ = fmt.Fprintf(out, "$%d\r\n%s\r\n", len(text), text)
}

func array(out *bufio.Writer, items ...string) {
	_, _ = fmt.Fprintf(out, "*%d\r\n", len(items))
	for _, item := range items {
		bulk(out, item)
	}
}
