package topology

import (
	"cmp"
	"net/netip"
)

// Literal tells if an address is an "ip:port", which always means the same; any other
// has a host name.
func Literal(address string) bool {
	_, err := netip.ParseAddrPort(address)
	return err == nil
}

// Endpoint is where the admitted incarnation is reached: what the address meant when
// it was admitted. Replicas follow it, and proxies connect to it.
func (n *Node) Endpoint() string { return cmp.Or(n.Resolved, n.Address) }

// ReachedAt notes the "ip:port" at which the incarnation that is being admitted
// answers.
func (n *Node) ReachedAt(endpoint string) {
	switch {
	case Literal(n.Address):
		n.Resolved = ""
	case endpoint != "":
		n.Resolved = endpoint
	}
}

// Moved tells if an "ip:port" is not where the admitted incarnation was reached. Only
// that of a host name can be; "" is none.
func (n *Node) Moved(endpoint string) bool {
	return endpoint != "" && !Literal(n.Address) && endpoint != n.Resolved
}
