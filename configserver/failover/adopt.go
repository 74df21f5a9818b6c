package failover

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/lifecycle"
)

// Adopt: take over what servers say into a record that is older than they are.
//
// Goal: the record says what was committed last, without asking the record, and no
// proxy that serves is disturbed.
//
//  1. Every node is asked for its role, whom it follows, its proxies' users, and
//     what passwords these have. Only the Configserver could grant a generation,
//     so the highest one that there is names the master: the one master that has it.
//  2. All that answer must agree: whoever follows somebody follows that master.
//     What is contradictory is not guessed at; an admin is told what it is.
//  3. One commit, of an epoch above all that anybody has heard of, names the masters,
//     what is admitted, and the generations. Only masters are in sync; the others are
//     seen to be, in a moment.
//  4. The same commit begins a rotation in every shard: proxies that the record does
//     not know, for they came after the backup, are shut out by it unless they come
//     back and obey.
//
// What may be lost: an unreachable node may be the true master of a shard, if the
// one that is found was replaced and both were not told. The plan names the nodes
// that did not answer.

// Said is what one node said when it was asked.
type Said struct {
	// Error is why it could not be asked, "" when it was.
	Error string
	Info  redisadmin.Info
	Users []string
	// Reached is the "ip:port" at which it was.
	Reached string
	// SecretID names the secret that the password of its proxies' newest user is
	// derived from; "" for none that is on file.
	SecretID string
}

// Adopted is what is taken over about one shard.
type Adopted struct {
	Shard string
	// Master, and Recorded, the one that the record names.
	Master, Recorded string
	Generation       uint64
	SecretID         string
	// History is the master_replid.
	History string
	// Seats are the versions of the proxies' seats that the master knows, by number;
	// 0 for those that it does not.
	Seats []uint32
	// Incarnations by node, of the master and of those that follow it, and the
	// "ip:port" at which they were asked.
	Incarnations, Places map[string]string
	Followers            []string
	// Notes are what an admin should know before.
	Notes []string
}

// Adopt judges what the nodes of a shard said. The error says what is contradictory
// or missing, and what to do.
func Adopt(c *topology.Cluster, s *topology.Shard, said map[string]Said) (Adopted, error) {
	a := Adopted{Shard: s.ID, Recorded: s.Master, Incarnations: map[string]string{}, Places: map[string]string{}}
	var live []*topology.Node
	for i := range s.Nodes {
		n := &s.Nodes[i]
		switch heard := said[n.ID]; {
		case heard.Error != "":
			a.Notes = append(a.Notes, fmt.Sprintf("%s could not be asked (%s): see that it was not the master", n.ID, heard.Error))
		case topology.OtherMark(heard.Users, topology.Mark(c, s.ID, n.ID)) != "":
			a.Notes = append(a.Notes, fmt.Sprintf("%s is a server of another node or cluster: it is left alone", n.ID))
		default:
			live = append(live, n)
			a.Generation = max(a.Generation, redisadmin.Generation(heard.Users))
		}
	}
	if a.Generation == 0 {
		return a, topology.Preconditionf("%s: no node that answers lets proxies in, so nobody can tell who its master was: "+
			"start those that are away, or restore a newer backup of etcd", s.ID)
	}
	masters := slices.DeleteFunc(slices.Clone(live), func(n *topology.Node) bool {
		return !said[n.ID].Info.Master || redisadmin.Generation(said[n.ID].Users) != a.Generation
	})
	if len(masters) != 1 {
		return a, notOne(s, a.Generation, masters)
	}
	m := masters[0]
	a.Master, a.History, a.SecretID = m.ID, said[m.ID].Info.ReplID, said[m.ID].SecretID
	a.Seats = seatsOf(said[m.ID].Users, a.Generation)
	if a.SecretID == "" {
		return a, topology.Preconditionf("%s: the password of the proxies at %s fits no secret in %s: put the secret that was in force there on line 1 or 2",
			s.ID, m.ID, credentials.SecretFile)
	}
	for _, n := range live {
		heard := said[n.ID]
		switch follows := heard.Info.MasterAddress; {
		case n == m:
			a.Incarnations[n.ID], a.Places[n.ID] = heard.Info.RunID, heard.Reached
		case heard.Info.Master:
			a.Notes = append(a.Notes, n.ID+" is a master without the proxies' present credentials: what it alone has is discarded when it becomes a replica")
		case follows == m.Address || follows == m.Endpoint() || follows == said[m.ID].Reached:
			a.Incarnations[n.ID], a.Places[n.ID] = heard.Info.RunID, heard.Reached
			a.Followers = append(a.Followers, n.ID)
		default:
			return a, topology.Preconditionf("%s: %s is the master by the proxies' credentials, but %s follows %s: find out which one has the data, "+
				"then make the other one a replica of it or end it", s.ID, m.ID, n.ID, follows)
		}
	}
	return a, nil
}

