package local

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/configserver/client"
	"github.com/basalt-redis/basalt/internal/redistest/replies"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func TestKeptDataDirKeepsItsShape(t *testing.T) {
	path := t.TempDir()
	d, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(path); err == nil || !strings.Contains(err.Error(), "in use by another") {
		t.Fatal("a second one got the directory:", err)
	}
	o := Options{Shards: 2, Replicas: 0, Proxies: 2, Configservers: 1}
	l, err := d.layout(&o)
	if err != nil {
		t.Fatal(err)
	}
	l.NodePorts["shard-0-0"] = 12345
	if err := d.save(l); err != nil {
		t.Fatal(err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}

	if d, err = openDataDir(path); err != nil {
		t.Fatal(err)
	}
	defer d.close()
	o = Options{Replicas: -1, Configservers: 1}
	if l, err = d.layout(&o); err != nil || o.Shards != 2 || o.Replicas != 0 || o.Proxies != 2 || l.NodePorts["shard-0-0"] != 12345 {
		t.Fatal(l, o, err)
	}
	o = Options{Replicas: -1, Proxies: 3, Configservers: 1}
	if l, err = d.layout(&o); err != nil || o.Proxies != 3 || l.Proxies != 3 {
		t.Fatal("another number of proxies:", l, o, err)
	}
	o = Options{Shards: 3, Replicas: -1, Configservers: 1}
	if _, err = d.layout(&o); err == nil || !strings.Contains(err.Error(), "SHARDS=2 REPLICAS=0") {
		t.Fatal(err)
	}
	o = Options{Replicas: -1, Configservers: 2}
	if _, err = d.layout(&o); err == nil || !strings.Contains(err.Error(), "CONFIGSERVERS=1") {
		t.Fatal(err)
	}
}

func TestTemporaryDataDirGoes(t *testing.T) {
	d, err := openDataDir("")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.path); !os.IsNotExist(err) {
		t.Fatal(d.path, "is still there")
	}
}

