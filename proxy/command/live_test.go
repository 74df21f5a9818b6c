package command_test

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
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

func dial(t testing.TB) (*server, string) {
	t.Helper()
	s := redistest.Start(t, redistest.Options{Open: true})
	conn, err := net.Dial("tcp", s.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &server{t, conn, bufio.NewReader(conn)}, s.Address
}

func encode(dst []byte, args [][]byte) []byte {
	dst = fmt.Appendf(dst, "*%d\r\n", len(args))
	for _, a := range args {
		dst = fmt.Appendf(dst, "$%d\r\n%s\r\n", len(a), a)
	}
	return dst
}

// ask pipelines requests and returns their replies.
func (s *server) ask(requests ...[][]byte) []snapshot.Value {
	s.t.Helper()
	var out []byte
	for _, r := range requests {
		out = encode(out, r)
	}
	go func() { _, _ = s.conn.Write(out) }()
	replies := make([]snapshot.Value, len(requests))
	for i := range replies {
		v, err := snapshot.Read(s.r)
		if err != nil {
			s.t.Fatalf("reply to %q: %v", requests[i], err)
		}
		replies[i] = v
	}
	return replies
}

func words(line string) (args [][]byte) {
	for _, w := range strings.Fields(line) {
		args = append(args, []byte(w))
	}
	return args
}

func TestTheSnapshotIsTheServers(t *testing.T) {
	_, addr := dial(t)
	live, err := snapshot.Fetch(addr)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := snapshot.Redis()
	if err != nil {
		t.Fatal(err)
	}
	if live.Version != kept.Version {
		t.Logf("the server is %s, the table is made from %s: only names are compared", live.Version, kept.Version)
		for _, name := range kept.Names() {
			if _, ok := live.Commands[name]; !ok {
				t.Errorf("%s %s lacks %s", addr, live.Version, name)
			}
		}
		return
	}
	a, err := live.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	b, err := kept.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("snapshot/redis.json differs from the server; run: go run ./gen -server HOST:PORT && go generate")
	}
	if command.ServerVersion != kept.Version {
		t.Errorf("table_gen.go is from %s, the snapshot from %s; run go generate", command.ServerVersion, kept.Version)
	}
}

// Every command of the server is in the table with the server's facts.
func TestEveryCommandOfTheServerIsClassified(t *testing.T) {
	kept, err := snapshot.Redis()
	if err != nil {
		t.Fatal(err)
	}
	added, err := snapshot.Additions()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range kept.Names() {
		s := command.ByName(name)
		if s == nil {
			t.Errorf("%s is not in the table", name)
			continue
		}
		info := kept.Commands[name].Info.Items
		if more, is := added.Commands[name]; is {
			info = more.Info.Items
		}
		if int64(s.Arity) != info[snapshot.InfoArity].Int {
			t.Errorf("%s: arity %d", name, s.Arity)
		}
		flags := info[snapshot.InfoFlags]
		if s.ReadOnly != flags.Has("readonly") || flags.Has("write") && !s.Write || s.Blocking != flags.Has("blocking") || s.NoAuth != flags.Has("no_auth") {
			t.Errorf("%s: %+v, server's flags %v", name, *s, flags.Items)
		}
	}
}

