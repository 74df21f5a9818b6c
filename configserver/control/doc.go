// Package control runs the loop of one cluster: observe, decide, commit, act,
// and observe again. One goroutine owns the cluster's state; probers, the
// proxies' streams and the API hand it what they know and want. What is to be
// done is decided by package failover from values; what is done to a shard
// runs as an activity, at most one per shard.
package control