func TestSecretsAreMadeOnceAndPrivate(t *testing.T) {
	d, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if err := d.makeCredentials(""); err != nil {
		t.Fatal(err)
	}
	first, err := d.adminPasswords()
	if err != nil || len(first) != 1 || len(first[0]) != 64 {
		t.Fatal(first, err)
	}
	info, err := os.Stat(d.in("credentials", Cluster, "admin-password"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	if err := d.makeCredentials(""); err != nil {
		t.Fatal(err)
	}
	if again, err := d.adminPasswords(); err != nil || again[0] != first[0] {
		t.Fatal("the second run changed the password", err)
	}
	conf, err := d.redisConf("/nodes/shard-0-0", 7001, "basalt-node:uid:shard-0:shard-0-0", true, []string{"maxmemory 100mb"})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(conf, first[0]) {
		t.Fatal("redis.conf holds the password itself")
	}
	for _, line := range []string{"bind 127.0.0.1", "port 7001", "user default off ~* &* +@all", "appendonly yes", "maxmemory 100mb",
		"user basalt-node:uid:shard-0:shard-0-0 off", "enable-protected-configs yes"} {
		if !strings.Contains(conf, line+"\n") {
			t.Fatalf("redis.conf lacks %q:\n%s", line, conf)
		}
	}

	// A server before 7.0 ends at a config line it does not know.
	old, err := d.redisConf("/nodes/shard-0-0", 7001, "", false, nil)
	if err != nil || strings.Contains(old, "enable-protected-configs") || strings.Contains(old, "shutdown-timeout") {
		t.Fatal(err, old)
	}
}

func TestVersionsOfEveryServer(t *testing.T) {
	for _, s := range replies.Servers(t) {
		if got, want := saysSince7(s.Raw(t, "version")), !strings.HasPrefix(s.Version, "6."); got != want {
			t.Errorf("%s: %v", s.Name, got)
		}
	}
}

func TestStateIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "local.json")
	lock, err := lockState(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := (State{PID: 4711, Configservers: []string{"127.0.0.1:7400"}}).write(path); err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(path); err == nil || !strings.Contains(err.Error(), "pid 4711") || !strings.Contains(err.Error(), "local down") {
		t.Fatal(err)
	}
	lock.Close()
	lock, err = lockState(path)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
}

// A second playground has a state file and Configserver ports of its own, if it may.
func TestASecondPlaygroundHasPlacesOfItsOwn(t *testing.T) {
	o := Options{StatePath: filepath.Join(t.TempDir(), "state", "local.json"), Port: 6390, AnyPort: true}
	first, path, err := claimState(&o)
	if err != nil || path != o.StatePath {
		t.Fatal(path, err)
	}
	defer first.Close()
	second, path, err := claimState(&o)
	if want := filepath.Join(filepath.Dir(o.StatePath)+"-6390", "local.json"); err != nil || path != want {
		t.Fatal(path, err)
	}
	defer second.Close()
	if _, _, err := claimState(&o); err == nil || !strings.Contains(err.Error(), "a PORT of its own") {
		t.Errorf("the third one on the same port: %v", err)
	}
	o.AnyPort = false
	if _, _, err := claimState(&o); err == nil {
		t.Error("the state file is shared")
	}

	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	if allFree(port-1, 2) {
		t.Errorf("port %d is in use", port)
	}
}

// What a killed runner left is cleared by the next one, and only that.
func TestLeftovers(t *testing.T) {
	statePath := filepath.Join(t.TempDir(), "local.json")
	for _, c := range []struct {
		name                   string
		temporary, isOne, gone bool
	}{
		{"temporary", true, true, true},
		{"kept", false, true, false},
		{"no playground", true, false, false},
	} {
		dir := t.TempDir()
		if c.isOne {
			if err := os.WriteFile(filepath.Join(dir, "playground.json"), []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := (State{DataDir: dir, Temporary: c.temporary}).write(statePath); err != nil {
			t.Fatal(err)
		}
		removeLeftovers(statePath)
		if _, err := os.Stat(dir); os.IsNotExist(err) != c.gone {
			t.Errorf("%s: gone %v", c.name, err)
		}
	}
}

func TestTargets(t *testing.T) {
	g := &playground{}
	g.processes = []*process{
		{name: "configserver-0", kind: KindConfigserver},
		{name: "shard-0-0", kind: KindNode}, {name: "shard-0-1", kind: KindNode}, {name: "shard-0-2", kind: KindNode},
		{name: "shard-1-0", kind: KindNode}, {name: "proxy-0", kind: KindProxy}, {name: "proxy-1", kind: KindProxy},
	}
	var err error
	// Nobody listens there: the last known topology has to do.
	if g.conn, err = client.Dial([]string{"127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	defer g.conn.Close()
	if _, err := g.resolve(t.Context(), "shard-0/master"); err == nil || !strings.Contains(err.Error(), "not known yet") {
		t.Fatal(err)
	}
	g.topology.Store(&basaltv1.Topology{Shards: []*basaltv1.Shard{
		{Id: "shard-0", Master: "shard-0-1", Nodes: []*basaltv1.Node{{Id: "shard-0-0"}, {Id: "shard-0-1"}, {Id: "shard-0-2"}}},
		{Id: "shard-1", Nodes: []*basaltv1.Node{{Id: "shard-1-0"}}},
	}})
	for target, want := range map[string]string{
		"shard-0/master":   "shard-0-1",
		"shard-0/replica":  "shard-0-0",
		"shard-0/replicas": "shard-0-0 shard-0-2",
		"shard-0":          "shard-0-0 shard-0-1 shard-0-2",
		"shard-0-2":        "shard-0-2",
		"proxies":          "proxy-0 proxy-1",
		"proxy-1":          "proxy-1",
		"configservers":    "configserver-0",
		"shard-1/master":   "error: shard-1 has no master right now; name a node, as in shard-1-0",
		"shard-7/master":   "error: no target",
		"shard-0/owner":    "error: no target",
		"etcd":             "error: no target",
	} {
		found, err := g.resolve(t.Context(), target)
		var names []string
		for _, p := range found {
			names = append(names, p.name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want && !(strings.HasPrefix(want, "error") && strings.HasPrefix(got, want)) {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

func TestPortsAreNotHandedOutTwice(t *testing.T) {
	p := ports{}
	seen := map[int]bool{}
	for range 50 {
		port, err := p.free()
		if err != nil || seen[port] || port < firstFreePort || port > lastFreePort {
			t.Fatal(port, err)
		}
		seen[port] = true
	}
	port, err := ports{}.free()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.take(port, ""); err != nil && !seen[port] {
		t.Fatal(err)
	}
	if err := p.take(port, "choose another with PORT=…"); err == nil || !strings.Contains(err.Error(), "PORT=") {
		t.Fatal(err)
	}
}
