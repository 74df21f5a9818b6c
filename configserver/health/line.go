package health

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

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
	replies chan reply
	stop    func() bool
	done    chan struct{}
}

func newLine(ctx context.Context, nc net.Conn) *line {
	l := &line{nc: nc, replies: make(chan reply, 8), done: make(chan struct{})}
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
	for {
		value, err := readReply(in, 0)
		select {
		case l.replies <- reply{value, err}:
		case <-l.done:
			return
		}
		if err != nil {
			return
		}
	}
}

func (l *line) send(commands ...[]string) error {
	var b strings.Builder
	for _, command := range commands {
		fmt.Fprintf(&b, "*%d\r\n", len(command))
		for _, arg := range command {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
		}
	}
	_ = l.nc.SetWriteDeadline(time.Now().Add(dialTimeout))
	_, err := io.WriteString(l.nc, b.String())
	return err
}

// readReply reads one RESP2 reply: a string, int64, nil, []any or replyError.
func readReply(in *bufio.Reader, depth int) (any, error) {
	text, err := in.ReadSlice('\n') // no longer than the reader's buffer
	if err != nil {
		return nil, err
	}
	head := strings.TrimRight(string(text), "\r\n")
	if head == "" || depth > maxDepth {
		return nil, fmt.Errorf("malformed reply")
	}
	kind, rest := head[0], head[1:]
	switch kind {
	case '+':
		return rest, nil
	case '-':
		return replyError(rest), nil
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("malformed reply")
	}
	switch {
	case kind == ':':
		return n, nil
	case n == -1 && (kind == '$' || kind == '*'):
		return nil, nil
	case kind == '$' && n >= 0 && n <= maxBulk:
		body := make([]byte, n+2)
		if _, err := io.ReadFull(in, body); err != nil {
			return nil, err
		}
		return string(body[:n]), nil
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
	return nil, fmt.Errorf("malformed reply")
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
