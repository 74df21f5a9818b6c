package resp

import (
	"bytes"
	"math"
	"strconv"

	"github.com/tidwall/redcon"
)

// ProtocolError is a breach of the protocol or of a limit. Its text is what
// Redis says; the client gets it and is closed.
type ProtocolError string

// Error is the text behind "-ERR ".
func (e ProtocolError) Error() string { return "Protocol error: " + string(e) }

// Breaches, in Redis's own words.
const (
	errInline      ProtocolError = "too big inline request"
	errQuotes      ProtocolError = "unbalanced quotes in request"
	errCountLine   ProtocolError = "too big mbulk count string"
	errBulkLine    ProtocolError = "too big bulk count string"
	errCount       ProtocolError = "invalid multibulk length"
	errBulk        ProtocolError = "invalid bulk length"
	errCountNoAuth ProtocolError = "unauthenticated multibulk length"
	errBulkNoAuth  ProtocolError = "unauthenticated bulk length"
	errRequest     ProtocolError = "too big request"
)

// Limits of clients that still have to authenticate, as in Redis.
const (
	noAuthArgs = 10
	noAuthBulk = 16384
)

// Scanner finds where the request at the front of a buffer ends. It remembers
// how far it came, so that bytes are looked at once however small the pieces
// are in which they arrive. It checks every header and limit, which makes it
// safe to hand the request to redcon.ReadNextCommand: that parser panics on
// lengths out of range, knows no limits and starts over on every call.
//
// The zero value stands before a request.
type Scanner struct {
	pos  int // bytes of the request that were checked
	args int // arguments still to come; 0 before the first header
	bulk int // bytes of the argument at pos with its CRLF; 0 before its header
	line int // bytes of the unfinished header line at pos that were checked
}

// Need is how long the buffer must at least be for the next call of Scan to
// get further; 0 when that is not known.
func (s *Scanner) Need() int {
	if s.bulk > 0 {
		return s.pos + s.bulk
	}
	return 0
}

// Begun tells if the request is known to be incomplete: its beginning was
// checked, and the rest is missing.
func (s *Scanner) Begun() bool { return s.pos > 0 || s.line > 0 }

// Scan looks at buf, which begins with a request. It returns the length of the
// request, or 0 when more bytes are needed: call again with the same bytes and
// more behind them. A client that must still authenticate has open = false and
// tighter limits. An error is a ProtocolError.
func (s *Scanner) Scan(buf []byte, lim *Limits, open bool) (int, error) {
	i, args, line := s.pos, s.args, s.line
	s.line = 0
	if args == 0 {
		if len(buf) == 0 {
			return 0, nil
		}
		if buf[0] != '*' {
			return s.scanInline(buf, lim)
		}
		n, next := number(buf, 1, line)
		if next <= 0 {
			s.line = counted(buf[1:])
			return 0, lineError(next, len(buf), lim, errCountLine, errCount)
		}
		if n > math.MaxInt32 || n > lim.Args {
			return 0, errCount
		}
		if n > noAuthArgs && !open {
			return 0, errCountNoAuth
		}
		if n <= 0 {
			return next, nil
		}
		i, args, line = next, n, 0
	}
	bulk := s.bulk
	for {
		if bulk == 0 {
			if i >= len(buf) {
				break
			}
			if buf[i] != '$' {
				return 0, unexpected(buf[i])
			}
			n, next := number(buf, i+1, line)
			if next <= 0 {
				s.line = counted(buf[i+1:])
				if err := lineError(next, len(buf)-i, lim, errBulkLine, errBulk); err != nil {
					return 0, err
				}
				break
			}
			if n < 0 || n > lim.RequestBytes {
				return 0, errBulk
			}
			if n > noAuthBulk && !open {
				return 0, errBulkNoAuth
			}
			if next+n > lim.RequestBytes+lim.InlineBytes {
				return 0, errRequest
			}
			i, bulk, line = next, n+2, 0
		}
		end := i + bulk
		if end > len(buf) {
			break
		}
		if buf[end-2] != '\r' || buf[end-1] != '\n' {
			return 0, errBulk
		}
		i, bulk = end, 0
		if args--; args == 0 {
			*s = Scanner{}
			return i, nil
		}
	}
	s.pos, s.args, s.bulk = i, args, bulk
	return 0, nil
}

