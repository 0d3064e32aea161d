package http2_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
)

// outcome is what a router sees of one exchange, as text.
func outcome(s *http2.ClientStream) string {
	var b strings.Builder
	for {
		var a http.Response
		if err := s.ReadHead(&a); err != nil {
			return b.String() + fault(err)
		}
		fmt.Fprint(&b, a.Status)
		for _, f := range a.Headers.Fields {
			fmt.Fprintf(&b, " %s=%s", f.Name, f.Value)
		}
		if a.ContentLength >= 0 {
			fmt.Fprintf(&b, " (%d)", a.ContentLength)
		}
		if a.Status < 200 && a.Status != 101 {
			b.WriteString(", ")
			continue
		}
		body, err := readAll(a.Body)
		if len(body) > 0 {
			fmt.Fprintf(&b, " %q", body)
		}
		if err != nil {
			return b.String() + " " + fault(err)
		}
		if tr := a.Body.Trailers(); tr != nil {
			for _, f := range tr.Fields {
				fmt.Fprintf(&b, " TRAILER %s=%s", f.Name, f.Value)
			}
		}
		return b.String()
	}
}

// fault is an error as the router judges it.
func fault(err error) string {
	var r *http.Reset
	if !errors.As(err, &r) {
		return err.Error()
	}
	if r.Unused {
		return r.Reason.String() + ", unused"
	}
	return r.Reason.String()
}

