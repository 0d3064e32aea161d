package http2_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sockets returns both ends of a TCP connection on the loopback.
func sockets(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

// serving runs a Server until the test ends.
func serving(t testing.TB, c net.Conn, o http2.ServerOptions, serve func(*http2.ServerStream)) *http2.Server {
	t.Helper()
	s := http2.NewServer(transport.NewConn(c), nil, o, serve)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve() }()
	t.Cleanup(func() { s.Close(); <-done })
	return s
}

// An owner remembers what it is told.
type owner struct {
	finished chan struct{}
	changed  chan struct{}
	ended    chan error
}

func newOwner() *owner {
	return &owner{make(chan struct{}, 1<<16), make(chan struct{}, 1<<10), make(chan error, 1)}
}

func (o *owner) Vacated() {}

func (o *owner) Finished(*http2.Client, *http2.ClientStream) { o.finished <- struct{}{} }
func (o *owner) Changed(*http2.Client)                       { o.changed <- struct{}{} }
func (o *owner) Ended(_ *http2.Client, err error)            { o.ended <- err }

// calling runs a Client until the test ends.
func calling(t testing.TB, c net.Conn, o http2.ClientOptions) (*http2.Client, *owner) {
	t.Helper()
	own := newOwner()
	cl := http2.NewClient(transport.NewConn(c), o, own)
	t.Cleanup(func() {
		cl.Close()
		select {
		case <-own.ended:
		case <-time.After(10 * time.Second):
			t.Error("the client's connection does not end")
		}
	})
	return cl, own
}

// get is a request.
func get(path string, fields ...string) *http.Request {
	r := &http.Request{Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte(path), Protocol: http.HTTP2, Body: http.NoBody}
	for i := 0; i < len(fields); i += 2 {
		r.Headers.Add([]byte(fields[i]), []byte(fields[i+1]))
	}
	return r
}

// readAll reads a body to its end.
func readAll(b http.Body) ([]byte, error) {
	var all []byte
	for {
		p, err := b.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, p...)
	}
}

// echo answers with the request's body and trailers.
func echo(s *http2.ServerStream) {
	var r http.Request
	if s.ReadRequest(&r) != nil {
		return
	}
	a := http.Response{Status: 200}
	a.Headers.Add([]byte("x-path"), r.Path)
	if r.Body.Done() {
		_ = s.WriteHead(&a, true)
		_ = s.Flush()
		return
	}
	_ = s.WriteHead(&a, false)
	for {
		if !r.Body.Ready() {
			_ = s.Flush()
		}
		p, err := r.Body.Next()
		if err != nil {
			break
		}
		if s.WriteBody(p, false) != nil {
			return
		}
	}
	_ = s.WriteTrailers(r.Body.Trailers())
	_ = s.Flush()
}

func TestExchange(t *testing.T) {
	down, up := sockets(t)
	serving(t, up, http2.ServerOptions{}, echo)
	c, own := calling(t, down, http2.ClientOptions{})
	for _, size := range []int{0, 1, 100, 1 << 14, 1<<14 + 1, 1 << 20, 40 << 20} {
		s := c.Open()
		body := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		if err := s.WriteHead(get("/x", "Cookie", "a=b", "Connection", "close"), size == 0); err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() {
			if size == 0 {
				sent <- s.Flush()
				return
			}
			err := s.WriteBody(body, false)
			if err == nil {
				var h http.Headers
				h.Add([]byte("x-sum"), []byte("1"))
				err = s.WriteTrailers(&h)
			}
			if err == nil {
				err = s.Flush()
			}
			sent <- err
		}()
		var a http.Response
		if err := s.ReadHead(&a); err != nil {
			t.Fatal(size, err)
		}
		got, err := readAll(a.Body)
		if err != nil || !bytes.Equal(got, body) || a.Status != 200 || string(a.Headers.Get("x-path")) != "/x" {
			t.Fatalf("size %d: %d bytes, %v, %+v", size, len(got), err, a)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if tr := a.Body.Trailers(); size > 0 && (tr == nil || string(tr.Get("x-sum")) != "1") {
			t.Fatal("trailers", tr)
		}
		<-own.finished
		if !s.Complete() {
			t.Error("not complete")
		}
		s.Release()
	}
}
