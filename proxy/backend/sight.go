package backend

// Sight is what this proxy saw of a node last.
type Sight uint8

// Sights, in the order of the proto's enum.
const (
	// SightUnknown: nothing was tried yet.
	SightUnknown Sight = iota
	// SightOK: replies arrive.
	SightOK
	// SightRefused: a connection was refused or reset.
	SightRefused
	// SightTimeout: requests stay unanswered, or connecting times out.
	SightTimeout
	// SightFenced: the node refuses the credentials, or is not the admitted
	// incarnation.
	SightFenced
)

// String is the name in logs.
func (s Sight) String() string {
	return [...]string{"unknown", "ok", "refused", "timeout", "fenced"}[s]
}
