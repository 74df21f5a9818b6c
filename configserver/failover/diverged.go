package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/settings"
)

// Diverged data: what a node wrote alone.
//
// An old master that comes back may hold writes that its successor never got. It is
// made a replica, which replaces them. Before that:
//
//  1. Where the node stands is compared with where the shard's history went on without
//     it. What cannot be compared (an append-only file says no offset) counts as
//     diverged, unless the node never followed or was anything but what the present
//     master's history covers.
//  2. A commit says so, with an event: the bytes that only this node has.
//  3. The server is told to write its RDB file under another name (dbfilename), and
//     BGSAVE. When it had saved last before that is committed then, so that only a
//     later save counts, by the server's own clock. The admission waits for that, retry by retry.
//     Whatever becomes of it, dbfilename is set back.
//  4. A commit notes the file, or why there is none.
//
// The file is not written over before policy.KeepDiverged is over, counted from when
// the node is in sync again; a later divergence uses the other name. No server can
// delete a file, so it stays until then or until somebody removes it.
//
// Redis from 7.0 and Valkey change dbfilename only with enable-protected-configs, and
// a server without persistence is taken to have no disk for it: then the event says
// that the data was not kept.

// divergedFiles are the names, one in use at a time.
var divergedFiles = [2]string{"basalt-diverged.rdb", "basalt-diverged-2.rdb"}

// ErrSaving: the node is saving the writes that only it has; its admission is to be
// tried again soon.
var ErrSaving = errors.New("the node is saving the writes that only it has")

// divergence tells if a node may hold writes that its shard's master lacks, and how
// many bytes of them; -1 when that is not known.
func divergence(s *topology.Shard, n *topology.Node, info *redisadmin.Info) (bytes int64, diverged bool) {
	if info.Keys <= 0 && info.Offset <= 0 {
		return 0, false
	}
	switch {
	case s.Knows(info.ReplID):
		bytes = s.Beyond(info.ReplID, info.Offset)
	case info.RunID != n.Incarnation && s.Knows(info.ReplID2):
		bytes = s.Beyond(info.ReplID2, info.SecondOffset-1)
	case n.History != "" && n.History == s.History().ReplID:
		return 0, false // all it ever had came from the present master
	default:
		bytes = -1
	}
	return bytes, bytes != 0
}

// notKept says why data cannot be kept; every other error is of the moment.
type notKept string

func (e notKept) Error() string { return string(e) }

// keepDiverged is steps 1 to 4 for a node that is about to be admitted as a replica.
// It fails with ErrSaving until the file is there.
func (x *Executor) keepDiverged(ctx context.Context, c *redisadmin.Conn, s *topology.Shard, n *topology.Node) error {
	bytes, diverged := divergence(s, n, &c.Info)
	if !diverged || n.Discard == c.Info.RunID {
		return nil
	}
	d := n.Diverged
	if d == nil || d.Run != c.Info.RunID {
		var err error
		if d, err = x.foundDiverged(ctx, c, n, bytes); err != nil {
			return err
		}
	}
	if d.File != "" || d.Error != "" {
		return nil
	}
	if err := x.host.Faults().Hit("diverged/found"); err != nil {
		return err
	}
	file, err := x.saveAside(ctx, c, d, func(saved int64) error { return x.noteSaved(ctx, n.ID, saved) })
	var why notKept
	if err != nil && !errors.As(err, &why) {
		return err
	}
	if err := x.host.Faults().Hit("diverged/saved"); err != nil {
		return err
	}
	return x.noteDiverged(ctx, n.ID, "diverged data of "+n.ID, func(d *topology.Diverged) *topology.Event {
		if d.File, d.Error = file, string(why); why != "" {
			return &topology.Event{Kind: "DivergedDataNotKept", Severity: topology.Warning,
				Message: fmt.Sprintf("what %s had and its shard's master lacks is not saved: %s", n.ID, why)}
		}
		return &topology.Event{Kind: "DivergedDataKept", Severity: topology.Warning,
			Message: fmt.Sprintf("all that %s had is in %s in its data directory: `basaltctl diverged list --help` says how to look into it", n.ID, file)}
	})
}

// noteSaved commits when the server had saved last before it was to write the file.
func (x *Executor) noteSaved(ctx context.Context, node string, saved int64) error {
	_, err := x.host.Commit(ctx, x.shard+": "+node+" writes aside what it had alone", func(c *topology.Cluster) ([]topology.Event, error) {
		_, n := c.Node(node)
		if n == nil || n.Diverged == nil {
			return nil, ErrSuperseded
		}
		n.Diverged.SavedBefore = saved
		return nil, nil
	})
	return err
}

