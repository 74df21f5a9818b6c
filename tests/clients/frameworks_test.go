package clients

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// frameworks are programs whose keys lie in many slots and cannot be tagged.
var frameworks = []client{
	{"rq", []string{"/usr/bin/python3", "programs/python/rqjobs.py"}, nil},
	{"chord", []string{"/usr/bin/python3", "programs/python/chord.py"}, nil},
	{"redlock", []string{"node", "programs/node/redlock.mjs"}, nil},
}

// TestFrameworksOnOneShard: with one shard they do what they do on a plain server.
func TestFrameworksOnOneShard(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cluster := harness.Start(t, harness.Options{Shards: 1, Flags: []string{"--client-password-file", secret}})
	plain := harness.StartRedis(t)
	admin, err := consistency.Dial(t.Context(), plain.Address, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if r, err := admin.Do("CONFIG", "SET", "requirepass", password); err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
	for _, f := range frameworks {
		t.Run(f.name, func(t *testing.T) {
			begin := time.Now()
			var found [2]verdict
			for i, addr := range []string{cluster.Proxies[0], plain.Address} {
				host, port := hostPort(t, addr)
				output, err := run(t, patience, append(f.command, "features", host, port)...)
				lines, wrong := verdicts(output, []string{f.name})
				if found[i] = lines[f.name]; err != nil || wrong != nil || found[i].state != "ok" {
					t.Fatalf("on %s: %v, %v; its output:\n%s", []string{"the endpoint", "a plain server"}[i], err, wrong, output)
				}
			}
			if found[0] != found[1] {
				t.Errorf("not the same on the endpoint and on a plain server:\n%s", difference(found[0].seen, found[1].seen, " | "))
			}
			t.Logf("%s took %s: %s", f.name, time.Since(begin).Round(100*time.Millisecond), found[0].seen)
		})
	}
}
