package proxy

import (
	"bufio"
	"errors"
	goflag "flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// resets is how many connections TestConnectionsReset opens and resets.
var resets = goflag.Int("resets", 5000, "connections that TestConnectionsReset opens and resets")

// An ending is how a peer leaves.
type ending struct {
	name string
	end  func(*net.TCPConn)
}

var endings = []ending{
	{"FIN", func(c *net.TCPConn) { _ = c.Close() }},
	{"RST", func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }},
}

// An application answers each request as it is told, and counts the requests that it
// took in whole, by what their x-id says.
type application struct {
	addr  string
	does  atomic.Pointer[func(c *net.TCPConn, r *http.Request)]
	mu    sync.Mutex
	taken map[string]int
	conns map[net.Conn]struct{}
}

func newApplication(t *testing.T) *application {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &application{addr: ln.Addr().String(), taken: map[string]int{}, conns: map[net.Conn]struct{}{}}
	a.answers(func(c *net.TCPConn, _ *http.Request) { _, _ = io.WriteString(c, wholeAnswer) })
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { a.serve(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { _ = ln.Close(); a.hangUp(); wg.Wait() })
	return a
}

// wholeAnswer has a head, chunks and their end.
const wholeAnswer = "HTTP/1.1 200 OK\r\nx-app: yes\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n"

func (a *application) answers(f func(c *net.TCPConn, r *http.Request)) { a.does.Store(&f) }

func (a *application) serve(c *net.TCPConn) {
	a.mu.Lock()
	a.conns[c] = struct{}{}
	a.mu.Unlock()
	defer func() {
		_ = c.Close()
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.conns, c)
	}()
	for r := bufio.NewReader(c); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.URL.Path != "/early" {
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			a.mu.Lock()
			a.taken[req.Header.Get("x-id")]++
			a.mu.Unlock()
		}
		(*a.does.Load())(c, req)
	}
}

// hangUp ends all connections.
func (a *application) hangUp() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		_ = c.Close()
	}
}

// times is how often a request was taken in whole.
func (a *application) times(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.taken[id]
}

// facing runs a proxy before the application; fields are further ones of its connection
// manager, route of its route.
func (a *application) facing(t *testing.T, fields, route string) *running {
	t.Helper()
	cluster := strings.Replace(staticCluster("app", a.addr), "type: STATIC", "type: STATIC, connect_timeout: 1s", 1)
	return start(t, `
static_resources:
  clusters: [`+cluster+`]
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains: [{filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, `+fields+`
      route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app`+route+`}}]}]},
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]
`)
}

// usage is what a process holds.
type usage struct{ goroutines, descriptors int }

func held(t *testing.T) usage {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return usage{runtime.NumGoroutine(), len(fds)}
}

// leaksNothing lets the proxy come to rest and compares what is held with what was
// before: goroutines and descriptors.
func (a *application) leaksNothing(t *testing.T, r *running, before usage) {
	t.Helper()
	a.hangUp() // idle connections are no leak
	r.eventually("/stats?filter=^http.in.downstream_cx_active", "downstream_cx_active: 0\n")
	r.eventually("/stats?filter=^cluster.app.upstream_(cx|rq)_active", "upstream_cx_active: 0\ncluster.app.upstream_rq_active: 0\n")
	r.http.CloseIdleConnections()
	var now usage
	for range 1000 {
		if now = held(t); now.goroutines <= before.goroutines && now.descriptors <= before.descriptors {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	t.Errorf("holds %+v, held %+v before", now, before)
}

// rest is what is held once a first request has come and gone.
func (a *application) rest(t *testing.T, r *running, addr string) usage {
	t.Helper()
	c := dial(t, addr)
	_, _ = io.WriteString(c, request("first"))
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	r.eventually("/stats?filter=^http.in.downstream_cx_active", "downstream_cx_active: 0\n")
	a.hangUp()
	r.eventually("/stats?filter=^cluster.app.upstream_cx_active", "upstream_cx_active: 0\n")
	return settled(t, r)
}

// settled is the least that is held within a moment.
func settled(t *testing.T, r *running) usage {
	t.Helper()
	r.http.CloseIdleConnections()
	last := held(t)
	for range 100 {
		time.Sleep(2 * time.Millisecond)
		now := held(t)
		last = usage{min(last.goroutines, now.goroutines), min(last.descriptors, now.descriptors)}
	}
	return last
}

func request(id string) string {
	return "POST /x HTTP/1.1\r\nhost: a\r\nx-id: " + id + "\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
}

// TestRequestsCutOff ends a client's connection after every byte of its request: the
// application never sees one that is not whole, and nothing is left behind.
func TestRequestsCutOff(t *testing.T) {
	a := newApplication(t)
	r := a.facing(t, "", "")
	addr := r.listener("l")
	before := a.rest(t, r, addr)
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			whole := len(request("FIN-000"))
			for i := range whole {
				id := fmt.Sprintf("%s-%03d", e.name, i)
				c := dial(t, addr)
				if _, err := io.WriteString(c, request(id)[:i]); err != nil {
					t.Fatal(err)
				}
				e.end(c)
			}
			r.eventually("/stats?filter=^http.in.downstream_cx_active", "downstream_cx_active: 0\n")
			for i := range whole {
				if id := fmt.Sprintf("%s-%03d", e.name, i); a.times(id) != 0 {
					t.Errorf("cut off after %d bytes, the request came whole", i)
				}
			}
		})
	}
	a.leaksNothing(t, r, before)
}

