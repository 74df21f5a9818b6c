package snapshot

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Value is one RESP3 value. Kind is its first byte on the wire: '+' '-' '$'
// have Text, ':' has Int, '*' '~' '%' have Items (a map's keys and values
// alternate), '_' is null.
type Value struct {
	Kind  byte
	Text  string
	Int   int64
	Items []Value
}

// Read reads one value. RESP2's null bulk and null array become '_'.
func Read(r *bufio.Reader) (Value, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return Value{}, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return Value{}, fmt.Errorf("empty line where a RESP value was expected")
	}
	v := Value{Kind: line[0]}
	switch v.Kind {
	case '+', '-':
		v.Text = line[1:]
		return v, nil
	case '_':
		return v, nil
	}
	n, err := strconv.ParseInt(line[1:], 10, 64)
	if err != nil {
		return Value{}, fmt.Errorf("RESP header %q: %w", line, err)
	}
	switch {
	case v.Kind == ':':
		v.Int = n
	case n < 0:
		return Value{Kind: '_'}, nil
	case v.Kind == '$':
		data := make([]byte, n+2)
		if _, err := io.ReadFull(r, data); err != nil {
			return Value{}, err
		}
		v.Text = string(data[:n])
	case v.Kind == '*' || v.Kind == '~' || v.Kind == '%':
		if v.Kind == '%' {
			n *= 2
		}
		for range n {
			item, err := Read(r)
			if err != nil {
				return Value{}, err
			}
			v.Items = append(v.Items, item)
		}
	default:
		return Value{}, fmt.Errorf("RESP type %q is not one a command table has", line)
	}
	return v, nil
}

// Append appends the value as RESP3.
func (v Value) Append(dst []byte) []byte {
	dst = append(dst, v.Kind)
	switch v.Kind {
	case '+', '-':
		dst = append(dst, v.Text...)
	case ':':
		dst = strconv.AppendInt(dst, v.Int, 10)
	case '$':
		dst = append(strconv.AppendInt(dst, int64(len(v.Text)), 10), "\r\n"...)
		dst = append(dst, v.Text...)
	case '*', '~', '%':
		n := len(v.Items)
		if v.Kind == '%' {
			n /= 2
		}
		dst = append(strconv.AppendInt(dst, int64(n), 10), "\r\n"...)
		for _, item := range v.Items {
			dst = item.Append(dst)
		}
		return dst
	}
	return append(dst, "\r\n"...)
}

// Get returns the value of a key of a map, or of an array that is a map in
// RESP2; null when there is none.
func (v Value) Get(key string) Value {
	for i := 0; i+1 < len(v.Items); i += 2 {
		if v.Items[i].Text == key {
			return v.Items[i+1]
		}
	}
	return Value{Kind: '_'}
}

// Has tells if a set or an array of strings contains text.
func (v Value) Has(text string) bool {
	return slices.ContainsFunc(v.Items, func(i Value) bool { return i.Text == text })
}

// MarshalJSON writes bulk strings, integers, arrays and null as JSON's own, and
// the rest as an object whose key is the kind: {"+":"fast"}, {"~":[…]},
// {"%":[key,value,…]}.
func (v Value) MarshalJSON() ([]byte, error) {
	items := v.Items
	if items == nil {
		items = []Value{}
	}
	switch v.Kind {
	case '_':
		return []byte("null"), nil
	case '$':
		return json.Marshal(v.Text)
	case ':':
		return json.Marshal(v.Int)
	case '*':
		return json.Marshal(items)
	case '+', '-':
		return json.Marshal(map[string]string{string(v.Kind): v.Text})
	case '~', '%':
		return json.Marshal(map[string][]Value{string(v.Kind): items})
	}
	return nil, fmt.Errorf("a RESP value of kind %q has no JSON form", v.Kind)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (v *Value) UnmarshalJSON(data []byte) error {
	*v = Value{}
	switch data[0] {
	case 'n':
		v.Kind = '_'
		return nil
	case '"':
		v.Kind = '$'
		return json.Unmarshal(data, &v.Text)
	case '[':
		v.Kind = '*'
		return json.Unmarshal(data, &v.Items)
	case '{':
		var tagged map[string]json.RawMessage
		if err := json.Unmarshal(data, &tagged); err != nil {
			return err
		}
		for kind, raw := range tagged {
			v.Kind = kind[0]
			if v.Kind == '+' || v.Kind == '-' {
				return json.Unmarshal(raw, &v.Text)
			}
			return json.Unmarshal(raw, &v.Items)
		}
		return fmt.Errorf("an empty object is no RESP value")
	default:
		v.Kind = ':'
		return json.Unmarshal(data, &v.Int)
	}
}
