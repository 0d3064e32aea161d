// Package callout makes requests of the proxy's own over its clusters: what a filter asks
// another service about a stream (may it pass, how often has it come), and what the proxy
// fetches for itself (keys, code). They take endpoints, connections, circuit breakers, TLS
// and stats of the cluster as requests of clients do, and count as internal ones.
//
// Client.Do is one request and its answer, Client.Unary one call of gRPC. Both block until
// the answer is there as a whole, the time is up, or whom they wait for has left. An answer
// is held in memory and has a bound; how many are under way is bounded by the cluster's
// circuit breakers.
package callout

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// Errors of calls, beside *http.Reset and os.ErrDeadlineExceeded.
var (
	ErrNoCluster = errors.New("no such cluster")
	ErrNoHealthy = errors.New("no healthy upstream")
	ErrTooLarge  = errors.New("the answer is larger than it may be")
	// ErrLeft says that nobody waits for the answer any more.
	ErrLeft = errors.New("nobody waits for the answer")
)

// A Cluster is what calls need of an upstream cluster.
type Cluster interface {
	Name() string
	// Pick chooses an endpoint, nil when none may take traffic.
	Pick(*lb.Context) *endpoint.Endpoint
	// Secure reports that connections to an endpoint are TLS.
	Secure(*endpoint.Endpoint) bool
	// HTTP is the pool of connections to an endpoint, nil when there are too many.
	HTTP(*endpoint.Endpoint, upstream.Wish) *upstream.Pool
	Stats() *upstream.Stats
	// Answered and ReportFailure tell outlier detection what an endpoint did.
	Answered(*endpoint.Endpoint, *http.Response)
	ReportFailure(ep *endpoint.Endpoint, timeout bool)
}

// A Client makes calls. It is safe for concurrent use and keeps nothing between them.
type Client struct {
	// Cluster returns the live cluster of that name, nil when there is none.
	Cluster func(name string) Cluster
	// LocalAddress is the proxy's own address, told in x-forwarded-for; invalid for none.
	LocalAddress netip.Addr
}

// A Request is what is asked. It is not changed, and not kept.
type Request struct {
	Cluster string
	Method  string
	// Authority is that of the request, the cluster's name where it is empty.
	Authority string
	Path      string
	Headers   http.Headers // without content-length, names in lower case
	Body      []byte
	// Timeout bounds the whole exchange, 0 is none.
	Timeout time.Duration
	// MaxAnswer is how many bytes the answer's body may have; 0 is DefaultMaxAnswer.
	MaxAnswer int
	// Plain leaves out the headers by which a proxy tells that it asks: x-envoy-internal,
	// x-forwarded-for, x-envoy-expected-rq-timeout-ms.
	Plain bool
	// Unforwarded leaves out x-forwarded-for alone.
	Unforwarded bool
}

// DefaultMaxAnswer bounds the body of an answer where a request does not.
const DefaultMaxAnswer = 4 << 20

// A Response is an answer, in memory of its own. x-envoy-upstream-service-time is how many
// milliseconds it took.
type Response struct {
	Status            int
	Headers, Trailers http.Headers
	Body              []byte
}

// A Waiter is for whom a call is made. Done is closed when it has left; Await says that it
// is about to block on x, which is to be interrupted when it leaves (false: it has left
// already), and Settle that x is not to be interrupted any more. A *http.Stream is one.
type Waiter interface {
	Done() <-chan struct{}
	Await(x http.Interrupter) bool
	Settle()
}

// Within is a Waiter that leaves when ctx ends. It serves one call at a time.
func Within(ctx context.Context) Waiter { return &within{ctx: ctx} }

type within struct {
	ctx   context.Context //nolint:containedctx // a Waiter is one
	stop  func() bool
	ended chan struct{}
}

func (w *within) Done() <-chan struct{} { return w.ctx.Done() }

func (w *within) Await(x http.Interrupter) bool {
	ended := make(chan struct{})
	w.ended = ended
	w.stop = context.AfterFunc(w.ctx, func() {
		defer close(ended)
		x.Interrupt()
	})
	return w.ctx.Err() == nil
}

func (w *within) Settle() {
	if w.stop != nil && !w.stop() {
		<-w.ended
	}
	w.stop = nil
}

// Do sends a request and returns the whole answer, whatever its status. Errors are those of
// this package, *http.Reset and os.ErrDeadlineExceeded.
func (c *Client) Do(w Waiter, r *Request) (*Response, error) {
	x := exchange{client: c, waiter: w, request: r, began: time.Now()}
	if r.Timeout > 0 {
		x.deadline = x.began.Add(r.Timeout)
	}
	return x.run()
}

// An exchange is one call under way.
type exchange struct {
	client   *Client
	waiter   Waiter
	request  *Request
	began    time.Time
	deadline time.Time // zero: none

	cluster  Cluster
	endpoint *endpoint.Endpoint
}

func (x *exchange) run() (*Response, error) {
	if x.cluster = x.client.Cluster(x.request.Cluster); x.cluster == nil {
		return nil, ErrNoCluster
	}
	stats := x.cluster.Stats()
	if x.endpoint = x.cluster.Pick(&lb.Context{Host: []byte(x.request.Authority)}); x.endpoint == nil {
		stats.CxNoneHealthy.Inc()
		stats.CountCode(503, true)
		return nil, ErrNoHealthy
	}
	var answer *Response
	err := errReused
	for n := 0; n <= maxMissed && errors.Is(err, errReused); n++ {
		answer, err = x.try()
	}
	if err != nil {
		return nil, x.failed(err)
	}
	x.endpoint.Successes.Add(1)
	stats.CountCode(answer.Status, true)
	took := time.Since(x.began).Milliseconds()
	stats.RqTime.Record(uint64(took))
	answer.Headers.Set("x-envoy-upstream-service-time", strconv.AppendInt(nil, took, 10))
	return answer, nil
}

