package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// Dial connects to ep for a TCP proxy, bounded by connect_timeout and ctx, counted in
// the cluster's stats and limits until the Conn is closed. The error is a
// *transport.Error, or ErrOverflow when max_connections is reached.
func (c *Cluster) Dial(ctx context.Context, ep *endpoint.Endpoint) (transport.Conn, error) {
	h, s, limits := ep.Owner.(*host), c.Stats(), c.Limits(0)
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
	conn, err := h.connect(ctx, transport.Target{})
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
	c.Report(ep, 200) // of a TCP stream outlier detection learns no more than this
	s.CxConnectMs.Record(uint64(time.Since(started).Milliseconds()))
	s.CxActive.Inc()
	s.RqTotal.Inc()
	s.RqActive.Inc()
	ep.ActiveConns.Add(1)
	ep.Active.Add(1)
	ep.Requests.Add(1)
	return &counted{Conn: conn, release: sync.OnceFunc(func() {
		limits.Connections.Give()
		s.CxActive.Dec()
		s.RqActive.Dec()
		s.CxDestroy.Inc()
		s.CxLengthMs.Record(uint64(time.Since(started).Milliseconds()))
		ep.ActiveConns.Add(-1)
		ep.Active.Add(-1)
	})}, nil
}

// counted is a connection that is counted until it is closed.
type counted struct {
	transport.Conn
	release func()
}

func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}

func (c *counted) Reset() error {
	defer c.release()
	return c.Conn.Reset()
}
