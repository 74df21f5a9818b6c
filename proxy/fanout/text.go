package fanout

import (
	"crypto/sha1" //nolint:gosec // it is what Redis makes digests of
	"encoding/hex"
	"strconv"

	"github.com/tidwall/redcon"
)

// Texts joins texts for people, one shard's after the other, each under the
// name of its node. One alone stays as it is. An error is left out as long as
// there is one text.
func Texts(dst []byte, parts [][]byte, nodes []string, proto uint8) ([]byte, error) {
	var (
		text  []byte
		first []byte // the first reply that is no error
	)
	for i, part := range parts {
		if FirstError([][]byte{part}) != nil {
			continue
		}
		body, err := Bulk(part)
		if err != nil {
			return dst, err
		}
		if first == nil {
			first = part
		}
		if len(parts) > 1 {
			if len(text) > 0 && text[len(text)-1] != '\n' {
				text = append(text, '\n')
			}
			text = append(append(append(text, "# "...), nodes[i]...), '\n')
		}
		text = append(text, body...)
	}
	switch {
	case first == nil && len(parts) > 0:
		return append(dst, parts[0]...), nil
	case proto >= 3 && first[0] == '=':
		dst = append(strconv.AppendInt(append(dst, '='), int64(len("txt:")+len(text)), 10), "\r\ntxt:"...)
		return append(append(dst, text...), "\r\n"...), nil
	}
	return redcon.AppendBulk(dst, text), nil
}

// Digest joins replies to DEBUG DIGEST into the digest of a server that has all
// their keys in database 0. A server's digest is the exclusive or of those of
// its keys and of the one of the number of the database, if that has keys.
func Digest(dst []byte, parts [][]byte) ([]byte, error) {
	number := sha1.Sum(make([]byte, 4)) //nolint:gosec // see above
	number = sha1.Sum(number[:])        //nolint:gosec // see above
	var all, none [sha1.Size]byte
	some := 0
	for _, part := range parts {
		v, err := parse(part)
		if err != nil {
			return dst, err
		}
		var one [sha1.Size]byte
		if n, err := hex.Decode(one[:], v.text[:min(len(v.text), 2*sha1.Size)]); err != nil || n != sha1.Size {
			return dst, ErrReply
		}
		if one == none {
			continue
		}
		some++
		for i := range all {
			all[i] ^= one[i]
		}
	}
	if some > 0 && some%2 == 0 {
		for i := range all {
			all[i] ^= number[i]
		}
	}
	return append(append(append(dst, '+'), hex.EncodeToString(all[:])...), "\r\n"...), nil
}
