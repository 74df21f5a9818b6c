// Package client connects admin programs to Configservers.
package client

import (
	"errors"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// Dial connects an admin to any of several Configservers, "host:port" each, in
// the order given: the next one is tried when one is away. No options mean
// plain text. It does not wait for a connection.
func Dial(addresses []string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	if len(addresses) == 0 {
		return nil, errors.New("no configserver address")
	}
	var endpoints []resolver.Endpoint
	for _, address := range addresses {
		address = strings.TrimSpace(address)
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, errors.New("configserver address " + address + ": write HOST:PORT")
		}
		endpoints = append(endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
	}
	if len(options) == 0 {
		options = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	r := manual.NewBuilderWithScheme("basalt")
	r.InitialState(resolver.State{Endpoints: endpoints})
	options = append(options[:len(options):len(options)],
		grpc.WithResolvers(r),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
	)
	return grpc.NewClient(r.Scheme()+":///configserver", options...)
}
