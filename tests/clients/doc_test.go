// Package clients runs programs written with the clients that people use against
// the endpoint: three shards with a replica each behind two proxies.
//
// Each program exercises the same features in the way of its client (see package
// program for what a program prints) and is run twice: against the endpoint, and
// against a plain redis-server. What it prints must be the same. Then all programs
// run at once while masters and proxies are killed, and must come back by their
// own means and without a wrong value.
//
// Frameworks whose keys cannot be tagged (RQ, a Celery chord, a lock of several resources
// with redlock) run likewise against a cluster of one shard.
//
// The tools of Redis itself, redis-cli and redis-benchmark, are compared likewise.
// A table of clients and features closes the run. `make test-clients` installs what
// the programs need and runs them.
package clients
