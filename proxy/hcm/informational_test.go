package hcm_test

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
)

// What an upstream sends before its answer, or instead of one: outcomes as of a real
// Envoy of version 1.40.
func TestBeforeTheAnswer(t *testing.T) {
	const early, answer = `HTTP/1.1 103 Early\nlink: x\n\n`, `HTTP/1.1 200 OK\ncontent-length: 2\n\nok`
	for _, c := range []struct {
		name, proxy100, upstream string
		want                     []string // status codes of the heads that the client gets
	}{
		{"WI-025 1xx heads are kept from clients", "false", early + answer, []string{"200"}},
		{"WI-025 proxy_100_continue hands on the first", "true", early + strings.Repeat(early, 3) + answer, []string{"103", "200"}},
		{"a head that breaks off is a protocol error", "false", `HTTP/1.1 200 OK\ncontent-le` + "close", []string{"502"}},
		{"nothing at all is a terminated connection", "false", "close", []string{"503"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBackend(t)
			g := start(t, setup{manager: fmt.Sprintf(`"proxy_100_continue": %s`, c.proxy100), clusters: map[string]string{"b": b.addr},
				routes: `{"match": {"prefix": "/"}, "route": {"cluster": "b"}}`})
			path := "/raw:" + url.PathEscape(c.upstream)
			if c.upstream == "close" {
				path = "/close"
			}
			conn := g.dial(t)
			if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			all, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, part := range strings.Split(string(all), "HTTP/1.1 ")[1:] {
				got = append(got, part[:3])
			}
			if strings.Join(got, " ") != strings.Join(c.want, " ") {
				t.Errorf("got %q", all)
			}
		})
	}
}
