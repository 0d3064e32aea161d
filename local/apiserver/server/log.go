package server

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"
)

// routeLogs sends what upstream's packages log to our logger, one level lower: what
// they call information is for their developers, and most of what they call errors
// are conflicts that a retry mends.
func routeLogs(log *slog.Logger) {
	klog.SetSlogLogger(slog.New(upstream{log.Handler()}))
}

type upstream struct{ slog.Handler }

func lower(level slog.Level) slog.Level {
	if level >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (u upstream) Enabled(ctx context.Context, level slog.Level) bool {
	return u.Handler.Enabled(ctx, lower(level))
}

func (u upstream) Handle(ctx context.Context, record slog.Record) error {
	record.Level = lower(record.Level)
	return u.Handler.Handle(ctx, record)
}

func (u upstream) WithAttrs(attrs []slog.Attr) slog.Handler {
	return upstream{u.Handler.WithAttrs(attrs)}
}
func (u upstream) WithGroup(name string) slog.Handler { return upstream{u.Handler.WithGroup(name)} }
