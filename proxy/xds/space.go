package xds

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// A Space is a subscription to the resources whose names begin with a prefix and "/", which
// the control plane sends of itself or when one is asked for (VHDS).
type Space struct {
	c      *Client
	url    string
	prefix string
	asked  map[string]bool // names that were demanded; of Run's goroutine
	known  map[string]*resource
	decode func(name string, body *anypb.Any) (any, error)
	update func(updated []decoded, removed, answered []string) error
}

// A SpaceChange is what one response says of a Space.
type SpaceChange[T any] struct {
	Changes[T]
	// Answered are the names, and aliases, that the response speaks of, also those of
	// resources that do not exist.
	Answered []string
}

// maxAsked bounds the names that are demanded of one Space.
const maxAsked = 10_000

// SubscribeSpace subscribes to a Space, which is there in the delta form only. update is
// called once for each response that speaks of it.
func SubscribeSpace[T any](c *Client, t Type[T], prefix string, update func(SpaceChange[T]) error) (*Space, error) {
	if !c.opts.Delta {
		return nil, errors.New("only delta subscriptions have resources by prefix")
	}
	s := &Space{c: c, url: t.URL, prefix: prefix, asked: map[string]bool{}, known: map[string]*resource{},
		decode: func(name string, body *anypb.Any) (any, error) { return t.Decode(name, body) },
		update: func(updated []decoded, removed, answered []string) error {
			ch := SpaceChange[T]{Changes: Changes[T]{Removed: removed}, Answered: answered}
			for _, d := range updated {
				v, _ := d.value.(T)
				ch.Updated = append(ch.Updated, Resource[T]{Name: d.res.name, Version: d.res.version, Value: v, Body: d.res.body})
			}
			return update(ch)
		}}
	c.post(func() {
		ts := c.typeFor(t.URL)
		c.mu.Lock()
		defer c.mu.Unlock()
		ts.spaces = append(ts.spaces, s)
		ts.subscribe(prefix)
	})
	return s, nil
}

// Demand asks for one resource of the space; the answer comes with an update. When too many
// are under way refused is called instead.
func (s *Space) Demand(name string, refused func()) {
	s.c.post(func() {
		if len(s.asked) >= maxAsked {
			refused()
			return
		}
		t := s.c.typeFor(s.url)
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		s.asked[name] = true
		t.subscribe(name)
	})
}

// Close gives the space up.
func (s *Space) Close() {
	s.c.post(func() {
		t := s.c.typeFor(s.url)
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		for i, x := range t.spaces {
			if x == s {
				t.spaces = append(t.spaces[:i:i], t.spaces[i+1:]...)
				if !slices.ContainsFunc(t.spaces, func(x *Space) bool { return x.prefix == s.prefix }) {
					t.unsubscribe(s.prefix)
				}
				for name := range s.asked {
					t.unsubscribe(name)
				}
				return
			}
		}
	})
}

// holds reports that a name is one of the space's.
func (s *Space) holds(name string) bool {
	rest, ok := strings.CutPrefix(name, s.prefix)
	return ok && strings.HasPrefix(rest, "/")
}

// applySpaces handles what a response says of resources by prefix.
func (c *Client) applySpaces(t *typeState, r *discoveryv3.DeltaDiscoveryResponse) (problems []string) {
	for _, s := range t.spaces {
		var updated []decoded
		var removed, answered []string
		for _, e := range r.GetResources() {
			if !s.holds(e.GetName()) {
				continue
			}
			answered = append(append(answered, e.GetName()), e.GetAliases()...)
			if e.GetResource() == nil { // it does not exist
				continue
			}
			res := s.known[e.GetName()]
			if res == nil {
				res = &resource{name: e.GetName()}
			}
			v, err := s.decode(e.GetName(), e.GetResource())
			if err == nil {
				err = checkType(t.url, e.GetResource())
			}
			c.mu.Lock()
			s.known[e.GetName()] = res
			if err != nil {
				res.refuse(e.GetVersion(), e.GetResource(), err)
				problems = append(problems, fmt.Sprintf("%s: %v", e.GetName(), err))
			} else {
				res.accept(e.GetVersion(), e.GetResource())
				updated = append(updated, decoded{res, v})
			}
			c.mu.Unlock()
		}
		for _, name := range r.GetRemovedResources() {
			if s.holds(name) {
				answered = append(answered, name)
				if s.known[name] != nil {
					removed = append(removed, name)
				}
				c.mu.Lock()
				delete(s.known, name)
				c.mu.Unlock()
			}
		}
		if len(answered) == 0 {
			continue
		}
		for _, name := range answered {
			delete(s.asked, name)
		}
		if err := s.update(updated, removed, answered); err != nil {
			problems = append(problems, err.Error())
		}
	}
	return problems
}
