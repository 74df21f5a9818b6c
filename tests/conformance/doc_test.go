// Package conformance asks a plain redis-server and the endpoint of a cluster
// the same questions and compares the answers byte for byte.
//
//  1. The hand-written sequences of testdata/cases run in RESP2 and RESP3, one
//     by one and pipelined, with all keys in one hash tag and with keys spread
//     over the shards. Every command and subcommand of the server's own list has
//     one that the server answers without an error (TestConformance/coverage).
//  2. From each of their lines more are made: too few and too many arguments,
//     arguments that are no number, empty, negative or beyond all limits, words
//     that are no option, and keys of every type.
//  3. Sequences are generated from the grammar in testdata/grammar.txt, by a
//     seed that is printed ($BASALT_CONFORMANCE_SEED); their number is
//     $BASALT_CONFORMANCE_SEQUENCES.
//
// What has no order is compared without one, what is random or the time by its
// shape (compare_test.go). Every other difference must be declared, with the
// reason, in declared_test.go: an undeclared one fails the test and is reduced
// to the shortest sequence that shows it; a declared one that was not seen fails
// it as well, so the list cannot rot. The table at the end has every command of
// the server: same, difference, refused (if the README says so), or missing.
//
// 1 is done again with a cluster of one shard, where keys in any slots must make no
// difference, and 3 with a quarter of the sequences (TestOneShard).
//
// Where the endpoint says CROSSSLOT and a single Redis does not, a third server
// is the judge: a Redis Cluster of one node must say the same.
package conformance
