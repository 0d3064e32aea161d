package ads

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

const maxUnknownTypes = 16

// A conn is one stream. All but its status runs on the stream's own goroutine;
// mu guards the watches' content against status and is not held while resources
// are generated or sent.
type conn struct {
	*Server
	wire    wire
	delta   bool
	envoy   bool // a real Envoy, which needs endpoints again after a reconnect
	id      string
	address string
	proxy   *mesh.Proxy
	since   time.Time
	log     *slog.Logger
	pending pending

	mu      sync.Mutex
	watches map[string]*watch // by type URL
	unknown []*watch          // of types the server does not have

	view      View
	dirty     uint64          // known types to compare with the view
	touched   uint64          // known types to compare in part: names that are asked for,
	subjects  map[string]bool // and those of the subjects
	changedAt time.Time       // of the oldest change that is not yet delivered
	gate      string          // nonce of the CDS response that LDS and RDS wait for
	gateUntil time.Time       // end of that wait
	sweepBy   time.Time       // when stale clusters leave at the latest
	reconnect bool            // the proxy brought resources from an earlier stream
	nonce     uint64          // last one used
	timer     *time.Timer     // gate and sweep
	requests  chan received   // from the reading goroutine
	ahead     ahead           // of a gRPC program
	leaving   bool            // the proxy has said that it is about to end
	left      chan struct{}   // a signal when it may
}

type received struct {
	req *request
	err error
}

// run serves the stream until it ends.
func (c *conn) run(ctx context.Context, first *request) error {
	c.view = c.o.View(c.proxy)
	c.timer = time.NewTimer(time.Hour)
	defer c.timer.Stop()
	c.requests = make(chan received)
	go c.read(ctx)
	next := received{req: first}
	for {
		if next.req != nil && next.req.typeURL == wellknown.DrainType && c.o.Leave != nil {
			c.leave(ctx)
		} else if next.req != nil && next.req.typeURL == wellknown.HealthType && c.o.Health != nil {
			c.o.Health(c.proxy, next.req.nack)
		} else if next.req != nil {
			if err := c.handle(next.req); err != nil {
				return err
			}
		}
		if err := c.advance(ctx); err != nil {
			return err
		}
		c.tellWaiting()
		next = received{}
		select {
		case next = <-c.requests:
			if next.err != nil {
				if isEnd(next.err) {
					return nil
				}
				return next.err
			}
		case <-c.pending.wake:
			c.takePush()
		case <-c.left:
			if err := c.wire.send(wellknown.DrainType, c.nextNonce(), "", delivery{}); err != nil {
				return err
			}
		case <-c.timer.C:
		case <-ctx.Done():
			return nil
		case <-c.closed:
			return errClosing
		}
	}
}

