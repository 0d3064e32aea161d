package http2_test

import (
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
)

// describe answers with what it was asked: the head as one field, then the body.
func describe(s *http2.ServerStream) {
	var r http.Request
	if s.ReadRequest(&r) != nil {
		return
	}
	body, err := readAll(r.Body)
	if err != nil {
		return
	}
	text := string(r.Method) + " " + string(r.Scheme) + " " + string(r.Authority) + " " + string(r.Path)
	for _, f := range r.Headers.Fields {
		text += "|" + string(f.Name) + "=" + string(f.Value)
	}
	if r.Upgrade != nil {
		text += "|UPGRADE " + string(r.Upgrade)
	}
	if s.ExpectsContinue() {
		text += "|EXPECTS"
	}
	if tr := r.Body.Trailers(); tr != nil {
		for _, f := range tr.Fields {
			text += "|TRAILER " + string(f.Name) + "=" + string(f.Value)
		}
	}
	a := http.Response{Status: 200}
	a.Headers.Add([]byte("Got"), []byte(text))
	_ = s.WriteHead(&a, len(body) == 0)
	if len(body) > 0 {
		_ = s.WriteBody(body, true)
	}
	_ = s.Flush()
}

// TestRequestHeads: what becomes of the heads that clients send. The outcome is that of a
// real Envoy 1.40 for the same bytes.
func TestRequestHeads(t *testing.T) {
	const malformed = "end"
	simple := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
	with := func(kv ...string) []string { return append(append([]string{}, simple...), kv...) }
	large := strings.Repeat("x", 15000)
	var many []string
	for range 97 {
		many = append(many, "x", "y")
	}
	got := func(text string) string { return "HEADERS 1 :status=200 got=" + text + " END" }
	for _, c := range []struct {
		name string
		head []string
		want string
	}{
		{"simple", simple, got("GET http a /")},
		{"host instead of authority", []string{":method", "GET", ":scheme", "http", ":path", "/", "host", "b"}, got("GET http b /")},
		{"host beside authority", with("host", "b"), got("GET http a /")},
		{"host twice", []string{":method", "GET", ":scheme", "http", ":path", "/", "host", "b", "host", "c"}, malformed},
		{"cookies are joined", with("cookie", "a=b", "x", "y", "cookie", "c=d"), got("GET http a /|x=y|cookie=a=b; c=d")},
		{"unknown method", []string{":method", "FOO", ":scheme", "http", ":authority", "a", ":path", "/"}, got("FOO http a /")},
		{"unknown scheme", []string{":method", "GET", ":scheme", "foo", ":authority", "a", ":path", "/"}, got("GET foo a /")},
		{"asterisk", []string{":method", "OPTIONS", ":scheme", "http", ":authority", "a", ":path", "*"}, got("OPTIONS http a *")},
		{"fragment", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/a#b"}, got("GET http a /a#b")},
		{"underscore", with("x_y", "z"), got("GET http a /|x_y=z")},
		{"blank before a value", with("x", " z"), got("GET http a /|x= z")},
		{"te: trailers", with("te", "trailers"), got("GET http a /|te=trailers")},
		{"expect", with("expect", "100-continue"), got("GET http a /|expect=100-continue|EXPECTS")},
		{"100 fields", with(many[:2*96]...), got("GET http a /" + strings.Repeat("|x=y", 96))},
		{"CONNECT", []string{":method", "CONNECT", ":authority", "a:1"}, got("CONNECT  a:1 ")},
		{"extended CONNECT", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/"},
			got("GET http a /|upgrade=websocket|connection=upgrade|UPGRADE websocket")},

		{"no path", []string{":method", "GET", ":scheme", "http", ":authority", "a"}, malformed},
		{"no scheme", []string{":method", "GET", ":authority", "a", ":path", "/"}, malformed},
		{"no method", []string{":scheme", "http", ":authority", "a", ":path", "/"}, malformed},
		{"no authority", []string{":method", "GET", ":scheme", "http", ":path", "/"}, malformed},
		{"empty authority", []string{":method", "GET", ":scheme", "http", ":authority", "", ":path", "/", "host", "b"}, malformed},
		{"empty host", []string{":method", "GET", ":scheme", "http", ":path", "/", "host", ""}, malformed},
		{"host invalid beside authority", with("host", "a b"), malformed},
		{"empty path", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", ""}, malformed},
		{"relative path", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "foo"}, malformed},
		{"blank in the path", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/a b"}, malformed},
		{"blank in the method", []string{":method", "G T", ":scheme", "http", ":authority", "a", ":path", "/"}, malformed},
		{"blank in the authority", []string{":method", "GET", ":scheme", "http", ":authority", "a b", ":path", "/"}, malformed},
		{"upper case", with("X-A", "b"), malformed},
		{"blank in a name", with("x a", "b"), malformed},
		{"empty name", with("", "b"), malformed},
		{"control character", with("x", "a\x01b"), malformed},
		{"line end (CVE-2019-9900 and its kin)", with("x", "a\r\ny: z"), malformed},
		{"NUL", with("x", "a\x00b"), malformed},
		{"connection", with("connection", "close"), malformed},
		{"keep-alive", with("keep-alive", "1"), malformed},
		{"proxy-connection", with("proxy-connection", "close"), malformed},
		{"transfer-encoding", with("transfer-encoding", "chunked"), malformed},
		{"upgrade", with("upgrade", "websocket"), malformed},
		{"te: gzip", with("te", "gzip"), malformed},
		{"pseudo header after a field", []string{":method", "GET", ":scheme", "http", ":authority", "a", "x", "y", ":path", "/"}, malformed},
		{"pseudo header twice", with(":path", "/"), malformed},
		{"unknown pseudo header", with(":foo", "/"), malformed},
		{"pseudo header of answers", with(":status", "200"), malformed},
		{"protocol without CONNECT", with(":protocol", "websocket"), malformed},
		{"CONNECT with a path", []string{":method", "CONNECT", ":authority", "a:1", ":path", "/"}, malformed},
		{"content-length twice", with("content-length", "0", "content-length", "0"), malformed},
		{"content-length invalid", with("content-length", "x"), malformed},
		{"content-length too large", with("content-length", "99999999999999999999"), malformed},
		{"content-length and no body", with("content-length", "3"), malformed},

		{"101 fields", with(many...), "RST_STREAM 1 INTERNAL_ERROR"},
		{"one field of 70 kB", with("a", strings.Repeat("x", 70000)), "RST_STREAM 1 INTERNAL_ERROR"},
		{"one field of 130 kB", with("a", strings.Repeat("\\", 130000)), "GOAWAY last=1 ENHANCE_YOUR_CALM"},
		{"75 kB", with("a", large, "b", large, "c", large, "d", large, "e", large), "RST_STREAM 1 INTERNAL_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := atServer(t, http2.ServerOptions{Options: http2.Options{AllowConnect: true}}, describe)
			p.head(1, true, c.head...)
			p.expect(c.want)
			if c.want == "end" || strings.HasPrefix(c.want, "GOAWAY") {
				return
			}
			p.get(3, true) // the connection is as good as before
			if after := p.hear(); !strings.HasPrefix(after, "HEADERS 3") {
				t.Error("afterwards:", after)
			}
		})
	}
}

// TestLenientHeads: a malformed message ends its stream only, where that is configured.
func TestLenientHeads(t *testing.T) {
	p := atServer(t, http2.ServerOptions{Options: http2.Options{Lenient: true}}, describe)
	p.get(1, true, "X-A", "b")
	p.get(3, false)
	p.head(3, true, ":path", "trailers have none")
	p.get(5, true)
	p.expect("RST_STREAM 1 PROTOCOL_ERROR", "RST_STREAM 3 PROTOCOL_ERROR", "HEADERS 5 :status=200 got=GET http a / END")
}

// TestRequestBodies: framing of bodies and trailers.
func TestRequestBodies(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(p *peer)
		want []string
	}{
		{"body", func(p *peer) { p.get(1, false); p.data(1, false, "ab"); p.data(1, true, "c") },
			[]string{"HEADERS 1 :status=200 got=GET http a /", `DATA 1 "abc" END`}},
		{"padding", func(p *peer) {
			p.get(1, false)
			p.say(p.WriteDataPadded(1, true, []byte("abc"), make([]byte, 200)))
		}, []string{"HEADERS 1 :status=200 got=GET http a /", `DATA 1 "abc" END`}},
		{"trailers", func(p *peer) { p.get(1, false); p.data(1, false, "a"); p.head(1, true, "x", "y") },
			[]string{"HEADERS 1 :status=200 got=GET http a /|TRAILER x=y", `DATA 1 "a" END`}},
		{"trailers without a body", func(p *peer) { p.get(1, false); p.head(1, true, "x", "y") },
			[]string{"HEADERS 1 :status=200 got=GET http a /|TRAILER x=y END"}},
		{"trailers too large", func(p *peer) {
			p.get(1, false)
			p.head(1, true, "x", strings.Repeat("y", 40000), "z", strings.Repeat("y", 40000))
		},
			[]string{"RST_STREAM 1 INTERNAL_ERROR"}},
		{"trailers without an end", func(p *peer) { p.get(1, false); p.head(1, false, "x", "y") }, []string{"end"}},
		{"content-length fits", func(p *peer) { p.get(1, false, "content-length", "3"); p.data(1, true, "abc") },
			[]string{"HEADERS 1 :status=200 got=GET http a /|content-length=3", `DATA 1 "abc" END`}},
		{"content-length too small", func(p *peer) { p.get(1, false, "content-length", "3"); p.data(1, true, "abcd") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"content-length too large", func(p *peer) { p.get(1, false, "content-length", "3"); p.data(1, true, "ab") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"content-length too large, trailers", func(p *peer) { p.get(1, false, "content-length", "3"); p.head(1, true, "x", "y") },
			[]string{"RST_STREAM 1 PROTOCOL_ERROR"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := atServer(t, http2.ServerOptions{}, describe)
			c.do(p)
			p.expect(c.want...)
		})
	}
}

// TestServerStates: frames where the state of their stream or connection does not expect them.
func TestServerStates(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(p *peer)
		want []string
	}{
		{"DATA on an idle stream", func(p *peer) { p.data(1, true, "x") }, []string{"GOAWAY last=0 PROTOCOL_ERROR", "end"}},
		{"RST_STREAM on an idle stream", func(p *peer) { p.say(p.WriteRSTStream(1, 8)) }, []string{"end"}},
		{"even stream", func(p *peer) { p.get(2, true) }, []string{"end"}},
		{"PUSH_PROMISE", func(p *peer) { p.say(p.WriteRawFrame(xhttp2.FramePushPromise, 4, 1, make([]byte, 4))) }, []string{"end"}},
		{"frame too large", func(p *peer) { p.say(p.WriteRawFrame(xhttp2.FrameData, 0, 1, make([]byte, 1<<14+1))) }, []string{"GOAWAY last=0 FRAME_SIZE_ERROR", "end"}},
		{"header block torn by PING", func(p *peer) {
			p.say(p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(":method", "GET")}))
			p.say(p.WritePing(false, [8]byte{}))
		}, []string{"GOAWAY last=1 PROTOCOL_ERROR", "end"}},
		{"header block not decodable", func(p *peer) {
			p.say(p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true}))
		}, []string{"GOAWAY last=1 COMPRESSION_ERROR", "end"}},
		{"header block cut off", func(p *peer) {
			p.say(p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x40, 0x0a, 'x'}, EndHeaders: true}))
		}, []string{"GOAWAY last=1 COMPRESSION_ERROR", "end"}},
		{"table larger than allowed", func(p *peer) {
			p.pinged()
			p.say(p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x3f, 0xff, 0xff, 0x03}, EndHeaders: true}))
		}, []string{"GOAWAY last=1 COMPRESSION_ERROR", "end"}},
		{"stream numbers fall", func(p *peer) { p.get(5, true); p.until("HEADERS 5"); p.get(3, true) }, []string{"GOAWAY last=5 STREAM_CLOSED", "end"}},
		{"SETTINGS_ENABLE_PUSH 2", func(p *peer) { p.say(p.WriteSettings(xhttp2.Setting{ID: 2, Val: 2})) }, []string{"GOAWAY last=0 PROTOCOL_ERROR", "end"}},
		{"SETTINGS_INITIAL_WINDOW_SIZE 2^31", func(p *peer) { p.say(p.WriteSettings(xhttp2.Setting{ID: 4, Val: 1 << 31})) }, []string{"end"}},
		{"SETTINGS_MAX_FRAME_SIZE 1", func(p *peer) { p.say(p.WriteSettings(xhttp2.Setting{ID: 5, Val: 1})) }, []string{"end"}},
		{"unknown SETTINGS and frames", func(p *peer) {
			p.say(p.WriteSettings(xhttp2.Setting{ID: 0x99, Val: 1}))
			p.say(p.WriteRawFrame(0x42, 0xff, 7, []byte("x")))
			p.say(p.WritePriority(9, xhttp2.PriorityParam{StreamDep: 3}))
			p.get(1, true)
		}, []string{"HEADERS 1 :status=200 got=GET http a / END"}},
		{"a client's GOAWAY changes nothing", func(p *peer) { p.say(p.WriteGoAway(0, 0, nil)); p.get(1, true) }, []string{"HEADERS 1 :status=200 got=GET http a / END"}},
		{"WINDOW_UPDATE of nothing", func(p *peer) { p.say(p.WriteRawFrame(xhttp2.FrameWindowUpdate, 0, 0, make([]byte, 4))) }, []string{"GOAWAY last=0 PROTOCOL_ERROR", "end"}},
		{"WINDOW_UPDATE beyond 2^31-1", func(p *peer) { p.say(p.WriteWindowUpdate(0, 1<<31-1)) }, []string{"GOAWAY last=0 FLOW_CONTROL_ERROR", "end"}},
		{"WINDOW_UPDATE of a stream beyond 2^31-1", func(p *peer) { p.get(1, false); p.say(p.WriteWindowUpdate(1, 1<<31-1)) }, []string{"RST_STREAM 1 FLOW_CONTROL_ERROR"}},
		{"the answer is there before the request's end", func(p *peer) { p.get(1, false, "early", "1") }, []string{"HEADERS 1 :status=204 END", "RST_STREAM 1 NO_ERROR"}},
		{"the answer is never ended", func(p *peer) { p.get(1, true, "abandon", "1") }, []string{"HEADERS 1 :status=200", "RST_STREAM 1 INTERNAL_ERROR"}},
		{"DATA after our reset is dropped", func(p *peer) {
			p.get(1, false, "early", "1")
			p.until("RST_STREAM")
			p.data(1, true, "x")
			p.pinged()
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := atServer(t, http2.ServerOptions{}, func(s *http2.ServerStream) {
				var r http.Request
				if s.ReadRequest(&r) != nil {
					return
				}
				switch {
				case r.Headers.Has("early"):
					_ = s.WriteHead(&http.Response{Status: 204}, true)
				case r.Headers.Has("abandon"):
					_ = s.WriteHead(&http.Response{Status: 200}, false)
				default:
					describe(s)
				}
			})
			c.do(p)
			p.expect(c.want...)
		})
	}
}

