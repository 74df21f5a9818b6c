package session

import (
	"bytes"
	"slices"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/scripts"
)

// blockScripts are the scripts that a transaction uses.
type blockScripts struct {
	// shas are run by EVALSHA, sources are new ones of EVAL.
	shas, sources []string
	bytes         int
}

// Bounds on what is noted of one transaction. Of further scripts nothing is
// known: they are there, or EXEC says NOSCRIPT for them.
const (
	maxBlockScripts = 128
	maxBlockSources = 1 << 20
)

func (b *blockScripts) any() bool { return len(b.shas)+len(b.sources) > 0 }

// note takes note of a command that is queued.
func (b *blockScripts) note(sh *Shared, spec *command.Spec, args [][]byte) {
	if len(b.shas)+len(b.sources) >= maxBlockScripts {
		return
	}
	switch spec.Name {
	case "eval", "eval_ro":
		if b.bytes+len(args[1]) <= maxBlockSources && !sh.knows(args[1]) {
			b.sources = append(b.sources, string(args[1]))
			b.bytes += len(args[1])
		}
	case "evalsha", "evalsha_ro":
		if sha := string(sh.lowerSHA(args[1])); sha != "" && !slices.Contains(b.shas, sha) {
			b.shas = append(b.shas, sha)
		}
	}
}

// withScripts sends a transaction that runs scripts: those that its server may
// not have are looked for and put in front of it.
func (c *Client) withScripts(t *transaction, r *backend.Request, block *buffer.Chunk) {
	sh := c.sh
	loaded := sh.Router.Loaded(r)
	var missing []string
	for _, sha := range t.scripts.shas {
		if _, ok := loaded[sha]; !ok {
			missing = append(missing, sha)
		}
	}
	o := &blockOwner{inner: r.Owner, client: c, sources: t.scripts.sources}
	r.Owner, r.Scripted = o, len(t.scripts.shas) > 0
	if len(missing) == 0 {
		r.Block.Scripts = t.scripts.shas
		c.routeBlock(t, r, block)
		return
	}
	c.waitForAll()
	var found map[string]string
	sh.find(missing, &found, func() {
		if r.Owner == nil { // the client left
			sh.Pool.Put(block)
			sh.Requests.Put(r)
			if t.pin != nil {
				t.pin.Release(false)
			}
			return
		}
		if r.Slot < 0 {
			sh.toAnyShard(r) // the table may be another
		}
		o.loaded = sh.Router.Loaded(r)
		var front []byte
		for sha, source := range found {
			front = appendLoad(front, source)
			o.shas = append(o.shas, sha)
		}
		r.Block.Before += len(found)
		if len(front) > 0 {
			whole := sh.Pool.Get(len(front) + len(block.B))
			whole.B = append(append(whole.B, front...), block.B...)
			sh.Pool.Charge(whole)
			sh.Pool.Put(block)
			block = whole
		}
		c.routeBlock(t, r, block)
	})
}

// blockOwner learns from the reply to a transaction which scripts are where.
type blockOwner struct {
	inner   backend.Owner
	client  *Client
	sources []string
	// shas were loaded in front of it.
	shas   []string
	loaded Loaded
}

// Reply passes a reply on.
func (o *blockOwner) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	if last && (kind == '*' || kind == '_') {
		for _, sha := range o.shas {
			o.loaded.add(sha)
		}
		if kind == '*' && !bytes.Equal(piece, nullRESP2Array) {
			var fresh []*scripts.Script
			for _, source := range o.sources {
				if script := o.client.sh.remember([]byte(source)); script != nil {
					fresh = append(fresh, script)
				}
			}
			if len(fresh) > 0 {
				r.Owner = o.inner
				o.client.sh.settle(r, piece, kind, fresh)
				return
			}
		}
	}
	o.inner.Reply(r, piece, last, kind)
}

// Fail ends the transaction.
func (o *blockOwner) Fail(r *backend.Request, line []byte) { o.inner.Fail(r, line) }
