package reactor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// is waits until a server's INFO has a value.
func is(t *testing.T, s *redistest.Server, field, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); s.Info(field) != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s, not %s", field, s.Info(field), want)
		}
	}
}

// TestSave: OK says that everything is on the disks of all masters.
func TestSave(t *testing.T) {
	shards, servers := realShards(t, 3)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	c.want("-ERR wrong number of arguments for 'save' command", "SAVE", "x")
	c.want("OK", "MULTI")
	c.want("-ERR Command not allowed inside a transaction", "SAVE")
	c.want("-EXECABORT Transaction discarded because of previous errors.", "EXEC")

	// One of them cannot begin at once, for it rewrites its append-only file.
	for i := range 30 {
		c.want("OK", "SET", fmt.Sprint("k", i), "v")
	}
	servers[1].MustDo("CONFIG", "SET", "rdb-key-save-delay", "60000")
	servers[1].MustDo("BGREWRITEAOF")
	is(t, servers[1], "aof_rewrite_in_progress", "1")
	servers[1].MustDo("CONFIG", "SET", "rdb-key-save-delay", "0")
	// What comes behind it waits; others do not.
	c.write(encode("SAVE") + encode("DBSIZE") + encode("GET", "k1"))
	p.dial().want("30", "DBSIZE")
	c.wantNext("OK")
	c.wantNext("30")
	c.wantNext("v")
	keys := int64(0)
	for _, s := range servers {
		if s.Info("rdb_changes_since_last_save") != "0" || s.Info("rdb_saves") != "1" {
			t.Errorf("%s changes are not saved after %s saves", s.Info("rdb_changes_since_last_save"), s.Info("rdb_saves"))
		}
		s.Restart()
		keys += s.MustDo("DBSIZE").(int64)
	}
	if keys != 30 {
		t.Errorf("%d of 30 keys were on disk", keys)
	}
}

// TestSaveFails: the error says where, and a later SAVE works.
func TestSaveFails(t *testing.T) {
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	servers[1].MustDo("SET", "foo", "1")
	servers[1].MustDo("CONFIG", "SET", "rdb-key-save-delay", "700000", "stop-writes-on-bgsave-error", "no")
	servers[1].MustDo("BGSAVE")
	c.want("-ERR Background save already in progress at shard-1", "SAVE")
	servers[1].MustDo("CONFIG", "SET", "rdb-key-save-delay", "0")
	for _, s := range servers {
		is(t, s, "rdb_bgsave_in_progress", "0")
	}

	dir, _ := servers[1].MustDo("CONFIG", "GET", "dir").([]any)
	file := filepath.Join(dir[1].(string), "dump.rdb")
	if err := os.Rename(file, file+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(file, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.want("-ERR SAVE failed at shard-1: the file was not written, the log of shard-1-0 says why", "SAVE")
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}

	// A client that leaves while it waits leaves nothing behind.
	is(t, servers[0], "rdb_bgsave_in_progress", "0")
	servers[1].MustDo("CONFIG", "SET", "rdb-key-save-delay", "600000")
	leaves := p.dial()
	leaves.send("SAVE")
	is(t, servers[1], "rdb_bgsave_in_progress", "1")
	leaves.Close()
	p.wait("it has left", func() bool { return p.Stats().Clients == 1 })
	servers[1].MustDo("CONFIG", "SET", "rdb-key-save-delay", "0")
	is(t, servers[1], "rdb_bgsave_in_progress", "0")
	is(t, servers[0], "rdb_bgsave_in_progress", "0")
	c.want("OK", "SAVE")

	// A shard that is lost meanwhile.
	servers[1].MustDo("CONFIG", "SET", "rdb-key-save-delay", "2000000")
	c.send("SAVE")
	is(t, servers[1], "rdb_bgsave_in_progress", "1")
	servers[1].Kill()
	if reply := c.read(); !strings.HasPrefix(reply, "-ERR SAVE failed at shard-1: ") {
		t.Errorf("SAVE of a shard that is lost: %q", reply)
	}
}

// TestSaveAndANewMaster: what the one before it saved does not count.
func TestSaveAndANewMaster(t *testing.T) {
	running := func(args []string) string {
		if args[0] == "BGSAVE" {
			return "+Background saving started\r\n"
		}
		text := "rdb_bgsave_in_progress:1\r\nrdb_last_bgsave_status:ok\r\n"
		return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text)
	}
	old := startFake(t, running)
	next := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{}, twoNodes(old.ln.Addr().String(), next.Address))
	c := p.dial()
	c.send("SAVE")
	if got := old.waitGot(2); !slices.Equal(got[:2], []string{"BGSAVE", "INFO persistence"}) {
		t.Errorf("the first master got %v", got)
	}
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true }))
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[0].Master = false, "b" }))
	c.wantNext("OK")
	if saves := next.Info("rdb_saves"); saves != "1" {
		t.Errorf("the new master saved %s times", saves)
	}
}
