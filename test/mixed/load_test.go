package mixed

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lateen-mesh/lateen/test/traffic"
)

// A load is clients of every kind, each with a request after the other.
type load struct {
	m    *mesh
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	counts map[string]*atomic.Int64
	lost   []error
	met    atomic.Int64 // requests that met a failed backend
}

// gap is between two requests of a client: the test is about order, not about speed.
const gap = 4 * time.Millisecond

func (l *load) run(t *testing.T) {
	l.ctx, l.stop = context.WithCancel(t.Context())
	l.counts = map[string]*atomic.Int64{}
	m := l.m
	plain, secure := fmt.Sprintf("http://127.0.0.1:%d", m.ports[0]), fmt.Sprintf("https://127.0.0.1:%d", m.ports[1])
	for _, k := range []struct {
		name  string
		do    func() (func(context.Context) error, func())
		shaky bool
	}{
		{"HTTP/1.1", l.http(plain+"/steady", false, true), false},
		{"HTTP/1.1, a connection each", l.http(plain+"/steady", false, false), false},
		{"HTTP/1.1 over TLS", l.http(secure+"/steady", false, true), false},
		{"HTTP/1.1 over TLS, a connection each", l.http(secure+"/steady", false, false), false},
		{"HTTP/1.1 to backends that fail", l.http(plain+"/shaky", false, true), true},
		{"HTTP/2", l.http(plain+"/steady", true, true), false},
		{"HTTP/2 over TLS", l.http(secure+"/steady", true, true), false},
		{"HTTP/2 to backends that fail", l.http(plain+"/shaky", true, true), true},
		{"gRPC calls", l.calls(false), false},
		{"a gRPC stream", l.calls(true), false},
		{"WebSocket", l.webSocket, false},
		{"TCP", l.bytes, false},
	} {
		count := new(atomic.Int64)
		l.counts[k.name] = count
		for range 2 {
			l.wg.Go(func() { l.client(k.name, count, k.shaky, k.do) })
		}
	}
}

// client asks again and again; what it needs is opened once, and anew only where backends fail.
func (l *load) client(name string, count *atomic.Int64, shaky bool, open func() (func(context.Context) error, func())) {
	ask, done := open()
	defer func() { done() }()
	tick := time.NewTicker(gap)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		from := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		err := ask(ctx)
		cancel()
		count.Add(1)
		switch {
		case err == nil:
		case shaky && l.excused(from):
			l.met.Add(1)
		default:
			l.mu.Lock()
			l.lost = append(l.lost, fmt.Errorf("%s, request %d: %w", name, count.Load(), err))
			l.mu.Unlock()
			done()
			ask, done = open()
		}
	}
}

// excused reports that a backend failed since then.
func (l *load) excused(from time.Time) bool {
	for _, b := range l.m.shaky {
		if b.failedWithin(from, time.Now()) {
			return true
		}
	}
	return false
}

func (l *load) end(t *testing.T) {
	l.stop()
	l.wg.Wait()
	for name, n := range l.counts {
		t.Logf("%-40s %d", name, n.Load())
		if n.Load() == 0 {
			t.Errorf("%s: nothing was asked", name)
		}
	}
	t.Logf("%d generations of all resources; %d requests met a failed backend", l.m.n, l.met.Load())
	if len(l.lost) > 0 {
		t.Errorf("%d requests lost: %v", len(l.lost), errors.Join(l.lost[:min(len(l.lost), 10)]...))
	}
}

// http asks with a body that must come back.
func (l *load) http(url string, http2, keep bool) func() (func(context.Context) error, func()) {
	return func() (func(context.Context) error, func()) {
		c := traffic.HTTP{HTTP2: http2, Once: !keep, TLS: &tls.Config{RootCAs: l.m.ca.Pool(), ServerName: "mixed.test"}}.Client(url)
		return c.Ask, c.Close
	}
}

// calls are unary gRPC calls, or the messages of one stream that stays open.
func (l *load) calls(streaming bool) func() (func(context.Context) error, func()) {
	return func() (func(context.Context) error, func()) {
		conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", l.m.ports[0]), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDisableRetry(), grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
		if err != nil {
			return func(context.Context) error { return err }, func() {}
		}
		ask := []byte("a message")
		if !streaming {
			return func(ctx context.Context) error {
				var got []byte
				err := conn.Invoke(ctx, "/steady.Echo/Call", &ask, &got)
				return same(err, got, ask)
			}, func() { _ = conn.Close() }
		}
		ctx, cancel := context.WithCancel(context.Background())
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/steady.Echo/Stream")
		return func(context.Context) error {
			if err != nil {
				return err
			}
			if err := stream.SendMsg(&ask); err != nil {
				return err
			}
			var got []byte
			err := stream.RecvMsg(&got)
			return same(err, got, ask)
		}, func() { cancel(); _ = conn.Close() }
	}
}

// same is err, or that what came is not what was sent.
func same(err error, got, want []byte) error {
	if err == nil && !bytes.Equal(got, want) {
		return fmt.Errorf("got %q", got)
	}
	return err
}

// webSocket keeps one connection that has changed its protocol.
func (l *load) webSocket() (func(context.Context) error, func()) {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.m.ports[0]))
	if err != nil {
		return func(context.Context) error { return err }, func() {}
	}
	r := bufio.NewReader(c)
	_, err = fmt.Fprint(c, "GET /socket HTTP/1.1\r\nHost: mixed.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err == nil {
		var resp *http.Response
		if resp, err = http.ReadResponse(r, nil); err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
			err = fmt.Errorf("upgrade: %s", resp.Status)
		}
	}
	return func(ctx context.Context) error {
		if err != nil {
			return err
		}
		return traffic.Echo(ctx, c, r, "\x81\x85\x01\x02\x03\x04ignpn")
	}, func() { _ = c.Close() }
}

// bytes keeps one connection without a protocol.
func (l *load) bytes() (func(context.Context) error, func()) {
	c := traffic.Bytes(new(net.Dialer).DialContext, fmt.Sprintf("127.0.0.1:%d", l.m.ports[2]))
	return c.Ask, c.Close
}
