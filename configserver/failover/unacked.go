package failover

import "github.com/basalt-redis/basalt/configserver/topology"

// The proxies that did not ack are known here in full as long as the operation is
// run here. The record names some of them and counts the rest: many shards may
// fail at once, and a thousand proxies may be gone with them. Whoever takes an
// operation over waits for acks again, or shuts those whose names it lost out the
// next time.

// missed notes who did not ack.
func (x *Executor) missed(ids []string) {
	x.unacked, x.unnamed = ids, 0
	if len(ids) > 0 {
		x.log.Warn("proxies did not ack in time", "operation", x.kind, "count", len(ids), "proxies", ids)
	}
}

// recall takes over what the record says about it.
func (x *Executor) recall(op *topology.Operation) { x.unacked, x.unnamed = op.Unacked, op.MoreUnacked }

// record puts what is known into the record.
func (x *Executor) record(op *topology.Operation) {
	named := x.unacked[:min(len(x.unacked), topology.MaxUnacked)]
	op.Unacked, op.MoreUnacked = named, len(x.unacked)-len(named)+x.unnamed
}
