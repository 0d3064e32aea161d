package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/peer"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// Dial connects to ep for a TCP proxy, bounded by connect_timeout and ctx, counted in
// the cluster's stats and limits until the Conn is closed. The error is a
// *transport.Error, or ErrOverflow when max_connections is reached.
func (c *Cluster) Dial(ctx context.Context, ep *endpoint.Endpoint, t transport.Target) (transport.Conn, error) {
	h := ep.Owner.(*host)
	c = h.cluster // another one, of an aggregate
	s, limits := c.Stats(), c.Limits(0)
	if !limits.Connections.Take() {
		s.CxOverflow.Inc()
		s.RqPendingOverflow.Inc()
		return nil, ErrOverflow
	}
	s.CxTotal.Inc()
	s.RqPendingTotal.Inc()
	s.RqPendingActive.Inc()
	ep.Connects.Add(1)
	started := time.Now()
	conn, err := h.connect(ctx, t)
	s.RqPendingActive.Dec()
	if err != nil {
		limits.Connections.Give()
		s.RqPendingFailure.Inc()
		s.CxConnectFail.Inc()
		ep.ConnectFails.Add(1)
		var te *transport.Error
		if errors.As(err, &te) && te.Timeout {
			s.CxConnectTimeout.Inc()
		}
		return nil, err
	}
	c.opened(h)
	s.CxConnectMs.Record(uint64(time.Since(started).Milliseconds()))
	s.CxActive.Inc()
	s.RqTotal.Inc()
	s.RqActive.Inc()
	ep.ActiveConns.Add(1)
	ep.Active.Add(1)
	ep.Requests.Add(1)
	stream := &counted{Conn: conn}
	stream.release = sync.OnceFunc(func() {
		h.track(stream, false)
		limits.Connections.Give()
		s.CxActive.Dec()
		s.RqActive.Dec()
		s.CxDestroy.Inc()
		s.CxLengthMs.Record(uint64(time.Since(started).Milliseconds()))
		ep.ActiveConns.Add(-1)
		ep.Active.Add(-1)
	})
	h.track(stream, true)
	return stream, nil
}

// counted is a connection that is counted until it is closed.
type counted struct {
	transport.Conn
	release func()
}

// Workload is who the peer says it is, nil while it has said nothing.
func (c *counted) Workload() *peer.Workload {
	if k, ok := c.Conn.(peer.Known); ok {
		return k.Workload()
	}
	return nil
}

func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}

func (c *counted) Reset() error {
	defer c.release()
	return c.Conn.Reset()
}
