package topology

import "slices"

// Clone returns a copy that shares nothing with c. Change the clone, never a
// record that was read from the store: other goroutines may hold it.
func (c Cluster) Clone() Cluster {
	c.ClientSecretIDs = slices.Clone(c.ClientSecretIDs)
	c.Settings = slices.Clone(c.Settings)
	c.Users = slices.Clone(c.Users)
	c.Seats = slices.Clone(c.Seats)
	c.Maintenance = slices.Clone(c.Maintenance)
	c.Shards = slices.Clone(c.Shards)
	for i := range c.Shards {
		c.Shards[i] = c.Shards[i].Clone()
	}
	return c
}

// Clone returns a copy that shares nothing with s.
func (s Shard) Clone() Shard {
	s.Nodes = slices.Clone(s.Nodes)
	for i := range s.Nodes {
		s.Nodes[i] = s.Nodes[i].Clone()
	}
	s.Failovers = slices.Clone(s.Failovers)
	s.Histories = slices.Clone(s.Histories)
	if s.Operation != nil {
		o := s.Operation.Clone()
		s.Operation = &o
	}
	return s
}

// Clone returns a copy that shares nothing with n.
func (n Node) Clone() Node {
	if n.Out != nil {
		out := *n.Out
		n.Out = &out
	}
	if n.Diverged != nil {
		diverged := *n.Diverged
		n.Diverged = &diverged
	}
	return n
}

// Clone returns a copy that shares nothing with o.
func (o Operation) Clone() Operation {
	o.Unacked = slices.Clone(o.Unacked)
	o.Phases = slices.Clone(o.Phases)
	o.Evidence = slices.Clone(o.Evidence)
	o.Candidates = slices.Clone(o.Candidates)
	return o
}

// Clone returns a copy that shares nothing with e.
func (e Event) Clone() Event {
	if e.Report != nil {
		r := *e.Report
		r.Operation = r.Operation.Clone()
		e.Report = &r
	}
	return e
}
