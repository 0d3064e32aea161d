package main

import (
	"context"
	"fmt"
	"time"
)

// A benchmark is one figure that is measured for all of its contenders in each round.
type benchmark struct {
	name, unit string
	// bounds are what our figure over a peer's is held to, by peer; in the order of the table.
	bounds []bound
	// own is the bound of our figure itself, of benchmarks that have one.
	own *bound
	// once benchmarks start their contenders anew and run in few rounds: memory.
	once    bool
	measure func(ctx context.Context, b *bench, c contender, length time.Duration) (sample, error)
}

// A bound is held always (gate), or aimed at (goal).
type bound struct {
	peer       string
	gate, goal float64
}

// A sample is one contender in one round.
type sample struct {
	value float64 // in the benchmark's unit
	rate  float64 // requests per second, where there are any
	p99   string
}

// cases are all figures, with the bounds that were set before we began.
var cases = []benchmark{
	{name: "http1-bare", unit: "µs CPU/request", bounds: []bound{{"envoy", 0.30, 0.16}}, measure: wrk(bare, "")},
	{name: "http1-mesh", unit: "µs CPU/request", bounds: []bound{{"floor", 3, 1.5}, {"envoy", 0.30, 0.16}, {"nginx", 1.2, 0.8}, {"haproxy", 1.2, 0.8}}, measure: wrk(mesh, "")},
	{name: "tls-small", unit: "µs CPU/request", bounds: []bound{{"envoy", 0.5, 0.33}}, measure: wrk(tlsIn, "")},
	{name: "tls-64k", unit: "µs CPU/request", bounds: []bound{{"envoy", 0.67, 0.5}}, measure: wrk(tlsIn, "64k")},
	{name: "mtls-small", unit: "µs CPU/request", bounds: []bound{{"envoy", 0.5, 0.33}}, measure: wrk(tlsOut, "")},
	{name: "mtls-64k", unit: "µs CPU/request", bounds: []bound{{"envoy", 0.67, 0.5}}, measure: wrk(tlsOut, "64k")},
	{name: "h2-4x8", unit: "µs CPU/request", bounds: []bound{{"envoy", 0.5, 0.25}}, measure: h2load(http2, 4, 8)},
	{name: "h2-1x32", unit: "µs CPU/request", bounds: []bound{{"envoy", 0.5, 0.25}}, measure: h2load(http2, 1, 32)},
	{name: "h2-16x1", unit: "µs CPU/request", bounds: []bound{{"envoy", 0.5, 0.25}}, measure: h2load(http2, 16, 1)},
	{name: "grpc-unary", unit: "µs CPU/request", bounds: []bound{{"envoy", 0.5, 0.25}}, measure: h2load(grpc, 4, 8)},
	{name: "tcp-bulk", unit: "ms CPU/GB", bounds: []bound{{"envoy", 0.7, 0.5}}, measure: generated("bulk", tcp)},
	{name: "handshake", unit: "µs CPU/handshake", bounds: []bound{{"envoy", 1.1, 0.9}}, measure: generated("handshakes", mtlsIn)},
	{name: "p99-half-peak", unit: "ms", bounds: []bound{{"envoy", 1, 0.5}}, measure: paced},
	{name: "rss-idle", unit: "MB", own: &bound{"lateen", 25, 15}, bounds: []bound{{"envoy", 1, 1}}, once: true, measure: idleSize},
	{name: "idle-plain-1000", unit: "KB/connection", own: &bound{"lateen", 8, 2}, bounds: []bound{{"envoy", 1, 1}}, once: true, measure: idle(mesh, 1000)},
	{name: "idle-plain-10000", unit: "KB/connection", own: &bound{"lateen", 8, 2}, bounds: []bound{{"envoy", 1, 1}}, once: true, measure: idle(mesh, 10000)},
	{name: "idle-tls-1000", unit: "KB/connection", own: &bound{"lateen", 30, 15}, bounds: []bound{{"envoy", 2, 1}}, once: true, measure: idle(tlsIn, 1000)},
	{name: "idle-tls-10000", unit: "KB/connection", own: &bound{"lateen", 30, 15}, bounds: []bound{{"envoy", 2, 1}}, once: true, measure: idle(tlsIn, 10000)},
	{name: "rss-1000x10", unit: "MB", bounds: []bound{{"envoy", 0.5, 0.15}}, once: true, measure: loadedSize},
}

// onceRounds is how often memory is measured: it hardly swings.
const onceRounds = 3

// perRequest is the CPU time of a run for each of n units of work, in µs.
func perRequest(before, after int64, n float64) (float64, error) {
	if n == 0 {
		return 0, fmt.Errorf("nothing was done")
	}
	return float64(after-before) / 1e3 / n, nil
}

// who are the contenders of a benchmark: its peers, and ours.
func (k benchmark) who(all []contender) []contender {
	var list []contender
	for _, c := range all {
		takesPart := c.name == "lateen"
		for _, b := range k.bounds {
			takesPart = takesPart || b.peer == c.name
		}
		if takesPart {
			list = append(list, c)
		}
	}
	return list
}
