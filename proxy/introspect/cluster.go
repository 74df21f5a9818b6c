package introspect

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/command"
)

// CLUSTER shows cluster-aware clients a Redis Cluster whose nodes are the
// proxies. Every proxy serves every slot, so what the answers say about slots
// only spreads the clients' load: slots are shared out evenly in the order of
// the proxies' ids, which is the same at every proxy, and a client with an old
// answer is served as well as any. No MOVED is ever sent.

// ClusterNode is a proxy as CLUSTER shows it.
type ClusterNode struct {
	// ID of the process, as the Configserver knows it.
	ID string
	// Host, a name or an IP address, and Port.
	Host string
	Port int
	// Self: it is this proxy.
	Self bool
}

// ClusterView is what CLUSTER tells. Nodes are in order of their ids, with this
// proxy among them.
type ClusterView struct {
	Nodes []ClusterNode
	Epoch uint64
	// Serving: every slot has an owner behind the proxies.
	Serving bool
}

// busOffset is the distance between a node's port and that of its cluster bus
// by Redis's convention. Nobody listens there.
const busOffset = 10000

// nodeID is the 40 hex digits that clients know a proxy by.
func (n *ClusterNode) nodeID() string {
	sum := sha256.Sum256([]byte(n.ID))
	return hex.EncodeToString(sum[:20])
}

// slots are the first and last slot that CLUSTER gives node i of n; none when
// last < first.
func slots(i, n int) (first, last int) {
	return i * slot.Count / n, (i+1)*slot.Count/n - 1
}

// name is the host if it is not an IP address, else empty.
func (n *ClusterNode) name() string {
	if _, err := netip.ParseAddr(n.Host); err == nil {
		return ""
	}
	return n.Host
}

// Cluster appends the reply to a subcommand of CLUSTER but COUNTKEYSINSLOT and
// GETKEYSINSLOT, which need the servers. The request has passed command.Lookup.
func Cluster(dst []byte, args [][]byte, proto int, v *ClusterView) []byte {
	spec := command.ByName("cluster|" + string(args[1]))
	switch spec.Name {
	case "cluster|slots":
		return inProtocol(dst, v.slots(nil), proto)
	case "cluster|shards":
		return inProtocol(dst, v.shards(nil), proto)
	case "cluster|nodes":
		return appendText(dst, v.lines(), proto)
	case "cluster|info":
		return appendText(dst, v.info(), proto)
	case "cluster|myid", "cluster|myshardid": // each proxy is a shard
		return appendBulk(dst, v.self().nodeID())
	case "cluster|keyslot":
		return appendHeader(dst, ':', int(slot.Of(args[2])))
	case "cluster|links":
		return appendHeader(dst, '*', 0)
	case "cluster|replicas", "cluster|slaves":
		if !v.knows(args[2]) {
			return append(dst, command.ErrorLine("Unknown node ", args[2], "")...)
		}
		return appendHeader(dst, '*', 0)
	case "cluster|count-failure-reports":
		if !v.knows(args[2]) {
			return append(dst, command.ErrorLine("Unknown node ", args[2], "")...)
		}
		return appendHeader(dst, ':', 0)
	case "cluster|help":
		return Help(dst, spec)
	}
	return appendError(dst, strings.ToUpper(strings.ReplaceAll(spec.Name, "|", " "))+
		" is not supported behind the proxy: the Configserver alone decides about nodes and slots, use basaltctl")
}

func (v *ClusterView) self() *ClusterNode {
	for i := range v.Nodes {
		if v.Nodes[i].Self {
			return &v.Nodes[i]
		}
	}
	return &ClusterNode{}
}

func (v *ClusterView) knows(id []byte) bool {
	for i := range v.Nodes {
		if v.Nodes[i].nodeID() == string(id) {
			return true
		}
	}
	return false
}