// unexpected names the byte that stands where a '$' should. A line end in it
// would end the reply early.
func unexpected(c byte) error {
	if c == '\r' || c == '\n' {
		c = ' '
	}
	return ProtocolError("expected '$', got '" + string([]byte{c}) + "'")
}

// scanInline finds the end of a line.
func (s *Scanner) scanInline(buf []byte, lim *Limits) (int, error) {
	n := bytes.IndexByte(buf[s.pos:], '\n')
	if n < 0 {
		s.pos = len(buf)
	}
	if end := s.pos + n + 1; n >= 0 && end <= lim.InlineBytes {
		s.pos = 0
		return end, nil
	}
	if n >= 0 || len(buf) > lim.InlineBytes {
		return 0, errInline
	}
	return 0, nil
}

// lineError judges a header line that number could not read.
func lineError(next, n int, lim *Limits, tooLong, invalid ProtocolError) error {
	if next < 0 {
		return invalid
	}
	if n > lim.InlineBytes {
		return tooLong
	}
	return nil
}

// shortNumber is how many digits certainly make no number that overflows, and
// longNumber how many characters make one that certainly does.
const shortNumber, longNumber = 18, 21

// number reads a decimal number and its CRLF at b[i:], as strictly as Redis
// does; of that, seen bytes are known to be digits. next is the index behind
// it, 0 when bytes are missing, -1 when it is no number.
func number(b []byte, i, seen int) (n, next int) {
	start := i
	if seen > longNumber {
		i += seen // n does not matter any more
	}
	for ; i < len(b); i++ {
		c := b[i]
		if c >= '0' && c <= '9' {
			n = n*10 + int(c-'0') // may overflow: then it is not short
			continue
		}
		if c == '-' && i == start {
			continue
		}
		if c != '\r' {
			return 0, -1
		}
		digits, first := i-start, b[start]
		if first == '-' {
			digits, first, n = digits-1, b[start+1], -n
		}
		if digits == 0 || first == '0' && i-start > 1 {
			return 0, -1 // leading zeros, and "-0"
		}
		if digits > shortNumber {
			var err error
			if n, err = strconv.Atoi(string(b[start:min(i, start+longNumber)])); err != nil {
				return 0, -1
			}
		}
		if i+1 == len(b) {
			return 0, 0
		}
		if b[i+1] != '\n' {
			return 0, -1
		}
		return n, i + 2
	}
	return 0, 0
}

// counted is the length of an unfinished number that number has seen.
func counted(line []byte) int { return len(bytes.TrimSuffix(line, []byte{'\r'})) }

// Args returns the arguments of a request that Scan found complete, as parts
// of it. They are appended to dst. An inline request may have none.
func Args(request []byte, dst [][]byte) ([][]byte, error) {
	if request[0] != '*' {
		return splitInline(request[:len(request)-1], dst)
	}
	if request[1] == '-' {
		return dst, nil // Redis takes a negative count for an empty request
	}
	_, args, _, _, err := redcon.ReadNextCommand(request, dst)
	return args, err
}

// FirstArgs returns at most the given number of arguments of a request that Scan
// found complete and that is not inline, and how many there are. They are
// appended to dst.
func FirstArgs(request []byte, dst [][]byte, most int) (args [][]byte, count int) {
	count, at := number(request, 1, 0)
	for range min(count, most) {
		var arg []byte
		arg, at = NextArg(request, at)
		dst = append(dst, arg)
	}
	return dst, count
}

// NextArg returns the argument whose header is at request[i:], and where the next
// one is, in a request that Scan found complete.
func NextArg(request []byte, i int) (arg []byte, next int) {
	n, at := number(request, i+1, 0)
	return request[at : at+n : at+n], at + n + 2
}