// TestPreface: what is no HTTP/2 is not served; bytes that were read ahead count.
func TestPreface(t *testing.T) {
	for _, c := range []struct{ name, said, want string }{
		{"HTTP/1", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GOAWAY last=0 PROTOCOL_ERROR"},
		{"not SETTINGS first", http2.Preface + "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", "GOAWAY last=0 PROTOCOL_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			down, up := sockets(t)
			serving(t, up, http2.ServerOptions{}, describe)
			p := newPeer(t, down)
			p.say(p.raw(c.said))
			p.expect(c.want, "end")
		})
	}
}

// TestHello: what both ends say first is what Envoy says.
func TestHello(t *testing.T) {
	p := atServer(t, http2.ServerOptions{Options: http2.Options{AllowConnect: true}}, describe)
	p.bulky = true
	p.expect("SETTINGS HEADER_TABLE_SIZE=4096 ENABLE_CONNECT_PROTOCOL=1 MAX_CONCURRENT_STREAMS=1024 INITIAL_WINDOW_SIZE=16777216",
		"WINDOW_UPDATE +25100289", "SETTINGS ACK")
	q, _, _ := atClient(t, http2.ClientOptions{})
	q.bulky = true
	q.expect("SETTINGS ENABLE_PUSH=0 HEADER_TABLE_SIZE=4096 ENABLE_CONNECT_PROTOCOL=0 MAX_CONCURRENT_STREAMS=1024 INITIAL_WINDOW_SIZE=16777216", "WINDOW_UPDATE +25100289", "SETTINGS ACK")
}
