package introspect

import (
	"strings"
	"testing"

	kept "github.com/basalt-redis/basalt/internal/redistest/replies"
	"github.com/basalt-redis/basalt/proxy/software"
)

// TestInfoOfEveryServer: INFO over two shards of one server says what that is, and
// understands each line of it.
func TestInfoOfEveryServer(t *testing.T) {
	for _, s := range kept.Servers(t) {
		t.Run(s.Name, func(t *testing.T) {
			raw := s.Text(t, "info-everything")
			one := []byte(raw)
			text := string(Info(nil, []string{"everything"}, [][]byte{one, one}, Proxy{}))
			for _, name := range []string{"redis_version", "server_name", "valkey_version", "server_mode", "redis_mode", "arch_bits", "maxmemory_policy"} {
				if got, want := software.Field([]byte(text), name), software.Field(one, name); got != want {
					t.Errorf("%s:%s, the server says %q", name, got, want)
				}
			}
			if s.Valkey == (software.Field(one, "valkey_version") == "") {
				t.Error("no valkey_version")
			}
			whole := parseInfo([]byte(text))
			for _, section := range parseInfo(one) {
				for _, f := range section.fields {
					switch {
					case section.title == "Commandstats" || section.title == "Latencystats" || section.title == "Modules":
					case strings.HasPrefix(f.name, "listener") || strings.HasPrefix(f.name, "slave") || f.name == "availability_zone":
					case !strings.Contains(text, "\r\n"+f.name+":"):
						t.Errorf("INFO lacks %s of # %s", f.name, section.title)
					}
				}
			}
			if get(whole, "Server", "run_id") != "" || get(whole, "Server", "tcp_port") != "0" || get(whole, "Server", "executable") != "" {
				t.Errorf("what is about a server's process: %v", whole[0])
			}
			want := "db0:keys=6,expires=2,avg_ttl="
			if !strings.Contains(text, "\r\n"+want) || !strings.Contains(text, "\r\ndb3:keys=2,") {
				t.Errorf("INFO lacks %q and db3: %s", want, text)
			}
			if strings.Contains(raw, "subexpiry=") != strings.Contains(text, "subexpiry=0\r\n") {
				t.Error("the keys with fields that expire")
			}
			for line := range strings.Lines(text) {
				if strings.HasSuffix(strings.TrimSpace(line), ":mixed") {
					t.Errorf("two of the same are %q", line)
				}
			}
			if !strings.Contains(text, "\r\nconnected_slaves:2\r\n") || !strings.Contains(text, "\r\nerrorstat_WRONGPASS:count=2\r\n") ||
				!strings.Contains(text, "\r\ncmdstat_set:calls=8,") {
				t.Errorf("sums: %s", text)
			}
		})
	}
}

// TestInfoOfMixedServers: during an upgrade the oldest is told.
func TestInfoOfMixedServers(t *testing.T) {
	texts := map[string][]byte{}
	for _, s := range kept.Servers(t) {
		texts[s.Name] = []byte(s.Text(t, "info-master"))
	}
	for oldest, newer := range map[string]string{"redis-6.2.16": "redis-7.4.1", "redis-7.0.15": "valkey-8.0.1", "valkey-8.0.1": "redis-7.4.1"} {
		for _, shards := range [][][]byte{{texts[oldest], texts[newer]}, {texts[newer], nil, texts[oldest]}} {
			text := Info(nil, []string{"server"}, shards, Proxy{})
			for _, name := range []string{"redis_version", "server_name", "valkey_version"} {
				if got, want := software.Field(text, name), software.Field(texts[oldest], name); got != want {
					t.Errorf("%s and %s: %s:%s, want %q", oldest, newer, name, got, want)
				}
			}
		}
	}
	none := Info(nil, []string{"server"}, [][]byte{nil}, Proxy{Software: software.Software{Name: "valkey", Version: "8.0.1", Redis: "7.2.4"}})
	if got := software.Field(none, "redis_version"); got != "7.2.4" {
		t.Errorf("nobody answered: redis_version:%s", got)
	}
}
