// Package stats holds the data plane's counters, gauges and histograms.
//
// A Store owns all of them; a Scope is a name prefix within it ("cluster.x.").
// Updating a stat is one atomic operation and allocates nothing; looking one up
// by name takes the Store's lock, so it is done when configuration is compiled,
// never on the request path. Names are Envoy's ("cluster.x.upstream_rq_total").
package stats

import "sync/atomic"

// A Counter only grows.
type Counter struct {
	v    atomic.Uint64
	name string
}

// Inc adds one.
func (c *Counter) Inc() { c.v.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) { c.v.Add(n) }

// Value is the present count.
func (c *Counter) Value() uint64 { return c.v.Load() }

// Name is the full dotted name.
func (c *Counter) Name() string { return c.name }

// A Gauge goes up and down.
type Gauge struct {
	v    atomic.Int64
	name string
}

// Inc adds one.
func (g *Gauge) Inc() { g.v.Add(1) }

// Dec subtracts one.
func (g *Gauge) Dec() { g.v.Add(-1) }

// Add adds n, which may be negative.
func (g *Gauge) Add(n int64) { g.v.Add(n) }

// Set replaces the value.
func (g *Gauge) Set(n int64) { g.v.Store(n) }

// Value is the present value.
func (g *Gauge) Value() int64 { return g.v.Load() }

// Name is the full dotted name.
func (g *Gauge) Name() string { return g.name }