func notOne(s *topology.Shard, generation uint64, masters []*topology.Node) error {
	if len(masters) == 0 {
		return topology.Preconditionf("%s: no node that lets proxies of generation %d in is a master: start those that are away, "+
			"or send REPLICAOF NO ONE to the one that has the data", s.ID, generation)
	}
	var ids []string
	for _, m := range masters {
		ids = append(ids, m.ID)
	}
	return topology.Preconditionf("%s: %s are masters, and let proxies of generation %d in: find out which one has the data, and end the others",
		s.ID, strings.Join(ids, " and "), generation)
}

// seatsOf are the versions of seats in the names of users of a generation.
func seatsOf(users []string, generation uint64) (seats []uint32) {
	for _, u := range users {
		seat, ok := credentials.SeatOf(u, generation)
		if !ok || seat.Number >= topology.MaxSeats {
			continue
		}
		for len(seats) <= seat.Number {
			seats = append(seats, 0)
		}
		seats[seat.Number] = max(seats[seat.Number], seat.Version)
	}
	return seats
}

// SeatsInto puts the newer versions of seats into a record: proxies that it does not
// know have those, and are asked to take others.
func (a *Adopted) SeatsInto(c *topology.Cluster) {
	for i, version := range a.Seats {
		if i == len(c.Seats) {
			c.Seats = append(c.Seats, 1)
		}
		c.Seats[i] = max(c.Seats[i], version)
	}
}

// Into puts it into the record of the shard.
func (a *Adopted) Into(s *topology.Shard) {
	s.Master, s.Generation, s.SecretID = a.Master, a.Generation, a.SecretID
	s.Operation, s.Frozen = nil, false
	s.Histories = []topology.History{{ReplID: a.History}}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if now := a.Incarnations[n.ID]; now != n.Incarnation {
			n.Incarnation, n.Resolved = now, ""
			n.ReachedAt(a.Places[n.ID])
		}
		n.InSync, n.Out = n.ID == a.Master, nil
		n.InReadSet, n.History = n.ID == a.Master && n.Readable, ""
		if n.Incarnation != "" {
			n.History = a.History
		}
	}
}

// Ask asks every node of the shard for what Adopt judges, and changes nothing.
func (x *Executor) Ask(ctx context.Context, s *topology.Shard) map[string]Said {
	var mu sync.Mutex
	all := map[string]Said{}
	lifecycle.Parallel(len(s.Nodes), 0, func(i int) {
		bounded, cancel := context.WithTimeout(ctx, redisadmin.CallTimeout)
		defer cancel()
		said := x.hear(bounded, s, &s.Nodes[i])
		mu.Lock()
		defer mu.Unlock()
		all[s.Nodes[i].ID] = said
	})
	return all
}

func (x *Executor) hear(ctx context.Context, s *topology.Shard, n *topology.Node) (said Said) {
	c, err := x.dial(ctx, n)
	if err == nil {
		defer c.Close()
		said.Info, said.Reached = c.Info, c.Remote()
		said.Users, err = c.Users(ctx)
	}
	if err == nil {
		said.SecretID, err = x.secretIn(ctx, c, s, said.Users)
	}
	if err != nil {
		_, said.Error = redisadmin.SightOf(err)
	}
	return said
}

// secretIn names the secret that the password of a user of proxies is derived from;
// "" for none that is on file.
func (x *Executor) secretIn(ctx context.Context, c *redisadmin.Conn, s *topology.Shard, users []string) (string, error) {
	set, uid := x.host.Credentials(), x.host.Record().UID
	generation := redisadmin.Generation(users)
	i := slices.IndexFunc(users, func(u string) bool {
		_, ok := credentials.SeatOf(u, generation)
		return ok
	})
	if i < 0 {
		return "", nil
	}
	seat, _ := credentials.SeatOf(users[i], generation)
	for _, id := range set.SecretIDs() {
		key, err := set.SeatKey(id, uid, s.ID, generation)
		if err != nil {
			return "", err
		}
		if has, err := c.HasPassword(ctx, users[i], credentials.SeatPassword(key, seat)); err != nil || has {
			return id, err
		}
	}
	return "", nil
}