// TestAnswersCutOff ends the upstream's connection after every byte of its answer. The
// client gets an error or an answer that is visibly cut off, never a whole one; and the
// application sees the request once.
func TestAnswersCutOff(t *testing.T) {
	a := newApplication(t)
	r := a.facing(t, "", "")
	addr := r.listener("l")
	before := a.rest(t, r, addr)
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			for i := range len(wholeAnswer) {
				a.answers(func(c *net.TCPConn, _ *http.Request) {
					_, _ = io.WriteString(c, wholeAnswer[:i])
					e.end(c)
				})
				id := fmt.Sprintf("%s-%03d", e.name, i)
				c := dial(t, addr)
				_, _ = io.WriteString(c, request(id))
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				var body []byte
				if err == nil {
					body, err = io.ReadAll(resp.Body)
				}
				if err == nil && resp.StatusCode < 500 {
					t.Errorf("cut off after %d bytes, the answer came whole: %d %q", i, resp.StatusCode, body)
				}
				if got := a.times(id); got != 1 {
					t.Errorf("cut off after %d bytes, the application saw the request %d times", i, got)
				}
				_ = c.Close()
			}
		})
	}
	a.leaksNothing(t, r, before)
}

// TestRetriesAreCounted: a request reaches the application as often as its policy says.
func TestRetriesAreCounted(t *testing.T) {
	a := newApplication(t)
	r := a.facing(t, "", ", retry_policy: {retry_on: reset, num_retries: 2, retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}}")
	addr := r.listener("l")
	before := a.rest(t, r, addr)
	for _, e := range endings {
		a.answers(func(c *net.TCPConn, _ *http.Request) { e.end(c) })
		c := dial(t, addr)
		_, _ = io.WriteString(c, request(e.name))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 503 {
			t.Errorf("%s: %v, %v", e.name, resp, err)
		}
		_ = c.Close()
		if got := a.times(e.name); got != 3 {
			t.Errorf("%s: the application saw the request %d times, want 3", e.name, got)
		}
	}
	a.leaksNothing(t, r, before)
}

