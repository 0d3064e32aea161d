package xds

import (
	"context"
	"log/slog"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/wellknown"
)

// Options say whom a Client talks to and how.
type Options struct {
	// Node is sent with the first request of every stream.
	Node *corev3.Node
	// Dial opens the connection, TLS included. Target and address are its own matter.
	Dial Dial
	// Authority is the :authority of the stream, "xds" if empty.
	Authority string
	// Metadata are headers of the stream (initial_metadata).
	Metadata map[string]string
	// Delta chooses the incremental form.
	Delta bool
	// Service is the gRPC service, ADS if empty.
	Service Service
	// File, if not nil, takes the place of a server.
	File *File
	// Logger is slog's default if nil.
	Logger *slog.Logger
	// Observe is told what happens, for counters; it must not block. May be nil.
	Observe func(typeURL string, e Event)
}

// A Service is a gRPC discovery service.
type Service string

// Aggregated is the service that carries all types on one stream; Secrets is that of SDS.
const (
	Aggregated Service = ""
	Secrets    Service = "envoy.service.secret.v3.SecretDiscoveryService"
)

// ServiceOf is the discovery service of a type; false when it has none.
func ServiceOf(typeURL string) (Service, bool) {
	m, ok := methods[typeURL]
	return m.service, ok
}

// methods are the discovery services by their types: the names of their calls follow
// "Stream" and "Delta".
var methods = map[string]struct {
	service Service
	what    string
}{
	wellknown.ListenerType:    {"envoy.service.listener.v3.ListenerDiscoveryService", "Listeners"},
	wellknown.ClusterType:     {"envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters"},
	wellknown.RouteType:       {"envoy.service.route.v3.RouteDiscoveryService", "Routes"},
	wellknown.EndpointType:    {"envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints"},
	wellknown.SecretType:      {Secrets, "Secrets"},
	wellknown.ExtensionType:   {"envoy.service.extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs"},
	wellknown.RuntimeType:     {"envoy.service.runtime.v3.RuntimeDiscoveryService", "Runtime"},
	wellknown.VirtualHostType: {"envoy.service.route.v3.VirtualHostDiscoveryService", "VirtualHosts"},
}

// An Event is something that counters count.
type Event uint8

// The events. Connected and Disconnected come without a type URL.
const (
	Connected    Event = iota
	Disconnected       // also for each attempt to connect that failed
	Requested          // a subscription or its change was sent
	Accepted           // a response was taken whole
	Rejected           // a response was refused, at least in part
	TimedOut           // initial_fetch_timeout passed
)

// A Client keeps one ADS stream. It is safe for concurrent use.
type Client struct {
	opts Options
	log  *slog.Logger
	wake chan struct{}

	ended   chan struct{}  // closed when Run is over
	waiting sync.WaitGroup // for what ACKs wait for

	queueMu sync.Mutex
	queue   []func() // what subscribers want, done by Run's goroutine

	// Written by Run's goroutine only, under mu; other goroutines read under mu.
	mu     sync.Mutex
	types  []*typeState // in the order of the wire
	stream *stream      // nil while disconnected
}

// New returns a Client; Run makes it work.
func New(o Options) *Client {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Observe == nil {
		o.Observe = func(string, Event) {}
	}
	if o.Authority == "" {
		o.Authority = "xds"
	}
	if o.Node == nil {
		o.Node = &corev3.Node{}
	}
	return &Client{opts: o, log: o.Logger, wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

// Run keeps the stream open until ctx ends, and runs all callbacks. It is called once.
func (c *Client) Run(ctx context.Context) {
	streams := make(chan *stream)
	var connector sync.WaitGroup
	connector.Go(func() {
		if c.opts.File != nil {
			c.follow(ctx, streams)
		} else {
			c.connect(ctx, streams)
		}
	})
	defer connector.Wait()
	defer c.stopTimers()
	defer func() {
		close(c.ended)
		c.waiting.Wait()
	}()
	for {
		c.runQueue()
		msg, sent := c.nextRequest()
		var out chan<- proto.Message
		var in <-chan proto.Message
		var gone <-chan struct{}
		if c.stream != nil {
			in, gone = c.stream.in, c.stream.gone
			if msg != nil {
				out = c.stream.out
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case s := <-streams:
			c.begin(s)
		case out <- msg:
			sent()
		case m := <-in:
			c.receive(m)
		case <-gone:
			c.setStream(nil)
		}
	}
}

// post has f run on Run's goroutine.
func (c *Client) post(f func()) {
	c.queueMu.Lock()
	c.queue = append(c.queue, f)
	c.queueMu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Client) runQueue() {
	for {
		c.queueMu.Lock()
		q := c.queue
		c.queue = nil
		c.queueMu.Unlock()
		if len(q) == 0 {
			return
		}
		for _, f := range q {
			f()
		}
	}
}

// begin takes a fresh stream into use: everything is to be asked for again.
func (c *Client) begin(s *stream) {
	c.setStream(s)
	for _, t := range c.types {
		t.restart()
	}
}

func (c *Client) setStream(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream = s
}

// nextRequest is the next message that the stream should send, nil for none, and what
// to do once it is on its way.
func (c *Client) nextRequest() (proto.Message, func()) {
	if c.stream == nil {
		return nil, nil
	}
	for _, t := range c.types {
		if !t.dirty && (len(t.acks) == 0 || t.waits()) {
			continue
		}
		var node *corev3.Node
		if !c.stream.greeted {
			node = c.opts.Node
		}
		msg := t.request(c.opts.Delta, node)
		if msg == nil {
			continue
		}
		return msg, func() {
			c.stream.greeted = true
			if t.sent(c.opts.Delta) {
				c.opts.Observe(t.url, Requested)
			}
		}
	}
	return nil, nil
}

// typeFor is the state of a type, made on first use at its place in the wire order.
func (c *Client) typeFor(url string) *typeState {
	at := len(c.types)
	for i, t := range c.types {
		if t.url == url {
			return t
		}
		if rank(t.url) > rank(url) && i < at {
			at = i
		}
	}
	t := newTypeState(url)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.types = append(c.types, nil)
	copy(c.types[at+1:], c.types[at:])
	c.types[at] = t
	return t
}

func (c *Client) stopTimers() {
	for _, t := range c.types {
		for _, r := range t.named {
			r.stopTTL()
		}
		if t.all != nil {
			for _, r := range t.all.known {
				r.stopTTL()
			}
			t.all.stopTimer()
			t.all.stopAgain()
		}
		for _, r := range t.named {
			for _, s := range r.subs {
				s.stopTimer()
			}
		}
		for _, x := range t.spaces {
			for _, s := range x.owners {
				s.stopTimer()
			}
		}
	}
}

// Delta reports the incremental form.
func (c *Client) Delta() bool { return c.opts.Delta }

// Connected reports whether the stream is open.
func (c *Client) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stream != nil
}
