package xds

import (
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
)

// A subscription is one owner's interest in one named resource.
type subscription struct {
	cancelled atomic.Bool
	timeout   time.Duration
	timer     *time.Timer // initial_fetch_timeout, nil when done
	served    bool        // the owner was told once
	decode    func(name string, body *anypb.Any) (any, error)
	update    func(value any, present bool)
}

func (s *subscription) tell(value any, present bool) {
	s.served = true
	s.stopTimer()
	if !s.cancelled.Load() {
		s.update(value, present)
	}
}

func (s *subscription) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// Subscribe asks for one resource. update is called with each accepted version, and
// with present false when the control plane says that it does not exist (any more) or
// the fetch timeout passed. Several subscriptions to one name share what is on the
// wire; a version is in force only if all of them decode it. After cancel returns no
// call of update begins.
func Subscribe[T any](c *Client, t Type[T], name string, update func(value T, present bool)) (cancel func()) {
	s := &subscription{
		timeout: t.FetchTimeout,
		decode:  func(name string, body *anypb.Any) (any, error) { return t.Decode(name, body) },
		update: func(value any, present bool) {
			v, _ := value.(T)
			update(v, present)
		},
	}
	c.post(func() { c.add(t.URL, name, s) })
	return func() {
		if !s.cancelled.Swap(true) {
			c.post(func() { c.drop(t.URL, name, s) })
		}
	}
}

func (c *Client) add(url, name string, s *subscription) {
	if s.cancelled.Load() {
		return
	}
	t := c.typeFor(url)
	c.mu.Lock()
	r := t.named[name]
	if r == nil {
		r = &resource{name: name, state: stateRequested}
		t.named[name] = r
		t.subscribe(name)
	}
	r.subs = append(r.subs, s)
	c.mu.Unlock()
	switch {
	case r.body != nil:
		c.serve(r, s)
	case r.state == stateAbsent:
		s.tell(nil, false)
	case s.timeout > 0:
		s.timer = time.AfterFunc(s.timeout, func() {
			c.post(func() {
				if s.timer != nil && !s.served {
					c.opts.Observe(url, TimedOut)
					s.tell(nil, false)
				}
			})
		})
	}
}

// serve gives a late subscriber what is already there.
func (c *Client) serve(r *resource, s *subscription) {
	v, err := s.decode(r.name, r.body)
	if err != nil {
		c.log.Warn("xds resource refused by a further owner", "name", r.name, "error", err)
		return
	}
	s.tell(v, true)
}

func (c *Client) drop(url, name string, s *subscription) {
	t := c.typeFor(url)
	s.stopTimer()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := t.named[name]
	if r == nil {
		return
	}
	for i, x := range r.subs {
		if x == s {
			r.subs = append(r.subs[:i:i], r.subs[i+1:]...)
			break
		}
	}
	if len(r.subs) == 0 {
		delete(t.named, name)
		t.unsubscribe(name)
	}
}

// SubscribeAll asks for all resources of a type (LDS, CDS). update is called once per
// response with what it changed; resources whose bytes are as before are left out. An
// error of update is added to the NACK, its resources count as accepted. When the fetch
// timeout passes before the first response, update is called with no changes. A type
// has one such subscription.
func SubscribeAll[T any](c *Client, t Type[T], update func(Changes[T]) error) {
	w := &wildcard{
		known:  map[string]*resource{},
		decode: func(name string, body *anypb.Any) (any, error) { return t.Decode(name, body) },
		update: func(updated []decoded, removed []string) error {
			ch := Changes[T]{Removed: removed}
			for _, d := range updated {
				v, _ := d.value.(T)
				ch.Updated = append(ch.Updated, Resource[T]{Name: d.res.name, Version: d.res.version, Value: v, Body: d.res.body})
			}
			return update(ch)
		},
		settled: t.Settled,
	}
	c.post(func() {
		ts := c.typeFor(t.URL)
		c.mu.Lock()
		defer c.mu.Unlock()
		ts.all = w
		ts.dirty = true
		if t.FetchTimeout > 0 {
			w.timer = time.AfterFunc(t.FetchTimeout, func() { c.post(func() { c.expire(t.URL, w) }) })
		}
	})
}

// expire ends the wait for the first response.
func (c *Client) expire(url string, w *wildcard) {
	if w.timer == nil {
		return
	}
	w.stopTimer()
	c.opts.Observe(url, TimedOut)
	if err := w.update(nil, nil); err != nil {
		c.log.Warn("xds fetch timed out", "type", url, "error", err)
	}
}

// stopTimer ends the wait for the first response.
func (w *wildcard) stopTimer() {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}
