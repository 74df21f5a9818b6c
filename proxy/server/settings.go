package server

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/proxy/configclient"
	"github.com/basalt-redis/basalt/proxy/introspect"
)

// CONFIG: what the proxy's settings are, and the way of the servers' to the
// Configserver, which alone may set them.

// setTimeout bounds the wait for the Configserver.
const setTimeout = 10 * time.Second

// parameters are the proxy's settings as CONFIG GET shows them.
func (s *Server) parameters() introspect.Parameters {
	c := s.cfg
	return introspect.Parameters{
		Port: s.port(), Bind: s.host(), ClusterMode: c.ClusterMode, MaxClients: c.MaxClients, Loops: s.loops(),
		RequestBytes: c.MaxRequestBytes, InlineBytes: c.MaxInlineBytes, ClientReplyBufferBytes: c.ClientReplyBufferBytes,
		ClientPubSubBufferBytes: c.ClientPubSubBufferBytes, Debug: c.EnableDebugCommand,
	}
}

func (s *Server) configGet(dst []byte, args [][]byte, proto int, server []string) []byte {
	return introspect.ConfigGet(dst, args, proto, s.parameters(), server)
}

func (s *Server) configSet(dst []byte, args [][]byte) []byte {
	rest, line := introspect.ConfigSet(args, s.parameters())
	if line != nil {
		return append(dst, line...)
	}
	for i := 0; i+1 < len(rest); i += 2 {
		if !utf8.ValidString(rest[i]) || !utf8.ValidString(rest[i+1]) {
			return appendRefusal(dst, "ERR CONFIG SET failed (possibly related to argument '"+strings.ToValidUTF8(rest[i], "?")+"') - it is not UTF-8")
		}
	}
	if len(rest) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), setTimeout)
		defer cancel()
		if err := s.client.SetConfig(ctx, rest); err != nil {
			return appendRefusal(dst, setRefusal(err))
		}
	}
	return append(dst, "+OK\r\n"...)
}

// setRefusal is the error reply for an error of the Configserver.
func setRefusal(err error) string {
	message := status.Convert(err).Message()
	switch code := status.Code(err); {
	case errors.Is(err, configclient.ErrAway), code == codes.Unavailable && strings.HasPrefix(message, "no configserver owns"):
		return "ERR CONFIG SET failed - it needs the Configserver, which does not answer now; nothing was changed, retry later"
	case code == codes.InvalidArgument && strings.Contains(strings.SplitN(message, " ", 2)[0], ":"):
		return "ERR CONFIG SET failed - " + message
	case code == codes.InvalidArgument:
		return message // of a server, or in the words of one
	case code == codes.FailedPrecondition, code == codes.NotFound:
		return "ERR CONFIG SET failed - " + message
	case code == codes.Unimplemented:
		return "ERR CONFIG SET failed - the Configserver is older than this proxy; upgrade it"
	}
	return "ERR CONFIG SET failed - it may or may not be done (" + message + "); to set it again does no harm"
}

// appendRefusal appends an error reply; line breaks within would end it early.
func appendRefusal(dst []byte, text string) []byte {
	return append(append(append(dst, '-'), strings.NewReplacer("\r", " ", "\n", " ").Replace(text)...), "\r\n"...)
}
