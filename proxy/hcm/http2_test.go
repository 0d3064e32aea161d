package hcm_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
)

const allToBackend = `{"match": {"prefix": "/"}, "route": {"cluster": "b", "timeout": "0s"}}`

// An h2Client speaks HTTP/2 frame by frame.
type h2Client struct {
	t    testing.TB
	conn net.Conn
	*http2.Framer
	heads *hpack.Encoder
	block bytes.Buffer
	next  uint32
}

func (g *gateway) dialHTTP2(t testing.TB) *h2Client {
	t.Helper()
	c := &h2Client{t: t, conn: g.dial(t), next: 1}
	if _, err := io.WriteString(c.conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	c.Framer = http2.NewFramer(c.conn, c.conn)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.heads = hpack.NewEncoder(&c.block)
	if err := c.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

// get opens a stream.
func (c *h2Client) get(path string) uint32 {
	c.t.Helper()
	c.block.Reset()
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a.test"}, {":path", path}} {
		if err := c.heads.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			c.t.Fatal(err)
		}
	}
	id := c.next
	c.next += 2
	if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		c.t.Fatal(err)
	}
	return id
}

// await reads until a frame that is asked for; nil at the end of the connection.
func (c *h2Client) await(want func(http2.Frame) bool) http2.Frame {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			c.t.Fatal(err)
		}
		if want(f) {
			return f
		}
	}
}

// status is that of the answer on a stream.
func (c *h2Client) status(id uint32) string {
	c.t.Helper()
	f, _ := c.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameHeaders && f.Header().StreamID == id }).(*http2.MetaHeadersFrame)
	if f == nil {
		c.t.Fatal("the connection ended without an answer")
	}
	return f.PseudoValue("status")
}

// goAway is the last stream of the next GOAWAY.
func (c *h2Client) goAway() uint32 {
	c.t.Helper()
	f, _ := c.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
	if f == nil {
		c.t.Fatal("the connection ended without GOAWAY")
	}
	return f.LastStreamID
}

const everyStream = 1<<31 - 1

// TestHTTP2 has a client of HTTP/2 with prior knowledge ask many things at once.
func TestHTTP2(t *testing.T) {
	b := newBackend(t)
	g := start(t, setup{routes: allToBackend, clusters: map[string]string{"b": b.addr}})
	transport := &nethttp.Transport{Protocols: new(nethttp.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			resp, err := (&nethttp.Client{Transport: transport}).Post("http://"+g.addr+"/x", "text/plain", strings.NewReader("a body"))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != 200 || !strings.HasSuffix(string(text), "a body") {
				t.Errorf("%d, %v: %s", resp.StatusCode, err, text)
			}
		})
	}
	all.Wait()
	if line := g.logged(t, 0); !strings.Contains(line, "HTTP/2") {
		t.Errorf("log: %s", line)
	}
	if n := g.store.Scope("http.test.").Counter("downstream_rq_http2_total").Value(); n != 50 {
		t.Errorf("downstream_rq_http2_total is %d", n)
	}
}

// TestHTTP2Drain: a connection of a listener that drains is ended in two steps, and a
// stream that is opened between them is served.
func TestHTTP2Drain(t *testing.T) {
	b := newBackend(t)
	g := start(t, setup{manager: `"drain_timeout": "0.3s"`, routes: allToBackend, clusters: map[string]string{"b": b.addr}})
	c := g.dialHTTP2(t)
	if s := c.status(c.get("/fast")); s != "200" {
		t.Fatal(s)
	}
	close(g.draining)
	if last := c.goAway(); last != everyStream {
		t.Errorf("the first GOAWAY names stream %d", last)
	}
	if s := c.status(c.get("/fast")); s != "200" {
		t.Errorf("between the two steps: %s", s)
	}
	if last := c.goAway(); last != 3 {
		t.Errorf("the second GOAWAY names stream %d", last)
	}
	if f := c.await(func(http2.Frame) bool { return false }); f != nil {
		t.Errorf("got %v instead of the end", f)
	}
}

