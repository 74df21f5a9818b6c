package settings

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// units are powers of 1024 with and without the "i", as redis.conf's kb, mb and
// gb are.
var units = []struct {
	suffix string
	factor uint64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1 << 10}, {"mb", 1 << 20}, {"gb", 1 << 30}, {"tb", 1 << 40},
	{"b", 1},
}

// ParseBytes reads a size: "65536", "64KiB", "64kb", "1.5 GiB". A unit is a
// power of 1024 either way.
func ParseBytes(text string) (int64, error) {
	number, factor := strings.ToLower(strings.TrimSpace(text)), uint64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, factor = strings.TrimSpace(rest), u.factor
			break
		}
	}
	if n, err := strconv.ParseUint(number, 10, 64); err == nil && n <= math.MaxInt64/factor {
		return int64(n * factor), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f >= 0) || f*float64(factor) >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q: want a number of bytes such as 65536, 64KiB or 1GiB", text)
	}
	return int64(f * float64(factor)), nil
}

var unitNames = [...]string{"KiB", "MiB", "GiB", "TiB"}

// FormatBytes writes a size in the largest unit that divides it: "64KiB".
func FormatBytes(n int64) string {
	for i := 3; i >= 0; i-- {
		if f := int64(units[i].factor); n >= f && n%f == 0 {
			return strconv.FormatInt(n/f, 10) + unitNames[i]
		}
	}
	return strconv.FormatInt(n, 10)
}

// DescribeBytes writes an exact number of bytes for people, with its size when that is
// easier to read: "7700433 bytes (7.3 MiB)".
func DescribeBytes(n int64) string {
	text := strconv.FormatInt(n, 10) + " bytes"
	for i := 3; i >= 0; i-- {
		if f := int64(units[i].factor); n >= f {
			return text + " (" + strconv.FormatFloat(float64(n)/float64(f), 'f', 1, 64) + " " + unitNames[i] + ")"
		}
	}
	return text
}

type bytesValue struct{ p *int64 }

func (v bytesValue) String() string {
	if v.p == nil {
		return "0"
	}
	return FormatBytes(*v.p)
}

func (v bytesValue) Set(text string) (err error) {
	n, err := ParseBytes(text)
	if err == nil {
		*v.p = n
	}
	return err
}

func (v bytesValue) Type() string { return "bytes" }

// BytesVar defines a flag that takes a size in bytes with an optional unit (see
// ParseBytes).
func BytesVar(fs *pflag.FlagSet, p *int64, name string, value int64, usage string) {
	*p = value
	fs.Var(bytesValue{p}, name, usage)
}
