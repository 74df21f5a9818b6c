package introspect

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"github.com/basalt-redis/basalt/proxy/command"
)

// valueKind is what a parameter of the proxy's may be set to, were it a server's:
// a value that no server takes is refused in Redis's words, before the reason why
// the parameter cannot be set at all.
type valueKind uint8

const (
	anyText valueKind = iota
	integerValue
	memoryValue
	memoryOrPercent
	yesOrNo
)

// bounds of a parameter's value.
type bounds struct {
	kind      valueKind
	low, high int64
}

// valueBounds are those of Redis 7.0.
var valueBounds = map[string]bounds{
	"client-query-buffer-limit": {memoryValue, 1 << 20, math.MaxInt64},
	"maxclients":                {integerValue, 1, math.MaxUint32},
	"maxmemory-clients":         {memoryOrPercent, 0, math.MaxInt64},
	"port":                      {integerValue, 0, 65535},
	"protected-mode":            {kind: yesOrNo},
	"proto-max-bulk-len":        {memoryValue, 1 << 20, math.MaxInt64},
	"timeout":                   {integerValue, 0, math.MaxInt32},
	"tls-port":                  {integerValue, 0, 65535},
}

// wrongValue is what Redis says against a value, or "".
func wrongValue(name, value string) string {
	b := valueBounds[name]
	if b.kind == anyText {
		return ""
	}
	if b.kind == yesOrNo {
		if !strings.EqualFold(value, "yes") && !strings.EqualFold(value, "no") {
			return "argument must be 'yes' or 'no'"
		}
		return ""
	}
	if percent, is := strings.CutSuffix(value, "%"); is && b.kind == memoryOrPercent {
		if n, ok := command.Integer([]byte(percent)); ok && n >= 0 {
			if n > 100 {
				return "percentage argument must be less or equal to 100"
			}
			return ""
		}
	}
	n, ok := numberOf(b.kind, value)
	switch {
	case ok && (n < b.low || n > b.high):
		return fmt.Sprintf("argument must be between %d and %d inclusive", b.low, b.high)
	case ok:
		return ""
	case b.kind == memoryValue:
		return "argument must be a memory value"
	case b.kind == memoryOrPercent:
		return "argument must be a memory or percent value"
	}
	return "argument couldn't be parsed into an integer"
}

// numberOf reads a number, or an amount of memory such as 10mb.
func numberOf(kind valueKind, value string) (int64, bool) {
	if kind == integerValue {
		return command.Integer([]byte(value))
	}
	unitName := strings.TrimLeft(value, "0123456789")
	unit, known := map[string]uint64{
		"": 1, "b": 1, "k": 1e3, "kb": 1 << 10, "m": 1e6, "mb": 1 << 20, "g": 1e9, "gb": 1 << 30,
	}[strings.ToLower(unitName)]
	if !known {
		return 0, false
	}
	n, err := uint64(0), error(nil)
	if number := value[:len(value)-len(unitName)]; number != "" {
		n, err = strconv.ParseUint(number, 10, 64)
	}
	if high, low := bits.Mul64(n, unit); err == nil && high == 0 && low <= math.MaxInt64 {
		return int64(low), true
	}
	return -1, true // too much
}

// sameValue tells if two values mean the same: 1mb and 1048576 do.
func sameValue(name, a, b string) bool {
	if a == b {
		return true
	}
	switch kind := valueBounds[name].kind; kind {
	case yesOrNo:
		return strings.EqualFold(a, b)
	case memoryValue, memoryOrPercent:
		x, ok := numberOf(kind, a)
		y, also := numberOf(kind, b)
		return ok && also && x == y
	}
	return false
}
