// Package abuse attacks a running proxy from outside: malformed bytes, limits,
// clients that are slow, greedy, silent or many. What must hold:
//
//  1. The proxy answers bytes as a plain redis-server does that gets the same
//     bytes at the same time (TestAnswersAreRedis); the exceptions are a list
//     with reasons.
//  2. While every attack runs, alone and all at once, other clients see no
//     error and no wrong value, and their p99 stays below a stated limit; the
//     process and its memory limit survive, and nothing is leaked
//     (TestAttacks).
//  3. Each configured limit gets Redis's own error and ends one client only
//     (TestLimits).
//  4. 10,000 idle clients cost less than 100 MB (TestIdleClients). The test
//     needs 10,100 file descriptors in each of two processes: a hard limit
//     (`ulimit -Hn`) of 16,384 is plenty. Both raise their soft limit
//     themselves.
//
// The corpus is kept in testdata/corpus.txt; what a fuzzer finds goes there.
package abuse
