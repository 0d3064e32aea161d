package hcm_test

import (
	"bufio"
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/filter/router"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// An unlooked connection is one whose end comes just after the look at it: the pool
// takes it for good whatever has come from the peer.
type unlooked struct {
	transport.Conn
	upstream.Prober
}

func (unlooked) Stale() bool { return false }

// unlookedCluster is a cluster of one endpoint with such connections.
type unlookedCluster struct {
	router.Cluster
	pool *upstream.Pool
	last *atomic.Pointer[unlooked] // dialled
}

func (c unlookedCluster) HTTP(*endpoint.Endpoint, upstream.Wish) *upstream.Pool { return c.pool }

func newUnlooked(t *testing.T, address string) unlookedCluster {
	scope := stats.NewStore().Scope("cluster.unlooked.")
	c := unlookedCluster{last: new(atomic.Pointer[unlooked])}
	c.pool = upstream.NewPool(&endpoint.Endpoint{}, upstream.Options{
		Dial: func(ctx context.Context) (transport.Conn, error) {
			raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			conn := transport.NewConn(raw)
			u := &unlooked{conn, conn.(upstream.Prober)}
			c.last.Store(u)
			return u, nil
		},
		Limits: upstream.NewLimits(upstream.DefaultThresholds, scope), Stats: upstream.NewStats(scope),
	})
	t.Cleanup(c.pool.Close)
	return c
}

// TestKeptAliveConnectionEnds: a request that meets a kept-alive connection which the
// backend has just ended goes to another one, whatever its method, without a retry
// policy, for the backend has provably not seen it. One that the backend has taken
// before it ended the connection is lost: it may have had its effect.
func TestKeptAliveConnectionEnds(t *testing.T) {
	const get, post = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
	for _, c := range []struct {
		name, second string
		ended        bool // before the second request is sent
		status       string
		seen         int
	}{
		{"ended before a GET", get, true, "HTTP/1.1 200 OK\r\n", 2},
		{"ended before a POST", post, true, "HTTP/1.1 200 OK\r\n", 2},
		{"ended by the request", "GET /close HTTP/1.1\r\nHost: a\r\n\r\n", false, "HTTP/1.1 503 Service Unavailable\r\n", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBackend(t)
			u := newUnlooked(t, b.addr)
			g := start(t, setup{clusters: map[string]string{"b": b.addr}, routes: `{"match": {"prefix": "/"}, "route": {"cluster": "b"}}`,
				cluster: func(inner router.Cluster) router.Cluster { u.Cluster = inner; return u }})
			conn := g.dial(t)
			r := bufio.NewReader(conn)
			send(t, conn, get)
			response(t, r)
			if c.ended {
				b.hangUp()
				if err := u.last.Load().WaitReadable(); err != nil {
					t.Fatal(err)
				}
			}
			send(t, conn, c.second)
			head, _ := response(t, r)
			wantStart(t, head, c.status)
			if n := len(b.seen()); n != c.seen {
				t.Errorf("the backend saw %d requests, want %d", n, c.seen)
			}
		})
	}
}
