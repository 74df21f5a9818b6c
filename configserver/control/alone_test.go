package control

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
)

// An owner that is stopped in the middle of a command, and goes on after another one
// owned the cluster and changed the server, finds its connection closed, and the
// command is not executed.
func TestACommandOfAnEarlierOwnerDoesNotComeLate(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	p := r.proxy("p1")
	p.mustSet("shard-0", "k", "v")
	replica := r.servers["shard-0-1"]
	late, err := net.Dial("tcp", replica.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	_ = late.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _ = fmt.Fprintf(late, "AUTH %s %s\r\nCLIENT SETNAME %s\r\n", credentials.AdminUser, adminPassword, "basalt-control:cs-1:stopped")
	if _, err := io.ReadFull(late, make([]byte, len("+OK\r\n+OK\r\n"))); err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprint(late, "*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO\r\n$3\r\nO")
	r.takeOver()
	p.connect()
	if report := r.switchover("shard-0"); report.NewMaster != "shard-0-1" || !report.Succeeded {
		t.Errorf("report %+v", report)
	}
	if report := r.switchover("shard-0"); report.NewMaster != "shard-0-0" || !report.Succeeded {
		t.Errorf("report %+v", report)
	}
	_, _ = fmt.Fprint(late, "NE\r\n")
	if n, err := late.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Error("the server answers the earlier owner")
	}
	r.oneWritable("shard-0")
	p.has("shard-0", "k", "v")
	r.checkEpochs()
}
