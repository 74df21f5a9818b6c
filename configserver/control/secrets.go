package control

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/lifecycle"
)

// What is on file, and what is in force.
//
// Files can be wrong: a password that no server has, a secret that was replaced and not
// rotated. That must be known while it does no harm yet, and do none as long as this
// process remembers what worked:
//
//  1. The files are read again every second. What is in force by the record and is not on
//     file any more is kept (credentials.Set.Keeping), and what a node accepted last is
//     tried after what is on file (health.Prober.Passwords).
//  2. Every second each node is asked, on the connection that is open, if it accepts a
//     password on file (health.Prober). That it does not is NodeRefusesAdmin; that the
//     record names other secrets than the files is CredentialsNotOnFile. A file that was
//     repaired ends both, with nobody's help.
//  3. A rotation asks all nodes anew, with the files alone, before it begins.

const (
	// rereadEvery is how often the credentials files are read.
	rereadEvery = time.Second
	// askWithin bounds the question of a rotation to all nodes.
	askWithin = 800 * time.Millisecond
)

// Credentials implements failover.Host.
func (l *Loop) Credentials() *credentials.Set { return l.secrets.Load() }

// AdminPasswords implements failover.Host.
func (l *Loop) AdminPasswords(node string) []string {
	if p, ok := l.byNode.Load(node); ok {
		return p.(*health.Prober).Passwords()
	}
	return l.Credentials().AdminPasswords()
}

// reread opens the credentials files anew; on an error those known stay.
func (l *Loop) reread(ctx context.Context) error {
	set, err := l.cfg.Credentials()
	if err != nil {
		return err
	}
	return l.do(ctx, func() { l.keep(set) })
}

// keep makes a set the one that is known, with what is in force besides.
func (l *Loop) keep(set *credentials.Set) {
	before, c := l.secrets.Load(), l.record.Load()
	changed := !set.SameAs(before)
	if changed {
		l.secrets.Store(set.Keeping(before, secretsInUse(c), c.ClientSecretIDs))
	}
	l.noteFiles()
	if changed {
		l.log.Info("the credentials files have changed")
		l.makeView() // in case something was missing
		l.publish()
	}
}

// noteFiles notes what the credentials files lack of what is in force.
func (l *Loop) noteFiles() {
	c := l.record.Load()
	l.filesLack = l.Credentials().NotOnFile(secretsInUse(c), c.ClientSecretIDs)
}

// secretsInUse are the ids of the cluster secrets that the shards have.
func secretsInUse(c *topology.Cluster) (ids []string) {
	for i := range c.Shards {
		if id := c.Shards[i].SecretID; id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// readFiles reads the credentials files again, in the background, about every
// rereadEvery.
func (l *Loop) readFiles(now time.Time) {
	if l.reading || now.Sub(l.rereadAt) < rereadEvery {
		return
	}
	l.reading, l.rereadAt = true, now
	l.spawn(func() {
		set, err := l.cfg.Credentials()
		l.later(func() {
			l.reading = false
			if err != nil {
				l.filesLack = err.Error()
				return
			}
			l.keep(set)
		})
	})
}

// refused fails when a server that answers accepts none of the admin passwords of a set.
func (l *Loop) refused(ctx context.Context, set *credentials.Set) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	c := l.Topology()
	var nodes []topology.Node
	for i := range c.Shards {
		nodes = append(nodes, c.Shards[i].Nodes...)
	}
	var (
		mu   sync.Mutex
		list []string
	)
	lifecycle.Parallel(len(nodes), askAtOnce, func(i int) {
		conn, err := redisadmin.Dial(ctx, nodes[i].Endpoint(), set.AdminPasswords())
		if err == nil {
			conn.Close()
			return
		}
		if sight, _ := redisadmin.SightOf(err); sight == topology.SightFenced {
			mu.Lock()
			defer mu.Unlock()
			list = append(list, fmt.Sprintf("%s at %s", nodes[i].ID, nodes[i].Endpoint()))
		}
	})
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, topology.CompareIDs)
	refuse := "refuse"
	if len(list) == 1 {
		refuse = "refuses"
	}
	return topology.Preconditionf("nothing was changed: %s %s every password in %s; put the one that %s now on line 2, below the new one",
		topology.Few(list, maxNamed), refuse, credentials.AdminFile, map[bool]string{true: "it has", false: "they have"}[len(list) == 1])
}

// maxNamed is how many servers an error names.
const maxNamed = 20
