package mixed

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/lateen-mesh/lateen/test/ports"
	"github.com/lateen-mesh/lateen/test/traffic"
)

// A backend answers HTTP/1.1, HTTP/2 and gRPC on one port, or echoes bytes.
type backend struct {
	t    *testing.T
	port int
	addr string
	http *http.Server // nil: it echoes

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]struct{}
	down     time.Time   // since when it fails, zero: it does not
	failures []timeRange // when it failed before
}

type timeRange struct{ from, to time.Time }

func newBackend(t *testing.T) *backend {
	t.Helper()
	calls := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(echoCalls))
	b := backendOf(t)
	b.http = &http.Server{ReadHeaderTimeout: time.Minute, ConnState: b.note, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("content-type"), "application/grpc"):
			calls.ServeHTTP(w, r)
		case strings.EqualFold(r.Header.Get("upgrade"), "websocket"):
			b.webSocket(w, r)
		default:
			w.Header().Set("x-path", r.URL.Path)
			_, _ = io.Copy(w, r.Body)
		}
	})}
	b.http.Protocols = new(http.Protocols)
	b.http.Protocols.SetHTTP1(true)
	b.http.Protocols.SetUnencryptedHTTP2(true)
	b.listen()
	return b
}

// backendOf is one with a port that stays its own while it fails.
func backendOf(t *testing.T) *backend {
	port := ports.One()
	return &backend{t: t, conns: map[net.Conn]struct{}{}, port: port, addr: fmt.Sprintf("127.0.0.1:%d", port)}
}

func newEcho(t *testing.T) *backend {
	t.Helper()
	b := backendOf(t)
	b.listen()
	return b
}

// listen serves at its address until the backend fails or the test is over.
func (b *backend) listen() {
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		b.t.Errorf("a backend does not come back: %v", err)
		return
	}
	b.mu.Lock()
	b.listener = l
	b.mu.Unlock()
	b.t.Cleanup(func() { _ = l.Close() })
	if b.http != nil {
		go func() { _ = b.http.Serve(l) }()
		return
	}
	go traffic.Serve(l)
}

func (b *backend) note(c net.Conn, s http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s == http.StateNew {
		b.conns[c] = struct{}{}
	}
	if s == http.StateClosed {
		delete(b.conns, c)
	}
}

// fail resets all connections and refuses new ones for a moment.
func (b *backend) fail() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.down.IsZero() {
		return
	}
	b.down = time.Now()
	_ = b.listener.Close()
	for c := range b.conns {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = c.Close()
	}
	clear(b.conns)
	time.AfterFunc(400*time.Millisecond, func() {
		b.listen()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.failures = append(b.failures, timeRange{b.down, time.Now()})
		b.down = time.Time{}
	})
}

// late is how long after a failure a request may still meet it: who waits for a connection
// shares the fate of one that was dialled before.
const late = 200 * time.Millisecond

// failedWithin reports that a request between two points in time may have met a failure.
func (b *backend) failedWithin(from, to time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.down.IsZero() && b.down.Before(to) {
		return true
	}
	for _, f := range b.failures {
		if f.from.Before(to) && from.Before(f.to.Add(late)) {
			return true
		}
	}
	return false
}

// webSocket changes the protocol and echoes whatever comes: frames are the clients'.
func (b *backend) webSocket(w http.ResponseWriter, _ *http.Request) {
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	if _, err := fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"); err == nil {
		_, _ = io.Copy(c, rw)
	}
}

// rawCodec hands on messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string                    { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(b []byte, v any) error { *v.(*[]byte) = b; return nil }

// echoCalls answers each message with the same.
func echoCalls(_ any, stream grpc.ServerStream) error {
	for {
		var m []byte
		if err := stream.RecvMsg(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := stream.SendMsg(&m); err != nil {
			return err
		}
	}
}
