package session

import (
	"bytes"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
)

// Error replies of the proxy itself. Servers count theirs (INFO errorstats), and the calls
// that they reject; what never came to a server is counted here.

// maxErrorCodes bounds how many codes are counted apart.
const maxErrorCodes = 128

// countError counts an error line by its code: the first word.
func (s *Shared) countError(line []byte) {
	code := bytes.TrimPrefix(line, []byte("-"))
	if end := bytes.IndexAny(code, " \r"); end >= 0 {
		code = code[:end]
	}
	if _, known := s.Errors[string(code)]; !known {
		if s.Errors == nil {
			s.Errors = map[string]uint64{}
		}
		if len(s.Errors) >= maxErrorCodes {
			return
		}
	}
	s.Errors[string(code)]++
}

// ownError counts the error that a request is answered with, unless a server made it.
func (c *Client) ownError(r *backend.Request, piece []byte) {
	if r.Relayed || r.Raw() != nil {
		return
	}
	if r.Out.Len() > 0 {
		piece = r.Out.First()
	}
	c.sh.countError(piece)
	r.Rejected = r.Rejected || r.Spec != nil && r.Spec.OnShards()
}

// reject answers a request that is refused before it is looked at any further.
func (c *Client) reject(spec *command.Spec, line []byte) {
	if spec == nil {
		c.answer(nil, line)
		return
	}
	r := c.begin(spec)
	r.Rejected = true
	c.Complete(r, line)
}
