// Package pubsub is what one event loop knows of subscriptions: which client
// listens to what, what the servers were asked for on behalf of them, and who
// gets a message. It does no I/O: a Link is told when its connection is there,
// and hands bytes to it.
//
// # Where a channel lives
//
// Goal: a message reaches every subscriber of every proxy once, in the order of
// its channel, whoever published it and wherever.
//
//  1. PUBLISH goes to one master of the cluster, whatever its channel and through
//     whichever proxy it came (routing.Table.ChannelSlot). So all messages have one
//     order, a loop gets them on one connection, and a client sees them in the order
//     in which they were acknowledged. One server puts each on the wire once. That
//     master is another one only while its shard has none; around that instant
//     messages may swap. By choice (policy pubsub: spread) it is the master of the
//     channel's slot, and each channel has an order of its own.
//  2. A message can also be published elsewhere: by a script, at the shard of its
//     keys, and as a keyspace notification, at the shard of the key. Therefore channels and patterns are subscribed at the masters of
//     all shards. Still every message is published at one of them only, so
//     nobody gets it twice.
//  3. Shard channels (SSUBSCRIBE) exist to avoid just that: they are subscribed
//     at the owner of their slot only, and a script must publish to them there,
//     as in Redis Cluster.
//  4. Replicas repeat what their master publishes. Nobody subscribes there.
//
// # Sharing
//
// A loop has one connection per shard for the subscriptions of all its clients
// (Link), in RESP3, where messages and confirmations are pushes. A name is
// subscribed once for all clients (topic), and unsubscribed when its last client
// left. Each request to a server is followed by a PING: its answer says that
// everything before it is in effect, so requests need not be matched with
// confirmations by name.
//
// A client's SUBSCRIBE is confirmed when every shard has answered: from then on
// no message is missed. A shard that is away is waited for a moment (Hub.Patience),
// if it has not been away for as long already; then the confirmation goes out without
// it, and the subscription is made there when it is back. When no shard is there, or
// that of a shard channel is not, it is waited for as long as a request would be held,
// and then there is an error.
//
// # What may be lost
//
// When a connection breaks, or its shard gets another master, everything is
// subscribed again at what serves then, and the clients notice nothing.
// Messages published in between are lost, as they are in Redis; none is
// delivered twice, because the old connection is gone before the new one exists.
// A change of the credentials loses nothing: the connection logs in anew and
// keeps its subscriptions. When a slot moves, a message published at the new
// owner may overtake one that was published at the old owner within the
// milliseconds it took to deliver that.
//
// # Numbers
//
// A server counts a proxy's loop as one subscriber. Where it tells a number
// (PUBLISH, PUBSUB NUMSUB), this proxy's loops are taken out and its clients put
// in (Directory). If it counts others, these are asked about (census.go).
package pubsub
