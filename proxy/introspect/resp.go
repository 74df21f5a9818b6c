package introspect

import (
	"bytes"
	"strconv"
)

func appendHeader(dst []byte, kind byte, n int) []byte {
	dst = append(dst, kind)
	return append(strconv.AppendInt(dst, int64(n), 10), "\r\n"...)
}

func appendBulk(dst []byte, text string) []byte {
	dst = appendHeader(dst, '$', len(text))
	return append(append(dst, text...), "\r\n"...)
}

func appendSimple(dst []byte, text string) []byte {
	return append(append(append(dst, '+'), text...), "\r\n"...)
}

func appendError(dst []byte, text string) []byte {
	return append(append(append(dst, "-ERR "...), text...), "\r\n"...)
}

// inProtocol appends a RESP3 reply as the client's protocol version has it. In
// RESP2 a map is an array of keys and values, a set is an array, null is the
// null bulk string.
func inProtocol(dst, resp3 []byte, proto int) []byte {
	if proto >= 3 {
		return append(dst, resp3...)
	}
	for len(resp3) > 0 {
		line := resp3[:bytes.IndexByte(resp3, '\n')+1]
		n, _ := strconv.Atoi(string(line[1 : len(line)-2])) // 0 for what is no number
		resp3 = resp3[len(line):]
		switch line[0] {
		case '%':
			dst = appendHeader(dst, '*', 2*n)
		case '~':
			dst = appendHeader(dst, '*', n)
		case '_':
			dst = append(dst, "$-1\r\n"...)
		case '$':
			dst = append(append(dst, line...), resp3[:n+2]...)
			resp3 = resp3[n+2:]
		default:
			dst = append(dst, line...)
		}
	}
	return dst
}
