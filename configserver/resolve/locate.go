package resolve

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// glimpse bounds a look at who answers somewhere.
const glimpse = 300 * time.Millisecond

// Place is where to connect to a node.
type Place struct {
	// Endpoint to dial.
	Endpoint string
	// Astray is what the node's name means now, when the admitted process answers
	// where it was, and not there; "" otherwise.
	Astray string
	// Guess: the name could not be looked up; Endpoint is where the node was.
	Guess bool
}

// Locate says where to connect to whoever is a node now. It only looks: who answers
// must be judged on the connection that is made.
//
//  1. An "ip:port" is taken as it is.
//  2. A name that cannot be looked up: where the node was admitted. That the DNS is away
//     must not look as if servers were dead.
//  3. Of what the name means, the first of prefer, and then the endpoint that was
//     admitted: a name with several addresses must not lead to another one each time.
//  4. The name means something else: where the admitted process answers, be it where
//     the name leads or where it was. A name that is changed, by mistake perhaps, takes
//     nobody away from a server that is well.
//  5. Otherwise what the name means, the first that answers.
func Locate(ctx context.Context, look Func, n *topology.Node, passwords []string, prefer ...string) (Place, error) {
	if topology.Literal(n.Address) {
		return Place{Endpoint: n.Address}, nil
	}
	bounded, cancel := share(ctx, 2, timeout)
	answers, err := look(bounded, n.Address)
	cancel()
	switch {
	case err == nil && len(answers) == 0:
		err = errNoAddress
		fallthrough
	case err != nil:
		if n.Resolved != "" && ctx.Err() == nil {
			return Place{Endpoint: n.Resolved, Guess: true}, nil
		}
		return Place{}, err
	}
	for _, at := range append(slices.Clone(prefer), n.Resolved) {
		if at != "" && slices.Contains(answers, at) {
			return Place{Endpoint: at}, nil
		}
	}
	if n.Resolved == "" && len(answers) == 1 {
		return Place{Endpoint: answers[0]}, nil
	}
	first := ""
	for _, at := range answers {
		run, reached := whoIs(ctx, at, passwords)
		if reached && n.Incarnation != "" && run == n.Incarnation {
			return Place{Endpoint: at}, nil
		}
		if reached && first == "" {
			first = at
		}
	}
	if n.Resolved != "" && n.Incarnation != "" {
		if run, _ := whoIs(ctx, n.Resolved, passwords); run == n.Incarnation {
			return Place{Endpoint: n.Resolved, Astray: answers[0]}, nil
		}
	}
	if first == "" {
		first = answers[0]
	}
	return Place{Endpoint: first}, nil
}

// whoIs looks which process answers, "" when it does not say, and if anybody is there.
func whoIs(ctx context.Context, endpoint string, passwords []string) (run string, reached bool) {
	ctx, cancel := share(ctx, 3, glimpse)
	defer cancel()
	c, err := redisadmin.Dial(ctx, endpoint, passwords)
	if err != nil {
		sight, _ := redisadmin.SightOf(err)
		return "", sight == topology.SightFenced || errors.Is(err, redisadmin.ErrSilent)
	}
	defer c.Close()
	return c.Info.RunID, true
}

// share is a part of the time that is left in ctx, at most so much, lest nothing
// is left for what comes after.
func share(ctx context.Context, part int, most time.Duration) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(end)/time.Duration(part))
	}
	return context.WithTimeout(ctx, most)
}
