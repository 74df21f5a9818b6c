package slot

import (
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// TestOf uses the check value of CRC16/XMODEM and examples of the Redis
// Cluster specification; others were read from CLUSTER KEYSLOT of a
// redis-server 7.0.15.
func TestOf(t *testing.T) {
	for key, want := range map[string]uint16{
		"123456789": 0x31c3, "foo": 12182, "bar": 5061, "hello": 866, "": 0,
		"{user1000}.following": Of([]byte("user1000")),
		"foo{}{bar}":           8363,
		"foo{{bar}}zap":        Of([]byte("{bar")),
		"foo{bar}{zap}":        Of([]byte("bar")),
		"{":                    Of([]byte("{")),
		"}{a}":                 Of([]byte("a")),
	} {
		if got := Of([]byte(key)); got != want {
			t.Errorf("Of(%q) = %d, want %d", key, got, want)
		}
	}
}

// naive is the specification of Of, bit by bit.
func naive(key []byte) uint16 {
	for i, b := range key {
		if b != '{' {
			continue
		}
		for j := i + 1; j < len(key); j++ {
			if key[j] == '}' {
				if j > i+1 {
					key = key[i+1 : j]
				}
				break
			}
		}
		break
	}
	var crc uint16
	for _, b := range key {
		for bit := 7; bit >= 0; bit-- {
			in := uint16(b>>bit) & 1
			out := crc >> 15
			crc <<= 1
			if in^out == 1 {
				crc ^= 0x1021
			}
		}
	}
	return crc % Count
}

func TestOfAgreesWithTheSpecification(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOf(rapid.SampledFrom([]byte("ab{}\x00\xff7"))).Draw(t, "key")
		if got, want := Of(key), naive(key); got != want {
			t.Fatalf("Of(%q) = %d, want %d", key, got, want)
		}
	})
}

func drawSet(t *rapid.T) (Set, map[int]bool) {
	var s Set
	model := map[int]bool{}
	for range rapid.IntRange(0, 6).Draw(t, "ranges") {
		first := rapid.IntRange(0, Count-1).Draw(t, "first")
		last := min(Count-1, first+rapid.IntRange(0, 200).Draw(t, "length"))
		r := Range(first, last)
		s.Union(&r)
		for i := first; i <= last; i++ {
			model[i] = true
		}
	}
	return s, model
}

func TestSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, model := drawSet(t)
		if s.Len() != len(model) {
			t.Fatalf("Len %d, want %d", s.Len(), len(model))
		}
		for i := range Count {
			if s.Has(i) != model[i] {
				t.Fatalf("Has(%d) = %v", i, s.Has(i))
			}
		}
		end := -2
		for first, last := range s.Ranges {
			if first <= end+1 || last < first {
				t.Fatalf("range %d-%d after one that ends at %d", first, last, end)
			}
			end = last
		}
		back, err := Parse(s.String())
		if err != nil || back != s {
			t.Fatalf("Parse(%q) = %q, %v", s.String(), back.String(), err)
		}
		data, err := json.Marshal(s)
		var read Set
		if err != nil || json.Unmarshal(data, &read) != nil || read != s {
			t.Fatalf("JSON %s reads as %q", data, read.String())
		}
		other, otherModel := drawSet(t)
		shares := false
		for i := range otherModel {
			shares = shares || model[i]
		}
		if s.Intersects(&other) != shares {
			t.Fatalf("%q intersects %q: %v", s.String(), other.String(), !shares)
		}
	})
}

func TestRangesStops(t *testing.T) {
	s := Range(1, 2)
	s.Add(9)
	for first := range s.Ranges {
		if first != 1 {
			t.Error("went on after break")
		}
		break
	}
}

func TestEven(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 1000, 1024, Count} {
		var all Set
		least, most := Count, 0
		for i := range n {
			s := Even(i, n)
			if all.Intersects(&s) {
				t.Fatalf("share %d of %d overlaps", i, n)
			}
			all.Union(&s)
			least, most = min(least, s.Len()), max(most, s.Len())
		}
		if all.Len() != Count || most-least > 1 {
			t.Errorf("%d shares of %d to %d slots cover %d", n, least, most, all.Len())
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"x", "-1", "16384", "5-4", "0-16384", "1-2-3", "1,2", "99999999999999999999"} {
		if s, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %q", text, s.String())
		}
	}
	var s Set
	if json.Unmarshal([]byte(`7`), &s) == nil {
		t.Error("a number was read as a set")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("0-5460 5462")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		if back, err := Parse(s.String()); err != nil || back != s {
			t.Errorf("%q is read as %q, which is read as %q", text, s.String(), back.String())
		}
	})
}

func BenchmarkOf(b *testing.B) {
	key := []byte(fmt.Sprintf("user:%016d", 7))
	b.SetBytes(int64(len(key)))
	for b.Loop() {
		Of(key)
	}
}

func BenchmarkRanges(b *testing.B) {
	s := Even(700, 1024)
	for b.Loop() {
		for first, last := range s.Ranges {
			_ = last - first
		}
	}
}
