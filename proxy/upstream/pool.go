package upstream

import (
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"time"
)

// A Pool holds the HTTP/1.1 connections to one endpoint. It is safe for concurrent use.
type Pool struct {
	ep   *endpoint.Endpoint
	opts Options
}

// NewPool returns an empty pool.
func NewPool(ep *endpoint.Endpoint, opts Options) *Pool { return &Pool{ep: ep, opts: opts} }

// Acquire returns an exchange on a connection to the endpoint. It blocks while it
// dials or waits in line, until done or deadline (zero: none). Errors are *http.Reset
// or os.ErrDeadlineExceeded; when done ends the wait it is http.LocalReset.
func (p *Pool) Acquire(done <-chan struct{}, deadline time.Time) (http.ClientStream, error) {
	return nil, &http.Reset{Reason: http.Overflow}
}

// Drain closes idle connections now and the others when their exchange is over.
// Later exchanges get new connections.
func (p *Pool) Drain() {}

// Close drains the pool for good, when its endpoint is gone.
func (p *Pool) Close() {}
