package topology

// RenewTerms begins a new term in every shard whose master is another incarnation
// than in the record before, is master again after there was none, or is of a record
// that did not count. Proxies tell by the term, and by a few bits of it only, which
// incarnation gave out a cursor: so terms of one shard are consecutive numbers.
// skip is how many of them may have been used that the record does not know of.
func (c *Cluster) RenewTerms(before *Cluster, skip uint64) {
	for i := range c.Shards {
		s := &c.Shards[i]
		var was Shard
		if b := before.ShardAt(i, s.ID); b != nil {
			was = *b
		}
		s.Term = was.Term + skip
		if s.Master == "" {
			continue
		}
		if m := was.MasterNode(); m == nil || s.Term == 0 || m.ID != s.Master || m.Incarnation != s.MasterNode().Incarnation {
			s.Term++
		}
	}
}

// ShardAt is Shard, looked for at place i first: that is where it is in nearly every
// other record of the same cluster, so that comparing two costs one look for each shard.
func (c *Cluster) ShardAt(i int, id string) *Shard {
	if i < len(c.Shards) && c.Shards[i].ID == id {
		return &c.Shards[i]
	}
	return c.Shard(id)
}
