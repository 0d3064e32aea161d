package listener

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// reviewPause is between the end of a review of a chain's connections and the beginning of the
// next: many changes at once cost one more review, not one each.
const reviewPause = 100 * time.Millisecond

// reviews are those of a group, one at a time.
type reviews struct {
	mu      sync.Mutex
	running bool
	again   bool // something has changed since the one that runs began
}

// changed asks the filters of the chain's latest configuration about the connections that are
// there, soon.
func (g *group) changed() {
	g.turn.Add(1)
	r := &g.reviews
	r.mu.Lock()
	defer r.mu.Unlock()
	r.again = true
	if !r.running {
		r.running = true
		go g.review()
	}
}

// review runs until nothing has changed any more, or the set ends.
func (g *group) review() {
	for g.reviews.next() {
		g.mu.Lock()
		members := slices.Collect(maps.Keys(g.members))
		g.mu.Unlock()
		for _, c := range members {
			c.review()
		}
		if !g.set.pause(reviewPause) {
			return
		}
	}
}

// next reports whether another review is to be made.
func (r *reviews) next() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = r.again
	r.again = false
	return r.running
}

// changed says that a filter of the chain has got another configuration by itself. A chain that
// has been replaced by an equal one still has connections of its own; one that has been
// replaced by another has no say.
func (ch *chain) changed() {
	if g := ch.group.Load(); g != nil {
		if latest := g.latest.Load(); latest != nil && latest.sum == ch.sum {
			g.changed()
		}
	}
}

// reviewed says that the filters of ch have let the connection through: from here on each new
// configuration of the chain is asked about it, and one that came meanwhile at once.
func (c *conn) reviewed(ch *chain) {
	c.mu.Lock()
	c.ready, c.state = true, maps.Clone(c.info.FilterState)
	c.mu.Unlock()
	if c.group == nil {
		return // it is explained, not served
	}
	if latest := c.group.latest.Load(); latest != nil && (latest.sum != ch.sum || c.group.turn.Load() != c.turn) {
		c.review()
	}
}

// review asks the filters whose word holds for the connection now: those of its own chain, by
// the configuration that they have got by themselves, or those of the chain that has taken its
// place. If one of them does not let it go on, as it was when the filters that it came by let it
// through, it is cut. A terminal filter is told, for the sake of its streams.
func (c *conn) review() {
	c.reviewing.Lock()
	defer c.reviewing.Unlock()
	c.mu.Lock()
	skip := !c.ready || c.off // its facts are still being found out, or it is about to end
	c.mu.Unlock()
	ch := c.group.latest.Load()
	if skip || ch == nil { // it drains
		return
	}
	if ch.sum == c.chain.sum {
		ch = c.chain
	}
	if ch == c.chain && !ch.discovers || c.passes(ch) {
		c.Review(ch.serving())
	}
}

// passes asks the filters of ch ahead of the terminal one.
func (c *conn) passes(ch *chain) bool {
	facts := c.info.Connection()
	facts.FilterState = c.state
	c.Look(func(i *streaminfo.Info) { facts.Metadata = i.Metadata })
	for _, f := range ch.filters {
		r, ok := f.(network.Reviewer)
		if !ok {
			continue
		}
		if details, ok := r.Review(&facts); !ok {
			c.End(func(i *streaminfo.Info) { i.TerminationDetails = details })
			c.cut()
			return false
		}
	}
	c.Approve()
	return true
}

// serving is the terminal filter, by its version in force where it comes by itself; nil for none.
func (ch *chain) serving() network.Terminal {
	if d, ok := ch.terminal.(*discovered); ok {
		if v := d.now(); v != nil {
			return v.Terminal
		}
		return nil
	}
	return ch.terminal
}
