package http1_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http1"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A tape is a connection that plays bytes, at most step at a time, and records what is
// written.
type tape struct {
	in   []byte
	step int
	out  bytes.Buffer
}

func (t *tape) Read(p []byte) (int, error) {
	if len(t.in) == 0 {
		return 0, io.EOF
	}
	n := len(t.in)
	if t.step > 0 {
		n = min(n, t.step)
	}
	n = copy(p, t.in[:n])
	t.in = t.in[n:]
	return n, nil
}

func (t *tape) Write(p []byte) (int, error)      { return t.out.Write(p) }
func (t *tape) Close() error                     { return nil }
func (t *tape) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (t *tape) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (t *tape) SetDeadline(time.Time) error      { return nil }
func (t *tape) SetReadDeadline(time.Time) error  { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }

func play(in string, step int) (*tape, transport.Conn) {
	t := &tape{in: []byte(in), step: step}
	return t, transport.NewConn(t)
}

// describe is a request as text, for comparison: line, host, fields, body, trailers.
func describe(s *http1.Server, r *http.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s host=%q", r.Method, r.Path, r.Authority)
	for _, f := range r.Headers.Fields {
		fmt.Fprintf(&b, " %s=%q", f.Name, f.Value)
	}
	if r.Upgrade != nil {
		fmt.Fprintf(&b, " upgrade:%s", r.Upgrade)
		return b.String()
	}
	body, err := readAll(r.Body)
	if len(body) > 0 || r.ContentLength != 0 {
		fmt.Fprintf(&b, " body=%q", body)
	}
	if t := r.Body.Trailers(); t != nil {
		for _, f := range t.Fields {
			fmt.Fprintf(&b, " trailer:%s=%q", f.Name, f.Value)
		}
	}
	if s.Closes() && err == nil {
		b.WriteString(" close")
	}
	if err != nil {
		fmt.Fprintf(&b, " error: %v", err)
	}
	return b.String()
}

