package hcm

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// policy is what a connection manager knows of changes of its own configuration.
type policy struct {
	reviewed atomic.Bool   // some filter may be asked again about streams under way
	turn     atomic.Uint32 // changes with routes and discovered filters
	tell     func()        // the listener, nil: there is none
}

// changed says that routes or a filter have changed.
func (p *policy) changed() {
	p.turn.Add(1)
	if p.reviewed.Load() && p.tell != nil {
		p.tell()
	}
}

// opens are the streams of a connection that policies hold for while they last.
type opens struct {
	mu    sync.Mutex
	first *stream
	judge *manager // whose policies hold, nil: those of the connection's own
}

// A held is what is kept of a stream for filters that are asked about it again: its request as
// the last of them, or the router, found it. The stream itself goes on and changes.
type held struct {
	on, cut    bool
	turn       uint32 // of the manager's policy when the stream began
	prev, next *stream

	request  http.Request
	info     streaminfo.Info
	metadata map[string]map[string]any // of info
	state    map[string]any            // of info
	target   route.Target
	random   uint64
}

// keep fills h. The memory that it has is used again; bytes stay where they are, which is as long
// as the stream lasts.
func (h *held) keep(st *stream) {
	fields := h.request.Headers.Fields
	h.request = st.Request
	h.request.Body = http.NoBody
	h.request.Headers.Fields = append(fields[:0], st.Request.Headers.Fields...)
	h.info, h.target, h.random = st.Info, st.target, st.random
	h.info.Metadata, h.metadata = copied(h.metadata, st.Info.Metadata)
	h.info.FilterState, h.state = copied(h.state, st.Info.FilterState)
}

// copied is from as it is now, in the memory of m where there is one; nil for nil.
func copied[V any](m, from map[string]V) (now, memory map[string]V) {
	if from == nil {
		return nil, m
	}
	if m == nil {
		m = make(map[string]V, len(from))
	}
	maps.Copy(m, from)
	return m, m
}

// clear keeps nothing but memory.
func (h *held) clear() {
	fields := h.request.Headers.Fields
	clear(fields)
	clear(h.metadata)
	clear(h.state)
	*h = held{metadata: h.metadata, state: h.state}
	h.request.Headers.Fields = fields[:0]
}

// hold keeps what policies look at, and has the stream reviewed from here on. False: policies that
// have come meanwhile deny it, and the answer is r.
func (st *stream) hold() (r http.Reply, ok bool) {
	h, c := &st.held, st.c
	h.keep(st)
	c.open.mu.Lock()
	h.on = true
	if h.next = c.open.first; h.next != nil {
		h.next.held.prev = st
	}
	c.open.first = st
	judge := c.open.judge
	c.open.mu.Unlock()
	switch {
	case judge != nil:
		return judge.allows(h, c)
	case h.turn != c.m.policy.turn.Load():
		return c.m.allows(h, c)
	}
	return r, true
}

// letGo ends what hold has begun; no review ends the stream any more.
func (st *stream) letGo() {
	h, c := &st.held, st.c
	if !h.on {
		return
	}
	c.open.mu.Lock()
	if h.prev != nil {
		h.prev.held.next = h.next
	} else {
		c.open.first = h.next
	}
	if h.next != nil {
		h.next.held.prev = h.prev
	}
	c.open.mu.Unlock()
	h.clear()
}

// review ends the streams of the connection that the policies of now deny.
func (c *client) review(now network.Terminal) {
	m, ok := now.(*manager)
	if !ok {
		return
	}
	c.open.mu.Lock()
	defer c.open.mu.Unlock()
	c.open.judge = nil
	if m != c.m {
		c.open.judge = m
	}
	for st := c.open.first; st != nil; st = st.held.next {
		if st.held.cut {
			continue
		}
		if r, ok := m.allows(&st.held, c); !ok {
			st.held.cut = true
			st.by.stop(&limit{flag: r.Flag, details: r.Details, text: string(r.Body), status: r.Status})
		}
	}
}

// allows asks the filters that a request like h would meet now; r is what it would be answered.
func (m *manager) allows(h *held, c *client) (r http.Reply, ok bool) {
	if !m.policy.reviewed.Load() {
		return r, true
	}
	target := m.aim(h, c)
	facts := http.Facts{Info: &h.info, Request: &h.request}
	if target.Route != nil {
		facts.Route = &target
	}
	for _, l := range m.chainOf(&h.request).links {
		x, reviews := l.filter.(http.Reviewer)
		if !reviews {
			continue
		}
		by := l.override(&target)
		if _, off := by.(route.Disabled); off {
			continue
		}
		if r, ok = x.Review(facts, by); !ok {
			return r, false
		}
	}
	return r, true
}

// aim chooses the route of h by the routes of now; where they are those that it came by, it has it.
func (m *manager) aim(h *held, c *client) route.Target {
	table := m.routes.find(&h.request)
	if table == h.target.Table {
		return h.target
	}
	f := c.facts(&h.request, &h.info, h.random)
	return route.By(table, &f, nil)
}

// chainOf is the chain of requests like r, that of an upgrade where it has one of its own.
func (m *manager) chainOf(r *http.Request) *chain {
	if r.Upgrade != nil || string(r.Method) == "CONNECT" {
		if own := m.upgrades[upgradeName(r)]; own != nil && own.chain != nil {
			return own.chain
		}
	}
	return &m.chain
}

// holds finds where streams of the chain are held: ahead of the last filter that may be asked
// again, so that it is asked about what it has seen; ahead of the last one of all where there is
// none, which is false.
func (c *chain) holds() bool {
	for i, l := range slices.Backward(c.links) {
		if _, ok := l.filter.(http.Reviewer); ok {
			c.hold = i
			return true
		}
	}
	c.hold = len(c.links) - 1
	return false
}
