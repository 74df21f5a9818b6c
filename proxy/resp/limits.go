// Package resp knows the bytes of the Redis protocol as a proxy needs them:
// where a request ends and what its arguments are (Scanner), and where a reply
// ends (Framer). It decodes nothing else and allocates nothing per request.
package resp

// Limits of one request. They are enforced on what a header announces, before
// memory is spent on it.
type Limits struct {
	// RequestBytes is the most bytes of one request, and of one argument.
	RequestBytes int
	// Args is the most arguments of one request.
	Args int
	// InlineBytes is the longest inline request, and the longest header line.
	InlineBytes int
}

// DefaultLimits are those of Redis.
func DefaultLimits() Limits {
	return Limits{RequestBytes: 512 << 20, Args: 1 << 20, InlineBytes: 64 << 10}
}
