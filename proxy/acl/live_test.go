package acl_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	rules "github.com/basalt-redis/basalt/internal/acl"
	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/command"
)

// shapes are requests whose keys stand at places of their own; K is a key, C a
// channel, W a word.
var shapes = []string{
	"SET K W", "SET K W GET", "SET K W NX EX W", "GET K", "GETDEL K", "MSET K W K W K W", "MGET K K K", "DEL K K", "COPY K K", "RENAME K K",
	"EXISTS K K", "TYPE K", "TOUCH K", "OBJECT ENCODING K", "BITOP AND K K K", "BITFIELD K GET u8 0", "BITFIELD K GET u8 0 SET u8 0 1",
	"BITFIELD K OVERFLOW WRAP", "BITFIELD K INCRBY u8 0 1", "SORT K", "SORT K LIMIT 0 1 STORE K", "SORT K BY W STORE K STORE K", "SORT_RO K BY W",
	"ZUNIONSTORE K 2 K K WEIGHTS 1 2", "ZINTER 1 K", "ZDIFFSTORE K 1 K", "SINTERCARD 2 K K LIMIT 1", "LMPOP 2 K K LEFT", "XREAD COUNT 1 STREAMS K K 0 0",
	"XREADGROUP GROUP W W STREAMS K >", "XADD K * W W", "XGROUP CREATE K W 0", "XINFO STREAM K", "GEORADIUS K 0 0 1 m STORE K", "GEORADIUS K 0 0 1 m",
	"GEORADIUSBYMEMBER K W 1 m STOREDIST K", "GEOSEARCHSTORE K K FROMMEMBER W BYBOX 1 1 m", "EVAL W 2 K K W", "EVAL W 0", "EVALSHA W 1 K", "FCALL W 1 K W",
	"PFMERGE K K K", "PFCOUNT K K", "SMOVE K K W", "LMOVE K K LEFT RIGHT", "RPOPLPUSH K K", "LCS K K", "SUNIONSTORE K K K", "WATCH K K", "EXPIRE K 1",
	"PUBLISH C W", "SPUBLISH C W", "SUBSCRIBE C C", "PSUBSCRIBE C", "SSUBSCRIBE C", "UNSUBSCRIBE C", "PUNSUBSCRIBE", "SUNSUBSCRIBE C", "PUBSUB CHANNELS C",
	"PING", "AUTH W", "HELLO 3", "RESET", "QUIT", "SELECT 0", "SELECT 1", "ECHO W", "CLIENT LIST", "CLIENT ID", "CONFIG GET W", "ACL WHOAMI", "ACL LIST",
	"COMMAND", "COMMAND COUNT", "KEYS W", "SCAN 0", "DBSIZE", "FLUSHALL", "FLUSHDB", "INFO", "MULTI", "EXEC", "DISCARD", "TIME", "LOLWUT",
}

func pick(r *rand.Rand, list ...string) string { return list[r.IntN(len(list))] }

func fill(r *rand.Rand, shape string) []string {
	words := strings.Fields(shape)
	for i, w := range words {
		switch w {
		case "K":
			words[i] = pick(r, "a", "ab", "abc", "b:1", "b:2", "{x}1", "*", "", "é")
		case "C":
			words[i] = pick(r, "a", "ab", "abc", "a*", "*", "b:1", "news.?")
		case "W":
			words[i] = pick(r, "w", "a", "1", "*", "w_*")
		}
	}
	return words
}

// anyRequest is of a command of the table, with the fewest arguments it takes,
// or some more.
func anyRequest(r *rand.Rand) []string {
	for {
		s := command.ByID(r.IntN(command.Count()))
		if s.Kind == command.Unsupported || rules.Commands()[s.ID].Later || s.IsContainer() {
			continue
		}
		n := s.Arity
		switch {
		case s.Name == "zrank" || s.Name == "zrevrank":
			n = -n // WITHSCORE is of servers from 7.2
		case n < 0:
			n = -n + r.IntN(3)
		}
		words := strings.Split(s.Name, "|")
		for len(words) < n {
			words = append(words, pick(r, "a", "ab", "b:1", "1", "2", "STREAMS", "STORE", "*"))
		}
		return words
	}
}

