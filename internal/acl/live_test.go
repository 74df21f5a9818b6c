package acl_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/acl"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// later are commands that the server does not have.
var later = func() (names []string) {
	for _, c := range acl.Commands() {
		if c.Later {
			names = append(names, c.Name)
		}
	}
	return names
}()

// modifiers makes random words, most of them good.
func modifiers(r *rand.Rand) []string {
	names := acl.Commands()
	categories := acl.Categories()
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	command := func() string {
		for {
			if n := names[r.IntN(len(names))].Name; !slices.Contains(later, n) {
				return pick(n, n, strings.ToUpper(n))
			}
		}
	}
	pattern := func() string {
		return pick("a", "a*", "*", "b:[0-9]", "{x}*", "", "c)", "(d", `e\x`, `f"g`, "h'", "é", "i~j")
	}
	sign := func() string { return pick("+", "+", "-") }
	var one func(root bool) string
	one = func(root bool) string {
		switch n := r.IntN(24); {
		case n < 5:
			return sign() + command()
		case n < 9:
			return sign() + "@" + pick(categories...)
		case n == 9:
			return pick("+@all", "-@all", "allcommands", "NoCommands", "+@ALL")
		case n < 13:
			return pick("~", "%R~", "%W~", "%RW~", "%wr~", "%r~") + pattern()
		case n == 13:
			return "&" + pattern()
		case n == 14:
			return pick("allkeys", "resetkeys", "allchannels", "resetchannels", "~*", "&*", "%RW~*")
		case n == 15:
			return pick("+select|0", "+SELECT|1", "+get|key", "+debug|sleep", "+config|get", "+config|nosuch", "-config|set", "-select|0", "+client|id|x", "+select|", "+|", "+debug|(")
		case n == 16:
			return pick("+", "-", "+@", "-@x", "%", "%R", "%~x", "%RR~x", "%X~x", "bad", "~a b", "&a b", "+nosuch", "-nosuch", "+@nosuch", ")")
		case !root:
			return pick("+get", "~k*", `"~quoted"`, "~'single'", "on", `""`)
		case n < 19:
			return pick("on", "off", "ON", "nopass", "resetpass", "reset", "clearselectors", "skip-sanitize-payload", "sanitize-payload", "")
		case n < 21:
			return pick(">pw1", ">pw2", "<pw1", "#"+acl.HashOf("pw3"), "!"+acl.HashOf("pw3"), "#bad", "!bad", "#"+strings.ToUpper(acl.HashOf("pw3")))
		default:
			var rules []string
			for range r.IntN(5) {
				rules = append(rules, one(false))
			}
			return "(" + strings.Join(rules, " ") + pick(")", ")", ")", ")", ")", "", ` "`)
		}
	}
	var words []string
	for range 1 + r.IntN(5) {
		words = append(words, one(true))
	}
	return words
}

// TestRulesAreThoseOfTheServer gives random rules to a server and to this
// package: what is refused, and how the user then reads, must be the same.
func TestRulesAreThoseOfTheServer(t *testing.T) {
	s := redistest.Start(t, redistest.Options{Open: true})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	users := map[string]*acl.User{}
	for i := range 1500 {
		name := fmt.Sprintf("u%d", r.IntN(40))
		words := modifiers(r)
		if r.IntN(12) == 0 {
			users[name] = nil
			s.MustDo("ACL", "DELUSER", name)
		}
		u := users[name]
		if u == nil {
			u = acl.NewUser(name)
		}
		own, theirs := u.Apply(words), setUser(s, name, words)
		if text(own) != text(theirs) {
			t.Fatalf("%d: SETUSER %s %q:\nhere:   %v\nserver: %v", i, name, words, own, theirs)
		}
		if own != nil {
			continue
		}
		users[name] = u
		if got, want := described(u), asked(t, s, name); got != want {
			t.Fatalf("%d: after SETUSER %s %q:\nhere:   %s\nserver: %s", i, name, words, got, want)
		}
		back, err := acl.Parse(u.Text())
		if err != nil {
			t.Fatalf("%s: %v", u.Text(), err)
		}
		if back.Text() != u.Text() || back.Describe() != u.Describe() || back.Full() != u.Full() {
			t.Fatalf("text changes when it is read:\n%s\n%s", u.Text(), back.Text())
		}
	}
}

func setUser(s *redistest.Server, name string, words []string) error {
	args := []any{"ACL", "SETUSER", name}
	for _, w := range words {
		args = append(args, w)
	}
	_, err := s.Do(args...)
	return err
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimPrefix(err.Error(), "ERR ")
}

// described and asked are ACL GETUSER, with the rules about single commands in
// one order: the server's is that of its hash table.
func described(u *acl.User) string {
	text := fmt.Sprint(u.Flags(), u.Passwords)
	for i := range u.Selectors {
		s := &u.Selectors[i]
		text += "\n" + rulesOf(s.DescribeCommands()) + "|" + s.DescribeKeys() + "|" + s.DescribeChannels()
	}
	return text
}

func asked(t *testing.T, s *redistest.Server, name string) string {
	t.Helper()
	reply, err := s.Do("ACL", "GETUSER", name)
	if err != nil {
		t.Fatal(err)
	}
	fields := fieldsOf(t, reply)
	text := fmt.Sprint(fields["flags"], fields["passwords"]) + one(fields)
	for _, selector := range fields["selectors"].([]any) {
		text += one(fieldsOf(t, selector))
	}
	return text
}

func one(f map[string]any) string {
	return "\n" + rulesOf(f["commands"].(string)) + "|" + f["keys"].(string) + "|" + f["channels"].(string)
}

func fieldsOf(t *testing.T, reply any) map[string]any {
	t.Helper()
	fields := map[string]any{}
	switch m := reply.(type) {
	case map[any]any:
		for k, v := range m {
			fields[k.(string)] = v
		}
	case []any:
		for i := 0; i+1 < len(m); i += 2 {
			fields[m[i].(string)] = m[i+1]
		}
	default:
		t.Fatalf("ACL GETUSER answered %T", reply)
	}
	return fields
}

func rulesOf(text string) string {
	words := strings.Fields(text)
	single := slices.IndexFunc(words[1:], func(w string) bool { return !strings.HasPrefix(w[1:], "@") }) + 1
	if single == 0 {
		return text
	}
	rest := slices.DeleteFunc(words[single:], func(w string) bool { return slices.Contains(later, w[1:]) })
	slices.Sort(rest)
	return strings.Join(append(words[:single:single], rest...), " ")
}