// maxMissed bounds the kept-alive connections that one call may find ended.
const maxMissed = 4

// errReused says that a kept-alive connection had ended before it could take the request.
var errReused = errors.New("the connection had ended")

// failed counts a call without an answer, and returns why.
func (x *exchange) failed(err error) error {
	stats, ep := x.cluster.Stats(), x.endpoint
	select {
	case <-x.waiter.Done():
		stats.RqCancelled.Inc()
		return ErrLeft
	default:
	}
	var reset *http.Reset
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		stats.RqTimeout.Inc()
		stats.CountCode(504, true)
		ep.Timeouts.Add(1)
		ep.Errors.Add(1)
		x.cluster.ReportFailure(ep, true)
	case errors.Is(err, errReused):
		stats.CountCode(503, true)
		return &http.Reset{Reason: http.ConnectionTermination}
	case errors.As(err, &reset) && reset.Reason != http.Overflow:
		stats.CountCode(503, true)
		ep.Errors.Add(1)
		if reset.Reason != http.RemoteConnectionFailure && reset.Reason != http.ConnectionTimeout {
			x.cluster.ReportFailure(ep, false)
		}
	default:
		stats.CountCode(503, true)
	}
	return err
}

// try sends the request on one connection and reads the answer.
func (x *exchange) try() (*Response, error) {
	r := x.request
	pool := x.cluster.HTTP(x.endpoint, upstream.Wish{Client: http.HTTP2, Authority: []byte(x.authority())})
	if pool == nil {
		return nil, ErrNoHealthy
	}
	s, err := pool.Acquire(x.waiter.Done(), x.deadline)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	defer x.waiter.Settle()
	if !x.waiter.Await(s) {
		return nil, ErrLeft
	}
	s.SetDeadline(x.deadline)
	answer, err := x.exchange(s)
	var reset *http.Reset
	if errors.As(err, &reset) && reset.Unused && s.Reused() {
		return nil, errReused
	}
	if answer != nil && len(answer.Body) > r.maxAnswer() {
		return nil, ErrTooLarge
	}
	return answer, err
}

func (r *Request) maxAnswer() int {
	if r.MaxAnswer > 0 {
		return r.MaxAnswer
	}
	return DefaultMaxAnswer
}

func (x *exchange) authority() string {
	if x.request.Authority != "" {
		return x.request.Authority
	}
	return x.request.Cluster
}

func (x *exchange) exchange(s http.ClientStream) (*Response, error) {
	if err := x.send(s); err != nil {
		return nil, err
	}
	var head http.Response
	for head.Status < 200 {
		if err := s.ReadHead(&head); err != nil {
			return nil, err
		}
		if head.Status == 101 { // nobody has asked for it
			return nil, &http.Reset{Reason: http.ProtocolError}
		}
	}
	x.cluster.Answered(x.endpoint, &head)
	return x.read(&head)
}

func (x *exchange) send(s http.ClientStream) error {
	r := x.request
	to := http.Request{Method: []byte(r.Method), Scheme: x.scheme(), Authority: []byte(x.authority()), Path: []byte(r.Path),
		Protocol: s.Protocol(), ContentLength: int64(len(r.Body)), Body: http.NoBody}
	to.Headers.Fields = append(to.Headers.Fields, r.Headers.Fields...)
	if !r.Plain {
		to.Headers.Set("x-envoy-internal", []byte("true"))
	}
	if a := x.client.LocalAddress; a.IsValid() && !r.Plain && !r.Unforwarded {
		to.Headers.Set("x-forwarded-for", []byte(a.String()))
	}
	if r.Timeout > 0 && !r.Plain {
		to.Headers.Set("x-envoy-expected-rq-timeout-ms", strconv.AppendInt(nil, r.Timeout.Milliseconds(), 10))
	}
	if err := s.WriteHead(&to, len(r.Body) == 0); err != nil {
		return err
	}
	if len(r.Body) == 0 {
		return nil
	}
	return s.WriteBody(r.Body, true)
}

func (x *exchange) scheme() []byte {
	if x.cluster.Secure(x.endpoint) {
		return []byte("https")
	}
	return []byte("http")
}

// read takes the answer out of the codec's memory.
func (x *exchange) read(head *http.Response) (*Response, error) {
	out := &Response{Status: head.Status, Headers: clone(&head.Headers)}
	for !head.Body.Done() {
		p, err := head.Body.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if out.Body = append(out.Body, p...); len(out.Body) > x.request.maxAnswer() {
			return out, nil // the connection is not read to its end, and closed
		}
	}
	if t := head.Body.Trailers(); t != nil {
		out.Trailers = clone(t)
	}
	return out, nil
}

func clone(h *http.Headers) http.Headers {
	out := http.Headers{Fields: make([]http.Field, 0, len(h.Fields))}
	for _, f := range h.Fields {
		out.Add(bytes.ToLower(f.Name), bytes.Clone(f.Value))
	}
	return out
}
