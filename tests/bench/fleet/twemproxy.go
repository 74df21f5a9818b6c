package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/basalt-redis/basalt/tests/harness"
)

// Twemproxy starts shards redis-servers and a nutcracker in front of them.
//
// Its configuration is the cheapest this proxy has: connections to the servers
// are made before the first request, one each (it pipelines), nobody is ever
// ejected, and keys are placed by a plain modulo of FNV-1a, so no continuum is
// searched. Buffers keep their default size of 16 KiB. Logging is at the level
// of errors and the statistics thread wakes up every 30 s, its default.
func (f *Fleet) Twemproxy(ctx context.Context, shards int) (Target, error) {
	target := Target{Name: "twemproxy"}
	var servers strings.Builder
	for i := range shards {
		p, addr, err := f.redisServer(ctx)
		if err != nil {
			return target, err
		}
		target.Backends = append(target.Backends, p.pid())
		fmt.Fprintf(&servers, "    - %s:1 shard-%d\n", addr, i)
	}
	port, err := harness.FreePort()
	if err != nil {
		return target, err
	}
	stats, err := harness.FreePort()
	if err != nil {
		return target, err
	}
	target.Addr = loopback(port)
	config := fmt.Sprintf(`bench:
  listen: %s
  hash: fnv1a_64
  distribution: modula
  redis: true
  preconnect: true
  auto_eject_hosts: false
  server_connections: 1
  timeout: 5000
  backlog: 1024
  servers:
%s`, target.Addr, servers.String())
	file := filepath.Join(f.dir, "nutcracker.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return target, fmt.Errorf("configuration of twemproxy: %w", err)
	}
	p, err := f.start("twemproxy", findNutcracker(), "-c", file, "-a", "127.0.0.1", "-s", fmt.Sprint(stats),
		"-p", filepath.Join(f.dir, "nutcracker.pid"), "-v", "3")
	if err != nil {
		return target, fmt.Errorf("%w (Debian: apt-get install nutcracker)", err)
	}
	target.PIDs = []int{p.pid()}
	return target, p.waitFor(ctx, func() error { return pong(target.Addr) })
}

// findNutcracker looks where Debian puts it too: /usr/sbin is not in every
// user's PATH.
func findNutcracker() string {
	const debian = "/usr/sbin/nutcracker"
	if _, err := os.Stat(debian); err == nil {
		return debian
	}
	return "nutcracker"
}
