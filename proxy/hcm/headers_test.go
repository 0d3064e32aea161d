package hcm_test

import (
	"bufio"
	"strings"
	"testing"
)

// TestUnsendableHeader: a request whose head would break by what a route adds to it is
// answered as Envoy answers it, and never sent.
func TestUnsendableHeader(t *testing.T) {
	b := newBackend(t)
	g := start(t, setup{clusters: map[string]string{"b": b.addr}, routes: `{"match": {"prefix": "/"}, "route": {"cluster": "b"},
		"request_headers_to_add": [{"header": {"key": "x-q", "value": "%QUERY_PARAM(q)%"}}]}`})
	c := g.dial(t)
	r := bufio.NewReader(c)
	send(t, c, "GET /?q=%0d%0aEvil:%201 HTTP/1.1\r\nHost: a\r\n\r\n")
	head, body := response(t, r)
	wantStart(t, head, "HTTP/1.1 503 Service Unavailable\r\n")
	if body != "invalid header value for: x-q" {
		t.Errorf("body %q", body)
	}
	wantStart(t, g.logged(t, 0), `"GET /?q=%0d%0aEvil:%201 HTTP/1.1" 503 DPE filter_removed_required_request_headers{invalid_header_value_for:_x-q} - "-" 0 29`)
	if n := len(b.seen()); n > 0 {
		t.Errorf("the backend saw %d requests", n)
	}
	send(t, c, "GET /?q=1 HTTP/1.1\r\nHost: a\r\n\r\n")
	head, _ = response(t, r)
	wantStart(t, head, "HTTP/1.1 200 OK\r\n")
	if seen := b.seen(); len(seen) != 1 || !strings.Contains(seen[0], "x-q: 1") {
		t.Errorf("the backend saw %q", seen)
	}
}
