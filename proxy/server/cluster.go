package server

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/basalt-redis/basalt/proxy/introspect"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// cluster answers CLUSTER to a client that is connected to local.
func (s *Server) cluster(dst []byte, args [][]byte, proto int, local netip.AddrPort) []byte {
	table := s.engine.Table()
	return introspect.Cluster(dst, args, proto, &introspect.ClusterView{
		Nodes: s.clusterNodes(local), Epoch: s.client.Status().AckedEpoch, Serving: table.Phase == routing.Serving,
	})
}

// clusterNodes are the proxies of the cluster. This one is shown by the address
// that the client knows it by, unless the settings name another.
func (s *Server) clusterNodes(local netip.AddrPort) []introspect.ClusterNode {
	self := introspect.ClusterNode{ID: s.client.ID(), Host: local.Addr().String(), Port: int(local.Port()), Self: true}
	if host, port, ok := splitAddress(s.cfg.Advertise); ok {
		self.Host, self.Port = host, port
	}
	var nodes []introspect.ClusterNode
	met := false
	for _, p := range s.client.Proxies() {
		if p.ID == self.ID {
			nodes, met = append(nodes, self), true
		} else if host, port, ok := splitAddress(p.Address); ok {
			nodes = append(nodes, introspect.ClusterNode{ID: p.ID, Host: host, Port: port})
		}
	}
	if !met { // the Configserver is away, or has not heard of it yet
		return []introspect.ClusterNode{self}
	}
	return nodes
}

func splitAddress(address string) (host string, port int, ok bool) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, false
	}
	port, err = strconv.Atoi(text)
	return host, port, err == nil && host != ""
}
