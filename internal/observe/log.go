// Package observe is how a program lets itself be seen: its log, its metrics,
// and an HTTP server for them, for health checks and for profiles.
package observe

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// NewLogger returns a logger that writes to w. level is debug, info, warn or
// error; format is text or json. Of warnings and errors that say the same of the same
// thing again and again, the first ones are written, and then one a minute.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log-level: %q is not debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: l}
	switch strings.ToLower(format) {
	case "text":
		return slog.New(newBounded(slog.NewTextHandler(w, options))), nil
	case "json":
		return slog.New(newBounded(slog.NewJSONHandler(w, options))), nil
	default:
		return nil, fmt.Errorf("log-format: %q is not text or json", format)
	}
}