// samples are requests whose keys are at places that depend on the request.
var samples = []string{
	"EVAL s 0", "EVAL s 1 a", "EVAL s 2 a b c d", "EVAL_RO s 2 a b", "EVALSHA x 3 a b c d", "FCALL f 1 a b", "FCALL_RO f 0 a",
	"ZUNIONSTORE d 2 a b WEIGHTS 1 2", "ZINTERSTORE d 1 a AGGREGATE MAX", "ZDIFFSTORE d 3 a b c", "ZUNION 2 a b", "ZINTER 2 a b WITHSCORES",
	"ZINTERCARD 2 a b LIMIT 3", "SINTERCARD 3 a b c LIMIT 1", "LMPOP 2 a b LEFT COUNT 2", "ZMPOP 1 a MIN", "ZDIFF 1 a",
	"XREAD STREAMS a 0", "XREAD COUNT 2 STREAMS a b 0 0", "XREAD COUNT 2 streams a b c 0 0 0", "XREAD STREAMS streams 0",
	"XREADGROUP GROUP g c STREAMS a b > >", "XREADGROUP GROUP g c COUNT 1 NOACK STREAMS a >", "XREADGROUP GROUP streams c STREAMS a >",
	"SORT a", "SORT a BY w_* GET # GET o_* LIMIT 0 10 ASC ALPHA STORE d", "SORT a STORE b STORE c", "SORT a STORE", "SORT_RO a BY x LIMIT 1 2",
	"SORT a by store store d", "SORT a GET store LIMIT 1 store store d",
	"GEORADIUS a 1 1 1 km", "GEORADIUS a 1 1 1 km STORE d", "GEORADIUS a 1 1 1 km COUNT 1 ASC STOREDIST d", "GEORADIUS a 1 1 1 km STORE d STOREDIST e",
	"GEORADIUSBYMEMBER a m 1 km STORE d", "GEORADIUSBYMEMBER_RO a m 1 km", "GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 km",
	"MSET a 1 b 2 c 3", "MSETNX a 1 b 2", "MGET a b c", "DEL a", "BITOP AND d a b c", "BITOP NOT d a", "COPY a b DB 3", "RENAME a b",
	"OBJECT ENCODING a", "MEMORY USAGE a SAMPLES 3", "XINFO STREAM a FULL", "XGROUP CREATE a g $ MKSTREAM", "XADD a MAXLEN 5 * f v",
	"SINTERSTORE d a b", "PFMERGE d a b", "PFCOUNT a b", "LMOVE a b LEFT RIGHT", "SMOVE a b m", "ZRANGESTORE d a 0 1", "LCS a b LEN", "SET a 1 GET EX 3",
	"BITFIELD a GET u8 0", "RPOPLPUSH a b",
}

// generate makes requests for every command that has keys: as long as its arity
// asks for and longer, of words that mean something to some of them.
func generate(r *rand.Rand) (requests [][][]byte) {
	vocabulary := words("a b {t}c dd 0 1 2 3 4 STREAMS store STOREDIST By GET LIMIT KEYS COUNT GROUP asc withscores")
	for i := range command.Count() {
		s := command.ByID(i)
		if s.Kind != command.Keyed && s.Kind != command.Split && s.Kind != command.Script {
			continue
		}
		least := max(s.Arity, -s.Arity)
		for n := range 60 {
			args := words(strings.ReplaceAll(s.Name, "|", " "))
			for len(args) < least {
				args = append(args, vocabulary[r.IntN(len(vocabulary))])
			}
			for s.Arity < 0 && len(args) < least+n%8 {
				args = append(args, vocabulary[r.IntN(len(vocabulary))])
			}
			if n%3 == 0 { // a number of keys that fits
				name := 1 + strings.Count(s.Name, "|")
				for at := name; at < min(len(args), name+2); at++ {
					args[at] = []byte(strconv.Itoa(max(1, len(args)-at-1-r.IntN(2))))
				}
			}
			requests = append(requests, args)
		}
	}
	return requests
}

// ambiguous tells of SORT requests with a STORE whose key is itself an option's
// name: COMMAND GETKEYS reads them otherwise than SORT does, and the table
// follows SORT.
func ambiguous(args [][]byte) bool {
	if !strings.HasPrefix(strings.ToLower(string(args[0])), "sort") {
		return false
	}
	for i := 2; i+1 < len(args); i++ {
		next := strings.ToLower(string(args[i+1]))
		if strings.EqualFold(string(args[i]), "store") && slices.Contains([]string{"by", "get", "limit", "store"}, next) {
			return true
		}
	}
	return false
}

