package fanout

import (
	"slices"
	"strings"

	"github.com/tidwall/redcon"
)

// MemoryStats joins replies to MEMORY STATS: bytes and counts are added up, and
// what is worked out from them, averages, ratios and percentages, is worked out
// anew.
func MemoryStats(dst []byte, parts [][]byte, proto uint8) ([]byte, error) {
	var total memory
	for _, part := range parts {
		items, err := pairs(part)
		if err != nil {
			return dst, err
		}
		if err := total.add(items); err != nil {
			return dst, err
		}
	}
	return total.appendTo(dst, proto), nil
}

// memory is a map of numbers, and of maps of numbers, in order.
type memory struct {
	names  []string
	fields map[string]*memoryField
}

type memoryField struct {
	sum    int64
	text   []byte  // of what is no integer: the first one's
	inside *memory // of a database
}

func (m *memory) add(items []value) error {
	if m.fields == nil {
		m.fields = map[string]*memoryField{}
	}
	for i := 0; i+1 < len(items); i += 2 {
		name, v := string(items[i].text), items[i+1]
		f := m.fields[name]
		if f == nil {
			f = &memoryField{}
			m.fields[name] = f
			at := len(m.names)
			if strings.HasPrefix(name, "db.") { // a database the first ones do not have
				if i := slices.Index(m.names, "overhead.total"); i >= 0 {
					at = i
				}
			}
			m.names = slices.Insert(m.names, at, name)
		}
		switch v.kind {
		case ':':
			f.sum += v.integer()
		case '*', '%':
			if len(v.items)%2 != 0 {
				return ErrReply
			}
			if f.inside == nil {
				f.inside = &memory{}
			}
			if err := f.inside.add(v.items); err != nil {
				return err
			}
		default:
			if f.text == nil {
				f.text = v.text
			}
		}
	}
	return nil
}

func (m *memory) number(name string) float64 {
	if f := m.fields[name]; f != nil {
		return float64(f.sum)
	}
	return 0
}

// derived is what a field is worked out from; ok is false for all others.
func (m *memory) derived(name string) (f float64, ok bool) {
	over := func(a, b float64) (float64, bool) {
		if b == 0 {
			return 0, true
		}
		return a / b, true
	}
	used := m.number("total.allocated")
	data := max(used-m.number("startup.allocated"), 1)
	resident := used + m.number("fragmentation.bytes")
	switch name {
	case "dataset.percentage":
		return over(100*m.number("dataset.bytes"), data)
	case "peak.percentage":
		return over(100*used, m.number("peak.allocated"))
	case "allocator-fragmentation.ratio":
		return over(m.number("allocator.active"), m.number("allocator.allocated"))
	case "allocator-rss.ratio":
		return over(m.number("allocator.resident"), m.number("allocator.active"))
	case "rss-overhead.ratio":
		return over(resident, m.number("allocator.resident"))
	case "fragmentation":
		return over(resident, used)
	}
	return 0, false
}

func (m *memory) appendTo(dst []byte, proto uint8) []byte {
	dst = appendMap(dst, proto, len(m.names))
	for _, name := range m.names {
		f := m.fields[name]
		dst = redcon.AppendBulkString(dst, name)
		derived, ok := m.derived(name)
		switch {
		case f.inside != nil:
			dst = f.inside.appendTo(dst, proto)
		case ok:
			dst = appendDouble(dst, proto, derived)
		case name == "keys.bytes-per-key":
			perKey := int64(0)
			if keys := m.number("keys.count"); keys > 0 {
				perKey = int64(max(m.number("total.allocated")-m.number("startup.allocated"), 0) / keys)
			}
			dst = redcon.AppendInt(dst, perKey)
		case f.text != nil:
			dst = redcon.AppendBulk(dst, f.text)
		default:
			dst = redcon.AppendInt(dst, f.sum)
		}
	}
	return dst
}
