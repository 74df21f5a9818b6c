package topology

import "fmt"

// InvalidError says which field of a request is wrong, and why.
type InvalidError struct{ Field, Problem string }

func (e *InvalidError) Error() string { return e.Field + ": " + e.Problem }

// PreconditionError says why something cannot be done now, and what must be
// done first.
type PreconditionError struct{ Message string }

func (e *PreconditionError) Error() string { return e.Message }

// Invalidf makes an InvalidError.
func Invalidf(field, format string, args ...any) error {
	return &InvalidError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// Preconditionf makes a PreconditionError.
func Preconditionf(format string, args ...any) error {
	return &PreconditionError{Message: fmt.Sprintf(format, args...)}
}

// Busy is the PreconditionError of whatever must wait for the end of the shard's
// operation; there must be one.
func (s *Shard) Busy() error {
	return Preconditionf("a %s of %s is at work; wait until it has ended", s.Operation.Kind, s.ID)
}

// RefusalError is an error reply for whoever sets parameters of the servers:
// of a server, as it said it, or of the Configserver in the same form. It begins
// with a code: "ERR Unknown option …".
type RefusalError struct{ Reply string }

func (e *RefusalError) Error() string { return e.Reply }