// read takes requests off the stream one at a time; while the conn is busy the
// stream's flow control holds the proxy back.
func (c *conn) read(ctx context.Context) {
	for {
		req, err := c.wire.recv()
		select {
		case c.requests <- received{req, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// takePush moves on to the newest view.
func (c *conn) takePush() {
	types, subjects, since := c.pending.take()
	if since.IsZero() {
		return
	}
	c.o.Metrics.queued.Observe(time.Since(since).Seconds())
	before := c.view.Key()
	c.view = c.o.View(c.proxy)
	if c.view.Key() != before {
		types = 1<<len(c.o.Types) - 1
	}
	c.dirty |= types
	for s := range subjects {
		if c.subjects == nil {
			c.subjects = map[string]bool{}
		}
		c.subjects[s] = true
		c.touched |= c.withSubject
	}
	if c.changedAt.IsZero() || since.Before(c.changedAt) {
		c.changedAt = since
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, t := range c.o.Types { // what the change cannot reach is already at the new generation
		if w := c.watches[t.URL]; w != nil && (c.dirty|c.touched)&(1<<i) == 0 {
			w.reached(c.generationOf(w))
		}
	}
	for _, w := range c.unknown {
		w.reached(c.view.Generation())
	}
}

// ordered lists the watches in order of delivery, unknown types last.
func (c *conn) ordered() []*watch {
	list := make([]*watch, 0, len(c.watches))
	for _, t := range c.o.Types {
		if w := c.watches[t.URL]; w != nil {
			list = append(list, w)
		}
	}
	return append(list, c.unknown...)
}

// handle takes one request into its watch, and tells what the proxy has refused.
func (c *conn) handle(r *request) error {
	refused, err := c.take(r)
	if len(refused) > 0 && c.o.Refused != nil {
		c.o.Refused(c.proxy, r.typeURL, refused)
	}
	return err
}

func (c *conn) take(r *request) (refused []Refusal, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watches[r.typeURL]
	if w == nil {
		return nil, c.open(r)
	}
	stale := false
	if r.nonce != "" {
		refused, stale = c.reply(w, r)
	}
	switch {
	case c.delta: // names travel independently of nonces
		w.unsubscribe(r.unsubscribe)
		err = w.subscribe(r.subscribe)
	case !stale:
		err = w.replaceNames(r.names, r.nonce == "")
	}
	if len(w.asked) > 0 || w.answer {
		c.markAsked(w.URL)
	}
	return refused, err
}

// open begins a watch with the type's first request of this stream. A nonce in it
// is of an earlier stream and says nothing.
func (c *conn) open(r *request) error {
	t := Type{URL: r.typeURL}
	known := false
	for _, k := range c.o.Types {
		if k.URL == r.typeURL {
			t, known = k, true
		}
	}
	if !known && len(c.unknown) >= maxUnknownTypes {
		return errTooManyTypes
	}
	w := newWatch(t, c.delta)
	c.watches[r.typeURL] = w
	if !known {
		c.unknown = append(c.unknown, w)
		c.log.Debug("type not served", "type", r.typeURL)
	}
	names := r.names
	if c.delta {
		names = r.subscribe
	}
	if len(names) == 0 {
		w.wildcard, w.answer = t.Wildcard, t.Wildcard
	}
	if err := w.subscribe(names); err != nil {
		return err
	}
	c.resume(w, r)
	c.mark(w.URL)
	c.log.Debug("subscribed", "type", r.typeURL, "names", len(w.names), "wildcard", w.wildcard, "resumed", len(r.initial) > 0 || r.version != "")
	return nil
}

// resume takes what the proxy says to have from an earlier stream as told and
// acknowledged. Not the endpoints of an Envoy: when the stream broke between a
// changed cluster and its endpoints, it waits for them although it has them.
func (c *conn) resume(w *watch, r *request) {
	if len(r.initial) > 0 || r.version != "" {
		c.reconnect = true
	}
	if w.URL == wellknown.EndpointType && c.envoy {
		return
	}
	for n, v := range r.initial {
		if len(w.told) >= maxNames {
			return
		}
		w.told[n] = &told{version: stampOf(v), good: stampOf(v)}
		delete(w.asked, n)
		delete(w.asked, w.above(n))
	}
	if !w.partial {
		w.resumed = r.version
	}
}

// reply books the answer to a response; stale reports that it was not the last.
func (c *conn) reply(w *watch, r *request) (refused []Refusal, stale bool) {
	stale = r.nonce != w.nonce
	refused, known, again := w.reply(r.nonce, r.nack)
	if c.delta && !known && !stale && r.nack == "" {
		w.cured()
	}
	if stale {
		c.o.Metrics.expired.WithLabelValues(label(w.Type)).Inc()
		c.log.Debug("stale nonce", "type", w.Name, "nonce", r.nonce, "last", w.nonce, "known", known)
	}
	if c.gate != "" && w.URL == wellknown.ClusterType && len(w.flight) == 0 {
		c.gate = ""
	}
	if again {
		c.mark(w.URL)
	}
	if c.ahead.waits() && !isRoutes(w.URL) {
		c.mark(wellknown.RouteType)
	}
	if r.nack != "" && known {
		c.o.Metrics.rejects.WithLabelValues(label(w.Type)).Inc()
		for _, f := range refused {
			c.log.Warn("NACK", "node", c.proxy.ID, "type", w.Name, "resource", f.Resource, "error", f.Error)
		}
		if len(refused) == 0 {
			c.log.Warn("NACK", "node", c.proxy.ID, "type", w.Name, "error", r.nack)
		}
	}
	return refused, stale
}

// replaceNames is a state-of-the-world subscription: the whole list each time.
// fresh asks for everything again.
func (w *watch) replaceNames(names []string, fresh bool) error {
	if len(names) > maxNames {
		return errTooManyNames
	}
	want := make(map[string]bool, len(names))
	for _, n := range names {
		want[n] = true
	}
	if w.wildcard && len(names) == 0 {
		w.answer = w.answer || fresh
		return nil
	}
	var gone, added []string
	for n := range w.names {
		if !want[n] {
			gone = append(gone, n)
		}
	}
	if w.wildcard && !want["*"] {
		gone = append(gone, "*")
	}
	for n := range want {
		if fresh || n == "*" && !w.wildcard || n != "*" && !w.names[n] {
			added = append(added, n)
		}
	}
	w.unsubscribe(gone)
	w.answer = w.answer || fresh
	return w.subscribe(added)
}

// mark has a type compared at the next chance.
func (c *conn) mark(url string) {
	for i, t := range c.o.Types {
		if t.URL == url {
			c.dirty |= 1 << i
		}
	}
}

// markAsked has the names of a type that are asked for compared at the next chance.
func (c *conn) markAsked(url string) {
	for i, t := range c.o.Types {
		if t.URL == url {
			c.touched |= 1 << i
		}
	}
}

func (c *conn) nextNonce() string {
	c.nonce++
	return strconv.FormatUint(c.nonce, 10)
}