// foundDiverged is step 2.
func (x *Executor) foundDiverged(ctx context.Context, c *redisadmin.Conn, n *topology.Node, bytes int64) (*topology.Diverged, error) {
	dbfile, err := c.Parameter(ctx, "dbfilename")
	if err != nil {
		return nil, err
	}
	d := topology.Diverged{FoundAt: time.Now().UTC().Round(time.Microsecond), Bytes: bytes, Run: c.Info.RunID, DBFile: dbfile, Target: divergedFiles[0],
		SavedBefore: -1}
	if n.Diverged != nil {
		if n.Diverged.File == d.Target {
			d.Target = divergedFiles[1]
		}
		if dbfile == n.Diverged.Target {
			d.DBFile = n.Diverged.DBFile
		}
	}
	if x.host.Record().Policy.KeepDiverged == 0 {
		d.Error = "the cluster's policy is not to (keep_diverged is 0)"
	}
	err = x.commitNode(ctx, n.ID, "found diverged data of "+n.ID, func(n *topology.Node) *topology.Event {
		next := d
		n.Diverged = &next
		has, then := "may have writes that its shard's master lacks", "; they are saved to a file, if that is possible, before it becomes a replica"
		if bytes >= 0 {
			has = "has writes that its shard's master lacks, " + settings.DescribeBytes(bytes)
		}
		if d.Error != "" {
			then = "; they are not saved: " + d.Error
		}
		return &topology.Event{Kind: "DivergedData", Severity: topology.Warning, Message: n.ID + " " + has + then}
	})
	return &d, err
}

// saveAside is step 3; it returns the name of the file when that is complete. note
// commits when the server had saved last before it began that file.
func (x *Executor) saveAside(ctx context.Context, c *redisadmin.Conn, d *topology.Diverged, note func(saved int64) error) (string, error) {
	keeps, err := keepsOnDisk(ctx, c)
	if err != nil {
		return "", err
	}
	if !keeps {
		return "", notKept("the server keeps nothing on disk (no save points and no append-only file)")
	}
	name, err := c.Parameter(ctx, "dbfilename")
	if err != nil {
		return "", err
	}
	if name != d.Target {
		refusal, err := c.SetConfig(ctx, []topology.Setting{{Name: "dbfilename", Value: d.Target}})
		if err != nil {
			return "", err
		}
		if refusal != "" {
			return "", notKept("the server does not let its dbfilename be changed (put \"enable-protected-configs yes\" in its configuration): " + refusal)
		}
		if err := x.host.Faults().Hit("diverged/named"); err != nil {
			return "", err
		}
	}
	info, err := c.Read(ctx)
	switch {
	case err != nil:
		return "", err
	case info.Saving:
		return "", ErrSaving // perhaps an ordinary one, under the name of before
	case d.SavedBefore < 0:
		if err := c.BackgroundSave(ctx); err != nil {
			return "", err
		}
		if err := x.host.Faults().Hit("diverged/begun"); err != nil {
			return "", err
		}
		// A save that failed before this one looks like a failure of this one, until
		// this one is seen to have begun; it may have been put off.
		if info.SaveFailed {
			if is, err := c.Read(ctx); err != nil || is.SaveFailed && !is.Saving {
				return "", cmp.Or(err, ErrSaving)
			}
		}
		if err := note(info.Saved); err != nil {
			return "", err
		}
		d.SavedBefore = info.Saved
		return "", ErrSaving
	case info.Saved <= d.SavedBefore && !info.SaveFailed:
		return "", cmp.Or(c.BackgroundSave(ctx), ErrSaving) // it was put off, or the server's clock stood
	}
	if refusal, err := c.SetConfig(ctx, []topology.Setting{{Name: "dbfilename", Value: cmp.Or(d.DBFile, "dump.rdb")}}); err != nil || refusal != "" {
		return "", cmp.Or(err, errors.New(refusal))
	}
	if info.SaveFailed {
		return "", notKept("the server could not write the file: look at its log, and at the room on its disk")
	}
	return d.Target, nil
}

// keepsOnDisk tells if a server has save points or an append-only file.
func keepsOnDisk(ctx context.Context, c *redisadmin.Conn) (bool, error) {
	save, err := c.Parameter(ctx, "save")
	if err != nil {
		return false, err
	}
	return save != "" || c.Info.AppendOnly, nil
}

// noteDiverged changes what the record says about diverged data.
func (x *Executor) noteDiverged(ctx context.Context, node, reason string, change func(d *topology.Diverged) *topology.Event) error {
	return x.commitNode(ctx, node, reason, func(n *topology.Node) *topology.Event {
		if n.Diverged == nil {
			return nil
		}
		return change(n.Diverged)
	})
}

// commitNode commits a change of one node, outside of any operation, with an event.
func (x *Executor) commitNode(ctx context.Context, node, reason string, change func(n *topology.Node) *topology.Event) error {
	_, err := x.host.Commit(ctx, x.shard+": "+reason, func(c *topology.Cluster) ([]topology.Event, error) {
		s := c.Shard(x.shard)
		if s == nil || s.Node(node) == nil {
			return nil, ErrSuperseded
		}
		e := change(s.Node(node))
		if e == nil {
			return nil, ErrSuperseded
		}
		e.Time, e.Shard, e.Node, e.Epoch = time.Now(), s.ID, node, c.Epoch
		return []topology.Event{*e}, nil
	})
	return err
}
