package http2_test

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
)

// answer is what a small service sends.
var answerBody = []byte("hello, world")

func hello(s *http2.ServerStream) {
	var r http.Request
	if s.ReadRequest(&r) != nil {
		return
	}
	var fields [4]http.Field
	a := http.Response{Status: 200, Headers: http.Headers{Fields: fields[:0]}}
	a.Headers.Add([]byte("content-type"), []byte("text/plain"))
	a.Headers.Add([]byte("content-length"), []byte("12"))
	a.Headers.Add([]byte("server"), []byte("envoy"))
	_ = s.WriteHead(&a, false)
	_ = s.WriteBody(answerBody, true)
	_ = s.Flush()
}

// exchange is one request with its answer.
func exchange(c *http2.Client, r *http.Request, a *http.Response) error {
	s := c.Open()
	defer s.Release()
	if err := s.WriteHead(r, true); err != nil {
		return err
	}
	if err := s.ReadHead(a); err != nil {
		return err
	}
	for {
		if _, err := a.Body.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func typical() *http.Request {
	return get("/api/v1/items?id=17", "user-agent", "curl/8", "accept", "*/*", "x-forwarded-proto", "http",
		"x-request-id", "c9f80260-f884-428a-a164-5120946f912f", "x-envoy-expected-rq-timeout-ms", "15000")
}

// BenchmarkExchange is a client and a server over the loopback, both in this process:
// connections × streams as the gate has them.
func BenchmarkExchange(b *testing.B) {
	b.ReportAllocs()
	var clients []*http2.Client
	for range 4 {
		down, up := sockets(b)
		serving(b, up, http2.ServerOptions{}, hello)
		c, own := calling(b, down, http2.ClientOptions{})
		go func() {
			for range own.finished {
			}
		}()
		b.Cleanup(func() { close(own.finished) })
		clients = append(clients, c)
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			r := typical()
			var a http.Response
			for range b.N/32 + 1 {
				if err := exchange(clients[i%4], r, &a); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	runtime.KeepAlive(clients)
}
