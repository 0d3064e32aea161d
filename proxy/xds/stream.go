package xds

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// Envoy's back-off of xDS streams, and our bounds.
const (
	retryInitial = 500 * time.Millisecond
	retryMax     = 30 * time.Second
	maxMessage   = 64 << 20 // bytes of one response
	// Servers of grpc-go refuse pings more frequent than once in five minutes
	// unless told otherwise; TCP keep-alive beneath is the dialler's matter.
	pingEvery   = 5*time.Minute + 10*time.Second
	pingTimeout = 20 * time.Second
)

// A stream is one open discovery stream. Messages go through its channels; gone is
// closed when it is over.
type stream struct {
	in      chan proto.Message
	out     chan proto.Message
	gone    chan struct{}
	greeted bool // the node was sent
}

// connect opens one stream after the other until ctx ends.
func (c *Client) connect(ctx context.Context, streams chan<- *stream) {
	for failures := 0; ctx.Err() == nil; failures++ {
		heard, err := c.session(ctx, streams)
		if ctx.Err() != nil {
			return
		}
		if heard {
			failures = 0
		}
		c.opts.Observe("", Disconnected)
		delay := retryDelay(failures)
		c.log.Warn("xds stream closed", "error", err, "retry_in", delay)
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// retryDelay is a random time below the exponential bound (full jitter).
func retryDelay(failures int) time.Duration {
	limit := retryMax
	if failures < 6 {
		limit = min(retryInitial<<failures, retryMax)
	}
	return time.Duration(rand.Int64N(int64(limit))) + time.Millisecond
}

// session opens a connection and a stream and moves its messages until it breaks.
// heard says that a response came.
func (c *Client) session(ctx context.Context, streams chan<- *stream) (heard bool, err error) {
	conn, err := grpc.NewClient("passthrough:///"+c.opts.Authority, c.dialOptions()...)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	wire, err := conn.NewStream(metadata.NewOutgoingContext(ctx, metadata.New(c.opts.Metadata)), desc, c.method())
	if err != nil {
		return false, err
	}
	s := &stream{in: make(chan proto.Message), out: make(chan proto.Message), gone: make(chan struct{})}
	senderDone := make(chan struct{})
	go func() {
		defer close(senderDone)
		send(ctx, wire, s.out)
	}()
	// The stream is over for Run before the next one is offered.
	defer func() {
		close(s.gone)
		cancel()
		<-senderDone
	}()
	select {
	case streams <- s:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	c.opts.Observe("", Connected)
	return c.read(ctx, wire, s)
}

func (c *Client) read(ctx context.Context, wire grpc.ClientStream, s *stream) (heard bool, err error) {
	for {
		var m proto.Message = &discoveryv3.DiscoveryResponse{}
		if c.opts.Delta {
			m = &discoveryv3.DeltaDiscoveryResponse{}
		}
		if err := wire.RecvMsg(m); err != nil {
			return heard, err
		}
		heard = true
		select {
		case s.in <- m:
		case <-ctx.Done():
			return heard, ctx.Err()
		}
	}
}

// send writes what Run hands over. A failed write ends the stream; its reader finds out why.
func send(ctx context.Context, wire grpc.ClientStream, out <-chan proto.Message) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-out:
			if wire.SendMsg(m) != nil {
				<-ctx.Done()
				return
			}
		}
	}
}

func (c *Client) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), // TLS is Dial's
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.opts.Dial(ctx) }),
		grpc.WithAuthority(c.opts.Authority),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: pingTimeout}),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	}
}

func (c *Client) method() string {
	form := "Stream"
	if c.opts.Delta {
		form = "Delta"
	}
	if c.opts.Service == Aggregated {
		return "/envoy.service.discovery.v3.AggregatedDiscoveryService/" + form + "AggregatedResources"
	}
	for _, m := range methods {
		if m.service == c.opts.Service {
			return fmt.Sprintf("/%s/%s%s", m.service, form, m.what)
		}
	}
	return "/" + string(c.opts.Service) + "/" + form
}