// TestAnswers: what becomes of the answers of servers, as a real Envoy 1.40 judges them.
func TestAnswers(t *testing.T) {
	ok := []string{":status", "200"}
	large := strings.Repeat("x", 15000)
	for _, c := range []struct {
		name string
		do   func(p *peer)
		want string
		says string // how our end ends the exchange or connection, "" when it goes on
	}{
		{"head only", func(p *peer) { p.head(1, true, ok...) }, "200 (0)", ""},
		{"body", func(p *peer) { p.head(1, false, ok...); p.data(1, false, "ab"); p.data(1, true, "c") }, `200 "abc"`, ""},
		{"content-length", func(p *peer) { p.head(1, false, ":status", "200", "content-length", "3"); p.data(1, true, "abc") }, `200 content-length=3 (3) "abc"`, ""},
		{"trailers", func(p *peer) { p.head(1, false, ok...); p.data(1, false, "a"); p.head(1, true, "x", "y") }, `200 "a" TRAILER x=y`, ""},
		{"trailers only", func(p *peer) { p.head(1, false, ok...); p.head(1, true, "x", "y") }, `200 TRAILER x=y`, ""},
		{"103 before", func(p *peer) { p.head(1, false, ":status", "103", "link", "x"); p.head(1, true, ok...) }, "103 link=x (0), 200 (0)", ""},
		{"304 with a length", func(p *peer) { p.head(1, true, ":status", "304", "content-length", "9") }, "304 content-length=9 (0)", ""},

		{"reset", func(p *peer) { p.say(p.WriteRSTStream(1, xhttp2.ErrCodeInternal)) }, "remote reset", ""},
		{"reset without an error", func(p *peer) { p.say(p.WriteRSTStream(1, xhttp2.ErrCodeNo)) }, "remote reset", ""},
		{"refused", func(p *peer) { p.say(p.WriteRSTStream(1, xhttp2.ErrCodeRefusedStream)) }, "remote refused stream reset, unused", ""},
		{"reset after the head", func(p *peer) { p.head(1, false, ok...); p.say(p.WriteRSTStream(1, xhttp2.ErrCodeInternal)) }, "200 remote reset", ""},
		{"reset within the body", func(p *peer) { p.head(1, false, ok...); p.data(1, false, "a"); p.say(p.WriteRSTStream(1, 2)) }, `200 "a" remote reset`, ""},
		{"GOAWAY below", func(p *peer) { p.say(p.WriteGoAway(0, 0, nil)) }, "remote refused stream reset, unused", "end"},
		{"GOAWAY with an error", func(p *peer) { p.say(p.WriteGoAway(0, 2, nil)) }, "remote refused stream reset, unused", "end"},
		{"GOAWAY above, then the answer", func(p *peer) { p.say(p.WriteGoAway(1, 0, nil)); p.head(1, true, ok...) }, "200 (0)", "end"},
		{"end of the connection", func(p *peer) { _ = p.c.Close() }, "connection termination", "end"},
		{"end after the head", func(p *peer) { p.head(1, false, ok...); _ = p.c.Close() }, "200 connection termination", "end"},
		{"DATA after the end is a breach", func(p *peer) { p.head(1, true, ok...); p.data(1, false, "a") }, "200 (0)", "RST_STREAM 1 STREAM_CLOSED"},

		{"no status", func(p *peer) { p.head(1, true, "x", "y") }, "protocol error", "end"},
		{"status abc", func(p *peer) { p.head(1, true, ":status", "abc") }, "protocol error", "end"},
		{"status 99", func(p *peer) { p.head(1, true, ":status", "99") }, "protocol error", "end"},
		{"101", func(p *peer) { p.head(1, false, ":status", "101") }, "protocol error", "end"},
		{"100 with the end", func(p *peer) { p.head(1, true, ":status", "100") }, "protocol error", "end"},
		{"connection field", func(p *peer) { p.head(1, true, ":status", "200", "connection", "close") }, "protocol error", "end"},
		{"upper case", func(p *peer) { p.head(1, true, ":status", "200", "X-A", "b") }, "protocol error", "end"},
		{"pseudo header of requests", func(p *peer) { p.head(1, true, ":status", "200", ":path", "/") }, "protocol error", "end"},
		{"two heads", func(p *peer) { p.head(1, false, ok...); p.head(1, true, ok...) }, "200 protocol error", "end"},
		{"trailers without an end", func(p *peer) { p.head(1, false, ok...); p.head(1, false, "x", "y") }, "200 protocol error", "end"},
		{"DATA before a head", func(p *peer) { p.data(1, true, "x") }, "protocol error", "GOAWAY last=0 PROTOCOL_ERROR"},
		{"PUSH_PROMISE", func(p *peer) { p.say(p.WriteRawFrame(xhttp2.FramePushPromise, 4, 1, make([]byte, 4))) }, "protocol error", "end"},
		{"an answer nobody asked for", func(p *peer) { p.head(3, true, ok...) }, "protocol error", "GOAWAY last=0 PROTOCOL_ERROR"},
		{"content-length too large", func(p *peer) { p.head(1, false, ":status", "200", "content-length", "3"); p.data(1, true, "x") }, "200 content-length=3 (3) protocol error", "RST_STREAM 1 PROTOCOL_ERROR"},
		{"content-length too large, trailers", func(p *peer) { p.head(1, false, ":status", "200", "content-length", "3"); p.head(1, true, "x", "y") }, "200 content-length=3 (3) protocol error", "RST_STREAM 1 PROTOCOL_ERROR"},
		{"204 with a body", func(p *peer) { p.head(1, false, ":status", "204"); p.data(1, true, "x") }, "204 (0) protocol error", "RST_STREAM 1 PROTOCOL_ERROR"},
		{"head too large", func(p *peer) {
			p.head(1, true, ":status", "200", "a", large, "b", large, "c", large, "d", large, "e", large)
		}, "remote reset", "RST_STREAM 1 INTERNAL_ERROR"},
		{"trailers too large", func(p *peer) {
			p.head(1, false, ok...)
			p.head(1, true, "a", large, "b", large, "c", large, "d", large, "e", large)
		}, "200 remote reset", "RST_STREAM 1 INTERNAL_ERROR"},
		{"informs without end", func(p *peer) {
			for range 101 {
				p.head(1, false, ":status", "103")
			}
		}, strings.Repeat("103 (0), ", 100) + "protocol error", "RST_STREAM 1 ENHANCE_YOUR_CALM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, cl, _ := atClient(t, http2.ClientOptions{})
			s := cl.Open()
			if err := s.WriteHead(get("/"), true); err != nil {
				t.Fatal(err)
			}
			_ = s.Flush()
			p.until("HEADERS 1")
			c.do(p)
			if got := outcome(s); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
			s.Release()
			if strings.HasPrefix(c.says, "RST_STREAM") {
				p.expect(c.says)
			}
			if c.says == "end" {
				for p.c != nil && p.hear() != "end" {
				}
				return
			}
			if strings.HasPrefix(c.says, "GOAWAY") {
				p.expect(c.says)
				return
			}
			p.pinged()
		})
	}
}

