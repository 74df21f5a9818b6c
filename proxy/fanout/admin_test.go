package fanout

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/resp"
)

// wire writes "*2 :1 $a" as RESP, a word for each element.
func wire(words string) []byte {
	var b []byte
	for w := range strings.FieldsSeq(words) {
		if w[0] == '$' || w[0] == '=' {
			b = fmt.Appendf(b, "%c%d\r\n%s\r\n", w[0], len(w)-1, w[1:])
		} else {
			b = append(append(b, w...), "\r\n"...)
		}
	}
	return b
}

func wires(words ...string) (parts [][]byte) {
	for _, w := range words {
		parts = append(parts, wire(w))
	}
	return parts
}

func check(t *testing.T, name string, got []byte, err error, want string) {
	t.Helper()
	if err != nil || !bytes.Equal(got, wire(want)) {
		t.Errorf("%s: %q, %v\nwant %q", name, got, err, wire(want))
	}
}

// id is what SlowLog makes of a server's number.
func id(second, number, shard int64) int64 { return (second<<14|number)<<10 | shard }

func TestSlowLog(t *testing.T) {
	entry := func(id, second int) string {
		return fmt.Sprintf("*6 :%d :%d :900 *2 $get $k%d $1.2.3.4:5 $ ", id, slowEpoch+second, id)
	}
	out := func(shard, number, second int) string {
		return fmt.Sprintf("*6 :%d :%d :900 *2 $get $k%d $node-%d/1.2.3.4:5 $ ", id(int64(second), int64(number), int64(shard)), slowEpoch+second, number, shard)
	}
	nodes := []string{"node-0", "node-1"}
	a := "*3 " + entry(9, 30) + entry(8, 20) + entry(7, 10)
	b := "*2 " + entry(3, 25) + entry(2, 20)
	for _, c := range []struct {
		most, count int64
		want        string
	}{
		{128, 10, "*5 " + out(0, 9, 30) + out(1, 3, 25) + out(0, 8, 20) + out(1, 2, 20) + out(0, 7, 10)},
		{-1, -1, "*5 " + out(0, 9, 30) + out(1, 3, 25) + out(0, 8, 20) + out(1, 2, 20) + out(0, 7, 10)},
		{128, 2, "*2 " + out(0, 9, 30) + out(1, 3, 25)},
		{2, -1, "*2 " + out(0, 9, 30) + out(1, 3, 25)},
		{128, 0, "*0"},
		{0, -1, "*0"},
	} {
		log, err := Slow(wires(a, b), nodes, nil, c.most)
		check(t, fmt.Sprint(c.count, " entries"), log.Append(nil, c.count), err, c.want)
	}
	log, err := Slow(wires("*0", "*0"), nodes, nil, 10)
	check(t, "none", log.Append(nil, 10), err, "*0")
	for _, bad := range []string{"+OK", "*1 :1", "*1 *2 :1 :2", "*1 *6 $a :1 :1 *0 $a $b", "*1 *6 :1 :1 :1 *0 $a $b"} {
		if _, err := Slow(wires(bad), nodes, nil, 10); !errors.Is(err, ErrReply) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestSlowLogOfClients: entries of servers get the client that sent the command,
// and those of the proxy's own stand among them in the order of time.
func TestSlowLogOfClients(t *testing.T) {
	second := func(s float64) time.Time { return time.Unix(slowEpoch, int64(s*1e9)) }
	seen := []Seen{
		{ID: 1, Start: second(10.1), End: second(10.2), Client: "c:1", Name: "one", Args: []string{"get", "k"}},
		{ID: 2, Start: second(10.2), End: second(10.3), Client: "c:2", Name: "two", Args: []string{"ping"}, Own: true},
		{ID: 3, Start: second(10.3), End: second(10.4), Client: "c:3", Name: "three", Args: []string{"get", "k"}},
		{ID: 4, Start: second(10.4), End: second(10.41), Client: "c:4", Args: []string{"get", "x"}},
		{ID: 5, Start: second(99.4), End: second(99.9), Client: "c:5", Args: []string{"get", "y"}},
	}
	entry := func(id, took int, words string) string {
		return fmt.Sprintf("*6 :%d :%d :%d *%d %s $p:9 $ ", id, slowEpoch+10, took, strings.Count(words, "$"), words)
	}
	server := "*6 " + entry(9, 1000, "$get $y") + entry(8, 90000, "$get $x") + entry(7, 1000, "$get $k") + entry(6, 1000, "$info") + entry(5, 1000, "$config $get $x") + entry(4, 1000, "$get $k")
	log, err := Slow(wires(server), []string{"n"}, seen, 128)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, e := range log.entries {
		got += fmt.Sprintf("%s %s/%s %s %d\n", strings.Join(e.args, " "), e.node, e.client, e.name, e.duration)
	}
	// y was sent by nobody at that time, and x did not take so long here: other proxies did.
	const want = "get y n/p:9  1000\nget x n/p:9  90000\nget k n/c:3 three 1000\nping proxy/c:2 two 100000\nget k n/c:1 one 1000\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// Numbers rise from entry to entry, are unique, and fit what every client's
// integers hold.
func TestSlowLogNumbers(t *testing.T) {
	last := int64(-1)
	for second := range int64(3) {
		for number := range int64(3) {
			for shard := range 3 {
				e := slowEntry{id: 1<<14 - 4 + number, time: slowEpoch + 500000000 + second, shard: shard}
				if n := e.number(); n <= last || n >= 1<<53 {
					t.Fatalf("%d after %d", n, last)
				} else {
					last = n
				}
			}
		}
	}
	if n := (&slowEntry{id: 5, time: 7, shard: 1}).number(); n != id(0, 5, 1) {
		t.Errorf("before its time: %d", n)
	}
}

func TestLatency(t *testing.T) {
	got, err := LatencyLatest(nil, wires("*2 *4 $command :100 :20 :90 *4 $fork :5 :6 :7", "*1 *4 $command :110 :30 :40", "*0"))
	check(t, "LATEST", got, err, "*2 *4 $command :110 :30 :90 *4 $fork :5 :6 :7")
	got, err = LatencyLatest(nil, wires("*1 *4 $command :100 :20 :90", "*1 *4 $command :100 :30 :40"))
	check(t, "LATEST in one second", got, err, "*1 *4 $command :100 :30 :90")
	got, err = LatencyHistory(nil, wires("*2 *2 :10 :1 *2 :30 :2", "*2 *2 :20 :3 *2 :30 :4", "*0"))
	check(t, "HISTORY", got, err, "*4 *2 :10 :1 *2 :20 :3 *2 :30 :2 *2 :30 :4")
	all := func(string) bool { return true }
	resp2 := wires(
		"*4 $get *4 $calls :3 $histogram_usec *4 :2 :1 :8 :3 $set *4 $calls :1 $histogram_usec *2 :4 :1",
		"*2 $get *4 $calls :4 $histogram_usec *6 :1 :1 :2 :2 :16 :4")
	resp3 := wires(
		"%2 $get %2 $calls :3 $histogram_usec %2 :2 :1 :8 :3 $set %2 $calls :1 $histogram_usec %1 :4 :1",
		"%1 $get %2 $calls :4 $histogram_usec %3 :1 :1 :2 :2 :16 :4")
	got, err = LatencyHistogram(nil, resp2, 2, all, nil)
	check(t, "HISTOGRAM", got, err, "*4 $get *4 $calls :7 $histogram_usec *8 :1 :1 :2 :3 :8 :5 :16 :7 $set *4 $calls :1 $histogram_usec *2 :4 :1")
	got, err = LatencyHistogram(nil, resp3, 3, all, nil)
	check(t, "HISTOGRAM in RESP3", got, err, "%2 $get %2 $calls :7 $histogram_usec %4 :1 :1 :2 :3 :8 :5 :16 :7 $set %2 $calls :1 $histogram_usec %1 :4 :1")
	got, err = LatencyHistogram(nil, resp2, 2, func(name string) bool { return name == "set" }, map[string]*Histogram{"ping": {Calls: 2, Buckets: map[int64]int64{1: 1, 33: 1}}})
	check(t, "HISTOGRAM with others", got, err, "*4 $ping *4 $calls :2 $histogram_usec *4 :1 :1 :33 :2 $set *4 $calls :1 $histogram_usec *2 :4 :1")
	for _, bad := range []string{"+OK", "*1 $get", "*2 $get *2 $calls :1", "*2 $get *4 $calls :1 $histogram_usec *1 :1"} {
		if _, err := LatencyHistogram(nil, wires(bad), 2, all, nil); !errors.Is(err, ErrReply) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestMemoryStats(t *testing.T) {
	a := "*22 $total.allocated :300 $startup.allocated :100 $peak.allocated :400 $db.0 *2 $overhead.hashtable.main :5 $overhead.total :7 $keys.count :3 " +
		"$keys.bytes-per-key :66 $dataset.bytes :50 $dataset.percentage $25 $fragmentation $2 $fragmentation.bytes :300"
	b := "*22 $total.allocated :200 $startup.allocated :100 $peak.allocated :600 $db.1 *2 $overhead.hashtable.main :6 $overhead.total :8 $keys.count :1 " +
		"$keys.bytes-per-key :100 $dataset.bytes :25 $dataset.percentage $25 $fragmentation $3 $fragmentation.bytes :200"
	got, err := MemoryStats(nil, wires(a, b), 2)
	check(t, "STATS", got, err, "*24 $total.allocated :500 $startup.allocated :200 $peak.allocated :1000 $db.0 *2 $overhead.hashtable.main :5 "+
		"$db.1 *2 $overhead.hashtable.main :6 $overhead.total :15 $keys.count :4 $keys.bytes-per-key :75 $dataset.bytes :75 $dataset.percentage $25 $fragmentation $2 $fragmentation.bytes :500")
	got, err = MemoryStats(nil, wires("%3 $total.allocated :8 $peak.allocated :10 $peak.percentage ,1.5"), 3)
	check(t, "STATS in RESP3", got, err, "%3 $total.allocated :8 $peak.allocated :10 $peak.percentage ,80")
	if _, err := MemoryStats(nil, wires("*1 $a"), 2); !errors.Is(err, ErrReply) {
		t.Error(err)
	}
}

func TestTexts(t *testing.T) {
	nodes := []string{"node-0", "node-1", "node-2"}
	for _, c := range []struct {
		proto uint8
		parts []string
		want  string
	}{
		{2, []string{"$2\r\na\n", "-ERR No samples available for event 'x'", "$1\r\nb"}, "$21\r\n# node-0\na\n# node-2\nb\r\n"},
		{3, []string{"=6\r\ntxt:a\n", "=5\r\ntxt:b"}, "=25\r\ntxt:# node-0\na\n# node-1\nb\r\n"},
		{3, []string{"=5\r\ntxt:b"}, "=5\r\ntxt:b\r\n"},
		{3, []string{"$1\r\nb"}, "$1\r\nb\r\n"},
		{2, []string{"-ERR No samples", "-ERR No samples"}, "-ERR No samples\r\n"},
	} {
		var parts [][]byte
		for _, p := range c.parts {
			parts = append(parts, []byte(p+"\r\n"))
		}
		if got, err := Texts(nil, parts, nodes, c.proto); err != nil || string(got) != c.want {
			t.Errorf("%q: %q, %v, want %q", c.parts, got, err, c.want)
		}
	}
}

func TestParseRefusesWhatIsNoReply(t *testing.T) {
	for _, bad := range []string{"", "\r\n", "*2\r\n:1\r\n", "*99999999999\r\n", "$5\r\nab\r\n", "*x\r\n", ":1\r\n:2\r\n", "?1\r\n", strings.Repeat("*1\r\n", 20) + ":1\r\n"} {
		if _, err := parse([]byte(bad)); !errors.Is(err, ErrReply) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// ask is one command to a real server.
func ask(t *testing.T, conn net.Conn, r *bufio.Reader, line string) []byte {
	t.Helper()
	words := strings.Fields(line)
	out := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		out = fmt.Appendf(out, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := conn.Write(out); err != nil {
		t.Fatal(err)
	}
	var reply []byte
	var f resp.Framer
	for {
		b, err := r.ReadByte()
		if err != nil {
			t.Fatal(err)
		}
		reply = append(reply, b)
		if _, done, err := f.Feed(reply[len(reply)-1:]); err != nil {
			t.Fatal(err)
		} else if done {
			return reply
		}
	}
}

// The digest of keys on several servers is the one of a server that has all.
func TestDigestIsThatOfOneServer(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Open: true})
	conn, err := net.Dial("tcp", server.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	digest := func(lines ...string) []byte {
		ask(t, conn, r, "FLUSHALL")
		for _, line := range lines {
			ask(t, conn, r, line)
		}
		return ask(t, conn, r, "DEBUG DIGEST")
	}
	a, b, c := "SET a 1", "RPUSH l x y z", "HSET h f v g w"
	none := digest()
	for name, parts := range map[string][][]byte{
		"one and none":     {digest(a, b, c), none},
		"one alone":        {digest(a, b, c)},
		"two":              {digest(a), digest(b, c)},
		"three":            {digest(a), digest(b), digest(c)},
		"three and a none": {digest(a), none, digest(b), digest(c)},
	} {
		if got, err := Digest(nil, parts); err != nil || !bytes.Equal(got, digest(a, b, c)) {
			t.Errorf("%s: %s, %v, want %s", name, got, err, digest(a, b, c))
		}
	}
	if got, err := Digest(nil, [][]byte{none, none}); err != nil || !bytes.Equal(got, none) {
		t.Errorf("nothing at all: %s, %v", got, err)
	}
}
