package xds

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/wellknown"
)

// resourceType is the envelope that a state-of-the-world response may use.
const resourceType = "type.googleapis.com/envoy.service.discovery.v3.Resource"

// incoming is one resource of a response.
type incoming struct {
	name, version string
	body          *anypb.Any
	err           error // it cannot even be read
	beat          bool  // a heartbeat: it is what it was, and its time begins anew
}

type decoded struct {
	res   *resource
	value any
}

// receive handles one response and notes its ACK or NACK.
func (c *Client) receive(m proto.Message) {
	var url, version, nonce string
	var in []incoming
	var removed []string
	var lives []*discoveryv3.Resource
	switch r := m.(type) {
	case *discoveryv3.DiscoveryResponse:
		url, version, nonce = r.GetTypeUrl(), r.GetVersionInfo(), r.GetNonce()
		in, lives = fromWorld(r)
	case *discoveryv3.DeltaDiscoveryResponse:
		url, version, nonce = r.GetTypeUrl(), r.GetSystemVersionInfo(), r.GetNonce()
		in, removed, lives = fromDelta(r), r.GetRemovedResources(), r.GetResources()
	}
	t := c.find(url)
	if t == nil {
		c.log.Warn("xds response of a type that nobody asked for", "type", url)
		return
	}
	problems := c.checkNames(in)
	if t.all != nil && !beats(in) {
		problems = append(problems, c.applyAll(t, in, removed)...)
	}
	problems = append(problems, c.applyNamed(t, in, removed)...)
	if r, ok := m.(*discoveryv3.DeltaDiscoveryResponse); ok && len(t.spaces) > 0 {
		problems = append(problems, c.applySpaces(t, r)...)
	}
	c.keep(t, lives)
	c.conclude(t, version, nonce, problems)
	c.settle(t)
}

// beats reports that a response has but heartbeats: all that it does not list stays.
func beats(in []incoming) bool {
	for _, x := range in {
		if !x.beat {
			return false
		}
	}
	return len(in) > 0
}

// settle keeps the ACK back while what came needs more to be of use.
func (c *Client) settle(t *typeState) {
	if t.all == nil || t.all.settled == nil {
		return
	}
	w, settled := t.all, t.all.settled()
	select {
	case <-settled:
		w.hold = nil
		return
	default:
	}
	w.hold = settled
	c.waiting.Go(func() {
		limit := time.NewTimer(settleTime)
		defer limit.Stop()
		select {
		case <-settled:
		case <-limit.C:
		case <-c.ended:
			return
		}
		c.post(func() {
			if w.hold == settled { // not that of a later response
				w.hold = nil
			}
		})
	})
}

func (c *Client) find(url string) *typeState {
	for _, t := range c.types {
		if t.url == url {
			return t
		}
	}
	return nil
}

// conclude notes ACK or NACK of a response.
func (c *Client) conclude(t *typeState, version, nonce string, problems []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.nonce, t.offered = nonce, version
	if len(problems) == 0 {
		t.version, t.lastError, t.lastErrorAt = version, "", time.Time{}
		t.acks = append(t.acks, ack{nonce: nonce})
		c.opts.Observe(t.url, Accepted)
		return
	}
	err := refusal(t.url, problems)
	t.lastError, t.lastErrorAt = err.Error(), time.Now()
	t.acks = append(t.acks, ack{nonce: nonce, err: err})
	c.opts.Observe(t.url, Rejected)
	c.log.Warn("xds response refused", "type", t.url, "version", version, "error", err)
}

// refusal is the text of a NACK. Envoy begins those of clusters and listeners so, and
// scripts look for it.
func refusal(url string, problems []string) error {
	text := strings.Join(problems, ", ")
	switch url {
	case wellknown.ClusterType:
		text = "Error adding/updating cluster(s) " + text
	case wellknown.ListenerType:
		text = "Error adding/updating listener(s) " + text
	}
	return errors.New(text)
}

// checkNames marks duplicates and lists what cannot be read.
func (c *Client) checkNames(in []incoming) (problems []string) {
	seen := make(map[string]bool, len(in))
	for i := range in {
		if in[i].err == nil && seen[in[i].name] {
			in[i].err = errors.New("duplicate resource")
		}
		seen[in[i].name] = true
		if in[i].err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", in[i].name, in[i].err))
		}
	}
	return problems
}

