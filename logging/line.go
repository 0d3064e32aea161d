package logging

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxValue bounds one attribute's text in a line; the rest is cut. NACK texts of
// a foreign proxy can quote whole resources.
const maxValue = 8 << 10

// timeFormat is the one of Istio's components: UTC with microseconds.
const timeFormat = "2006-01-02T15:04:05.000000Z"

var levelNames = map[string]slog.Level{
	"none": LevelNone, "fatal": LevelFatal, "error": slog.LevelError,
	"warn": slog.LevelWarn, "warning": slog.LevelWarn, "info": slog.LevelInfo, "debug": slog.LevelDebug,
}

func levelName(l slog.Level) string {
	switch {
	case l >= LevelNone:
		return "none"
	case l >= LevelFatal:
		return "fatal"
	case l >= slog.LevelError:
		return "error"
	case l >= slog.LevelWarn:
		return "warn"
	case l >= slog.LevelInfo:
		return "info"
	}
	return "debug"
}

// A sink writes whole lines; the lock keeps lines of two goroutines apart.
type sink struct {
	mu   sync.Mutex
	out  io.Writer
	json bool
}

// lines is the slog handler of one scope.
type lines struct {
	sink  *sink
	scope string
	level *slog.LevelVar
	attrs []slog.Attr // from With, keys already prefixed
	group string      // "a.b." from WithGroup
}

func (h *lines) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(slices.Clip(c.attrs), prefixed(h.group, attrs)...)
	return &c
}

func (h *lines) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.group += name + "."
	return &c
}

func (h *lines) Handle(_ context.Context, r slog.Record) error {
	attrs := slices.Clip(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, prefixed(h.group, []slog.Attr{a})...)
		return true
	})
	var line []byte
	if h.sink.json {
		line = h.jsonLine(r, attrs)
	} else {
		line = h.textLine(r, attrs)
	}
	h.sink.mu.Lock()
	defer h.sink.mu.Unlock()
	_, err := h.sink.out.Write(line)
	return err
}

func (h *lines) textLine(r slog.Record, attrs []slog.Attr) []byte {
	line := appendTime(make([]byte, 0, 256), r.Time)
	line = append(line, '\t')
	line = append(line, levelName(r.Level)...)
	line = append(line, '\t')
	if h.scope != DefaultScope && h.scope != "" {
		line = append(line, h.scope...)
		line = append(line, '\t')
	}
	line = append(line, oneLine(r.Message)...)
	for i, a := range attrs {
		line = append(line, "\t "[min(i, 1)])
		line = append(line, a.Key...)
		line = append(line, '=')
		line = append(line, quoted(text(a.Value))...)
	}
	return append(line, '\n')
}

func (h *lines) jsonLine(r slog.Record, attrs []slog.Attr) []byte {
	line := append(make([]byte, 0, 256), `{"level":`...)
	line = appendJSON(line, levelName(r.Level))
	line = append(line, `,"time":"`...)
	line = appendTime(line, r.Time)
	line = append(line, '"')
	if h.scope != DefaultScope && h.scope != "" {
		line = append(line, `,"scope":`...)
		line = appendJSON(line, h.scope)
	}
	line = append(line, `,"msg":`...)
	line = appendJSON(line, r.Message)
	for _, a := range attrs {
		line = append(line, ',')
		line = appendJSON(line, a.Key)
		line = append(line, ':')
		switch a.Value.Kind() {
		case slog.KindInt64, slog.KindUint64, slog.KindFloat64, slog.KindBool:
			line = appendJSON(line, a.Value.Any())
		default:
			line = appendJSON(line, text(a.Value))
		}
	}
	return append(line, '}', '\n')
}

// prefixed resolves values and flattens groups to dotted keys; attributes
// without a key are dropped, as slog asks for.
func prefixed(group string, attrs []slog.Attr) []slog.Attr {
	flat := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		v := a.Value.Resolve()
		switch {
		case v.Kind() == slog.KindGroup && a.Key == "":
			flat = append(flat, prefixed(group, v.Group())...)
		case v.Kind() == slog.KindGroup:
			flat = append(flat, prefixed(group+a.Key+".", v.Group())...)
		case a.Key != "":
			flat = append(flat, slog.Attr{Key: group + a.Key, Value: v})
		}
	}
	return flat
}

// text is the value as people read it, cut to maxValue.
func text(v slog.Value) string {
	s := ""
	switch v.Kind() {
	case slog.KindTime:
		s = v.Time().UTC().Format(timeFormat)
	case slog.KindAny:
		if err, ok := v.Any().(error); ok {
			s = err.Error()
		} else {
			s = fmt.Sprint(v.Any())
		}
	default:
		s = v.String()
	}
	if len(s) <= maxValue {
		return s
	}
	cut := maxValue
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// quoted puts a value in quotes where it could not be told from its surroundings.
func quoted(s string) string {
	plain := func(r rune) bool { return r > ' ' && r != '"' && r != '=' && unicode.IsPrint(r) }
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}

// oneLine keeps a message from breaking the line.
func oneLine(s string) string {
	if !strings.ContainsAny(s, "\n\r") {
		return s
	}
	return strings.NewReplacer("\n", `\n`, "\r", `\r`).Replace(s)
}

func appendTime(line []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(line, '-')
	}
	return t.UTC().AppendFormat(line, timeFormat)
}

func appendJSON(line []byte, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // NaN and infinities have no JSON number
		b, _ = json.Marshal(fmt.Sprint(v))
	}
	return append(line, b...)
}
