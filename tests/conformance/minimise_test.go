package conformance

import "slices"

// mostTries bounds the search for a shorter sequence.
const mostTries = 150

// minimise takes commands out of a failing sequence, larger runs first, as long
// as what is left still fails at its last command.
func (r *runner) minimise(seq []command, v variation) []command {
	tries := 0
	fails := func(s []command) bool {
		if tries++; tries > mostTries {
			return false
		}
		ours, theirs, err := r.both(s, v)
		failed := false
		if err == nil {
			r.judge(s, v, ours, theirs, func(d verdict) {
				failed = failed || d.differs && d.explained == nil && d.at == len(s)-1
			})
		}
		return failed
	}
	for size := len(seq) / 2; size > 0; size /= 2 {
		for from := 0; from+size < len(seq); {
			if shorter := slices.Concat(seq[:from], seq[from+size:]); fails(shorter) {
				seq = shorter
				continue
			}
			from += size
		}
	}
	return seq
}
