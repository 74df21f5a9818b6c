package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logFile is etcd's own log, in Config.Dir. On a disk that is full it tells nothing.
const logFile = "etcd.log"

// newLog is etcd's log. Where etcd gives up it ends the process by a line of its log;
// that line must also go to where people look.
func newLog(c *Config) (*zap.Logger, error) {
	cfg := zap.NewProductionConfig()
	cfg.Level = zap.NewAtomicLevelAt(zap.ErrorLevel)
	cfg.Sampling = nil
	cfg.OutputPaths = []string{filepath.Join(c.Dir, logFile)}
	cfg.ErrorOutputPaths = []string{os.DevNull} // that the log cannot be written is not news
	log, err := cfg.Build(zap.WithFatalHook(ending{c}), zap.WithPanicHook(ending{c}))
	if err != nil {
		return nil, fmt.Errorf("etcd's log: %w", err)
	}
	return log, nil
}

// ending ends the process after the last line of etcd's log.
type ending struct{ c *Config }

// OnWrite implements zapcore.CheckWriteHook.
func (e ending) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(entry.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			err = fmt.Errorf("%s: %w", entry.Message, cause)
		}
	}
	err = fmt.Errorf("the embedded etcd in %s cannot go on: %w", e.c.Dir, err)
	if e.c.Fatal != nil {
		e.c.Fatal(err)
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}