// applyAll handles a response for a wildcard subscription. removed is nil in the
// state-of-the-world form, where what is not listed is gone.
func (c *Client) applyAll(t *typeState, in []incoming, removed []string) (problems []string) {
	w := t.all
	w.stopTimer()
	var updated []decoded
	listed := make(map[string]bool, len(in))
	for _, x := range in {
		listed[x.name] = true
		if x.err != nil || x.beat {
			continue
		}
		r := w.known[x.name]
		if r != nil && r.same(x.body) {
			c.renew(r, x.version)
			continue
		}
		if r == nil {
			r = &resource{name: x.name}
		}
		v, err := w.decode(x.name, x.body)
		c.mu.Lock()
		w.known[x.name] = r
		if err != nil {
			r.refuse(x.version, x.body, err)
			problems = append(problems, fmt.Sprintf("%s: %v", x.name, err))
		} else {
			r.accept(x.version, x.body)
			updated = append(updated, decoded{r, v})
		}
		c.mu.Unlock()
	}
	if !c.opts.Delta {
		removed = missing(w.known, listed)
	}
	gone := c.forget(w, removed)
	w.wait = againFirst
	c.arrange(t)
	if err := w.update(updated, gone); err != nil {
		problems = append(problems, err.Error())
	}
	return problems
}

// renew notes that a resource came again as it was.
func (c *Client) renew(r *resource, version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.version = version
}

func missing(known map[string]*resource, listed map[string]bool) []string {
	var list []string
	for name := range known {
		if !listed[name] {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// forget removes resources and returns those that were in force.
func (c *Client) forget(w *wildcard, removed []string) []string {
	var gone []string
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range removed {
		if r := w.known[name]; r != nil && r.body != nil {
			gone = append(gone, name)
		}
		delete(w.known, name)
	}
	return gone
}

// applyNamed handles the resources of a response that are subscribed to by name.
func (c *Client) applyNamed(t *typeState, in []incoming, removed []string) (problems []string) {
	for _, x := range in {
		r := t.named[x.name]
		if r == nil || x.err != nil || x.beat {
			continue
		}
		if r.same(x.body) && r.allServed() {
			c.renew(r, x.version)
			continue
		}
		if err := c.applyOne(r, x); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", x.name, err))
		}
	}
	for _, name := range removed {
		if r := t.named[name]; r != nil {
			c.absent(r)
		}
	}
	return problems
}

// absent tells the subscribers of a resource that there is none.
func (c *Client) absent(r *resource) {
	c.mu.Lock()
	r.state, r.body, r.version = stateAbsent, nil, ""
	c.mu.Unlock()
	for _, s := range slices.Clone(r.subs) {
		s.tell(nil, false)
	}
}

func (r *resource) allServed() bool {
	for _, s := range r.subs {
		if !s.served {
			return false
		}
	}
	return true
}

// applyOne has every subscriber decode the resource before the first one is told.
func (c *Client) applyOne(r *resource, x incoming) error {
	subs := slices.Clone(r.subs)
	values := make([]any, len(subs))
	for i, s := range subs {
		v, err := s.decode(x.name, x.body)
		if err != nil {
			c.mu.Lock()
			r.refuse(x.version, x.body, err)
			c.mu.Unlock()
			return err
		}
		values[i] = v
	}
	c.mu.Lock()
	r.accept(x.version, x.body)
	c.mu.Unlock()
	for i, s := range subs {
		s.tell(values[i], true)
	}
	return nil
}

// fromWorld also returns how long each resource lives.
func fromWorld(r *discoveryv3.DiscoveryResponse) (in []incoming, lives []*discoveryv3.Resource) {
	in = make([]incoming, 0, len(r.GetResources()))
	for _, body := range r.GetResources() {
		x := incoming{version: r.GetVersionInfo(), body: body}
		env := new(discoveryv3.Resource)
		if body.GetTypeUrl() == resourceType {
			if err := proto.Unmarshal(body.GetValue(), env); err != nil {
				x.err = err
				in = append(in, x)
				continue
			}
			x.name, x.body = env.GetName(), env.GetResource()
			x.beat = x.body == nil && x.name != ""
		}
		if x.name == "" {
			x.name = nameOf(x.body.GetValue())
		}
		if !x.beat {
			x.err = checkType(r.GetTypeUrl(), x.body)
		}
		in = append(in, x)
		lives = append(lives, &discoveryv3.Resource{Name: x.name, Ttl: env.GetTtl()})
	}
	return in, lives
}

func fromDelta(r *discoveryv3.DeltaDiscoveryResponse) []incoming {
	in := make([]incoming, 0, len(r.GetResources()))
	for _, e := range r.GetResources() {
		if e.GetResource() == nil { // a heartbeat of its TTL
			continue
		}
		x := incoming{name: e.GetName(), version: e.GetVersion(), body: e.GetResource()}
		x.err = checkType(r.GetTypeUrl(), x.body)
		in = append(in, x)
	}
	return in
}

func checkType(url string, body *anypb.Any) error {
	if got := body.GetTypeUrl(); got != url {
		return fmt.Errorf("type %s in a response of %s", got, url)
	}
	return nil
}

// nameOf reads field 1 of a resource: every xDS type keeps its name there.
func nameOf(b []byte) string {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ""
		}
		b = b[n:]
		if num == 1 && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return ""
			}
			return string(v)
		}
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return ""
		}
		b = b[n:]
	}
	return ""
}
