package upstream_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// A peer speaks HTTP/2. The path of a request says what becomes of it: "/hold" waits until
// release is closed, "/bye" is answered after GOAWAY, "/refuse" is refused, any other is
// answered with the number of its connection.
type peer struct {
	addr    string
	conns   atomic.Int64
	release chan struct{}
	holding chan struct{} // told of each request that waits
}

func servePeer(t *testing.T, o http2.ServerOptions) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{addr: l.Addr().String(), release: make(chan struct{}), holding: make(chan struct{}, 1000)}
	o.Stats = http2.NewStats(stats.NewStore().Scope("x."))
	var wg sync.WaitGroup
	var servers sync.Map
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			number := sync.OnceValue(func() int64 { return p.conns.Add(1) }) // by their first requests
			s := http2.NewServer(transport.NewConn(c), nil, o, func(x *http2.ServerStream) { p.answer(x, number()) })
			servers.Store(s, nil)
			wg.Go(func() { _ = s.Serve() }) // how it ends is the test's to see
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		servers.Range(func(s, _ any) bool { s.(*http2.Server).Close(); return true })
		wg.Wait()
	})
	return p
}

func (p *peer) answer(x *http2.ServerStream, number int64) {
	var r http.Request
	if x.ReadRequest(&r) != nil {
		return
	}
	switch string(r.Path) {
	case "/hold":
		p.holding <- struct{}{}
		<-p.release
	case "/bye":
		x.Server().Shutdown()
	case "/refuse":
		x.Reset(http2.CodeRefusedStream)
		return
	}
	var resp http.Response
	resp.Status = 200
	_ = x.WriteHead(&resp, false)
	_ = x.WriteBody([]byte(strconv.FormatInt(number, 10)), true)
	_ = x.Flush()
}

func newMulti(t *testing.T, p *peer, limits upstream.Thresholds, change func(*upstream.Options)) *fixture {
	return newPool(t, p.addr, limits, func(o *upstream.Options) {
		o.Version = upstream.HTTP2
		o.HTTP2.Stats = http2.NewStats(stats.NewStore().Scope("x."))
		if change != nil {
			change(o)
		}
	})
}

// ask makes a request and returns the body of its answer.
func (f *fixture) ask(path string) (string, error) {
	x, err := f.Acquire(nil, time.Now().Add(5*time.Second))
	if err != nil {
		return "", err
	}
	defer x.Release()
	x.SetDeadline(time.Now().Add(5 * time.Second))
	r := http.Request{Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("a.test"), Path: []byte(path), Body: http.NoBody}
	if err := x.WriteHead(&r, true); err != nil {
		return "", err
	}
	var resp http.Response
	if err := x.ReadHead(&resp); err != nil {
		return "", err
	}
	var b strings.Builder
	for !resp.Body.Done() {
		p, err := resp.Body.Next()
		if err != nil {
			break
		}
		b.Write(p)
	}
	return b.String(), nil
}

// asks makes n requests at once and returns how often each answer came.
func (f *fixture) asks(n int, path string) func() map[string]int {
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	for range n {
		wg.Go(func() {
			text, err := f.ask(path)
			if err != nil {
				text = err.Error()
			}
			mu.Lock()
			got[text]++
			mu.Unlock()
		})
	}
	return func() map[string]int { wg.Wait(); return got }
}

// TestOneConnectionForMany: requests that come at once share the connection, and the wait for it.
func TestOneConnectionForMany(t *testing.T) {
	p := servePeer(t, http2.ServerOptions{})
	f := newMulti(t, p, upstream.DefaultThresholds, nil)
	if got := f.asks(50, "/")(); got["1"] != 50 {
		t.Errorf("answers %v", got)
	}
	f.want(t, "upstream_cx_total", 1)
	f.want(t, "upstream_cx_http2_total", 1)
	f.want(t, "upstream_rq_total", 50)
	if n := f.limits.Requests.Used() + f.limits.Pending.Used(); n != 0 {
		t.Errorf("%d places are not given back", n)
	}
}

// TestRoom: a connection carries as many exchanges as both sides allow; more need another one.
func TestRoom(t *testing.T) {
	p := servePeer(t, http2.ServerOptions{})
	f := newMulti(t, p, upstream.DefaultThresholds, func(o *upstream.Options) { o.HTTP2.MaxConcurrentStreams = 2 })
	done := f.asks(6, "/hold")
	for range 6 {
		<-p.holding
	}
	if n := p.conns.Load(); n != 3 {
		t.Errorf("%d connections for 6 exchanges, 2 on each", n)
	}
	close(p.release)
	done()
}

