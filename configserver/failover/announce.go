package failover

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// A master lists its replicas by the addresses they come from and the ports they
// name, which need not be those that Basalt knows: a host may have several
// addresses, and several nodes one port. So each node is told to name itself as
// Configserver and proxies know it.

// knownAs is the address and port by which a node is reached. It fails for one that
// is known by a host name only.
func knownAs(n *topology.Node) (netip.AddrPort, bool) {
	for _, text := range []string{n.Endpoint, n.Address} {
		if at, err := netip.ParseAddrPort(text); err == nil {
			return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), true
		}
	}
	return netip.AddrPort{}, false
}

// announce is what must be set for the node that was dialed at an address to name
// itself: parameters and their values. Nothing for one that is known by a host name
// only.
func announce(record *topology.Cluster, dialed string) []string {
	for i := range record.Shards {
		for _, n := range record.Shards[i].Nodes {
			if n.Address != dialed && n.Endpoint != dialed {
				continue
			}
			if at, ok := knownAs(&n); ok {
				return []string{"replica-announce-ip", at.Addr().String(), "replica-announce-port", strconv.Itoa(int(at.Port()))}
			}
		}
	}
	return nil
}

// online tells if a master sends its stream to a replica. One that is known by a
// host name only is recognised by its port.
func online(master redisadmin.Info, n *topology.Node) bool {
	known, exact := knownAs(n)
	_, port, _ := net.SplitHostPort(n.Address)
	return slices.ContainsFunc(master.Online, func(replica string) bool {
		if exact {
			at, err := netip.ParseAddrPort(replica)
			return err == nil && at.Addr().Unmap() == known.Addr() && at.Port() == known.Port()
		}
		_, p, _ := net.SplitHostPort(replica)
		return p == port
	})
}
