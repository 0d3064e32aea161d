package xds

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// A Space is one owner's interest in the resources whose names begin with a prefix and "/",
// which the control plane sends of itself or when one is asked for (VHDS). Owners of one prefix
// share what is on the wire; a version is in force only if all of them decode it.
type Space struct {
	c      *Client
	url    string
	prefix string
	begun  bool // the first answer has come, or its time is over
	closed bool
	timer  *time.Timer // initial_fetch_timeout, nil when done
	decode func(name string, body *anypb.Any) (any, error)
	update func(updated []decoded, removed, answered []string) error
}

// A space is what is known below one prefix. It is of Run's goroutine.
type space struct {
	prefix   string
	owners   []*Space
	answered bool            // the control plane has said what there is ahead of any demand
	asked    map[string]bool // names that were demanded
	known    map[string]*resource
}

// A SpaceChange is what one response says of a Space.
type SpaceChange[T any] struct {
	Changes[T]
	// Answered are the names, and aliases, that the response speaks of, also those of
	// resources that do not exist.
	Answered []string
	// Begun says that the first answer has come, or its time is over: what there is ahead of
	// any demand is there.
	Begun bool
}

// maxAsked bounds the names that are demanded of one prefix.
const maxAsked = 10_000

// SubscribeSpace subscribes to a Space, which is there in the delta form only. update is
// called once for each response that speaks of it, and when the fetch timeout passes before
// the first one.
func SubscribeSpace[T any](c *Client, t Type[T], prefix string, update func(SpaceChange[T]) error) (*Space, error) {
	if !c.opts.Delta {
		return nil, errors.New("only delta subscriptions have resources by prefix")
	}
	s := &Space{c: c, url: t.URL, prefix: prefix,
		decode: func(name string, body *anypb.Any) (any, error) { return t.Decode(name, body) }}
	s.update = func(updated []decoded, removed, answered []string) error {
		ch := SpaceChange[T]{Changes: Changes[T]{Removed: removed}, Answered: answered, Begun: s.begun}
		for _, d := range updated {
			v, _ := d.value.(T)
			ch.Updated = append(ch.Updated, Resource[T]{Name: d.res.name, Version: d.res.version, Value: v, Body: d.res.body})
		}
		return update(ch)
	}
	c.post(func() { c.addSpace(s, t.FetchTimeout) })
	return s, nil
}

// addSpace gives a late owner what is there already.
func (c *Client) addSpace(s *Space, timeout time.Duration) {
	if s.closed {
		return
	}
	t := c.typeFor(s.url)
	if x := t.space(s.prefix); x != nil {
		x.owners = append(x.owners, s)
		if x.answered {
			c.serveSpace(x, s)
			return
		}
	} else {
		c.mu.Lock()
		t.spaces = append(t.spaces, &space{prefix: s.prefix, owners: []*Space{s}, asked: map[string]bool{}, known: map[string]*resource{}})
		t.subscribe(s.prefix)
		c.mu.Unlock()
	}
	if timeout > 0 {
		s.timer = time.AfterFunc(timeout, func() { c.post(func() { c.expireSpace(s) }) })
	}
}

func (c *Client) serveSpace(x *space, s *Space) {
	var all []decoded
	for _, name := range slices.Sorted(maps.Keys(x.known)) {
		r := x.known[name]
		if r.body == nil {
			continue
		}
		v, err := s.decode(name, r.body)
		if err != nil {
			c.log.Warn("xds resource refused by a further owner", "name", name, "error", err)
			continue
		}
		all = append(all, decoded{r, v})
	}
	s.begun = true
	if err := s.update(all, nil, nil); err != nil {
		c.log.Warn("xds resources refused by a further owner", "prefix", s.prefix, "error", err)
	}
}

// expireSpace ends the wait for the first answer.
func (c *Client) expireSpace(s *Space) {
	if s.timer == nil || s.closed || s.begun {
		return
	}
	s.stopTimer()
	s.begun = true
	c.opts.Observe(s.url, TimedOut)
	if err := s.update(nil, nil, nil); err != nil {
		c.log.Warn("xds fetch timed out", "type", s.url, "prefix", s.prefix, "error", err)
	}
}

func (s *Space) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// Demand asks for one resource of the space; the answer comes with an update. When too many
// are under way refused is called instead.
func (s *Space) Demand(name string, refused func()) {
	s.c.post(func() {
		t := s.c.typeFor(s.url)
		x := t.space(s.prefix)
		if s.closed || x == nil || len(x.asked) >= maxAsked {
			refused()
			return
		}
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		x.asked[name] = true
		t.subscribe(name)
	})
}