func readAll(b http.Body) ([]byte, error) {
	var all []byte
	for {
		p, err := b.Next()
		all = append(all, p...)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

// read describes all requests of a connection.
func read(in string, step int, o http1.ServerOptions) []string {
	_, conn := play(in, step)
	s := http1.NewServer(conn, o)
	var all []string
	for range 10 {
		var r http.Request
		if err := s.ReadRequest(&r); err != nil {
			return append(all, err.Error())
		}
		all = append(all, describe(s, &r))
		if !s.Finished() || s.Closes() {
			return all
		}
	}
	return all
}

const host = "Host: a\r\n"

// TestRequest reads connections, whole and byte by byte: the outcome is the same.
func TestRequest(t *testing.T) {
	cases := []struct {
		name, in string
		opts     http1.ServerOptions
		want     []string
	}{
		{"plain", "GET /x?y HTTP/1.1\r\n" + host + "X-A:  b \r\n\r\n", http1.ServerOptions{}, []string{`GET /x?y host="a" X-A="b"`, "EOF"}},
		{"empty value", "GET / HTTP/1.1\r\n" + host + "X-A:\r\n\r\n", http1.ServerOptions{}, []string{`GET / host="a" X-A=""`, "EOF"}},
		{"pipelined", "GET /1 HTTP/1.1\r\n" + host + "\r\nPOST /2 HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\n" + host + "\r\n",
			http1.ServerOptions{}, []string{`GET /1 host="a"`, `POST /2 host="a" Content-Length="2" body="hi"`, `GET /3 host="a"`, "EOF"}},
		{"chunked, extensions dropped", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0a \r\n0123456789\r\n0\r\n\r\n",
			http1.ServerOptions{}, []string{`POST / host="a" body="abc0123456789"`, "EOF"}},
		{"trailers dropped", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\n\r\nGET /2 HTTP/1.1\r\n" + host + "\r\n",
			http1.ServerOptions{}, []string{`POST / host="a" body="a"`, `GET /2 host="a"`, "EOF"}},
		{"trailers kept", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\n\r\n",
			http1.ServerOptions{Options: http1.Options{Trailers: true}}, []string{`POST / host="a" body="a" trailer:X-T="1"`, "EOF"}},
		{"cut off in a body", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nab", http1.ServerOptions{},
			[]string{`POST / host="a" Content-Length="5" body="ab" error: unexpected EOF`}},
		{"cut off in a chunk", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nab", http1.ServerOptions{},
			[]string{`POST / host="a" body="ab" error: unexpected EOF`}},
		{"cut off in a head", "GET / HTTP/1.1\r\nHos", http1.ServerOptions{}, []string{"EOF"}},
		{"connection close", "GET / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", http1.ServerOptions{}, []string{`GET / host="a" close`}},
		{"nominated fields go", "GET / HTTP/1.1\r\n" + host + "X-Foo: 1\r\nConnection: X-FOO\r\nKeep-Alive: 1\r\n\r\n", http1.ServerOptions{}, []string{`GET / host="a"`, "EOF"}},
		{"forwarding fields may not be nominated", "GET / HTTP/1.1\r\n" + host + "X-Forwarded-For: 1.2.3.4\r\nConnection: a, X-Forwarded-For\r\n\r\n", http1.ServerOptions{}, []string{"http1.connection_header_rejected"}},
		{"nor by a second field", "GET / HTTP/1.1\r\n" + host + "Connection: a\r\nConnection: x-forwarded-proto\r\n\r\n", http1.ServerOptions{}, []string{"http1.connection_header_rejected"}},
		{"nor pseudo headers", "GET / HTTP/1.1\r\n" + host + "Connection: :path\r\n\r\n", http1.ServerOptions{}, []string{"http1.connection_header_rejected"}},
		{"nine nominations", "GET / HTTP/1.1\r\n" + host + "Connection: a,b,c,d,e,f,g,h,i\r\n\r\n", http1.ServerOptions{}, []string{`GET / host="a"`, "EOF"}},
		{"ten nominations", "GET / HTTP/1.1\r\n" + host + "Connection: a,b,c,d,e,f,g,h,i,j\r\n\r\n", http1.ServerOptions{}, []string{"http1.connection_header_rejected"}},
		{"a nominated host is gone", "GET / HTTP/1.1\r\n" + host + "Connection: host\r\n\r\n", http1.ServerOptions{}, []string{`GET / host=""`, "EOF"}},
		{"another protocol nominates what it likes", "GET / HTTP/1.1\r\n" + host + "Connection: upgrade, x-forwarded-for\r\nUpgrade: w\r\n\r\n", http1.ServerOptions{}, []string{`GET / host="a" Connection="upgrade, x-forwarded-for" Upgrade="w" upgrade:w`}},
		{"upgrade", "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", http1.ServerOptions{},
			[]string{`GET / host="a" Connection="Upgrade" Upgrade="websocket" upgrade:websocket`}},
		{"old, accepted", "GET / HTTP/1.0\r\n\r\n", http1.ServerOptions{Options: http1.Options{AcceptHTTP10: true}}, []string{`GET / host="" close`}},
		{"old, kept alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", http1.ServerOptions{Options: http1.Options{AcceptHTTP10: true}}, []string{`GET / host=""`, "EOF"}},
		{"old, refused", "GET / HTTP/1.0\r\n\r\n", http1.ServerOptions{}, []string{"low_version"}},
		{"few headers allowed", "GET / HTTP/1.1\r\n" + host + "A: 1\r\nB: 2\r\n\r\n", http1.ServerOptions{MaxHeaders: 2}, []string{"http1.too_many_headers"}},
		{"short head allowed", "GET /" + strings.Repeat("a", 2000) + " HTTP/1.1\r\n" + host + "\r\n", http1.ServerOptions{MaxHeadBytes: 1024}, []string{"http1.headers_too_large"}},
		{"a chunk line of any length takes no memory", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("a", 70000) + "\r\nb\r\n0\r\n\r\n", http1.ServerOptions{},
			[]string{`POST / host="a" body="b"`, "EOF"}},
	}
	for _, c := range cases {
		for _, step := range []int{0, 1, 7} {
			t.Run(fmt.Sprintf("WI-025 %s, %d bytes at a time", c.name, step), func(t *testing.T) {
				if diff := cmp.Diff(c.want, read(c.in, step, c.opts)); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			})
		}
	}
}

// TestLongBody moves a body that is larger than any buffer, in both framings, with a
// further request behind it.
func TestLongBody(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 20<<10)
	next := "GET /next HTTP/1.1\r\n" + host + "\r\n"
	for name, in := range map[string]string{
		"content-length": fmt.Sprintf("POST / HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", host, len(body), body),
		"chunked":        fmt.Sprintf("POST / HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", host, len(body), body),
	} {
		for _, step := range []int{0, 1000, 8192} {
			t.Run(fmt.Sprintf("%s %d", name, step), func(t *testing.T) {
				_, conn := play(in+next, step)
				s := http1.NewServer(conn, http1.ServerOptions{})
				var r http.Request
				if err := s.ReadRequest(&r); err != nil {
					t.Fatal(err)
				}
				got, err := readAll(r.Body)
				if err != nil || string(got) != body || string(r.Authority) != "a" {
					t.Fatalf("%d bytes, host %q, %v; the head must outlive its body", len(got), r.Authority, err)
				}
				if err := s.ReadRequest(&r); err != nil || string(r.Path) != "/next" {
					t.Fatalf("next request: %q, %v", r.Path, err)
				}
			})
		}
	}
}

// keep is the owner of an exchange in a test.
type keep struct{ reusable, told bool }

func (k *keep) Finished(_ *http1.Exchange, reusable bool) { k.reusable, k.told = reusable, true }
func (k *keep) Untaken() bool                             { return false }

// TestResponse reads answers; kept says that the connection may be used again.
func TestResponse(t *testing.T) {
	cases := []struct{ name, method, in, want string }{
		{"sized", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", `200 Content-Length="2" "hi" kept`},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", `200 "hi" kept`},
		{"until the end", "GET", "HTTP/1.1 200 OK\r\n\r\nhi", `200 "hi"`},
		{"close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", `200 Content-Length="2" "hi"`},
		{"old", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", `200 Content-Length="2" "hi"`},
		{"head", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", `200 Content-Length="2" "" kept`},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", `304 Content-Length="2" "" kept`},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", `204 "" kept`},
		{"204 with a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", "protocol_error"},
		{"1xx first", "GET", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", `103 Link="x" 200 Content-Length="0" "" kept`},
		{"bytes behind", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nX", `200 Content-Length="0" ""`},
		{"nothing", "GET", "", "connection_termination"},
		{"no HTTP", "GET", "SSH-2.0-x\r\n", "protocol_error"},
		{"cut off", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", `200 Content-Length="5" "hi" protocol_error`},
		{"both lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "protocol_error"},
		{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "protocol_error"},
	}
	for _, c := range cases {
		steps := []int{0, 1}
		if c.name == "bytes behind" { // those that come later are for the pool to notice
			steps = steps[:1]
		}
		for _, step := range steps {
			t.Run(fmt.Sprintf("%s %d", c.name, step), func(t *testing.T) {
				if got := answer(c.method, c.in, step); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
			})
		}
	}
}

// answer describes the answers on an upstream connection.
func answer(method, in string, step int) string {
	_, conn := play(in, step)
	var x http1.Exchange
	k := &keep{}
	x.Start(conn, k, http1.ExchangeOptions{})
	_ = x.WriteHead(&http.Request{Method: []byte(method), Path: []byte("/"), Authority: []byte("a")}, true)
	var parts []string
	var r http.Response
	for r.Status < 200 {
		if err := x.ReadHead(&r); err != nil {
			return strings.Join(append(parts, err.Error()), " ")
		}
		parts = append(parts, fmt.Sprint(r.Status))
		for _, f := range r.Headers.Fields {
			parts = append(parts, fmt.Sprintf("%s=%q", f.Name, f.Value))
		}
	}
	body, err := readAll(r.Body)
	parts = append(parts, fmt.Sprintf("%q", body))
	if err != nil {
		parts = append(parts, err.Error())
	}
	x.End()
	if !k.told {
		parts = append(parts, "connection lost")
	}
	if k.reusable {
		parts = append(parts, "kept")
	}
	return strings.Join(parts, " ")
}

// TestEarlyAnswer: while an end of the request is not written its connection is nobody else's.
func TestEarlyAnswer(t *testing.T) {
	for _, c := range []struct {
		name, body string
		last       bool
		want       keep // once the answer is read, and
		written    keep // once the request is written
	}{
		{"before the end of the request", "ab", false, keep{told: true}, keep{told: true}},
		{"while its last bytes are held", "abcd", true, keep{}, keep{told: true, reusable: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tp, conn := play("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0)
			var x http1.Exchange
			k := &keep{}
			x.Start(conn, k, http1.ExchangeOptions{})
			r := http.Request{Method: []byte("POST"), Path: []byte("/"), Authority: []byte("a")}
			r.Headers.Add([]byte("content-length"), []byte("4"))
			if err := errors.Join(x.WriteHead(&r, false), x.Flush(), x.WriteBody([]byte(c.body), c.last)); err != nil {
				t.Fatal(err)
			}
			if err := x.Await(&http.Response{}); err != nil || *k != c.want {
				t.Errorf("the answer was read: %+v, want %+v: %v", *k, c.want, err)
			}
			if err := x.Flush(); err != nil || *k != c.written {
				t.Errorf("the request was written: %+v, want %+v: %v", *k, c.written, err)
			}
			if !strings.HasSuffix(tp.out.String(), "\r\n\r\n"+c.body) {
				t.Errorf("written: %q", tp.out.String())
			}
			x.End()
		})
	}
}

// TestWrite writes heads and bodies of both sides.
func TestWrite(t *testing.T) {
	fieldsOf := func(names ...string) (h http.Headers) {
		for i := 0; i < len(names); i += 2 {
			h.Add([]byte(names[i]), []byte(names[i+1]))
		}
		return h
	}
	response := func(request string, o http1.ServerOptions, r *http.Response, body ...string) string {
		tp, conn := play(request, 0)
		s := http1.NewServer(conn, o)
		var req http.Request
		if err := s.ReadRequest(&req); err != nil {
			return err.Error()
		}
		_ = s.WriteHead(r, len(body) == 0)
		for i, p := range body {
			_ = s.WriteBody([]byte(p), i == len(body)-1)
		}
		_ = s.Flush()
		return tp.out.String()
	}
	request := func(o http1.ExchangeOptions, r *http.Request, body ...string) string {
		tp, conn := play("", 0)
		var x http1.Exchange
		x.Start(conn, &keep{}, o)
		_ = x.WriteHead(r, len(body) == 0)
		for i, p := range body {
			_ = x.WriteBody([]byte(p), i == len(body)-1)
		}
		_ = x.Flush()
		return tp.out.String()
	}
	get, head := "GET / HTTP/1.1\r\n"+host+"\r\n", "HEAD / HTTP/1.1\r\n"+host+"\r\n"
	long := strings.Repeat("x", 20000)
	cases := []struct{ name, got, want string }{
		{"WI-003 names in lower case", response(get, http1.ServerOptions{}, &http.Response{Status: 200, Headers: fieldsOf("X-A", "B")}), "HTTP/1.1 200 OK\r\nx-a: B\r\ncontent-length: 0\r\n\r\n"},
		{"WI-003 preserved names", response(get, http1.ServerOptions{Options: http1.Options{Case: http1.AsRead}}, &http.Response{Status: 200, Headers: fieldsOf("X-A", "B")}), "HTTP/1.1 200 OK\r\nX-A: B\r\ncontent-length: 0\r\n\r\n"},
		{"chunked", response(get, http1.ServerOptions{}, &http.Response{Status: 200}, "abc", "de"), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"},
		{"chunked long", response(get, http1.ServerOptions{}, &http.Response{Status: 200}, long), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4e20\r\n" + long + "\r\n0\r\n\r\n"},
		{"sized long", response(get, http1.ServerOptions{}, &http.Response{Status: 200, Headers: fieldsOf("content-length", "20000")}, long), "HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n" + long},
		{"head without length", response(head, http1.ServerOptions{}, &http.Response{Status: 404}), "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n"},
		{"head drops the body", response(head, http1.ServerOptions{}, &http.Response{Status: 200, Headers: fieldsOf("content-length", "3")}, "abc"), "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"},
		{"204", response(get, http1.ServerOptions{}, &http.Response{Status: 204, Headers: fieldsOf("content-length", "0")}), "HTTP/1.1 204 No Content\r\n\r\n"},
		{"unknown status", response(get, http1.ServerOptions{}, &http.Response{Status: 418}), "HTTP/1.1 418 Unknown\r\ncontent-length: 0\r\n\r\n"},
		{"old client, no length", response("GET / HTTP/1.0\r\n\r\n", http1.ServerOptions{Options: http1.Options{AcceptHTTP10: true}}, &http.Response{Status: 200}, "abc"), "HTTP/1.0 200 OK\r\n\r\nabc"},
		{"request", request(http1.ExchangeOptions{}, &http.Request{Method: []byte("GET"), Path: []byte("/p"), Authority: []byte("h"), Headers: fieldsOf("X-A", "b")}), "GET /p HTTP/1.1\r\nhost: h\r\nx-a: b\r\n\r\n"},
		{"request, no body", request(http1.ExchangeOptions{}, &http.Request{Method: []byte("POST"), Path: []byte("/p"), Authority: []byte("h")}), "POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"},
		{"request, chunked", request(http1.ExchangeOptions{Options: http1.Options{Case: http1.AsRead}}, &http.Request{Method: []byte("POST"), Path: []byte("/p"), Authority: []byte("h")}, "ab"), "POST /p HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, c.got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
