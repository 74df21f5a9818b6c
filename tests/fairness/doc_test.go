// Package fairness measures what other clients feel while one client asks for
// much: a pipeline of 100,000 commands, a value of 512 MB, a million keys at once,
// a list of a million elements, a script with 100,000 keys.
//
// Each demand is made of a plain redis-server and of a cluster, one after the
// other, beside a crowd of ordinary clients whose latencies are recorded. A
// server has one thread, so it stalls everybody while it copies 512 MB or
// collects a million elements; no proxy can make that better. What must hold:
//
//   - others' p99 during the demand is at most twice what it was just before, or
//     twice what the plain server showed its own clients during the same demand
//     (or one and a half times its longest stall), with an allowance for two more
//     hops on a busy machine;
//   - when only one shard has work, the p99 of clients of other shards is at most
//     twice what it was just before, with the same allowance, whatever the server
//     of that shard does. Processors are shared, so bystanders are measured, too:
//     clients of a server that has nothing to do with any of this. Twice their p99,
//     or the longest they waited, is allowed as well;
//   - the proxy's memory stays within its budget and what it needs itself.
package fairness
