package samples

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
)

// People compare the headers of an answer with those that they know, and proxies keep
// their order; net/http has one of its own. An ordering listener's connections put
// the header of each answer into the order given; other headers follow.
type ordering struct {
	net.Listener
	order []string
}

// Accept waits for a connection.
func (l ordering) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &ordered{Conn: conn, order: l.order}, nil
}

type ordered struct {
	net.Conn
	order []string
	next  atomic.Bool // what is written next begins with the header of an answer
}

// Write writes p, whose header may be put in order: a server hands it over at once, as
// long as it is below the 4 KiB of its buffer.
func (c *ordered) Write(p []byte) (int, error) {
	if !c.next.Load() || bytes.HasPrefix(p, []byte("HTTP/1.1 100 ")) {
		return c.Conn.Write(p)
	}
	c.next.Store(false)
	return c.Conn.Write(reorder(p, c.order))
}

// reorder returns an answer with its header lines in order. It has the same length.
func reorder(p []byte, order []string) []byte {
	head, body, ok := bytes.Cut(p, []byte("\r\n\r\n"))
	if !ok {
		return p
	}
	lines := strings.Split(string(head), "\r\n")
	place := func(line string) int {
		name, _, _ := strings.Cut(line, ":")
		if i := slices.IndexFunc(order, func(s string) bool { return strings.EqualFold(s, name) }); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(lines[1:], func(a, b string) int { return place(a) - place(b) })
	return slices.Concat([]byte(strings.Join(lines, "\r\n")), []byte("\r\n\r\n"), body)
}

// connection is the key of a request's *ordered.
type connection struct{}

func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connection{}, c)
}

// inOrder tells the connection of each request that an answer comes next, and who gives it.
func inOrder(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connection{}).(*ordered); ok {
			c.next.Store(true)
		}
		w.Header().Set("Server", "lateen-sample")
		handler.ServeHTTP(w, r)
	})
}
