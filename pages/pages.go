// Package pages makes the HTTP servers of our own pages: those of the agent, of the control
// plane and of the proxy's admin API.
//
// Whoever can reach a page can keep a connection of it open, or send a request slowly. A server
// of New bounds how long a request takes, how large its head is and how many connections there
// are. Where one connection more than that comes, the one goes that has waited longest for a
// whole request: whoever holds connections back loses them, and a probe of the kubelet among a
// thousand idle connections is answered.
//
// Pages that tell of the configuration, or that change something, are wrapped in Inside. No page
// does what a web page of another site has a browser ask for.
package pages

import (
	"container/list"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// MaxConnections are open at a server at once.
const MaxConnections = 256

// maxHead is how large the head of a request may be, in bytes.
const maxHead = 32 << 10

// New returns a server of pages; what its pages need otherwise is changed before it serves. What
// happens on connections is logged as debug, what is refused as a warning. The fields Handler,
// ConnState and ConnContext stay as they are.
//
// There is no ReadTimeout, which would end a page that takes its time before it answers: bodies
// are read by pages of Inside only, elsewhere who sends one slowly waits.
func New(h http.Handler, log *slog.Logger) *http.Server {
	c := &crowd{waiting: list.New(), seats: map[net.Conn]*seat{}, limit: MaxConnections, log: log}
	foreign := http.NewCrossOriginProtection()
	foreign.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(log, w, r, "a web page of another site asks")
	}))
	return &http.Server{
		Handler: c.counted(foreign.Handler(h)), ConnState: c.changed,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
		ReadHeaderTimeout: 5 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute,
		MaxHeaderBytes: maxHead, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// Inside lets callers through that are on this side of the pod's or machine's border (IsInside);
// others are refused, with a line in the log.
func Inside(log *slog.Logger, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !IsInside(r.RemoteAddr) {
			refuse(log, w, r, "it is for callers of this pod or machine")
			return
		}
		h(w, r)
	}
}

func refuse(log *slog.Logger, w http.ResponseWriter, r *http.Request, why string) {
	log.Warn("page refused", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "reason", why)
	http.Error(w, "refused: "+why, http.StatusForbidden)
}

// handedOn is the address from which a sidecar connects to its application with what others have
// sent: a loopback address, but not of a caller inside.
var handedOn = netip.MustParseAddr("127.0.0.6")

// IsInside reports whether the address of a peer is that of a program of the same pod or machine:
// a loopback address, or none, as of a unix socket, whose file has permissions.
func IsInside(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return true
	}
	a, err := netip.ParseAddr(host)
	a = a.Unmap()
	return err == nil && a.IsLoopback() && a != handedOn
}

// connKey is the key of a request's context under which its connection is.
type connKey struct{}

// A crowd is the connections of a server.
type crowd struct {
	limit int
	log   *slog.Logger

	mu      sync.Mutex
	waiting *list.List // of net.Conn, the longest waiting first
	seats   map[net.Conn]*seat
}

// A seat is one connection's. It waits while no request of it is answered: while it is idle, and
// while the head of a request or what nobody reads of a body is still on its way.
type seat struct {
	place   *list.Element // among those that wait, nil: it does not
	answers int           // that are being made; several over HTTP/2
}

// changed is told of each connection's states.
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.seats[conn] = &seat{place: c.waiting.PushBack(conn)}
		if len(c.seats) > c.limit {
			c.evict()
		}
	case http.StateClosed, http.StateHijacked:
		if s := c.seats[conn]; s != nil && s.place != nil {
			c.waiting.Remove(s.place)
		}
		delete(c.seats, conn)
	case http.StateActive, http.StateIdle: // counted says more of these
	}
}

// evict closes the connection that has waited longest, which is the newest one if all others are
// being answered. Its end is told by changed.
func (c *crowd) evict() {
	conn, _ := c.waiting.Remove(c.waiting.Front()).(net.Conn) // of the newest at least
	c.seats[conn].place = nil
	c.log.Warn("too many connections: the one that has waited longest is closed", "limit", c.limit, "from", conn.RemoteAddr().String())
	_ = conn.Close()
}

// counted has a connection not wait while a request of it is answered.
func (c *crowd) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			c.begin(conn)
			defer c.end(conn)
		}
		h.ServeHTTP(w, r)
	})
}

func (c *crowd) begin(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seats[conn]
	if s == nil {
		return // closed
	}
	s.answers++
	if s.place != nil {
		c.waiting.Remove(s.place)
		s.place = nil
	}
}

func (c *crowd) end(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.seats[conn]; s != nil {
		if s.answers--; s.answers == 0 {
			s.place = c.waiting.PushBack(conn)
		}
	}
}
