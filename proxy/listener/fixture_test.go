package listener

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// greeter is a terminal filter that says its name and then echoes.
type greeter struct {
	name  string
	drain bool // ends when the connection drains
	stale bool // answers whether it is stale
}

func (g *greeter) Serve(_ context.Context, c *network.Conn) {
	if _, err := io.WriteString(c, g.name+"\n"); err != nil {
		return
	}
	if g.stale {
		go func() { // answers "?" instead of echoing
			_, _ = io.ReadFull(c, make([]byte, 1))
			_, _ = fmt.Fprintln(c, c.Stale())
			_ = c.Close()
		}()
		<-c.Draining
		return
	}
	if g.drain {
		go func() { <-c.Draining; _ = c.Close() }()
	}
	_, _ = io.Copy(c, c) // ends with the connection
}

// fixture is a Set with what its filters and loggers saw.
type fixture struct {
	*Set
	t     *testing.T
	store *stats.Store
	warm  chan struct{} // nil: filters are warm at once

	mu     sync.Mutex
	lines  []string
	closed []string
	logged chan struct{}
}

func newFixture(t *testing.T, adjust func(*Options)) *fixture {
	f := &fixture{t: t, store: stats.NewStore(), logged: make(chan struct{}, 100)}
	o := Options{
		Network: []network.Factory{{Name: "greeter", TypeURLs: []string{"google.protobuf.StringValue"}, New: f.greeter}},
		Transport: func(ts *corepb.TransportSocket, scope *stats.Scope) (transport.ServerSocket, error) {
			return transport.DecodeServer(ts, transport.Env{Stats: scope})
		},
		AccessLog: func(l []*accesslogpb.AccessLog) ([]Logger, error) { return []Logger{f}, nil },
		Stats:     f.store, Log: slog.New(slog.DiscardHandler), DrainTime: time.Minute,
	}
	if adjust != nil {
		adjust(&o)
	}
	f.Set = NewSet(o)
	f.Start()
	t.Cleanup(f.Set.Close)
	return f
}

func (f *fixture) greeter(cfg *anypb.Any, _ network.Env) (network.Built, error) {
	var s wrapperspb.StringValue
	if err := cfg.UnmarshalTo(&s); err != nil {
		return network.Built{}, err
	}
	name, drain := strings.CutSuffix(s.GetValue(), " drain")
	return network.Built{Terminal: &greeter{name, drain, strings.HasPrefix(name, "stale")}, Warm: f.warm, Close: func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.closed = append(f.closed, name)
	}}, nil
}

func (f *fixture) LogTCP(i *streaminfo.Info) {
	f.mu.Lock()
	f.lines = append(f.lines, fmt.Sprintf("%s %s sni=%s chain=%s local=%s", i.Flags, i.CodeDetails, i.ServerName, i.FilterChain, i.DownstreamLocal))
	f.mu.Unlock()
	f.logged <- struct{}{}
}

func (f *fixture) Close() {}

func (f *fixture) lastLine() string {
	f.t.Helper()
	select {
	case <-f.logged:
	case <-time.After(5 * time.Second):
		f.t.Fatal("no log line")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lines[len(f.lines)-1]
}

func (f *fixture) decode(text string) (*Config, error) {
	f.t.Helper()
	var l listenerpb.Listener
	if err := protojson.Unmarshal([]byte(text), &l); err != nil {
		f.t.Fatal(err)
	}
	return f.Decode(&l)
}

// apply decodes and applies listeners, and returns the address of the first.
func (f *fixture) apply(removed []string, texts ...string) string {
	f.t.Helper()
	var list []*Config
	for _, text := range texts {
		c, err := f.decode(text)
		if err != nil {
			f.t.Fatal(err)
		}
		list = append(list, c)
	}
	if err := f.Apply(list, removed); err != nil {
		f.t.Fatal(err)
	}
	if len(list) == 0 {
		return ""
	}
	for _, v := range f.View() {
		if v.Name == list[0].name {
			return v.Addresses[0]
		}
	}
	f.t.Fatalf("no listener %s", list[0].name)
	return ""
}

// stat waits for a counter or gauge to have a value.
func (f *fixture) stat(name string, want string) {
	f.t.Helper()
	var got string
	for range 500 {
		var b strings.Builder
		_ = f.store.WriteText(&b, stats.Query{}) // a Builder does not fail
		for line := range strings.Lines(b.String()) {
			if rest, ok := strings.CutPrefix(line, name+": "); ok {
				got = strings.TrimSpace(rest)
			}
		}
		if got == want {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	f.t.Errorf("%s: got %s, want %s", name, got, want)
}

func address0(name, rest string) string {
	return fmt.Sprintf(`{"name": %q, "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}, %s}`, name, rest)
}

func chainNamed(name, greeting, match string) string {
	if match == "" {
		match = "{}"
	}
	return fmt.Sprintf(`{"name": %q, "filter_chain_match": %s, "filters": [{"name": "greeter",
	 "typed_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": %q}}]}`, name, match, greeting)
}

type client struct {
	net.Conn
	t *testing.T
}

func (f *fixture) dial(addr string) client {
	f.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return client{c, f.t}
}

// line reads up to a line feed.
func (c client) line() string {
	c.t.Helper()
	var b []byte
	one := make([]byte, 1)
	for {
		if _, err := c.Read(one); err != nil {
			return string(b) + "<" + ending(err) + ">"
		}
		if one[0] == '\n' {
			return string(b)
		}
		b = append(b, one[0])
	}
}

func ending(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "end"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "nothing"
	}
	return err.Error()
}

func (c client) say(s string) client {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
	return c
}