func TestKeysAreWhereTheServerSeesThem(t *testing.T) {
	s, addr := dial(t)
	live, err := snapshot.Fetch(addr)
	if err != nil {
		t.Fatal(err)
	}
	// lacks tells if the server knows no such command, or not in this form.
	lacks := func(name string, count int) bool {
		c, has := live.Commands[name]
		if !has {
			return true
		}
		arity := c.Info.Items[snapshot.InfoArity].Int
		return count > 0 && arity > 0 && int64(count) != arity
	}
	requests := generate(rand.New(rand.NewPCG(1, 2)))
	for _, line := range samples {
		requests = append(requests, words(line))
	}
	questions := make([][][]byte, len(requests))
	for i, args := range requests {
		questions[i] = append(words("COMMAND GETKEYS"), args...)
	}
	compared := map[string]int{}
	for i, reply := range s.ask(questions...) {
		args := requests[i]
		if ambiguous(args) || lacks(strings.ToLower(string(args[0])), len(args)) {
			continue
		}
		spec, errReply := command.Lookup(args)
		if errReply != nil {
			t.Errorf("%q: %s", args, errReply)
			continue
		}
		if reply.Kind == '-' {
			if reply.Text != "ERR Invalid arguments specified for command" && reply.Text != "ERR The command has no key arguments" {
				t.Errorf("%q: %s", args, reply.Text)
			}
			continue // which a server that runs it says too
		}
		var got, want []string
		for _, k := range spec.Keys(args, nil) {
			got = append(got, string(args[k]))
		}
		for _, v := range reply.Items {
			want = append(want, v.Text)
		}
		slices.Sort(got) // the order in which keys are found is not promised
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: keys %q, server says %q", bytes.Join(args, []byte(" ")), got, want)
		}
		compared[spec.Name]++
	}
	for i := range command.Count() {
		if c := command.ByID(i); (c.Kind == command.Keyed || c.Kind == command.Split || c.Kind == command.Script) && compared[c.Name] < 5 && !lacks(c.Name, 0) {
			t.Errorf("%s: only %d requests were compared", c.Name, compared[c.Name])
		}
	}
}

func TestErrorsAreTheServersToTheLetter(t *testing.T) {
	s, _ := dial(t)
	requests := [][][]byte{
		words("foo"), words("foo a b"), words("client nope"), words("CoNfIg x y z"), words("xgroup what k g"),
		words("get"), words("get a b"), words("client setname"), words("client"), words("CLIENT|LIST"), words("mset a"), words("object"),
		{[]byte("")}, {[]byte(""), []byte("")}, {[]byte("a\x00b"), []byte("c\x00d"), []byte("e")}, {[]byte("a\r\nb"), []byte("\r\n")},
		{bytes.Repeat([]byte("n"), 500), bytes.Repeat([]byte("a"), 100), bytes.Repeat([]byte("b"), 20), []byte("cc"), []byte("dd"), []byte("ee")},
		{[]byte("foo"), bytes.Repeat([]byte("a"), 127), []byte("b")}, {[]byte("foo"), bytes.Repeat([]byte("a"), 500), []byte("b")},
		{[]byte("client"), bytes.Repeat([]byte("s"), 500)}, {[]byte("config"), []byte("a\x00\r\n")}, {[]byte("foo"), nil, nil, nil},
		{[]byte("zrangebyscorr"), []byte("k")}, {[]byte("\xff\xfe"), []byte("\x80")},
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		args := make([][]byte, 1+r.IntN(6))
		for i := range args {
			args[i] = make([]byte, 1+r.IntN(60))
			for j := range args[i] {
				args[i][j] = byte(r.IntN(256))
			}
		}
		requests = append(requests, args)
	}
	for i, reply := range s.ask(requests...) {
		_, got := command.Lookup(requests[i])
		if want := "-" + reply.Text + "\r\n"; reply.Kind != '-' || string(got) != want {
			t.Errorf("%q:\n got %q\nwant %q", requests[i], got, want)
		}
	}
}
