package accesslog_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/proxy/accesslog"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const fileType = `"@type":"type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"`

// read is an access_log entry from its JSON form.
func read(t *testing.T, text string) *accesslogv3.AccessLog {
	t.Helper()
	var entry accesslogv3.AccessLog
	if err := protojson.Unmarshal([]byte(text), &entry); err != nil {
		t.Fatal(err)
	}
	return &entry
}

// toFile is an entry that writes to path, with more fields of the configuration or entry.
func toFile(t *testing.T, path, config, entry string) *accesslogv3.AccessLog {
	t.Helper()
	return read(t, `{"name":"a",`+entry+`"typedConfig":{`+fileType+`,`+config+`"path":"`+path+`"}}`)
}

func text(format string) string {
	return `"logFormat":{"textFormatSource":{"inlineString":"` + format + `\n"}},`
}

type fixture struct {
	files *accesslog.Files
	stats *stats.Store
	path  string
}

func newFixture(t *testing.T) fixture {
	store := stats.NewStore()
	return fixture{accesslog.NewFiles(store.Scope(""), time.Second), store, filepath.Join(t.TempDir(), "access.log")}
}

func (f fixture) build(t *testing.T, entries ...*accesslogv3.AccessLog) []accesslog.Logger {
	t.Helper()
	loggers, err := accesslog.Build(entries, accesslog.Env{Files: f.files})
	if err != nil {
		t.Fatal(err)
	}
	return loggers
}

