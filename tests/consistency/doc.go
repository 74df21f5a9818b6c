// Package consistency loads a proxy from many connections and checks every
// single reply against a model of what may be there.
//
// Goal: say for certain whether a write that was acknowledged is lost, whether
// a read ever shows a value that nobody wrote or that was already replaced, and
// who felt what while a master died.
//
//  1. Every key has one writer. Its values carry the key, a version that only
//     grows and a pad computed from both, so a wrong value cannot look right.
//  2. A write ends in one of three ways: acknowledged; failed for certain (it
//     never left for a server); unknown (an error while it was in flight). A
//     version that failed for certain must never be seen.
//  3. A read that began after version v was acknowledged, or was seen by another
//     read, must show v or a later one, and never one that was not sent yet.
//  4. Replication is asynchronous, so a killed master may take acknowledged
//     writes along. Tests say when that may happen (LossBegins, LossEnds). In
//     between the lower bound is the newest version that a Confirmer saw with
//     its own eyes in a replica whose link was up: that one must survive.
//     Outside these spans point 3 holds in full.
//  5. Each connection keeps to the keys of one shard, so that a shard that
//     holds its requests does not starve the measurement of the others. Every
//     request is recorded with its begin, latency and kind of failure.
//
// What may be lost without being noticed: nothing that was acknowledged and
// confirmed. Several writers on one key are not covered here; Registers records
// such a history and has a linearizability checker judge it.
package consistency