func (v *ClusterView) slots(dst []byte) []byte {
	dst = appendHeader(dst, '*', min(len(v.Nodes), slot.Count))
	for i := range v.Nodes {
		first, last := slots(i, len(v.Nodes))
		if last < first {
			continue
		}
		n := &v.Nodes[i]
		dst = appendHeader(dst, '*', 3)
		dst = appendHeader(appendHeader(dst, ':', first), ':', last)
		dst = appendBulk(appendHeader(dst, '*', 4), n.Host)
		dst = appendBulk(appendHeader(dst, ':', n.Port), n.nodeID())
		dst = appendHeader(dst, '%', 0)
	}
	return dst
}

func (v *ClusterView) shards(dst []byte) []byte {
	dst = appendHeader(dst, '*', len(v.Nodes))
	for i := range v.Nodes {
		n := &v.Nodes[i]
		dst = appendBulk(appendHeader(dst, '%', 2), "slots")
		if first, last := slots(i, len(v.Nodes)); last < first {
			dst = appendHeader(dst, '*', 0)
		} else {
			dst = appendHeader(appendHeader(appendHeader(dst, '*', 2), ':', first), ':', last)
		}
		dst = appendHeader(appendBulk(dst, "nodes"), '*', 1)
		fields := 7
		if n.name() != "" {
			fields++
		}
		dst = appendHeader(dst, '%', fields)
		dst = appendBulk(appendBulk(dst, "id"), n.nodeID())
		dst = appendHeader(appendBulk(dst, "port"), ':', n.Port)
		dst = appendBulk(appendBulk(dst, "ip"), n.Host)
		dst = appendBulk(appendBulk(dst, "endpoint"), n.Host)
		if name := n.name(); name != "" {
			dst = appendBulk(appendBulk(dst, "hostname"), name)
		}
		dst = appendBulk(appendBulk(dst, "role"), "master")
		dst = appendHeader(appendBulk(dst, "replication-offset"), ':', 0)
		dst = appendBulk(appendBulk(dst, "health"), "online")
	}
	return dst
}

// lines is the text of CLUSTER NODES.
func (v *ClusterView) lines() string {
	var b strings.Builder
	for i := range v.Nodes {
		n := &v.Nodes[i]
		port, flags := strconv.Itoa(n.Port), "master"
		if n.Self {
			flags = "myself,master"
		}
		b.WriteString(n.nodeID() + " " + n.Host + ":" + port + "@" + strconv.Itoa(n.Port+busOffset))
		if name := n.name(); name != "" {
			b.WriteString("," + name)
		}
		b.WriteString(" " + flags + " - 0 0 " + strconv.FormatUint(v.Epoch, 10) + " connected")
		switch first, last := slots(i, len(v.Nodes)); {
		case first == last:
			b.WriteString(" " + strconv.Itoa(first))
		case first < last:
			b.WriteString(" " + strconv.Itoa(first) + "-" + strconv.Itoa(last))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (v *ClusterView) info() string {
	state, all := "ok", strconv.Itoa(slot.Count)
	if !v.Serving {
		state = "fail"
	}
	nodes, epoch := strconv.Itoa(len(v.Nodes)), strconv.FormatUint(v.Epoch, 10)
	var b strings.Builder
	for _, f := range []field{
		{"cluster_state", state},
		{"cluster_slots_assigned", all}, {"cluster_slots_ok", all}, {"cluster_slots_pfail", "0"}, {"cluster_slots_fail", "0"},
		{"cluster_known_nodes", nodes}, {"cluster_size", nodes}, {"cluster_current_epoch", epoch}, {"cluster_my_epoch", epoch},
		{"cluster_stats_messages_sent", "0"}, {"cluster_stats_messages_received", "0"}, {"total_cluster_links_buffer_limit_exceeded", "0"},
	} {
		b.WriteString(f.name + ":" + f.value + "\r\n")
	}
	return b.String()
}

// appendText appends a text for people: a verbatim string in RESP3.
func appendText(dst []byte, text string, proto int) []byte {
	if proto < 3 {
		return appendBulk(dst, text)
	}
	dst = appendHeader(dst, '=', len("txt:")+len(text))
	return append(append(append(dst, "txt:"...), text...), "\r\n"...)
}
