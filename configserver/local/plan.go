package local

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// plan fixes ports and makes the processes, started ones none: what fails here
// has changed nothing but files in the data directory.
func (g *playground) plan() error {
	ports := ports{}
	o, l := g.opts, g.layout
	// Ports that must be just these come first, so that no free one takes them.
	proxyPorts := make([]int, o.Proxies)
	for i := range proxyPorts {
		if o.Port == 0 {
			continue
		}
		proxyPorts[i] = o.Port + i
		if err := ports.take(proxyPorts[i], "choose another for the proxies with PORT=… (PORT=0 takes free ones)"); err != nil {
			return err
		}
	}
	configPorts := make([]int, o.Configservers)
	for i := range configPorts {
		if o.ConfigserverPort == 0 || o.AnyPort && !allFree(o.ConfigserverPort, 2*o.Configservers) {
			continue
		}
		// Each one's HTTP port follows its gRPC port.
		configPorts[i] = o.ConfigserverPort + 2*i
		for _, port := range []int{configPorts[i], configPorts[i] + 1} {
			if err := ports.take(port, "choose another for the configserver with --configserver-port (0 takes free ones)"); err != nil {
				return err
			}
		}
	}
	for id, port := range l.NodePorts {
		if err := ports.take(port, fmt.Sprintf("it is the one of node %s in data directory %s; stop what listens there", id, g.dir.path)); err != nil {
			return err
		}
	}
	var err error
	for i, port := range l.EtcdPorts {
		if l.EtcdPorts[i], err = ports.takeOrFree(port, fmt.Sprintf("it is the one of etcd in data directory %s; stop what listens there", g.dir.path)); err != nil {
			return err
		}
	}
	if l.SeparateEtcd {
		if err := g.planEtcd(); err != nil {
			return err
		}
	}
	for i, port := range configPorts {
		httpPort := port + 1
		if port == 0 {
			if port, err = ports.free(); err != nil {
				return err
			}
			if httpPort, err = ports.free(); err != nil {
				return err
			}
		}
		if err := g.planConfigserver(i, port, httpPort); err != nil {
			return err
		}
	}
	for shard := range l.Shards {
		for n := range l.Replicas + 1 {
			id := fmt.Sprintf("shard-%d-%d", shard, n)
			if l.NodePorts[id] == 0 {
				if l.NodePorts[id], err = ports.free(); err != nil {
					return err
				}
			}
			if err := g.planNode(id, l.NodePorts[id]); err != nil {
				return err
			}
		}
	}
	for i, port := range proxyPorts {
		if port == 0 {
			if port, err = ports.free(); err != nil {
				return err
			}
		}
		// The proxy's default HTTP port is beside its RESP port; with several
		// proxies that one may be the next proxy's.
		httpPort := port + 1
		if o.Port == 0 || ports.take(httpPort, "") != nil {
			if httpPort, err = ports.free(); err != nil {
				return err
			}
		}
		if err := g.planProxy(i, port, httpPort); err != nil {
			return err
		}
	}
	return g.dir.save(l)
}

// add makes the process's directory and puts it on the list.
func (g *playground) add(p *process) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	p.logPath = g.dir.in("logs", p.name+".log")
	p.spawn = g.spawn
	p.died = g.processDied
	g.processes = append(g.processes, p)
	return nil
}

func (g *playground) planEtcd() error {
	client, peer := g.layout.EtcdPorts[0], g.layout.EtcdPorts[1]
	dir := g.dir.in("etcd")
	return g.add(&process{
		name: "etcd", kind: KindEtcd, dir: dir,
		path:    filepath.Join(g.opts.BinDir, "configserver"),
		args:    []string{"etcd", "--data-dir", dir, "--listen-client", address(client), "--listen-peer", address(peer)},
		address: address(client),
	})
}

func (g *playground) planConfigserver(i, port, httpPort int) error {
	name := fmt.Sprintf("configserver-%d", i)
	dir := g.dir.in(name)
	args := []string{
		"serve", "--id", name,
		"--listen", address(port), "--http-listen", address(httpPort),
		"--data-dir", dir, "--credentials-dir", g.dir.in("credentials"),
	}
	if g.layout.SeparateEtcd {
		args = append(args, "--etcd-endpoints", address(g.layout.EtcdPorts[0]))
	} else {
		args = append(args, "--etcd-embedded-listen", address(g.layout.EtcdPorts[0]))
	}
	g.configservers = append(g.configservers, address(port))
	return g.add(&process{
		name: name, kind: KindConfigserver, dir: dir,
		path:    filepath.Join(g.opts.BinDir, "configserver"),
		args:    append(args, g.opts.ConfigserverFlags...),
		env:     g.opts.ConfigserverEnv,
		address: address(port), http: address(httpPort),
	})
}

func (g *playground) planNode(id string, port int) error {
	dir := g.dir.in("nodes", id)
	conf := filepath.Join(dir, "redis.conf")
	return g.add(&process{
		name: id, kind: KindNode, dir: dir,
		path:    g.opts.RedisServer,
		args:    []string{conf},
		address: address(port),
		prepare: func() error {
			mark := ""
			if uid := g.layout.ClusterUID; uid != "" {
				mark = topology.Mark(&topology.Cluster{UID: uid}, shardOf(id), id)
			}
			text, err := g.dir.redisConf(dir, port, mark, g.since7, g.opts.RedisConfig)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
				return err
			}
			return writeFile(conf, []byte(text))
		},
	})
}

func (g *playground) planProxy(i, port, httpPort int) error {
	name := fmt.Sprintf("proxy-%d", i)
	args := []string{
		"--cluster", Cluster,
		"--listen", address(port), "--http-listen", address(httpPort),
		"--configserver", strings.Join(g.configservers, ","),
	}
	g.proxies = append(g.proxies, address(port))
	return g.add(&process{
		name: name, kind: KindProxy, dir: g.dir.in(name),
		path:    filepath.Join(g.opts.BinDir, "proxy"),
		args:    append(args, g.opts.ProxyFlags...),
		env:     g.opts.ProxyEnv,
		address: address(port), http: address(httpPort),
	})
}
