package http1_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http1"
)

// FuzzRequest: reading never fails otherwise than by an error, the outcome does not
// depend on how the bytes arrive, and what was accepted and is written upstream reads
// back as the same request, which nobody can take for two.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\n" + host + "\r\n", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
		"GET http://b/x HTTP/1.1\nHost: a\nX: y\n z\n\n", "CONNECT a:1 HTTP/1.1\r\n" + host + "\r\nxyz",
		"GET / HTTP/1.1\r\n" + host + "Connection: a, upgrade\r\nUpgrade: w\r\nA: b\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := read(string(in), 0, http1.ServerOptions{Options: http1.Options{AcceptHTTP10: true}})
		split := read(string(in), 1, http1.ServerOptions{Options: http1.Options{AcceptHTTP10: true}})
		if len(whole) == 0 || len(whole) != len(split) {
			t.Fatalf("whole %q\nsplit %q", whole, split)
		}
		for i := range whole {
			if whole[i] != split[i] && !strings.Contains(whole[i], "rror") && !strings.Contains(split[i], "rror") && !strings.HasPrefix(whole[i], "http") {
				t.Fatalf("request %d\nwhole %s\nsplit %s", i, whole[i], split[i])
			}
		}
		echo(t, in)
	})
}

// echo writes the first request as it would go upstream and reads it back.
func echo(t *testing.T, in []byte) {
	_, conn := play(string(in), 0)
	s := http1.NewServer(conn, http1.ServerOptions{AllowHTTPS: true})
	var r http.Request
	if s.ReadRequest(&r) != nil || s.Tunnels() || r.Authority == nil {
		return
	}
	body, err := readAll(r.Body)
	if err != nil {
		return
	}
	tp, up := play("", 0)
	var x http1.Exchange
	x.Start(up, &keep{}, http1.ExchangeOptions{})
	last := r.ContentLength == 0
	_ = x.WriteHead(&r, last)
	if !last {
		_ = x.WriteBody(body, true)
	}
	_ = x.Flush()
	_, again := play(tp.out.String(), 0)
	s2 := http1.NewServer(again, http1.ServerOptions{AllowHTTPS: true})
	var r2 http.Request
	if err := s2.ReadRequest(&r2); err != nil {
		t.Fatalf("%q was written as %q, which is refused: %v", in, tp.out.String(), err)
	}
	body2, err := readAll(r2.Body)
	if err != nil || !bytes.Equal(body, body2) || !bytes.Equal(r.Path, r2.Path) || !bytes.Equal(r.Method, r2.Method) || s2.Pending() {
		t.Fatalf("%q was written as %q", in, tp.out.String())
	}
}

// FuzzResponse: reading an answer never fails otherwise than by an error, and a
// connection is kept only if nothing is left on it.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"HTTP/1.1 103 E\r\n\r\nHTTP/1.0 200\r\n\r\nx", "HTTP/1.1 304 N\nContent-Length: 9\n\n",
	} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, in []byte, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		got := answer(method, string(in), 0)
		if !strings.Contains(got, "error") && !strings.Contains(got, "termination") && strings.Contains(got, "connection lost") {
			t.Fatalf("%q: %s", in, got)
		}
	})
}
