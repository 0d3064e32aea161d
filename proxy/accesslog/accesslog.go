// Package accesslog writes one line for each finished stream or connection.
//
// Build compiles the access_log list of a listener or connection manager into
// Loggers: a filter, a format (package format) and a file. Files owns the open files
// of the proxy, one for each path however many loggers write to it. A line is
// formatted outside of any lock and copied into the file's buffer; one goroutine for
// each file writes the buffer out at 64 KiB or an interval after its first line (the
// proxy's --file-flush-interval-msec), while lines go on into a second buffer. When the
// disk is slower than the traffic, lines beyond 1 MiB are dropped and counted
// (filesystem.write_dropped); a stream never waits for its log.
package accesslog

import (
	"errors"
	"fmt"
	"sync"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A Logger writes the records of one access_log entry. It is safe for concurrent use.
type Logger interface {
	// LogHTTP records a finished HTTP stream.
	LogHTTP(s *http.Stream)
	// LogTCP records a finished connection.
	LogTCP(info *streaminfo.Info)
	// Flush writes what is buffered to the file.
	Flush()
	// Close writes out and gives up the file; the Logger is not used after it.
	Close()
}

// Env is what loggers may use of the proxy around them.
type Env struct {
	Files *Files
	// Runtime has values that may change; nil has none.
	Runtime *runtime.Values
}

// defaultFormat is Envoy's for an entry without one.
const defaultFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"` + "\n"

// Build compiles access logs. A file that cannot be opened is an error that names
// it. On error nothing stays open.
func Build(logs []*accesslogv3.AccessLog, env Env) ([]Logger, error) {
	var out []Logger
	for i, entry := range logs {
		l, err := build(entry, env)
		if err != nil {
			for _, opened := range out {
				opened.Close()
			}
			return nil, fmt.Errorf("access_log[%d] %q: %w", i, entry.GetName(), err)
		}
		out = append(out, l)
	}
	return out, nil
}

func build(entry *accesslogv3.AccessLog, env Env) (Logger, error) {
	if err := entry.Validate(); err != nil {
		return nil, err
	}
	f, err := newFilter(entry.GetFilter(), env.Runtime)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	path, text, err := target(entry.GetTypedConfig())
	if err != nil {
		return nil, err
	}
	sink, err := env.Files.open(path)
	if err != nil {
		return nil, err
	}
	return &logger{filter: f, format: text, files: env.Files, file: sink}, nil
}

// target is the file and the format that a logger's configuration asks for.
func target(cfg *anypb.Any) (path string, f *format.Format, err error) {
	if cfg == nil {
		return "", nil, errors.New("typed_config: not set")
	}
	m, err := cfg.UnmarshalNew()
	if err != nil {
		return "", nil, fmt.Errorf("%s: not supported", cfg.GetTypeUrl())
	}
	switch c := m.(type) {
	case *filev3.FileAccessLog:
		if c.GetPath() == "" {
			return "", nil, errors.New("path: must not be empty")
		}
		f, err = fileFormat(c)
		return c.GetPath(), f, err
	case *streamv3.StdoutAccessLog:
		f, err = newFormat(c.GetLogFormat())
		return "/dev/stdout", f, err
	case *streamv3.StderrAccessLog:
		f, err = newFormat(c.GetLogFormat())
		return "/dev/stderr", f, err
	}
	return "", nil, fmt.Errorf("%s: not supported", cfg.GetTypeUrl())
}

// fileFormat reads the format of a file log, also in its older forms.
func fileFormat(c *filev3.FileAccessLog) (*format.Format, error) {
	switch s := c.GetAccessLogFormat().(type) {
	case *filev3.FileAccessLog_LogFormat:
		return newFormat(s.LogFormat)
	case *filev3.FileAccessLog_Format:
		if s.Format == "" {
			break
		}
		f, err := format.Parse(s.Format)
		if err != nil {
			return nil, fmt.Errorf("format: %w", err)
		}
		return f, nil
	case *filev3.FileAccessLog_JsonFormat:
		return newJSON("json_format", s.JsonFormat)
	case *filev3.FileAccessLog_TypedJsonFormat:
		return newJSON("typed_json_format", s.TypedJsonFormat)
	}
	return format.Parse(defaultFormat)
}

func newJSON(field string, s *structpb.Struct) (*format.Format, error) {
	f, err := format.ParseJSON(s, false)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return f, nil
}

func newFormat(s *corev3.SubstitutionFormatString) (*format.Format, error) {
	if s == nil {
		return format.Parse(defaultFormat)
	}
	f, err := format.New(s)
	if err != nil {
		return nil, fmt.Errorf("log_format: %w", err)
	}
	return f, nil
}

// logger is a Logger to a file.
type logger struct {
	filter filter // nil: everything
	format *format.Format
	files  *Files
	file   *file
	closed sync.Once
}

func (l *logger) LogHTTP(s *http.Stream) { l.log(format.Of(s)) }

func (l *logger) LogTCP(info *streaminfo.Info) { l.log(format.Record{Info: info}) }

// lines are buffers in which lines are formatted.
var lines = sync.Pool{New: func() any { return new([]byte) }}

const maxKeptLine = 16 << 10

func (l *logger) log(rec format.Record) {
	if l.filter != nil && !l.filter.passes(rec) {
		return
	}
	line := lines.Get().(*[]byte)
	*line = l.format.Append((*line)[:0], rec)
	l.file.write(*line)
	if cap(*line) <= maxKeptLine {
		lines.Put(line)
	}
}

func (l *logger) Flush() { l.file.flush() }

func (l *logger) Close() { l.closed.Do(func() { l.files.release(l.file) }) }