// TestHTTP2Ends: what ends a connection says so by GOAWAY.
func TestHTTP2Ends(t *testing.T) {
	for _, c := range []struct{ name, manager string }{
		{"idle_timeout", `"common_http_protocol_options": {"idle_timeout": "0.2s"}, "drain_timeout": "0.1s"`},
		{"max_connection_duration", `"common_http_protocol_options": {"max_connection_duration": "0.2s"}, "drain_timeout": "0.1s"`},
		{"max_requests_per_connection", `"common_http_protocol_options": {"max_requests_per_connection": 1}, "drain_timeout": "0.1s"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBackend(t)
			g := start(t, setup{manager: c.manager, routes: allToBackend, clusters: map[string]string{"b": b.addr}})
			client := g.dialHTTP2(t)
			client.get("/fast") // its answer and GOAWAY may come in either order
			if last := client.goAway(); last != everyStream {
				t.Errorf("GOAWAY names stream %d", last)
			}
			if client.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }) == nil {
				t.Error("the connection ended without the second GOAWAY")
			}
		})
	}
}

// TestHTTP2Limits: time limits end a stream and no other.
func TestHTTP2Limits(t *testing.T) {
	for _, c := range []struct{ name, manager, status, log string }{
		{"stream_idle_timeout", `"stream_idle_timeout": "0.2s"`, "504", "504 SI stream_idle_timeout"},
		{"max_stream_duration", `"common_http_protocol_options": {"max_stream_duration": "0.2s"}`, "504", "504 - max_duration_timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBackend(t)
			g := start(t, setup{manager: c.manager, routes: allToBackend, clusters: map[string]string{"b": b.addr}})
			client := g.dialHTTP2(t)
			if s := client.status(client.get("/slow")); s != c.status {
				t.Errorf("status %s, want %s", s, c.status)
			}
			if line := g.logged(t, 0); !strings.Contains(line, c.log) {
				t.Errorf("log %q, want %q in it", line, c.log)
			}
			if s := client.status(client.get("/fast")); s != "200" {
				t.Errorf("the next stream: %s", s)
			}
		})
	}
}

// TestHTTP2ClientLeaves: a stream that its client resets ends at the backend too, at once.
func TestHTTP2ClientLeaves(t *testing.T) {
	b := newBackend(t)
	g := start(t, setup{routes: allToBackend, clusters: map[string]string{"b": b.addr}})
	c := g.dialHTTP2(t)
	slow := c.get("/slow")
	if s := c.status(c.get("/fast")); s != "200" {
		t.Fatal(s)
	}
	g.logged(t, 0) // its line comes after its answer
	if err := c.WriteRSTStream(slow, http2.ErrCodeCancel); err != nil {
		t.Fatal(err)
	}
	if line := g.logged(t, 1); !strings.Contains(line, " 0 DR http2.remote_reset") {
		t.Errorf("log: %s", line)
	}
	if s := c.status(c.get("/fast")); s != "200" {
		t.Errorf("the next stream: %s", s)
	}
}

// TestHTTP2Codecs: codec_type decides what is spoken without ALPN.
func TestHTTP2Codecs(t *testing.T) {
	t.Run("HTTP1", func(t *testing.T) {
		g := start(t, setup{manager: `"codec_type": "HTTP1"`, routes: `{"match": {"prefix": "/"}, "direct_response": {"status": 200}}`})
		c := g.dial(t)
		if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(c)
		wantStart(t, string(answer), "HTTP/1.1 400 Bad Request\r\n")
	})
	t.Run("HTTP2", func(t *testing.T) {
		g := start(t, setup{manager: `"codec_type": "HTTP2"`, routes: `{"match": {"prefix": "/"}, "direct_response": {"status": 200}}`})
		c := g.dialHTTP2(t)
		if s := c.status(c.get("/")); s != "200" {
			t.Error(s)
		}
	})
	t.Run("a preface in pieces", func(t *testing.T) {
		g := start(t, setup{routes: `{"match": {"prefix": "/"}, "direct_response": {"status": 200}}`})
		conn := g.dial(t)
		for _, part := range []string{"PRI * HT", "TP/2.0\r\n\r\n", "SM\r\n\r\n"} {
			if _, err := io.WriteString(conn, part); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) // so that they are read one by one
		}
		c := &h2Client{t: t, conn: conn, next: 1, Framer: http2.NewFramer(conn, conn)}
		c.heads = hpack.NewEncoder(&c.block)
		c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		if err := c.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		if s := c.status(c.get("/")); s != "200" {
			t.Error(s)
		}
	})
}

// faulty is a filter with a fault in its code.
type faulty struct{}

func (faulty) OnRequest(s *http.Stream, _ http.Slot) http.Verdict {
	if string(s.Request.Path) == "/fault" {
		panic("a fault")
	}
	return http.Continue
}

func (faulty) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }

// TestHTTP2Fault: a fault in the code of one stream ends its connection, and no other.
func TestHTTP2Fault(t *testing.T) {
	faults := make(chan any, 2)
	g := start(t, setup{routes: `{"match": {"prefix": "/"}, "direct_response": {"status": 200}}`, faults: faults, filters: []http.Factory{{
		Name: "faulty", New: func(*anypb.Any, http.Env) (http.Filter, error) { return faulty{}, nil }}}})
	c, other := g.dialHTTP2(t), g.dialHTTP2(t)
	c.get("/fault")
	if f := <-faults; f == nil || !strings.Contains(f.(string), "a fault") {
		t.Errorf("the connection ended with %v", f)
	}
	if s := other.status(other.get("/")); s != "200" {
		t.Errorf("another connection: %s", s)
	}
}
