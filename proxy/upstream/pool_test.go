package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A server answers requests without bodies; what its answers look like is the test's.
type server struct {
	addr   string
	conns  atomic.Int64
	answer func(c net.Conn) bool // false closes the connection
	open   sync.Map
}

func serve(t *testing.T, answer func(net.Conn) bool) *server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), answer: answer}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			s.open.Store(c, nil)
			wg.Go(func() { s.run(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.hangUp()
		wg.Wait()
	})
	return s
}

func (s *server) run(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line == "\r\n" && !s.answer(c) {
			return
		}
	}
}

// hangUp closes all connections.
func (s *server) hangUp() {
	s.open.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
}

func ok(c net.Conn) bool {
	_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
	return err == nil
}

type fixture struct {
	*upstream.Pool
	ep     *endpoint.Endpoint
	limits *upstream.Limits
	stats  *upstream.Stats
	store  *stats.Store
}

func newPool(t *testing.T, addr string, limits upstream.Thresholds, change func(*upstream.Options)) *fixture {
	store := stats.NewStore()
	f := &fixture{ep: &endpoint.Endpoint{Address: addr}, store: store,
		limits: upstream.NewLimits(limits, store.Scope("cluster.c.circuit_breakers.default.")), stats: upstream.NewStats(store.Scope("cluster.c."))}
	o := upstream.Options{Limits: f.limits, Stats: f.stats, Dial: func(ctx context.Context) (transport.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return transport.NewConn(c), nil
	}}
	if change != nil {
		change(&o)
	}
	f.Pool = upstream.NewPool(f.ep, o)
	t.Cleanup(f.Close)
	return f
}

var get = &http.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("a"), Body: http.NoBody}

// exchange does one request to its end.
func (f *fixture) exchange() (string, error) {
	x, err := f.Acquire(nil, time.Time{})
	if err != nil {
		return "", err
	}
	defer x.Release()
	return finish(x)
}

func finish(x http.ClientStream) (string, error) {
	if err := x.WriteHead(get, true); err != nil {
		return "", err
	}
	var r http.Response
	if err := x.ReadHead(&r); err != nil {
		return "", err
	}
	var all []byte
	for {
		p, err := r.Body.Next()
		all = append(all, p...)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return string(all), err
		}
	}
}

func (f *fixture) want(t *testing.T, name string, want uint64) {
	t.Helper()
	if got := f.store.Scope("cluster.c.").Counter(name).Value(); got != want {
		t.Errorf("%s is %d, want %d", name, got, want)
	}
}

// TestReuse: exchanges one after the other share a connection, up to its limit.
func TestReuse(t *testing.T) {
	s := serve(t, ok)
	f := newPool(t, s.addr, upstream.DefaultThresholds, func(o *upstream.Options) { o.MaxRequestsPerConn = 3 })
	for range 7 {
		if got, err := f.exchange(); got != "ok" || err != nil {
			t.Fatal(got, err)
		}
	}
	if n := s.conns.Load(); n != 3 {
		t.Errorf("%d connections, want 3 for 7 requests at 3 each", n)
	}
	f.want(t, "upstream_cx_max_requests", 2)
	f.want(t, "upstream_rq_total", 7)
	f.want(t, "upstream_cx_total", 3)
	if f.limits.Requests.Used() != 0 || f.ep.Active.Load() != 0 || f.limits.Connections.Used() != 1 {
		t.Error("something is still counted as in use")
	}
}

// TestLastUsedFirst: the connection that was used last is used next.
func TestLastUsedFirst(t *testing.T) {
	s := serve(t, ok)
	f := newPool(t, s.addr, upstream.DefaultThresholds, nil)
	a, _ := f.Acquire(nil, time.Time{})
	b, _ := f.Acquire(nil, time.Time{})
	la, lb := a.LocalAddr(), b.LocalAddr()
	for _, x := range []http.ClientStream{a, b} {
		if _, err := finish(x); err != nil {
			t.Fatal(err)
		}
		x.Release()
	}
	x, _ := f.Acquire(nil, time.Time{})
	defer x.Release()
	if x.LocalAddr() != lb || la == lb {
		t.Errorf("took %v, want %v, which was used last", x.LocalAddr(), lb)
	}
}