// TestOddUpstreams: applications that answer at odd times.
func TestOddUpstreams(t *testing.T) {
	a := newApplication(t)
	r := a.facing(t, "", "")
	addr := r.listener("l")
	before := a.rest(t, r, addr)
	const ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
	for _, c := range []struct {
		name, send string
		does       func(c *net.TCPConn, r *http.Request)
		status     int
	}{
		{"closes early", request("early-close"), func(c *net.TCPConn, _ *http.Request) { _ = c.Close() }, 503},
		{"never answers", strings.Replace(request("never"), "host: a", "host: a\r\nx-envoy-upstream-rq-timeout-ms: 300", 1), func(*net.TCPConn, *http.Request) {}, 504},
		{"answers twice", request("twice"), func(c *net.TCPConn, _ *http.Request) { _, _ = io.WriteString(c, ok+ok) }, 200},
		{"answers before the request's body", "POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nabc",
			func(c *net.TCPConn, _ *http.Request) { _, _ = io.WriteString(c, ok) }, 200},
		{"answers in the middle of a body and leaves", "POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nabc",
			func(c *net.TCPConn, _ *http.Request) { _, _ = io.WriteString(c, ok); _ = c.Close() }, 200},
		{"floods with 1xx", request("1xx"), func(c *net.TCPConn, _ *http.Request) {
			_, _ = io.WriteString(c, strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 2000)+ok)
		}, 200},
		{"has no HTTP", request("no-http"), func(c *net.TCPConn, _ *http.Request) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n") }, 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.answers(c.does)
			for range 3 {
				conn := dial(t, addr)
				_, _ = io.WriteString(conn, c.send)
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || resp.StatusCode != c.status {
					t.Errorf("%v, %v, want %d", resp, err, c.status)
				}
				_ = conn.Close()
			}
		})
	}
	a.leaksNothing(t, r, before)
}

// TestSlowClients: who sends or reads too slowly is let go, by the time limits.
func TestSlowClients(t *testing.T) {
	a := newApplication(t)
	r := a.facing(t, "request_headers_timeout: 0.15s, stream_idle_timeout: 0.3s, common_http_protocol_options: {idle_timeout: 0.3s},", ", timeout: 0s")
	addr := r.listener("l")
	before := a.rest(t, r, addr)
	t.Run("a head that comes byte by byte", func(t *testing.T) {
		c := dial(t, addr)
		gone := make(chan string)
		go func() {
			b, _ := io.ReadAll(c)
			gone <- string(b)
		}()
		for i := range 1000 {
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nhost: a\r\nx: "[min(i, 27):min(i+1, 28)]); err != nil {
				break
			}
			select {
			case got := <-gone:
				if !strings.HasPrefix(got, "HTTP/1.1 408 ") {
					t.Errorf("%q", got)
				}
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
		<-gone
	})
	t.Run("a client that says nothing", func(t *testing.T) {
		if b, err := io.ReadAll(dial(t, addr)); err != nil || len(b) > 0 {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("a client that does not read", func(t *testing.T) {
		a.answers(func(c *net.TCPConn, _ *http.Request) {
			const size = 64 << 20
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n", size)
			chunk := make([]byte, 1<<20)
			for range size / len(chunk) {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		})
		c := dial(t, addr)
		_, _ = io.WriteString(c, request("unread"))
		r.eventually("/stats?filter=^http.in.downstream_rq_idle_timeout", "idle_timeout: 1\n")
		_ = c.Close()
	})
	a.leaksNothing(t, r, before)
}

func TestGiantCookies(t *testing.T) {
	a := newApplication(t)
	r := a.facing(t, "", "")
	addr := r.listener("l")
	before := a.rest(t, r, addr)
	for size, status := range map[int]int{50 << 10: 200, 61 << 10: 431, 1 << 20: 431} {
		c := dial(t, addr)
		go func() {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nhost: a\r\ncookie: a="+strings.Repeat("x", size)+"\r\n\r\n")
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != status {
			t.Errorf("%d bytes: %v, %v, want %d", size, resp, err, status)
		}
		_ = c.Close()
	}
	a.leaksNothing(t, r, before)
}

// TestConnectionsReset opens connections and resets them at once, at any state.
func TestConnectionsReset(t *testing.T) {
	a := newApplication(t)
	r := a.facing(t, "", "")
	addr := r.listener("l")
	before := a.rest(t, r, addr)
	n := *resets
	if testing.Short() {
		n = min(n, 500)
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				c, err := net.Dial("tcp", addr)
				if err != nil {
					if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error(err)
					}
					continue
				}
				if whole := request("reset"); i%3 > 0 {
					_, _ = io.WriteString(c, whole[:i%len(whole)])
				}
				endings[i&1].end(c.(*net.TCPConn))
			}
		})
	}
	wg.Wait()
	a.leaksNothing(t, r, before)
	c := dial(t, addr)
	_, _ = io.WriteString(c, request("after"))
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("afterwards: %v, %v", resp, err)
	}
}
