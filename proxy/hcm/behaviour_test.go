package hcm_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// toBackend is a gateway whose every request goes to b.
func toBackend(t *testing.T, b *backend, manager, route string) *gateway {
	if route == "" {
		route = `"timeout": "0s"`
	}
	return start(t, setup{manager: manager, clusters: map[string]string{"b": b.addr, "m": b.addr},
		routes: `{"match": {"prefix": "/"}, "route": {"cluster": "b", ` + route + `}}`})
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// response reads one answer whose body has a length.
func response(t *testing.T, r *bufio.Reader) (head, body string) {
	t.Helper()
	head, err := readHead(r)
	if err != nil {
		t.Fatalf("%v after %q", err, head)
	}
	return head, readBody(r, head)
}

func wantStart(t *testing.T, got, want string) {
	t.Helper()
	if !strings.HasPrefix(got, want) {
		t.Fatalf("got %q, want %q…", got, want)
	}
}

// closed waits for the end of a connection.
func closed(t *testing.T, r io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Fatalf("the connection should have ended: %q, %v", rest, err)
	}
}

const getX = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"

// TestClientLeaves: a client that ends its connection while the upstream is silent is
// noticed, its request ends with DC and takes the upstream connection along.
func TestClientLeaves(t *testing.T) {
	b := newBackend(t)
	g := toBackend(t, b, "", "")
	c := g.dial(t)
	send(t, c, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	for len(b.seen()) == 0 {
		time.Sleep(time.Millisecond)
	}
	_ = c.Close()
	wantStart(t, g.logged(t, 0), `"GET /slow HTTP/1.1" 0 DC downstream_remote_disconnect - "-" 0 0`)
	if n := g.store.Scope("cluster.b.").Gauge("upstream_cx_active").Value(); n != 0 {
		t.Errorf("%d upstream connections are open", n)
	}
}

// TestClientLeavesInBody: the same while the client owes the rest of its body.
func TestClientLeavesInBody(t *testing.T) {
	b := newBackend(t)
	g := toBackend(t, b, "", "")
	c := g.dial(t)
	send(t, c, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
	_ = c.Close()
	wantStart(t, g.logged(t, 0), `"POST /x HTTP/1.1" 0 DC downstream_remote_disconnect - "-" 3 0`)
}

// TestEarlyAnswer: an upstream may answer before it has the whole body; the client gets
// the answer at once and the connection ends with it.
func TestEarlyAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = readHead(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\r\nbig")
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}()
	g := toBackend(t, &backend{addr: l.Addr().String()}, "", "")
	c := g.dial(t)
	send(t, c, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
	r := bufio.NewReader(c)
	head, body := response(t, r)
	wantStart(t, head, "HTTP/1.1 413 Payload Too Large\r\n")
	if body != "big" || !strings.Contains(head, "connection: close\r\n") {
		t.Errorf("got %q %q, want the answer and connection: close", head, body)
	}
	closed(t, r)
}

// TestBodies moves bodies larger than all buffers both ways, in both framings.
func TestBodies(t *testing.T) {
	b := newBackend(t)
	g := toBackend(t, b, "", "")
	long := strings.Repeat("z", 1<<20)
	for name, request := range map[string]string{
		"WI-025 with a length": fmt.Sprintf("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(long), long),
		"WI-025 chunked":       fmt.Sprintf("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(long), long),
	} {
		t.Run(name, func(t *testing.T) {
			c := g.dial(t)
			go func() { _, _ = io.WriteString(c, request) }()
			r := bufio.NewReader(c)
			head, body := response(t, r)
			wantStart(t, head, "HTTP/1.1 200 OK\r\n")
			if n := strings.Count(body, "z"); n != 1<<20 {
				t.Errorf("%d of %d bytes came back", n, 1<<20)
			}
			send(t, c, getX) // the connection lives on
			head, _ = response(t, r)
			wantStart(t, head, "HTTP/1.1 200 OK\r\n")
		})
	}
}

// TestPipelining: requests sent at once are answered in order.
func TestPipelining(t *testing.T) {
	g := toBackend(t, newBackend(t), "", "")
	c := g.dial(t)
	send(t, c, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nxGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
	r := bufio.NewReader(c)
	for _, want := range []string{"GET /1 ", "POST /2 ", "GET /3 "} {
		_, body := response(t, r)
		wantStart(t, body, want)
	}
}

// TestWebSocket: after 101 the bytes go both ways; either side ends it.
func TestWebSocket(t *testing.T) {
	const ask = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	b := newBackend(t)
	g := toBackend(t, b, `"upgrade_configs": [{"upgrade_type": "websocket"}]`, "")
	t.Run("WI-023 echo, then the client leaves", func(t *testing.T) {
		c := g.dial(t)
		send(t, c, ask)
		r := bufio.NewReader(c)
		head, err := readHead(r)
		if err != nil {
			t.Fatal(err)
		}
		wantStart(t, head, "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n")
		for _, message := range []string{"hello", strings.Repeat("x", 100000)} {
			go func() { _, _ = io.WriteString(c, message) }()
			got := make([]byte, len(message))
			if _, err := io.ReadFull(r, got); err != nil || string(got) != message {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		}
		_ = c.Close()
		wantStart(t, g.logged(t, 0), `"GET /ws HTTP/1.1" 101 DC downstream_remote_disconnect - "-" 100005 100005`)
	})
	t.Run("WI-023 not allowed", func(t *testing.T) {
		g := toBackend(t, b, "", "")
		c := g.dial(t)
		send(t, c, ask)
		head, _ := response(t, bufio.NewReader(c))
		wantStart(t, head, "HTTP/1.1 403 Forbidden\r\n")
	})
}

// TestDrain: an idle connection ends, a busy one after its answer, which says so.
func TestDrain(t *testing.T) {
	b := newBackend(t)
	g := toBackend(t, b, "", "")
	idle, busy := g.dial(t), g.dial(t)
	ri, rb := bufio.NewReader(idle), bufio.NewReader(busy)
	send(t, idle, getX)
	response(t, ri)
	send(t, busy, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
	for g.store.Scope("http.test.").Gauge("downstream_rq_active").Value() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(g.draining)
	closed(t, ri)
	send(t, busy, "x")
	head, _ := response(t, rb)
	if !strings.Contains(head, "connection: close\r\n") {
		t.Errorf("WI-031 the answer of a draining connection says so: %q", head)
	}
	closed(t, rb)
}

// TestTimeLimits: what a client is told when its time is up.
func TestTimeLimits(t *testing.T) {
	b := newBackend(t)
	cases := []struct{ name, manager, send, want, log string }{
		{"head incomplete, stream idle", `"stream_idle_timeout": "0.2s"`, "GET /x HTTP/1.1\r\nHost:", "HTTP/1.1 408 Request Timeout\r\n",
			`"- - HTTP/1.1" 408 SI stream_idle_timeout - "-" 0 14`},
		{"WI-013 stream idle", `"stream_idle_timeout": "0.2s"`, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 14\r\ncontent-type: text/plain\r\n", `"GET /slow HTTP/1.1" 504 SI stream_idle_timeout - "-" 0 14`},
		{"WI-013 stream idle, request incomplete", `"stream_idle_timeout": "0.2s"`, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na",
			"HTTP/1.1 408 Request Timeout\r\n", `"POST /x HTTP/1.1" 408 SI stream_idle_timeout - "-" 1 14`},
		{"request incomplete", `"request_timeout": "0.2s"`, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na",
			"HTTP/1.1 408 Request Timeout\r\n", `"POST /x HTTP/1.1" 408 - request_overall_timeout - "-" 1 15`},
		{"head incomplete", `"request_headers_timeout": "0.2s"`, "GET /x HTTP/1.1\r\nHost:", "HTTP/1.1 408 Request Timeout\r\n",
			`"- - HTTP/1.1" 408 - request_header_timeout`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := toBackend(t, b, c.manager, "")
			conn := g.dial(t)
			send(t, conn, c.send)
			head, _ := response(t, bufio.NewReader(conn))
			wantStart(t, head, c.want)
			wantStart(t, g.logged(t, 0), c.log)
		})
	}
	t.Run("the route's own stream idle", func(t *testing.T) {
		g := toBackend(t, b, `"stream_idle_timeout": "300s"`, `"timeout": "0s", "idle_timeout": "0.2s"`)
		c := g.dial(t)
		send(t, c, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		head, _ := response(t, bufio.NewReader(c))
		wantStart(t, head, "HTTP/1.1 504 Gateway Timeout\r\n")
		wantStart(t, g.logged(t, 0), `"GET /slow HTTP/1.1" 504 SI stream_idle_timeout`)
	})
	t.Run("idle connection", func(t *testing.T) {
		g := toBackend(t, b, `"common_http_protocol_options": {"idle_timeout": "0.2s"}`, "")
		c := g.dial(t)
		r := bufio.NewReader(c)
		send(t, c, getX)
		response(t, r)
		closed(t, r)
		if n := g.store.Scope("http.test.").Counter("downstream_cx_idle_timeout").Value(); n != 1 {
			t.Errorf("downstream_cx_idle_timeout is %d", n)
		}
	})
	t.Run("so many requests on a connection", func(t *testing.T) {
		g := toBackend(t, b, `"common_http_protocol_options": {"max_requests_per_connection": 2}`, "")
		c := g.dial(t)
		r := bufio.NewReader(c)
		send(t, c, getX)
		if head, _ := response(t, r); strings.Contains(head, "connection: close") {
			t.Error("closed too early")
		}
		send(t, c, getX)
		if head, _ := response(t, r); !strings.Contains(head, "connection: close") {
			t.Error("not closed")
		}
		closed(t, r)
	})
}

// TestRest: a connection that has given its memory back serves the next request.
func TestRest(t *testing.T) {
	g := toBackend(t, newBackend(t), "", "")
	c := g.dial(t)
	r := bufio.NewReader(c)
	for range 2 {
		send(t, c, getX)
		head, _ := response(t, r)
		wantStart(t, head, "HTTP/1.1 200 OK\r\n")
		time.Sleep(1300 * time.Millisecond) // longer than a connection keeps its memory
	}
	close(g.draining) // also at rest it hears of the end
	closed(t, r)
}

// TestOverflow: one connection, one in line, the third is refused.
func TestOverflow(t *testing.T) {
	b := newBackend(t)
	g := start(t, setup{clusters: map[string]string{"b": b.addr + ` "circuit_breakers": {"thresholds": [{"max_connections": 1, "max_pending_requests": 1}]}`},
		routes: `{"match": {"prefix": "/"}, "route": {"cluster": "b", "timeout": "0s"}}`})
	for i := range 2 {
		send(t, g.dial(t), "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		for g.store.Scope("cluster.b.").Counter("upstream_rq_pending_total").Value() < uint64(i+1) {
			time.Sleep(time.Millisecond)
		}
		if i == 0 {
			for len(b.seen()) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	c := g.dial(t)
	send(t, c, getX)
	head, body := response(t, bufio.NewReader(c))
	t.Run("WI-010 circuit breaker", func(t *testing.T) {
		wantStart(t, head, "HTTP/1.1 503 Service Unavailable\r\nx-envoy-overloaded: true\r\ncontent-length: 81\r\ncontent-type: text/plain\r\ndate: ")
		wantStart(t, body, "upstream connect error or disconnect/reset before headers. reset reason: overflow")
		wantStart(t, g.logged(t, 0), `"GET /x HTTP/1.1" 503 UO upstream_reset_before_response_started{overflow} - "-" 0 81 "-" "-" "a" "-" b `)
	})
}

// TestMirror: the copy goes to the other cluster under the shadow's host.
func TestMirror(t *testing.T) {
	for name, request := range map[string]string{
		"WI-027 body at hand": "POST /m HTTP/1.1\r\nHost: a.test:80\r\nContent-Length: 3\r\n\r\nabc",
		"WI-027 no body":      "GET /m HTTP/1.1\r\nHost: a.test:80\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			b, m := newBackend(t), newBackend(t)
			g := start(t, setup{clusters: map[string]string{"b": b.addr, "m": m.addr},
				routes: `{"match": {"prefix": "/"}, "route": {"cluster": "b", "timeout": "0s", "request_mirror_policies": [{"cluster": "m"}]}}`})
			c := g.dial(t)
			send(t, c, request)
			response(t, bufio.NewReader(c))
			for len(m.seen()) == 0 {
				time.Sleep(time.Millisecond)
			}
			got := m.seen()[0]
			method, body, _ := strings.Cut(request, "\r\n\r\n")
			wantStart(t, got, method[:4])
			if !strings.Contains(got, "host: a.test-shadow:80\r\n") || !strings.Contains(got, "x-envoy-internal: true\r\n") || !strings.HasSuffix(got, "\r\n\r\n"+body) {
				t.Errorf("the mirror got %q", got)
			}
		})
	}
}

// TestRetryWithBody: a request with a body is sent again while it fits the limit.
func TestRetryWithBody(t *testing.T) {
	b := newBackend(t)
	for _, c := range []struct {
		name, limit string
		pieces      []string
		attempts    int
	}{
		{"in one piece", "", []string{"abc"}, 3},
		{"in pieces", "", []string{"ab", "c"}, 3},
		{"too long", `"per_request_buffer_limit_bytes": 2,`, []string{"ab", "c"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, setup{clusters: map[string]string{"b": b.addr}, routes: `{"match": {"prefix": "/"}, ` + c.limit + `
				"route": {"cluster": "b", "timeout": "0s", "retry_policy": {"retry_on": "5xx", "num_retries": 2}}}`})
			before := len(b.seen())
			conn := g.dial(t)
			send(t, conn, "POST /s503 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
			for i, p := range c.pieces {
				if i > 0 {
					time.Sleep(20 * time.Millisecond) // so that it comes in a read of its own
				}
				send(t, conn, p)
			}
			head, _ := response(t, bufio.NewReader(conn))
			wantStart(t, head, "HTTP/1.1 503 Service Unavailable\r\n")
			got := b.seen()[before:]
			if len(got) != c.attempts {
				t.Errorf("%d attempts, want %d", len(got), c.attempts)
			}
			for i, head := range got {
				if !strings.HasSuffix(head, "\r\n\r\nabc") || !strings.Contains(head, fmt.Sprintf("x-envoy-attempt-count: %d\r\n", i+1)) {
					t.Errorf("attempt %d: %q", i+1, head)
				}
			}
		})
	}
}

// TestRetryWithTrailers: a request that is sent again has its trailers again.
func TestRetryWithTrailers(t *testing.T) {
	b := newBackend(t)
	g := start(t, setup{clusters: map[string]string{"b": b.addr + ` "http_protocol_options": {"enable_trailers": true}`},
		manager: `"http_protocol_options": {"enable_trailers": true}`,
		routes:  `{"match": {"prefix": "/"}, "route": {"cluster": "b", "timeout": "0s", "retry_policy": {"retry_on": "5xx", "num_retries": 1}}}`})
	conn := g.dial(t)
	send(t, conn, "POST /s503 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n")
	head, _ := response(t, bufio.NewReader(conn))
	wantStart(t, head, "HTTP/1.1 503 Service Unavailable\r\n")
	got := b.seen()
	if len(got) != 2 {
		t.Fatalf("%d attempts", len(got))
	}
	for i, request := range got {
		if !strings.HasSuffix(request, "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n") {
			t.Errorf("attempt %d: %q", i+1, request)
		}
	}
}

// A journal keeps what filters note.
type journal struct {
	mu   sync.Mutex
	list []string
}

func (j *journal) add(note string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.list = append(j.list, note)
}

// take returns the notes and begins anew.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := strings.Join(j.list, ",")
	j.list = nil
	return all
}

// A probe is a filter that notes when it is called.
type probe struct {
	name  string
	notes *journal
	reply int
}

func (p *probe) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	p.notes.add(p.name + " request")
	s.SetState(slot, p.name)
	if p.reply != 0 && s.Request.Headers.Has("x-reply") {
		s.Reply(http.Reply{Status: p.reply, Body: []byte("no"), Details: "probe", Flag: streaminfo.FaultInjected})
		return http.Replied
	}
	return http.Continue
}

func (p *probe) OnResponse(s *http.Stream, slot http.Slot) http.Verdict {
	p.notes.add(p.name + " response")
	s.Response.Headers.Add([]byte("x-"+p.name), []byte("1"))
	return http.Continue
}

func (p *probe) OnEnd(s *http.Stream, slot http.Slot) {
	p.notes.add(fmt.Sprint(p.name, " end ", s.State(slot)))
}

// TestFilters: requests go through the chain in order, responses in reverse; a local
// answer goes through all filters, also those that have not seen the request.
func TestFilters(t *testing.T) {
	b := newBackend(t)
	var notes journal
	filter := func(name string, reply int) http.Factory {
		return http.Factory{Name: name, New: func(*anypb.Any, http.Env) (http.Filter, error) {
			return &probe{name: name, notes: &notes, reply: reply}, nil
		}}
	}
	g := start(t, setup{clusters: map[string]string{"b": b.addr}, routes: `{"match": {"prefix": "/"}, "route": {"cluster": "b", "timeout": "0s"}}`,
		filters: []http.Factory{filter("one", 0), filter("two", 403), filter("three", 0)}})
	c := g.dial(t)
	r := bufio.NewReader(c)
	for _, tc := range []struct{ name, request, status, notes string }{
		{"forwarded", getX, "200 OK", "one request,two request,three request,three response,two response,one response,three end three,two end two,one end one"},
		{"answered by the second", "GET /x HTTP/1.1\r\nHost: a\r\nX-Reply: 1\r\n\r\n", "403 Forbidden",
			"one request,two request,three response,two response,one response,three end <nil>,two end two,one end one"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			notes.take()
			send(t, c, tc.request)
			head, _ := response(t, r)
			wantStart(t, head, "HTTP/1.1 "+tc.status)
			if !strings.Contains(head, "x-three: 1\r\nx-two: 1\r\nx-one: 1\r\n") {
				t.Errorf("response %q", head)
			}
			send(t, c, getX) // the end comes before the next request
			response(t, r)
			if got := notes.take(); !strings.Contains(got, tc.notes) {
				t.Errorf("got  %s\nwant %s", got, tc.notes)
			}
		})
	}
}

// TestServerHeader and decorations by direction.
func TestServerHeader(t *testing.T) {
	b := newBackend(t)
	raw := func(head string) string {
		return "GET /raw:HTTP%2F1.1%20200%20OK%5Cn" + head + "Content-Length:%200%5Cn%5Cn HTTP/1.1\r\nHost: a\r\n\r\n"
	}
	cases := []struct{ name, manager, direction, request, want string }{
		{"WI-001 overwritten", `"server_name": "istio-envoy"`, "", raw("Server:%20me%5Cn"), "server: istio-envoy\r\n"},
		{"WI-001 the default name", "", "", raw(""), "server: envoy\r\n"},
		{"append if absent", `"server_header_transformation": "APPEND_IF_ABSENT"`, "", raw("Server:%20me%5Cn"), "server: me\r\n"},
		{"pass through", `"server_header_transformation": "PASS_THROUGH"`, "", raw("Server:%20me%5Cn"), "server: me\r\n"},
		{"WI-004 inbound names the operation", `"tracing": {}`, "INBOUND", raw(""), "x-envoy-decorator-operation: op\r\n"},
		{"via", `"via": "me"`, "", raw(""), "via: me\r\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, setup{manager: c.manager, direction: c.direction, clusters: map[string]string{"b": b.addr},
				routes: `{"match": {"prefix": "/"}, "decorator": {"operation": "op"}, "route": {"cluster": "b", "timeout": "0s"}}`})
			conn := g.dial(t)
			send(t, conn, c.request)
			head, _ := response(t, bufio.NewReader(conn))
			if !strings.Contains(head, c.want) {
				t.Errorf("got %q, want %q in it", head, c.want)
			}
		})
	}
	t.Run("WI-004 outbound tells the upstream", func(t *testing.T) {
		g := start(t, setup{manager: `"tracing": {}`, direction: "OUTBOUND", clusters: map[string]string{"b": b.addr},
			routes: `{"match": {"prefix": "/"}, "decorator": {"operation": "op"}, "route": {"cluster": "b", "timeout": "0s"}}`})
		conn := g.dial(t)
		send(t, conn, getX)
		head, body := response(t, bufio.NewReader(conn))
		if !strings.Contains(body, "x-envoy-decorator-operation: op\r\n") || strings.Contains(head, "decorator") {
			t.Errorf("answer %q, upstream %q", head, body)
		}
	})
}

// TestTraceDigit: the share of traced requests shows in the request id.
func TestTraceDigit(t *testing.T) {
	b := newBackend(t)
	for _, c := range []struct {
		random float64
		want   byte
	}{{0, '4'}, {100, '9'}} {
		g := toBackend(t, b, fmt.Sprintf(`"tracing": {"random_sampling": {"value": %v}}`, c.random), "")
		conn := g.dial(t)
		send(t, conn, getX)
		_, body := response(t, bufio.NewReader(conn))
		_, id, _ := strings.Cut(body, "x-request-id: ")
		if len(id) < 36 || id[14] != c.want {
			t.Errorf("%v %%: %q, want digit %c", c.random, id, c.want)
		}
		name := map[byte]string{'4': "tracing.not_traceable", '9': "tracing.random_sampling"}[c.want]
		if n := g.store.Scope("http.test.").Counter(name).Value(); n != 1 {
			t.Errorf("%s is %d", name, n)
		}
	}
}