// TestStale: a connection that the peer has closed while it was idle is not used.
func TestStale(t *testing.T) {
	s := serve(t, ok)
	f := newPool(t, s.addr, upstream.DefaultThresholds, nil)
	for i := range 5 {
		if got, err := f.exchange(); got != "ok" || err != nil {
			t.Fatalf("request %d: %q, %v", i, got, err)
		}
		s.hangUp()
		time.Sleep(5 * time.Millisecond) // for the FIN to arrive
	}
	f.want(t, "upstream_cx_destroy_remote", 4)
}

// TestBroken: an exchange that is given up, or whose answer breaks off, ends its connection.
func TestBroken(t *testing.T) {
	cases := []struct {
		name, answer, want string
	}{
		{"closed without an answer", "", "connection_termination"},
		{"no HTTP", "what?\r\n\r\n", "protocol_error"},
		{"cut off", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "protocol_error"},
		{"closing", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, func(conn net.Conn) bool { _, _ = io.WriteString(conn, c.answer); return false })
			f := newPool(t, s.addr, upstream.DefaultThresholds, nil)
			_, err := f.exchange()
			if got := text(err); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if f.limits.Connections.Used() != 0 || f.limits.Requests.Used() != 0 {
				t.Error("the connection is still counted")
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestConnect: connections that do not come about.
func TestConnect(t *testing.T) {
	never := func(o *upstream.Options) {
		o.ConnectTimeout = 20 * time.Millisecond
		o.Dial = func(ctx context.Context) (transport.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	}
	t.Run("refused", func(t *testing.T) {
		f := newPool(t, "127.0.0.1:1", upstream.DefaultThresholds, nil)
		_, err := f.exchange()
		var r *http.Reset
		if !errors.As(err, &r) || r.Reason != http.RemoteConnectionFailure || !r.Unused || !strings.Contains(r.Detail, "refused") {
			t.Errorf("got %v", err)
		}
		f.want(t, "upstream_cx_connect_fail", 1)
		f.want(t, "upstream_rq_pending_failure_eject", 1)
	})
	t.Run("connect timeout", func(t *testing.T) {
		f := newPool(t, "x", upstream.DefaultThresholds, never)
		if _, err := f.exchange(); text(err) != "connection_timeout" {
			t.Errorf("got %v", err)
		}
		f.want(t, "upstream_cx_connect_timeout", 1)
	})
	t.Run("the request's deadline comes first", func(t *testing.T) {
		f := newPool(t, "x", upstream.DefaultThresholds, func(o *upstream.Options) { never(o); o.ConnectTimeout = time.Minute })
		if _, err := f.Acquire(nil, time.Now().Add(20*time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		f := newPool(t, "x", upstream.DefaultThresholds, func(o *upstream.Options) { never(o); o.ConnectTimeout = time.Minute })
		done := make(chan struct{})
		time.AfterFunc(10*time.Millisecond, func() { close(done) })
		if _, err := f.Acquire(done, time.Time{}); text(err) != "local_reset" {
			t.Errorf("got %v", err)
		}
	})
}

// TestLimits: circuit breakers.
func TestLimits(t *testing.T) {
	overflow := func(t *testing.T, err error) {
		t.Helper()
		if text(err) != "overflow" {
			t.Errorf("got %v, want overflow", err)
		}
	}
	t.Run("requests", func(t *testing.T) {
		s := serve(t, ok)
		f := newPool(t, s.addr, upstream.Thresholds{Connections: 9, Pending: 9, Requests: 1, TrackRemaining: true}, nil)
		x, err := f.Acquire(nil, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Acquire(nil, time.Time{})
		overflow(t, err)
		scope := f.store.Scope("cluster.c.circuit_breakers.default.")
		if scope.Gauge("rq_open").Value() != 1 || scope.Gauge("remaining_rq").Value() != 0 {
			t.Error("the open circuit breaker does not show")
		}
		_, _ = finish(x)
		x.Release()
		if scope.Gauge("rq_open").Value() != 0 || scope.Gauge("remaining_rq").Value() != 1 {
			t.Error("the closed circuit breaker does not show")
		}
		f.want(t, "upstream_rq_pending_overflow", 0) // as in Envoy: nobody was in line
	})
	t.Run("one connection, one in line, no more", func(t *testing.T) {
		s := serve(t, ok)
		f := newPool(t, s.addr, upstream.Thresholds{Connections: 1, Pending: 1, Requests: 9}, nil)
		x, err := f.Acquire(nil, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		second := make(chan error)
		go func() { _, err := f.exchange(); second <- err }()
		for f.limits.Pending.Used() < f.limits.Pending.Max() {
			time.Sleep(time.Millisecond)
		}
		_, err = f.Acquire(nil, time.Time{})
		overflow(t, err)
		_, _ = finish(x)
		x.Release()
		if err := <-second; err != nil {
			t.Errorf("the request in line: %v", err)
		}
		if n := s.conns.Load(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	})
	t.Run("leaving the line", func(t *testing.T) {
		s := serve(t, ok)
		f := newPool(t, s.addr, upstream.Thresholds{Connections: 1, Pending: 9, Requests: 9}, nil)
		x, _ := f.Acquire(nil, time.Time{})
		defer x.Release()
		if _, err := f.Acquire(nil, time.Now().Add(10*time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		done := make(chan struct{})
		time.AfterFunc(10*time.Millisecond, func() { close(done) })
		if _, err := f.Acquire(done, time.Time{}); text(err) != "local_reset" {
			t.Errorf("got %v", err)
		}
		if n := f.limits.Pending.Used(); n != 0 {
			t.Errorf("%d in line", n)
		}
	})
	t.Run("a broken connection lets the next in line dial", func(t *testing.T) {
		s := serve(t, ok)
		f := newPool(t, s.addr, upstream.Thresholds{Connections: 1, Pending: 9, Requests: 9}, nil)
		x, _ := f.Acquire(nil, time.Time{})
		second := make(chan error)
		go func() { _, err := f.exchange(); second <- err }()
		for f.limits.Pending.Used() == 0 {
			time.Sleep(time.Millisecond)
		}
		x.Release() // without an answer: its connection is closed
		if err := <-second; err != nil {
			t.Error(err)
		}
	})
}

// TestMany: parallel exchanges under a tight limit all come through and leave nothing behind.
func TestMany(t *testing.T) {
	s := serve(t, ok)
	f := newPool(t, s.addr, upstream.Thresholds{Connections: 3, Pending: 100, Requests: 100}, nil)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 50 {
				if _, err := f.exchange(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := s.conns.Load(); n > 3 {
		t.Errorf("%d connections, want at most 3", n)
	}
	if f.limits.Requests.Used() != 0 || f.limits.Pending.Used() != 0 {
		t.Error("something is still counted")
	}
}

// TestInterrupt ends an exchange from another goroutine.
func TestInterrupt(t *testing.T) {
	s := serve(t, func(net.Conn) bool { return true }) // never answers
	f := newPool(t, s.addr, upstream.DefaultThresholds, nil)
	x, err := f.Acquire(nil, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Release()
	time.AfterFunc(10*time.Millisecond, x.Interrupt)
	if _, err := finish(x); text(err) != "connection_termination" {
		t.Errorf("got %v", err)
	}
}

// TestDrain: idle connections end at once, the others after their exchange.
func TestDrain(t *testing.T) {
	s := serve(t, ok)
	f := newPool(t, s.addr, upstream.DefaultThresholds, nil)
	x, _ := f.Acquire(nil, time.Time{})
	if _, err := f.exchange(); err != nil {
		t.Fatal(err)
	}
	f.Drain()
	if n := f.limits.Connections.Used(); n != 1 {
		t.Errorf("%d connections after draining, want the busy one", n)
	}
	if _, err := finish(x); err != nil {
		t.Error(err)
	}
	x.Release()
	if n := f.limits.Connections.Used(); n != 0 {
		t.Errorf("%d connections, want none", n)
	}
}