func rule(r *rand.Rand, root bool) string {
	command := func() string {
		for {
			if c := rules.Commands()[r.IntN(len(rules.Commands()))]; !c.Later {
				return c.Name
			}
		}
	}
	pattern := func() string { return pick(r, "a", "a*", "ab?", "b:[0-9]", "*", "", "{x}*", "[^a]*", `\a`) }
	switch n := r.IntN(20); {
	case n < 5:
		return pick(r, "+", "-") + "@" + pick(r, rules.Categories()...)
	case n < 8:
		return pick(r, "+", "-") + command()
	case n < 10:
		return pick(r, "+@all", "allcommands", "-@all", "+@all")
	case n == 10:
		return pick(r, "+select|0", "+get|a", "+set|ab", "+config|get", "+publish|a", "+del|A")
	case n < 14:
		return pick(r, "~", "~", "%R~", "%W~") + pattern()
	case n < 16:
		return "&" + pick(r, "a", "a*", "b:?", "*", "news.*")
	case n < 18 || !root:
		return pick(r, "allkeys", "allchannels", "resetkeys", "resetchannels")
	case n == 18:
		return pick(r, "reset", "clearselectors", "on", "off")
	default:
		var list []string
		for range 1 + r.IntN(5) {
			list = append(list, rule(r, false))
		}
		return "(" + strings.Join(list, " ") + ")"
	}
}

// TestVerdictsAreThoseOfTheServer compares with ACL DRYRUN of a real server:
// random users, random requests.
func TestVerdictsAreThoseOfTheServer(t *testing.T) {
	s := redistest.Start(t, redistest.Options{Open: true})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	var scratch acl.Scratch
	allowed, denied := 0, 0
	for range 200 {
		u := rules.NewUser("u")
		s.MustDo("ACL", "SETUSER", "u", "reset")
		for range 1 + r.IntN(6) {
			words := []string{rule(r, true)}
			if _, err := s.Do("ACL", "SETUSER", "u", words[0]); (err != nil) != (u.Apply(words) != nil) {
				t.Fatalf("SETUSER %q: the server says %v", words, err)
			}
		}
		users, errs := acl.Compile([]acl.Text{{Rules: u.Text()}}, nil)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		limits := users.Find([]byte("u")).Limits
		for range 25 {
			words := anyRequest(r)
			if r.IntN(3) > 0 {
				words = fill(r, pick(r, shapes...))
			}
			got := verdict(t, limits, words, &scratch)
			want := dryRun(t, s, words)
			if got != want {
				t.Fatalf("%s\n%q\nhere:   %s\nserver: %s", u.Describe(), words, got, want)
			}
			if want == "OK" {
				allowed++
			} else {
				denied++
			}
		}
	}
	if allowed < 200 || denied < 200 {
		t.Errorf("%d requests were allowed and %d denied: the test looks at too few of one kind", allowed, denied)
	}
}

func verdict(t *testing.T, l *acl.Limits, words []string, scratch *acl.Scratch) string {
	t.Helper()
	args := make([][]byte, len(words))
	for i, w := range words {
		args[i] = []byte(w)
	}
	spec, line := command.Lookup(args)
	if spec == nil || line != nil && spec.Kind != command.Unsupported {
		return "wrong: " + string(line)
	}
	if l == nil {
		return "OK"
	}
	v, at := l.Check(spec, args, scratch)
	switch v {
	case acl.DeniedCommand:
		return fmt.Sprintf("This user has no permissions to run the '%s' command", spec.Name)
	case acl.DeniedKey:
		return fmt.Sprintf("This user has no permissions to access the '%s' key", words[at])
	case acl.DeniedChannel:
		return fmt.Sprintf("This user has no permissions to access the '%s' channel", words[at])
	}
	return "OK" // what the server looks at later is not its dry run's
}

func dryRun(t *testing.T, s *redistest.Server, words []string) string {
	t.Helper()
	args := []any{"ACL", "DRYRUN", "u"}
	for _, w := range words {
		args = append(args, w)
	}
	reply, err := s.Do(args...)
	if err != nil {
		return "wrong: -" + err.Error() + "\r\n"
	}
	return reply.(string)
}

// TestTableIsTheSame: an ID means the same command in rules and here.
func TestTableIsTheSame(t *testing.T) {
	if len(rules.Commands()) != command.Count() {
		t.Fatalf("rules know %d commands, the table %d: go generate ./...", len(rules.Commands()), command.Count())
	}
	for id, c := range rules.Commands() {
		if c.Name != command.ByID(id).Name {
			t.Fatalf("ID %d is %s in rules and %s in the table", id, c.Name, command.ByID(id).Name)
		}
	}
}
