package hcm_test

import (
	"io"
	"net"
	"strings"
	"testing"
)

// A client that ends its direction behind a request, as `nc -N` does, gets an answer that
// comes at once: Envoy drops it, or not, by which it sees first. One that ends it within a
// head is logged as having left.
func TestClientEndsItsDirection(t *testing.T) {
	b := newBackend(t)
	g := start(t, setup{clusters: map[string]string{"b": b.addr},
		routes: `{"match": {"prefix": "/local"}, "direct_response": {"status": 418}}, {"match": {"prefix": "/"}, "route": {"cluster": "b"}}`})
	send := func(text string) string {
		t.Helper()
		conn := g.dial(t)
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		return string(all)
	}
	if got := send("GET /local HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 418 ") {
		t.Errorf("an answer of the proxy's own: %q", got)
	}
	if got := g.logged(t, 0); !strings.Contains(got, `"GET /local HTTP/1.1" 418 - direct_response`) {
		t.Errorf("log: %s", got)
	}
	const cut = `"- - HTTP/1.1" 0 DC downstream_remote_disconnect - "-" 0 0 "-" "-" "-" "-" - -`
	for n, text := range []string{"GET /x HTTP/1.1\r\nHost", "G", "\r\n"} {
		if got := send(text); got != "" {
			t.Errorf("%q is answered: %q", text, got)
		}
		if got := g.logged(t, 1+n); got != cut {
			t.Errorf("%q is logged as %s", text, got)
		}
	}
	if send(""); g.store.Scope("http.test.").Counter("downstream_rq_total").Value() != 4 {
		t.Error("a connection without a byte is counted as a request")
	}
}
