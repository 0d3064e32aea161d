package listener

import (
	"maps"
	"slices"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// review asks the filters of ch, a chain's new configuration, about the connections that have
// come by earlier ones.
func (g *group) review(ch *chain) {
	g.mu.Lock()
	members := slices.Collect(maps.Keys(g.members))
	g.mu.Unlock()
	for _, c := range members {
		c.review(ch)
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
	if latest := c.group.latest.Load(); latest != nil && latest.sum != ch.sum {
		c.review(latest)
	}
}

// review ends the connection if a filter of ch does not let it go on, as it was when the
// filters that it came by let it through.
func (c *conn) review(ch *chain) {
	c.mu.Lock()
	if !c.ready { // its facts are still being found out
		c.mu.Unlock()
		return
	}
	facts := c.info.Connection()
	facts.FilterState = c.state
	c.mu.Unlock()
	c.Look(func(i *streaminfo.Info) { facts.Metadata = i.Metadata })
	for _, f := range ch.filters {
		r, ok := f.(network.Reviewer)
		if !ok {
			continue
		}
		if details, ok := r.Review(&facts); !ok {
			c.End(func(i *streaminfo.Info) { i.TerminationDetails = details })
			c.cut()
			return
		}
	}
	c.Approve()
}
