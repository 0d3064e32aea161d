// Package stats holds the data plane's counters, gauges and histograms.
//
// A Store owns all of them; a Scope is a name prefix within it ("cluster.x.").
// Updating a stat is one atomic operation and allocates nothing; looking one up
// by name takes the Store's lock, so it is done when configuration is compiled,
// never on the request path. Names are Envoy's ("cluster.x.upstream_rq_total").
//
// A stat that the bootstrap's stats_matcher rejects is a nil pointer: every method
// may be called on it, costs one comparison and does nothing. So nothing may rest
// its decisions on the value of a stat.
//
// What traffic names (the series of a Family) is bounded, and forgotten when it rests.
// Quantiles are known of all time and of the last interval between two calls of Flush.
//
// Tags (cluster_name, response_code …) are cut out of the names when somebody
// reads, not when a stat is made: a proxy holds thousands of stats and is scraped
// a few times a minute. WriteText, WriteJSON and WritePrometheus print what Envoy's
// admin pages print.
package stats

import "sync/atomic"

// A Text is a stat whose value is a word, such as the version of what is in force.
type Text struct {
	v    atomic.Pointer[string]
	name string
}

// Set replaces the value.
func (t *Text) Set(value string) {
	if t != nil {
		t.v.Store(&value)
	}
}

// Value is the present value, "" for a rejected text.
func (t *Text) Value() string {
	if t == nil {
		return ""
	}
	if v := t.v.Load(); v != nil {
		return *v
	}
	return ""
}

// Name is the full dotted name, "" for a rejected text.
func (t *Text) Name() string {
	if t == nil {
		return ""
	}
	return t.name
}

// used reports whether a value was ever set.
func (t *Text) used() bool { return t.v.Load() != nil }

// A Counter only grows.
type Counter struct {
	v    atomic.Uint64
	name string
}

// Inc adds one.
func (c *Counter) Inc() {
	if c != nil {
		c.v.Add(1)
	}
}

// Add adds n.
func (c *Counter) Add(n uint64) {
	if c != nil {
		c.v.Add(n)
	}
}

// Value is the present count, 0 for a rejected counter.
func (c *Counter) Value() uint64 {
	if c == nil {
		return 0
	}
	return c.v.Load()
}

// Name is the full dotted name, "" for a rejected counter.
func (c *Counter) Name() string {
	if c == nil {
		return ""
	}
	return c.name
}

// A Gauge goes up and down.
type Gauge struct {
	v    atomic.Int64
	used atomic.Bool // written at least once; "usedonly" shows a gauge that is back at 0
	name string
}

// Inc adds one.
func (g *Gauge) Inc() { g.Add(1) }

// Dec subtracts one.
func (g *Gauge) Dec() { g.Add(-1) }

// Add adds n, which may be negative.
func (g *Gauge) Add(n int64) {
	if g == nil {
		return
	}
	g.v.Add(n)
	if !g.used.Load() { // a load is free where a store would bounce the cache line
		g.used.Store(true)
	}
}

// Set replaces the value.
func (g *Gauge) Set(n int64) {
	if g == nil {
		return
	}
	g.v.Store(n)
	if !g.used.Load() {
		g.used.Store(true)
	}
}

// Value is the present value, 0 for a rejected gauge.
func (g *Gauge) Value() int64 {
	if g == nil {
		return 0
	}
	return g.v.Load()
}

// Name is the full dotted name, "" for a rejected gauge.
func (g *Gauge) Name() string {
	if g == nil {
		return ""
	}
	return g.name
}
