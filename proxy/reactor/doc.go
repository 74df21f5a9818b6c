// Package reactor is the engine of the proxy: event loops on their own
// threads that carry requests from clients to servers and replies back.
//
//	engine, err := reactor.New(reactor.Config{OnAck: stream.Ack, OnSight: stream.Report})
//	engine.Apply(table)        // any number of times, epochs only rise
//	go engine.Serve(listener)  // returns nil after Shutdown
//	engine.Stats()             // any time
//	engine.Shutdown(ctx)       // drains within ctx
//
// # How it works
//
// Goal: spend fewer CPU cycles per command than a C proxy, with the safety of
// the epochs. A goroutine per connection costs a scheduler round trip per
// command; a loop costs a share of one epoll_wait.
//
//  1. Serve accepts clients and gives each to the loop that has the fewest.
//     A client stays with its loop for life. Loops share nothing but the
//     atomic pointer to the newest routing.Table.
//  2. A loop sleeps in epoll_wait. For each readable client it reads once into
//     a scratch buffer shared by all its clients, scans complete requests in
//     place (package resp checks headers and limits first), looks each up in
//     the command table and appends its bytes, unchanged, to the pipelined
//     connection of (loop, node, protocol version, database, bulk or not). Only
//     an incomplete rest is copied into memory of the client's own.
//  3. For each readable server connection it frames the replies; each belongs
//     to the oldest request of that connection. A reply whose request is the
//     oldest of its client goes straight to the client's output; else it is
//     kept until its turn.
//  4. At the end of the wake-up every connection with output gets one write.
//
// Nobody keeps a loop for long: a client has a turn of requests in each wake-up,
// and sockets are read and written in pieces. What is large, or many at once,
// goes over connections of its own (package session, bulk.go), so that replies of
// others do not stand behind it.
//
// Requests for a shard that is frozen, has no master, or whose connection is
// down wait in the shard's hold queue, in order, and are routed again when
// that changes. What may be lost: a reply, never an order and never a write
// twice; a command that may have reached a server whose connection broke is
// answered with an error that says so, unless it only reads, then it is sent
// again (backend/doubt.go has the exception).
//
// Messages of subscriptions come on connections of their own, one per loop and
// master, and are appended to the output of each subscriber (package pubsub,
// subscriptions.go).
//
// A transaction is one request of several commands (backend.Block). A client
// that WATCHes, or waits for a command that blocks, has a server connection of
// its own meanwhile (pin, call).
//
// # Epochs
//
// Apply publishes a table; every loop switches to it between two wake-ups:
// what is no longer in the table is retired. A retired connection gets no new
// request; it is closed when its last reply arrived, or at once when the node
// lost the master role without a freeze. While a retired connection of a shard
// has requests in flight, new requests of that shard are held, so that two
// requests of one client cannot overtake each other on two connections. A loop
// obeys the epoch when nothing retired has requests in flight and nothing is in
// flight to frozen shards. When all loops do, OnAck is called.
package reactor
