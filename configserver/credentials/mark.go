package credentials

// MarkPrefix begins the names of users that nobody can log in as. They mark a server
// as a node of a cluster, for an address may come to mean another server.
const MarkPrefix = "basalt-node-"

// NodeMark is the mark of a node; uid is the cluster's.
func NodeMark(uid, shard, node string) string {
	return MarkPrefix + uid + "-" + shard + "-" + node
}