func (f fixture) content(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (f fixture) counter(name string) uint64 {
	return f.stats.Scope("filesystem.").Counter(name).Value()
}

func stream(path string) *http.Stream {
	s := &http.Stream{}
	s.Request = http.Request{Method: []byte("GET"), Path: []byte(path), Authority: []byte("a.test")}
	s.Info = streaminfo.Info{Start: time.Unix(1795264498, 0), End: time.Unix(1795264498, 14e6), Protocol: "HTTP/1.1", Code: 200}
	return s
}

func TestFormats(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct{ name, config, want string }{
		{"default", ``, `[2026-11-21T12:34:58.000Z] "GET /x HTTP/1.1" 200 - 0 0 14 - "-" "-" "-" "a.test" "-"`},
		{"text", text("%REQ(:PATH)% %RESPONSE_CODE%"), "/x 200"},
		{"older text", `"format":"%REQ(:PATH)%\n",`, "/x"},
		{"JSON", `"logFormat":{"jsonFormat":{"path":"%REQ(:PATH)%","code":"%RESPONSE_CODE%"}},`, `{"code":200,"path":"/x"}`},
		{"older JSON", `"jsonFormat":{"path":"%REQ(:PATH)%"},`, `{"path":"/x"}`},
		{"typed JSON", `"typedJsonFormat":{"code":"%RESPONSE_CODE%"},`, `{"code":200}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			os.Remove(f.path)
			logger := f.build(t, toFile(t, f.path, c.config, ""))[0]
			logger.LogHTTP(stream("/x"))
			logger.Close()
			if got := f.content(t); got != c.want+"\n" {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	f := newFixture(t)
	missing := filepath.Join(filepath.Dir(f.path), "none", "access.log")
	for want, entry := range map[string]*accesslogv3.AccessLog{
		missing: toFile(t, missing, "", ""),
		`access_log[1] "a": log_format: text_format_source: position 0: %NOPE%`: toFile(t, f.path, text("%NOPE%"), ""),
		"typed_config: not set":                              read(t, `{"name":"a"}`),
		"google.protobuf.Duration: not supported":            read(t, `{"name":"a","typedConfig":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}}`),
		"FilterSpecifier: value is required":                 toFile(t, f.path, "", `"filter":{},`),
		"AndFilter.Filters: value must contain at least 2":   toFile(t, f.path, "", `"filter":{"andFilter":{}},`),
		"ResponseFlagFilter.Flags[0]: value must be in list": toFile(t, f.path, "", `"filter":{"orFilter":{"filters":[{"responseFlagFilter":{"flags":["XX"]}},{"traceableFilter":{}}]}},`),
		`extension_filter "envoy.access_loggers.extension_filters.cel"`: toFile(t, f.path, "",
			`"filter":{"extensionFilter":{"name":"envoy.access_loggers.extension_filters.cel","typedConfig":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}}},`),
	} {
		_, err := accesslog.Build([]*accesslogv3.AccessLog{toFile(t, f.path, "", ""), entry}, accesslog.Env{Files: f.files})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestFlush(t *testing.T) {
	t.Run("OB-036 a line is written a second after it was logged", func(t *testing.T) {
		f := newFixture(t)
		synctest.Test(t, func(t *testing.T) {
			logger := f.build(t, toFile(t, f.path, text("x"), ""))[0]
			defer logger.Close()
			logger.LogHTTP(stream("/"))
			time.Sleep(999 * time.Millisecond)
			synctest.Wait()
			if got := f.content(t); got != "" {
				t.Errorf("written early: %q", got)
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if got := f.content(t); got != "x\n" {
				t.Errorf("after a second: %q", got)
			}
		})
	})
	t.Run("OB-036 64 KiB are written at once", func(t *testing.T) {
		f := newFixture(t)
		synctest.Test(t, func(t *testing.T) {
			logger := f.build(t, toFile(t, f.path, text(strings.Repeat("x", 1023)), ""))[0]
			defer logger.Close()
			for range 63 {
				logger.LogHTTP(stream("/"))
			}
			synctest.Wait()
			if n := len(f.content(t)); n != 0 {
				t.Errorf("%d bytes written before there were 64 KiB", n)
			}
			logger.LogHTTP(stream("/"))
			synctest.Wait()
			if n := len(f.content(t)); n != 64<<10 {
				t.Errorf("%d bytes written", n)
			}
		})
	})
	t.Run("beyond 1 MiB lines are dropped and counted, and nobody waits", func(t *testing.T) {
		f := newFixture(t)
		if err := syscall.Mkfifo(f.path, 0o600); err != nil {
			t.Fatal(err)
		}
		pipe, err := os.OpenFile(f.path, os.O_RDWR, 0) // a reader that does not read yet
		if err != nil {
			t.Fatal(err)
		}
		defer pipe.Close()
		logger := f.build(t, toFile(t, f.path, text(strings.Repeat("x", 32<<10-1)), ""))[0]
		for range 200 {
			logger.LogTCP(&streaminfo.Info{})
		}
		written, dropped := f.counter("write_buffered"), f.counter("write_dropped")
		// The flusher took one buffer at most before the pipe was full; another fills up.
		if written+dropped != 200 || written < 32 || written > 64 {
			t.Errorf("%d written and %d dropped of 200", written, dropped)
		}
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			logger.Close()
		}()
		if n, err := io.CopyN(io.Discard, pipe, int64(written)<<15); err != nil {
			t.Errorf("%d bytes of %d lines came out: %v", n, written, err)
		}
		<-closed
	})
	t.Run("a pipe that nobody reads keeps nobody from ending", func(t *testing.T) {
		f := newFixture(t)
		if err := syscall.Mkfifo(f.path, 0o600); err != nil {
			t.Fatal(err)
		}
		pipe, err := os.OpenFile(f.path, os.O_RDWR, 0) // it is never read
		if err != nil {
			t.Fatal(err)
		}
		defer pipe.Close()
		logger := f.build(t, toFile(t, f.path, text(strings.Repeat("x", 32<<10)), ""))[0]
		for range 16 { // more than a pipe takes
			logger.LogTCP(&streaminfo.Info{})
		}
		for waiting := 0; waiting < 64<<10; time.Sleep(time.Millisecond) { // until the writer is stuck
			if waiting, err = unix.IoctlGetInt(int(pipe.Fd()), unix.TIOCINQ); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.files.Reopen(); err == nil || !strings.Contains(err.Error(), "while it takes no bytes") {
			t.Errorf("opened anew: %v", err)
		}
		f.files.Close()
		logger.Close()
		for f.counter("write_failed") == 0 { // the writer gives up too
			time.Sleep(time.Millisecond)
		}
	})
	t.Run("a pipe without a reader is refused", func(t *testing.T) {
		f := newFixture(t)
		if err := syscall.Mkfifo(f.path, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := accesslog.Build([]*accesslogv3.AccessLog{toFile(t, f.path, "", "")}, accesslog.Env{Files: f.files}); !errors.Is(err, syscall.ENXIO) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("Flush writes at once", func(t *testing.T) {
		f := newFixture(t)
		logger := f.build(t, toFile(t, f.path, text("x"), ""))[0]
		defer logger.Close()
		logger.LogTCP(&streaminfo.Info{})
		logger.Flush()
		if got := f.content(t); got != "x\n" {
			t.Errorf("got %q", got)
		}
	})
}

func TestFiles(t *testing.T) {
	t.Run("loggers share a file by its path", func(t *testing.T) {
		f := newFixture(t)
		loggers := f.build(t, toFile(t, f.path, text("a"), ""), toFile(t, f.path, text("b"), ""))
		var wg sync.WaitGroup
		for _, l := range loggers {
			wg.Go(func() {
				for range 1000 {
					l.LogHTTP(stream("/"))
				}
			})
		}
		wg.Wait()
		loggers[0].Close()
		loggers[0].Close() // once more does no harm
		loggers[1].LogHTTP(stream("/"))
		loggers[1].Close()
		got := f.content(t)
		if a, b := strings.Count(got, "a\n"), strings.Count(got, "b\n"); a != 1000 || b != 1001 || len(got) != 2*2001 {
			t.Errorf("%d times a, %d times b in %d bytes", a, b, len(got))
		}
	})
	t.Run("reopened after it was moved away", func(t *testing.T) {
		f := newFixture(t)
		logger := f.build(t, toFile(t, f.path, text("%REQ(:PATH)%"), ""))[0]
		logger.LogHTTP(stream("/before"))
		if err := os.Rename(f.path, f.path+".1"); err != nil {
			t.Fatal(err)
		}
		if err := f.files.Reopen(); err != nil {
			t.Fatal(err)
		}
		logger.LogHTTP(stream("/after"))
		f.files.Close()
		old, err := os.ReadFile(f.path + ".1")
		if got := f.content(t); err != nil || string(old) != "/before\n" || got != "/after\n" {
			t.Errorf("old %q (%v), new %q", old, err, got)
		}
		logger.LogHTTP(stream("/late"))
		if n := f.counter("write_dropped"); n != 1 {
			t.Errorf("%d dropped after the end, want 1", n)
		}
		logger.Close()
	})
	t.Run("a file that cannot be reopened goes on", func(t *testing.T) {
		f := newFixture(t)
		logger := f.build(t, toFile(t, f.path, text("x"), ""))[0]
		defer logger.Close()
		moved := f.path + ".1"
		if err := os.Rename(f.path, moved); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(f.path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := f.files.Reopen(); err == nil || !strings.Contains(err.Error(), f.path) {
			t.Errorf("error %v, want one that names the file", err)
		}
		logger.LogHTTP(stream("/"))
		logger.Flush()
		if b, err := os.ReadFile(moved); err != nil || string(b) != "x\n" || f.counter("reopen_failed") != 1 {
			t.Errorf("old file %q (%v), reopen_failed %d", b, err, f.counter("reopen_failed"))
		}
	})
}

func TestFilters(t *testing.T) {
	grpcStream := func(status string) *http.Stream {
		s := stream("/")
		s.Response.Headers.Add([]byte("grpc-status"), []byte(status))
		return s
	}
	with := func(edit func(*http.Stream)) *http.Stream {
		s := stream("/")
		edit(s)
		return s
	}
	code := func(n int) *http.Stream { return with(func(s *http.Stream) { s.Info.Code = n }) }
	flag := func(f streaminfo.Flag) *http.Stream { return with(func(s *http.Stream) { s.Info.Flags.Set(f) }) }
	head := func(name, value string) *http.Stream {
		return with(func(s *http.Stream) { s.Request.Headers.Add([]byte(name), []byte(value)) })
	}
	lasting := func(d time.Duration) *http.Stream {
		return with(func(s *http.Stream) { s.Info.End = s.Info.Start.Add(d) })
	}
	data := func(v any) *http.Stream {
		return with(func(s *http.Stream) { s.Info.Metadata = map[string]map[string]any{"f": {"k": v}} })
	}
	tcp := (*http.Stream)(nil)
	for _, c := range []struct {
		name, filter string
		yes, no      []*http.Stream
	}{
		{"status code", `{"statusCodeFilter":{"comparison":{"op":"GE","value":{"defaultValue":400,"runtimeKey":"k"}}}}`, []*http.Stream{code(400), code(503)}, []*http.Stream{code(399), tcp}},
		{"status code equal", `{"statusCodeFilter":{"comparison":{"value":{"defaultValue":0,"runtimeKey":"k"}}}}`, []*http.Stream{tcp}, []*http.Stream{code(200)}},
		{"status code not", `{"statusCodeFilter":{"comparison":{"op":"NE","value":{"defaultValue":200,"runtimeKey":"k"}}}}`, []*http.Stream{code(201)}, []*http.Stream{code(200)}},
		{"duration", `{"durationFilter":{"comparison":{"op":"LE","value":{"defaultValue":10,"runtimeKey":"k"}}}}`, []*http.Stream{lasting(10 * time.Millisecond)}, []*http.Stream{lasting(11 * time.Millisecond), tcp}},
		{"not health check", `{"notHealthCheckFilter":{}}`, []*http.Stream{code(200)}, nil},
		{"traceable", `{"traceableFilter":{}}`, []*http.Stream{head("x-request-id", "28255618-6ca5-ad91-9634-c562694a3625")}, []*http.Stream{code(200), head("x-request-id", "28255618-6ca5-9d91-9634-c562694a3625"), head("x-request-id", "short"), tcp}},
		{"runtime, all", `{"runtimeFilter":{"runtimeKey":"k","percentSampled":{"numerator":100}}}`, []*http.Stream{code(200), tcp}, nil},
		{"runtime, by request id", `{"runtimeFilter":{"runtimeKey":"k","percentSampled":{"numerator":50}}}`, []*http.Stream{head("x-request-id", "00000031-x")}, []*http.Stream{head("x-request-id", "00000032-x")}},
		{"runtime, none", `{"runtimeFilter":{"runtimeKey":"k","percentSampled":{},"useIndependentRandomness":true}}`, nil, []*http.Stream{head("x-request-id", "00000000-x")}},
		{"and", `{"andFilter":{"filters":[{"notHealthCheckFilter":{}},{"responseFlagFilter":{}}]}}`, []*http.Stream{flag(streaminfo.NoRouteFound)}, []*http.Stream{code(200)}},
		{"or", `{"orFilter":{"filters":[{"responseFlagFilter":{"flags":["NR"]}},{"responseFlagFilter":{"flags":["UF","UH"]}}]}}`, []*http.Stream{flag(streaminfo.NoRouteFound), flag(streaminfo.NoHealthyUpstream)}, []*http.Stream{code(200), flag(streaminfo.UpstreamOverflow)}},
		{"header", `{"headerFilter":{"header":{"name":"X-A","stringMatch":{"exact":"2"}}}}`, []*http.Stream{with(func(s *http.Stream) {
			s.Request.Headers.Add([]byte("x-a"), []byte("1"))
			s.Request.Headers.Add([]byte("X-A"), []byte("2"))
		})}, []*http.Stream{head("x-a", "1"), tcp}},
		{"gRPC status", `{"grpcStatusFilter":{"statuses":["NOT_FOUND"]}}`, []*http.Stream{grpcStream("5")}, []*http.Stream{grpcStream("0"), code(200)}},
		{"gRPC status excluded", `{"grpcStatusFilter":{"statuses":["NOT_FOUND","UNKNOWN"],"exclude":true}}`, []*http.Stream{grpcStream("0")}, []*http.Stream{grpcStream("5"), tcp}},
		{"metadata", `{"metadataFilter":{"matcher":{"filter":"f","path":[{"key":"k"}],"value":{"boolMatch":true}}}}`, []*http.Stream{data(true), code(200)}, []*http.Stream{data(false)}},
		{"metadata must be there", `{"metadataFilter":{"matchIfKeyNotFound":false,"matcher":{"filter":"f","path":[{"key":"k"}],"value":{"boolMatch":true}}}}`, []*http.Stream{data(true)}, []*http.Stream{code(200)}},
		{"log type", `{"logTypeFilter":{"types":["TcpConnectionEnd"]}}`, []*http.Stream{tcp}, []*http.Stream{code(200)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			logger := f.build(t, toFile(t, f.path, text("x"), `"filter":`+c.filter+`,`))[0]
			defer logger.Close()
			passes := func(s *http.Stream) bool {
				before := f.counter("write_buffered")
				if s == tcp {
					logger.LogTCP(&streaminfo.Info{})
				} else {
					logger.LogHTTP(s)
				}
				return f.counter("write_buffered") > before
			}
			for i, s := range c.yes {
				if !passes(s) {
					t.Errorf("yes[%d] is not logged", i)
				}
			}
			for i, s := range c.no {
				if passes(s) {
					t.Errorf("no[%d] is logged", i)
				}
			}
		})
	}
}
