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
	at, err := netip.ParseAddrPort(n.Endpoint())
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), err == nil
}

// announce is what must be set for a node to name itself: parameters and their values.
// Nothing for one that is known by a host name only.
func announce(n *topology.Node) []string {
	at, ok := knownAs(n)
	if !ok {
		return nil
	}
	return []string{"replica-announce-ip", at.Addr().String(), "replica-announce-port", strconv.Itoa(int(at.Port()))}
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