// TestRoomOfTheServer: what the server allows is learnt with its SETTINGS; who is beyond
// it waits for a place when no further connection is allowed.
func TestRoomOfTheServer(t *testing.T) {
	p := servePeer(t, http2.ServerOptions{Options: http2.Options{MaxConcurrentStreams: 1}})
	f := newMulti(t, p, upstream.Thresholds{Connections: 1, Pending: 10, Requests: 10}, nil)
	if _, err := f.ask("/"); err != nil {
		t.Fatal(err)
	}
	done := f.asks(3, "/hold")
	<-p.holding
	close(p.release)
	if got := done(); got["1"] != 3 {
		t.Errorf("answers %v", got)
	}
	f.want(t, "upstream_cx_total", 1)
}

// TestRequestsOfAConnection: the connection ends after its last request, and takes no other.
func TestRequestsOfAConnection(t *testing.T) {
	p := servePeer(t, http2.ServerOptions{})
	f := newMulti(t, p, upstream.DefaultThresholds, func(o *upstream.Options) { o.MaxRequestsPerConn = 2 })
	var got []string
	for range 4 {
		text, err := f.ask("/")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, text)
	}
	if text := strings.Join(got, " "); text != "1 1 2 2" {
		t.Errorf("connections %s", text)
	}
	f.want(t, "upstream_cx_max_requests", 2)
}

// TestGoAway: a connection that the server is about to end takes no more exchanges; those
// that it carries finish.
func TestGoAway(t *testing.T) {
	p := servePeer(t, http2.ServerOptions{})
	f := newMulti(t, p, upstream.DefaultThresholds, nil)
	for _, c := range []struct{ path, want string }{{"/", "1"}, {"/bye", "1"}, {"/", "2"}} {
		if got, err := f.ask(c.path); got != c.want || err != nil {
			t.Errorf("%s: connection %q, %v", c.path, got, err)
		}
	}
}

// TestRefused: a request that the server has not taken may go elsewhere.
func TestRefused(t *testing.T) {
	p := servePeer(t, http2.ServerOptions{})
	f := newMulti(t, p, upstream.DefaultThresholds, nil)
	_, err := f.ask("/refuse")
	var reset *http.Reset
	if !errors.As(err, &reset) || reset.Reason != http.RemoteRefusedStream || !reset.Unused {
		t.Errorf("error %v", err)
	}
}

// TestTooManyExchanges: max_requests counts exchanges, not connections.
func TestTooManyExchanges(t *testing.T) {
	p := servePeer(t, http2.ServerOptions{})
	f := newMulti(t, p, upstream.Thresholds{Connections: 1, Pending: 10, Requests: 1}, nil)
	done := f.asks(1, "/hold")
	<-p.holding
	if _, err := f.ask("/"); text(err) != "overflow" {
		t.Errorf("error %v", err)
	}
	close(p.release)
	done()
	if got, err := f.ask("/"); got != "1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestNobodyThere: a dial that fails fails all who wait for it.
func TestNobodyThere(t *testing.T) {
	p := servePeer(t, http2.ServerOptions{})
	p.addr = "127.0.0.1:1"
	f := newMulti(t, p, upstream.DefaultThresholds, nil)
	if got := f.asks(5, "/")(); got["remote_connection_failure"] == 0 && len(got) != 1 {
		t.Errorf("answers %v", got)
	}
	if n := f.limits.Connections.Used() + f.limits.Pending.Used() + f.limits.Requests.Used(); n != 0 {
		t.Errorf("%d places are not given back", n)
	}
}

// TestDrainOfMany: exchanges under way finish on the old connection, later ones have a new one.
func TestDrainOfMany(t *testing.T) {
	p := servePeer(t, http2.ServerOptions{})
	f := newMulti(t, p, upstream.DefaultThresholds, nil)
	done := f.asks(1, "/hold")
	<-p.holding
	f.Drain()
	if got, err := f.ask("/"); got != "2" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	close(p.release)
	if got := done(); got["1"] != 1 {
		t.Errorf("answers %v", got)
	}
}

// TestGivenUpInLine: a request that is given up while it waits leaves nothing behind.
func TestGivenUpInLine(t *testing.T) {
	p := servePeer(t, http2.ServerOptions{})
	dial := make(chan struct{})
	f := newMulti(t, p, upstream.DefaultThresholds, func(o *upstream.Options) {
		real := o.Dial
		o.Dial = func(ctx context.Context) (transport.Conn, error) { <-dial; return real(ctx) }
	})
	gone := make(chan struct{})
	close(gone)
	if _, err := f.Acquire(gone, time.Time{}); text(err) != "local_reset" {
		t.Errorf("error %v", err)
	}
	close(dial)
	if got, err := f.ask("/"); got != "1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	f.want(t, "upstream_cx_total", 1)
}