// TestRequestsSent: how requests of either version are written.
func TestRequestsSent(t *testing.T) {
	upgrade := get("/chat", "connection", "upgrade", "upgrade", "websocket", "sec-websocket-key", "k")
	upgrade.Upgrade = []byte("websocket")
	connect := &http.Request{Method: []byte("CONNECT"), Authority: []byte("a:1")}
	for _, c := range []struct {
		name string
		r    *http.Request
		want string
	}{
		{"plain", get("/x"), "HEADERS 1 :method=GET :scheme=http :path=/x :authority=a"},
		{"fields of HTTP/1", get("/", "User-Agent", "u", "Connection", "close, x", "Keep-Alive", "1", "Transfer-Encoding", "chunked", "TE", "trailers", "Host", "b", "Proxy-Connection", "c", "HTTP2-Settings", "d"),
			"HEADERS 1 :method=GET :scheme=http :path=/ :authority=a user-agent=u te=trailers"},
		{"te", get("/", "te", "gzip, trailers"), "HEADERS 1 :method=GET :scheme=http :path=/ :authority=a"},
		{"upgrade", upgrade, "HEADERS 1 :method=CONNECT :scheme=http :path=/chat :authority=a :protocol=websocket sec-websocket-key=k"},
		{"CONNECT", connect, "HEADERS 1 :method=CONNECT :authority=a:1"},
		{"long", get("/", "x", strings.Repeat("y", 40000)), "HEADERS 1 :method=GET :scheme=http :path=/ :authority=a unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, cl, _ := atClient(t, http2.ClientOptions{})
			s := cl.Open()
			defer s.Release()
			if err := s.WriteHead(c.r, false); err != nil {
				t.Fatal(err)
			}
			_ = s.Flush()
			if c.name == "long" { // in several frames
				p.ReadMetaHeaders = p.dec
				for {
					f, err := p.ReadFrame()
					if err != nil {
						t.Fatal(err)
					}
					if m, ok := f.(*xhttp2.MetaHeadersFrame); ok {
						if len(m.Fields) != 5 || len(m.Fields[4].Value) != 40000 {
							t.Fatal(m.Fields)
						}
						return
					}
				}
			}
			if got := p.until("HEADERS"); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestTunnel: an upgrade goes as extended CONNECT, and 200 comes back as 101; then bytes
// flow both ways until both sides have ended.
func TestTunnel(t *testing.T) {
	p, cl, _ := atClient(t, http2.ClientOptions{})
	r := get("/chat", "connection", "upgrade", "upgrade", "websocket")
	r.Upgrade = []byte("websocket")
	s := cl.Open()
	defer s.Release()
	if err := errors.Join(s.WriteHead(r, false), s.Flush()); err != nil {
		t.Fatal(err)
	}
	p.until("HEADERS 1")
	p.head(1, false, ":status", "200", "x", "y")
	var a http.Response
	if err := s.ReadHead(&a); err != nil || a.Status != 101 || string(a.Headers.Get("upgrade")) != "websocket" {
		t.Fatal(err, a)
	}
	if err := errors.Join(s.WriteBody([]byte("ping"), false), s.Flush()); err != nil {
		t.Fatal(err)
	}
	p.expect(`DATA 1 "ping"`)
	p.data(1, false, "pong")
	if b, err := a.Body.Next(); err != nil || string(b) != "pong" {
		t.Fatal(err, b)
	}
	p.data(1, true, "")
	if _, err := a.Body.Next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err := errors.Join(s.WriteBody(nil, true), s.Flush()); err != nil {
		t.Fatal(err)
	}
	p.expect(`DATA 1 "" END`)
}

// TestTunnelConsent: the server's side of the same.
func TestTunnelConsent(t *testing.T) {
	for _, c := range []struct {
		status int
		want   string
	}{{101, "HEADERS 1 :status=200 x=y"}, {403, "HEADERS 1 :status=403 x=y"}} {
		p := atServer(t, http2.ServerOptions{Options: http2.Options{AllowConnect: true}}, func(s *http2.ServerStream) {
			a := http.Response{Status: c.status}
			a.Headers.Add([]byte("Upgrade"), []byte("websocket"))
			a.Headers.Add([]byte("Connection"), []byte("Upgrade"))
			a.Headers.Add([]byte("x"), []byte("y"))
			_ = s.WriteHead(&a, false)
			_ = s.Flush()
			if !s.Answered() {
				t.Error("not answered")
			}
		})
		p.head(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/")
		p.expect(c.want)
	}
}

// TestRoom: how many streams may be opened, and who is told when that changes.
func TestRoom(t *testing.T) {
	p, cl, own := atClient(t, http2.ClientOptions{}, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 2})
	<-own.changed
	if n := cl.Room(); n != 2 {
		t.Fatal("room for", n)
	}
	a, b := cl.Open(), cl.Open()
	if cl.Open() != nil || cl.Active() != 2 || a.Reused() || !b.Reused() {
		t.Fatal("beyond the peer's limit")
	}
	p.say(p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 3}))
	<-own.changed
	c := cl.Open()
	if c == nil {
		t.Fatal("the limit has grown")
	}
	c.Release() // it has sent nothing: nothing is to be said of it
	<-own.finished
	if cl.Room() != 1 {
		t.Error("a stream was given back")
	}
	p.say(p.WriteGoAway(1<<31-1, 0, nil))
	<-own.changed
	if cl.Room() != 0 || !cl.Draining() || cl.Open() != nil {
		t.Error("GOAWAY has come")
	}
	if err := fault(a.WriteHead(get("/"), true)); err != "remote refused stream reset, unused" {
		t.Error(err)
	}
	a.Release()
	b.Release()
	if err := <-own.ended; err != nil {
		t.Error(err)
	}
	own.ended <- nil // for the end of the test
}

// TestUnused: a request of which no byte was sent can be sent again.
func TestUnused(t *testing.T) {
	_, cl, _ := atClient(t, http2.ClientOptions{})
	s := cl.Open()
	defer s.Release()
	cl.Close()
	if got := fault(s.WriteHead(get("/"), true)); got != "connection termination, unused" {
		t.Error(got)
	}
}

// TestDrain: the connection ends after its last stream.
func TestDrain(t *testing.T) {
	p, cl, own := atClient(t, http2.ClientOptions{})
	s := cl.Open()
	if err := errors.Join(s.WriteHead(get("/"), true), s.Flush()); err != nil {
		t.Fatal(err)
	}
	p.until("HEADERS 1")
	cl.Drain()
	if cl.Open() != nil {
		t.Error("a stream of a connection that is drained")
	}
	p.head(1, true, ":status", "200")
	p.expect("end")
	_ = p.c.Close()
	if err := <-own.ended; err != nil {
		t.Error(err)
	}
	own.ended <- nil
	if got := outcome(s); got != "200 (0)" {
		t.Error("what was received is lost:", got)
	}
	s.Release()
}

// TestDeadlines bound reads and writes that are blocked, and those that come.
func TestDeadlines(t *testing.T) {
	p, cl, _ := atClient(t, http2.ClientOptions{}, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
	p.until("PING ACK", func() { p.say(p.WritePing(false, [8]byte{})) })
	s := cl.Open()
	defer s.Release()
	if err := s.WriteHead(get("/"), false); err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(20 * time.Millisecond))
	if err := s.WriteBody([]byte("x"), true); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("no window:", err)
	}
	var a http.Response
	if err := s.Await(&a); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("no answer, late already:", err)
	}
	s.SetDeadline(time.Now().Add(20 * time.Millisecond))
	if err := s.ReadHead(&a); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("no answer:", err)
	}
	s.SetDeadline(time.Time{})
	p.until("HEADERS 1")
	p.head(1, false, ":status", "200")
	if err := s.ReadHead(&a); err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := a.Body.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("no body:", err)
	}
}

// TestInterrupt ends what is blocked, and resets the stream.
func TestInterrupt(t *testing.T) {
	p, cl, own := atClient(t, http2.ClientOptions{}, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
	p.until("PING ACK", func() { p.say(p.WritePing(false, [8]byte{})) })
	s := cl.Open()
	if err := errors.Join(s.WriteHead(get("/"), false), s.Flush()); err != nil {
		t.Fatal(err)
	}
	p.until("HEADERS 1")
	done := make(chan string, 2)
	go func() { done <- fault(s.WriteBody([]byte("x"), true)) }()
	go func() { var a http.Response; done <- fault(s.Await(&a)) }()
	s.Interrupt()
	if a, b := <-done, <-done; a != "local reset" || b != "local reset" {
		t.Error(a, b)
	}
	p.expect("RST_STREAM 1 INTERNAL_ERROR")
	<-own.finished
	s.Release()
	p.pinged()
}
