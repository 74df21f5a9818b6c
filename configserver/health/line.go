package health

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
)

const adminUser = credentials.AdminUser

// Bounds of what a probed server may answer.
const (
	maxBulk  = 4 << 20
	maxItems = 10000
	maxDepth = 4
)

// replyError is an error reply, without its "-".
type replyError string

type reply struct {
	value any
	err   error
}

// line is a connection that is read all the time, so that its end is noticed
// even when nothing was asked. (A client library looks only when it is used.)
type line struct {
	nc      net.Conn
	replies chan []reply // that came together
	stop    func() bool
	done    chan struct{}
}

func newLine(ctx context.Context, nc net.Conn) *line {
	l := &line{nc: nc, replies: make(chan []reply, 8), done: make(chan struct{})}
	l.stop = context.AfterFunc(ctx, func() { _ = nc.Close() })
	go l.read()
	return l
}

func (l *line) close() {
	l.stop()
	close(l.done)
	_ = l.nc.Close()
}

func (l *line) read() {
	in := bufio.NewReaderSize(l.nc, 16<<10)
	var together []reply
	for {
		value, err := readReply(in, 0)
		together = append(together, reply{value, err})
		if err == nil && in.Buffered() > 0 {
			continue
		}
		select {
		case l.replies <- together:
		case <-l.done:
			return
		}
		if err != nil {
			return
		}
		together = nil
	}
}

// request is some commands as they are sent in one write.
type request struct {
	text    []byte
	replies int
}

func newRequest(commands ...[]string) request {
	var b []byte
	for _, command := range commands {
		b = fmt.Appendf(b, "*%d\r\n", len(command))
		for _, arg := range command {
			b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(arg), arg)
		}
	}
	return request{b, len(commands)}
}

// send needs no deadline: one request is under way at a time, and any buffer takes that.
func (l *line) send(r request) error {
	_, err := l.nc.Write(r.text)
	return err
}

// readReply reads one RESP2 reply: a string, int64, nil, []any or replyError.
func readReply(in *bufio.Reader, depth int) (any, error) {
	head, err := in.ReadSlice('\n') // no longer than the reader's buffer
	if err != nil {
		return nil, err
	}
	head = bytes.TrimRight(head, "\r\n")
	if len(head) == 0 || depth > maxDepth {
		return nil, errMalformed
	}
	kind, rest := head[0], head[1:]
	switch kind {
	case '+':
		return string(rest), nil
	case '-':
		return replyError(rest), nil
	}
	n, err := strconv.ParseInt(string(rest), 10, 64)
	if err != nil {
		return nil, errMalformed
	}
	switch {
	case kind == ':':
		return n, nil
	case n == -1 && (kind == '$' || kind == '*'):
		return nil, nil
	case kind == '$' && n >= 0 && n <= maxBulk:
		return readBulk(in, int(n))
	case kind == '*' && n >= 0 && n <= maxItems:
		items := make([]any, 0, n)
		for range n {
			item, err := readReply(in, depth+1)
			if err != nil {
				return nil, err
			}
			items = append(items, item)
		}
		return items, nil
	}
	return nil, errMalformed
}

var errMalformed = errors.New("malformed reply")

// readBulk reads n bytes and the line's end.
func readBulk(in *bufio.Reader, n int) (any, error) {
	if n+2 <= in.Size() {
		body, err := in.Peek(n + 2)
		if err != nil {
			return nil, err
		}
		text := string(body[:n])
		_, err = in.Discard(n + 2)
		return text, err
	}
	body := make([]byte, n+2)
	if _, err := io.ReadFull(in, body); err != nil {
		return nil, err
	}
	return string(body[:n]), nil
}

func wrongPassword(text string) bool {
	return strings.HasPrefix(text, "WRONGPASS") || strings.HasPrefix(text, "NOPERM")
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}

// texts are the strings of an array.
func texts(array []any) (list []string) {
	for _, v := range array {
		if text, ok := v.(string); ok {
			list = append(list, text)
		}
	}
	return list
}

// defaultUser reads ACL GETUSER default.
func defaultUser(fields []any) redisadmin.DefaultUser {
	words := []string{"user", "default"}
	for i := 0; i+1 < len(fields); i += 2 {
		switch name, _ := fields[i].(string); name {
		case "flags", "commands", "keys", "channels":
			switch v := fields[i+1].(type) {
			case string:
				words = append(words, v)
			case []any:
				for _, word := range texts(v) {
					if name == "keys" { // of servers before 7.0
						word = "~" + word
					}
					words = append(words, word)
				}
			}
		}
	}
	return redisadmin.DefaultUserOf(strings.Join(words, " "))
}
