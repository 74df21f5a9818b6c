package load

import (
	"math/bits"
	"time"
)

const (
	subBits    = 6 // 64 steps within each power of two: at most 1.6 % error
	subBuckets = 1 << subBits
	buckets    = (64 - subBits) * subBuckets
)

// Histogram counts durations in log-linear buckets with at most 1.6 % error.
// The zero value is empty.
type Histogram struct {
	count [buckets]uint64
	total uint64
}

func bucketOf(ns uint64) int {
	if ns < subBuckets {
		return int(ns)
	}
	shift := bits.Len64(ns) - subBits - 1
	return (shift+1)*subBuckets + int(ns>>shift) - subBuckets
}

// upper is the largest value in nanoseconds that falls into bucket i.
func upper(i int) uint64 {
	if i < subBuckets {
		return uint64(i)
	}
	shift := i/subBuckets - 1
	return (uint64(i%subBuckets+subBuckets)+1)<<shift - 1
}

// Record counts n requests that each took d.
func (h *Histogram) Record(d time.Duration, n int) {
	if d < 0 {
		d = 0
	}
	h.count[min(bucketOf(uint64(d)), buckets-1)] += uint64(n)
	h.total += uint64(n)
}

// Merge adds the counts of o.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.count {
		h.count[i] += n
	}
	h.total += o.total
}

// Total is the number of requests counted.
func (h *Histogram) Total() uint64 { return h.total }

// Quantile returns the duration that the fraction q (0 to 1) of all requests
// did not exceed; 0 when nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := uint64(q * float64(h.total))
	if rank >= h.total {
		rank = h.total - 1
	}
	var seen uint64
	for i, n := range h.count {
		seen += n
		if seen > rank {
			return time.Duration(upper(i))
		}
	}
	return time.Duration(upper(buckets - 1))
}
