package introspect

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/command/snapshot"
)

// server is a connection to a real redis-server.
type server struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func dial(t testing.TB, address string) *server {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &server{t, conn, bufio.NewReader(conn)}
}

func (s *server) ask(args ...string) snapshot.Value {
	s.t.Helper()
	out := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		out = fmt.Appendf(out, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := s.conn.Write(out); err != nil {
		s.t.Fatal(err)
	}
	v, err := snapshot.Read(s.r)
	if err != nil {
		s.t.Fatalf("%q: %v", args, err)
	}
	return v
}

func split(words []string) (args [][]byte) {
	for _, w := range words {
		args = append(args, []byte(w))
	}
	return args
}

// answer is what the proxy says.
func answer(t testing.TB, proto int, words ...string) snapshot.Value {
	t.Helper()
	args := split(words)
	if _, refused := command.Lookup(args); refused != nil {
		v, err := snapshot.Read(bufio.NewReader(bytes.NewReader(refused)))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	reply := Command(nil, args, proto)
	r := bufio.NewReader(bytes.NewReader(reply))
	v, err := snapshot.Read(r)
	if err != nil {
		t.Fatalf("%q: %v in %q", words, err, reply)
	}
	if r.Buffered() > 0 {
		t.Fatalf("%q: more than one reply: %q", words, reply)
	}
	return v
}

// normal makes replies comparable: servers order subcommands by a random hash,
// so they are sorted; those that the proxy adds from later servers are left out.
func normal(v snapshot.Value, additions map[string]snapshot.Command) snapshot.Value {
	v.Items = slices.Clone(v.Items)
	for i := range v.Items {
		v.Items[i] = normal(v.Items[i], additions)
	}
	known := func(name string) bool {
		_, added := additions[name]
		return command.ByName(name) != nil && !added
	}
	isInfo := len(v.Items) == 10 && v.Items[0].Kind == '$' && v.Items[1].Kind == ':' && command.ByName(v.Items[0].Text) != nil
	if isInfo {
		subs := &v.Items[snapshot.InfoSubcommands]
		subs.Items = slices.DeleteFunc(subs.Items, func(s snapshot.Value) bool { return !known(s.Items[0].Text) })
		slices.SortFunc(subs.Items, func(a, b snapshot.Value) int { return strings.Compare(a.Items[0].Text, b.Items[0].Text) })
	}
	if n := len(v.Items); !isInfo && n%2 == 0 && n > 0 && strings.Contains(v.Items[0].Text, "|") { // the subcommands in DOCS
		type pair struct{ k, v snapshot.Value }
		var pairs []pair
		for i := 0; i < n; i += 2 {
			if known(v.Items[i].Text) {
				pairs = append(pairs, pair{v.Items[i], v.Items[i+1]})
			}
		}
		slices.SortFunc(pairs, func(a, b pair) int { return strings.Compare(a.k.Text, b.k.Text) })
		v.Items = nil
		for _, p := range pairs {
			v.Items = append(v.Items, p.k, p.v)
		}
	}
	return v
}

func TestCommandRepliesAreTheServers(t *testing.T) {
	address := redistest.Start(t, redistest.Options{Open: true}).Address
	added, err := snapshot.Additions()
	if err != nil {
		t.Fatal(err)
	}
	for _, proto := range []int{2, 3} {
		s := dial(t, address)
		hello := s.ask("HELLO", fmt.Sprint(proto))
		if version := hello.Get("version").Text; version != command.ServerVersion {
			t.Logf("the server is %s, the table is made from %s: there is nothing to compare", version, command.ServerVersion)
			return
		}
		for id := range command.Count() {
			spec := command.ByID(id)
			if _, isAdded := added.Commands[spec.Name]; isAdded {
				continue
			}
			for _, question := range []string{"INFO", "DOCS"} {
				want := s.ask("COMMAND", question, spec.Name)
				got := answer(t, proto, "COMMAND", question, strings.ToUpper(spec.Name))
				if spec.IsContainer() {
					got, want = normal(got, added.Commands), normal(want, added.Commands)
				}
				if a, b := got.Append(nil), want.Append(nil); !bytes.Equal(a, b) {
					t.Errorf("RESP%d COMMAND %s %s:\n got %q\nwant %q", proto, question, spec.Name, a, b)
				}
			}
		}
		for _, line := range []string{
			"COMMAND INFO nosuch get", "COMMAND DOCS nosuch", "COMMAND LIST FILTERBY PATTERN xr*", "COMMAND LIST FILTERBY pattern h[sg]et",
			"COMMAND LIST FILTERBY ACLCAT geo", "COMMAND LIST FILTERBY ACLCAT nosuch", "COMMAND LIST FILTERBY MODULE x",
			"COMMAND LIST FILTERBY bogus x", "COMMAND LIST FILTERBY", "COMMAND LIST x", "COMMAND COUNT x",
			"COMMAND GETKEYS mget a b", "COMMAND GETKEYS GET", "COMMAND GETKEYS get a b", "COMMAND GETKEYS PING x", "COMMAND GETKEYS nosuch x",
			"COMMAND GETKEYS EVAL s 0", "COMMAND GETKEYS EVAL s 2 a", "COMMAND GETKEYS ZUNIONSTORE d 9 a", "COMMAND GETKEYS object encoding k",
			"COMMAND GETKEYS MIGRATE h 1 a 0 5", "COMMAND GETKEYS MIGRATE h 1 k 0 5 KEYS a b", "COMMAND GETKEYS MIGRATE h 1 '' 0 5 KEYS a b", "COMMAND GETKEYS MIGRATE h 1 '' 0 5", "COMMAND GETKEYS swapdb 0 1", "COMMAND LIST FILTERBY PATTERN config*",
			"COMMAND GETKEYS client list", "COMMAND GETKEYS client nosuch",
		} {
			words := strings.Fields(line)
			for i := range words {
				words[i] = strings.TrimSuffix(words[i], "''")
			}
			got, want := answer(t, proto, words...), s.ask(words...)
			if strings.Contains(line, "LIST") {
				byText := func(a, b snapshot.Value) int { return strings.Compare(a.Text, b.Text) }
				slices.SortFunc(got.Items, byText)
				slices.SortFunc(want.Items, byText)
			}
			if a, b := got.Append(nil), want.Append(nil); !bytes.Equal(a, b) {
				t.Errorf("RESP%d %s:\n got %q\nwant %q", proto, line, a, b)
			}
		}
		for _, line := range []string{
			"set a 1", "set a 1 get", "bitfield a get u8 0", "bitfield a get u8 0 set u8 0 1", "bitfield a overflow sat get u8 0", "lmove a b left left",
			"sort a store b", "sort_ro a", "georadius a 1 1 1 km store b", "xreadgroup group g c streams a b 0 0", "zunionstore d 2 a b", "mset a 1 b 2",
			"eval s 1 a", "get a", "del a b", "object encoding a", "zrangestore d a 0 1", "getex a",
		} {
			words := append([]string{"COMMAND", "GETKEYSANDFLAGS"}, strings.Fields(line)...)
			if a, b := answer(t, proto, words...).Append(nil), s.ask(words...).Append(nil); !bytes.Equal(a, b) {
				t.Errorf("RESP%d GETKEYSANDFLAGS %s:\n got %q\nwant %q", proto, line, a, b)
			}
		}
	}
}

// Real INFO texts of two shards with data.
func TestInfoOfRealServers(t *testing.T) {
	var texts [][]byte
	for i := range 2 {
		s := redistest.Start(t, redistest.Options{Open: true})
		for k := range 3 + i {
			s.MustDo("SET", fmt.Sprint("key", k), "v")
		}
		s.MustDo("SET", "gone", "v", "PX", 100000)
		s.MustDo("GET", "nosuch")
		texts = append(texts, []byte(s.MustDo("INFO", "everything").(string)))
	}
	texts = append(texts, nil)
	p := Proxy{RunID: strings.Repeat("a", 40), Executable: "/usr/bin/proxy", Cluster: "local", Epoch: 7, Clients: 5, Now: time.Unix(1000, 0), Started: time.Unix(900, 0)}
	text := string(Info(nil, nil, texts, p))
	for _, want := range []string{
		"# Server\r\nredis_version:" + get(parseInfo(texts[0]), "Server", "redis_version") + "\r\n",
		"_mode:standalone\r\n", "run_id:" + p.RunID + "\r\n", "uptime_in_seconds:100\r\n", "connected_clients:5\r\n",
		"role:master\r\nconnected_slaves:0\r\n", "keyspace_misses:2\r\n", "cluster_enabled:0\r\n", "rdb_last_bgsave_status:ok\r\n",
		"mem_allocator:" + get(parseInfo(texts[0]), "Memory", "mem_allocator") + "\r\n",
		"db0:keys=9,expires=2,avg_ttl=", "epoch:7\r\n", "shards_answered:2\r\n", "\r\n\r\n# Clients\r\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("INFO lacks %q", want)
		}
	}
	sum := number(get(parseInfo(texts[0]), "Memory", "used_memory")) + number(get(parseInfo(texts[1]), "Memory", "used_memory"))
	if got := number(get(parseInfo([]byte(text)), "Memory", "used_memory")); got != sum {
		t.Errorf("used_memory %d, want %d", got, sum)
	}
	if strings.Contains(text, "mixed") || strings.Contains(text, "# Commandstats") {
		t.Errorf("default INFO:\n%s", text)
	}
	// Every field that a client may know from a plain server is there.
	whole := parseInfo(Info(nil, []string{"everything"}, texts, p))
	for _, s := range parseInfo(texts[0]) {
		if s.title == "Commandstats" || s.title == "Latencystats" {
			continue
		}
		for _, f := range s.fields {
			if get(whole, s.title, f.name) == "" && f.value != "" && f.name != "config_file" {
				t.Errorf("INFO lacks %s of # %s", f.name, s.title)
			}
		}
	}
}

// TestWrongValuesAreTheServers: of the proxy's own parameters, values that no server
// takes are refused in a server's words.
func TestWrongValuesAreTheServers(t *testing.T) {
	s := dial(t, redistest.Start(t, redistest.Options{Open: true}).Address)
	tried := 0
	for name := range valueBounds {
		for _, value := range []string{
			"", "x", "-1", "1x", "1kbb", "b", "01", "1.5", "%", "x%", "-1%", "101%", "99999%", "+1", " 1", "maybe", "65536", "4294967296",
			"1048575", "9223372036854775808",
		} {
			ours := wrongValue(name, value)
			if ours == "" || value == "9223372036854775808" && name == "maxmemory-clients" {
				continue // or the server takes it for a percentage
			}
			tried++
			want := "ERR CONFIG SET failed (possibly related to argument '" + name + "') - " + ours
			if got := s.ask("CONFIG", "SET", name, value).Text; got != want {
				t.Errorf("%s %q: %q, a server says %q", name, value, want, got)
			}
		}
	}
	if tried < 50 {
		t.Errorf("%d values were wrong", tried)
	}
}