// Close gives the space up.
func (s *Space) Close() {
	s.c.post(func() {
		s.closed = true
		s.stopTimer()
		t := s.c.typeFor(s.url)
		x := t.space(s.prefix)
		if x == nil {
			return
		}
		x.owners = slices.DeleteFunc(x.owners, func(o *Space) bool { return o == s })
		if len(x.owners) > 0 {
			return
		}
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		t.spaces = slices.DeleteFunc(t.spaces, func(o *space) bool { return o == x })
		t.unsubscribe(x.prefix)
		for name := range x.asked {
			t.unsubscribe(name)
		}
	})
}

func (t *typeState) space(prefix string) *space {
	for _, x := range t.spaces {
		if x.prefix == prefix {
			return x
		}
	}
	return nil
}

// holds reports that a name is one of the space's.
func (x *space) holds(name string) bool {
	rest, ok := strings.CutPrefix(name, x.prefix)
	return ok && strings.HasPrefix(rest, "/")
}

// applySpaces handles what a response says of resources by prefix. One that says nothing at
// all answers those who wait for their first.
func (c *Client) applySpaces(t *typeState, r *discoveryv3.DeltaDiscoveryResponse) (problems []string) {
	nothing := len(r.GetResources())+len(r.GetRemovedResources()) == 0
	for _, x := range slices.Clone(t.spaces) {
		updated, answered, some := c.takeSpace(t, x, r.GetResources())
		problems = append(problems, some...)
		removed, more := c.removeSpace(x, r.GetRemovedResources())
		answered = append(answered, more...)
		if nothing && !x.answered {
			x.answered = true
		} else if len(answered) == 0 {
			continue
		}
		for _, name := range answered {
			delete(x.asked, name)
		}
		for i, s := range slices.Clone(x.owners) {
			s.begun = s.begun || x.answered
			if s.begun {
				s.stopTimer()
			}
			if err := s.update(updated[i], removed, answered); err != nil && !slices.Contains(problems, err.Error()) {
				problems = append(problems, err.Error())
			}
		}
	}
	return problems
}

// takeSpace decodes what is new of a space, for each owner.
func (c *Client) takeSpace(t *typeState, x *space, list []*discoveryv3.Resource) (updated [][]decoded, answered, problems []string) {
	updated = make([][]decoded, len(x.owners))
	for _, e := range list {
		if !x.holds(e.GetName()) {
			continue
		}
		answered = append(append(answered, e.GetName()), e.GetAliases()...)
		if e.GetResource() == nil { // it does not exist
			continue
		}
		x.answered = x.answered || !x.asked[e.GetName()]
		res := x.known[e.GetName()]
		if res == nil {
			res = &resource{name: e.GetName()}
		} else if res.same(e.GetResource()) {
			c.renew(res, e.GetVersion())
			continue
		}
		values, err := x.decode(t.url, e)
		c.mu.Lock()
		x.known[e.GetName()] = res
		if err != nil {
			res.refuse(e.GetVersion(), e.GetResource(), err)
			problems = append(problems, fmt.Sprintf("%s: %v", e.GetName(), err))
		} else {
			res.accept(e.GetVersion(), e.GetResource())
			for i, v := range values {
				updated[i] = append(updated[i], decoded{res, v})
			}
		}
		c.mu.Unlock()
	}
	return updated, answered, problems
}

func (x *space) decode(url string, e *discoveryv3.Resource) ([]any, error) {
	if err := checkType(url, e.GetResource()); err != nil {
		return nil, err
	}
	values := make([]any, len(x.owners))
	for i, s := range x.owners {
		var err error
		if values[i], err = s.decode(e.GetName(), e.GetResource()); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// removeSpace forgets what does not exist any more. The prefix itself among the names says that
// there is nothing ahead of any demand.
func (c *Client) removeSpace(x *space, names []string) (removed, answered []string) {
	for _, name := range names {
		if name == x.prefix {
			x.answered = true
			answered = append(answered, name)
		}
		if !x.holds(name) {
			continue
		}
		answered = append(answered, name)
		if x.known[name] != nil {
			removed = append(removed, name)
		}
		c.mu.Lock()
		delete(x.known, name)
		c.mu.Unlock()
	}
	return removed, answered
}
