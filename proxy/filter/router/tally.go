package router

import (
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// tallies are where a call is counted beside its cluster: by virtual cluster and by route.
type tallies [2]*upstream.Tally

// tallies finds those of the call, by the request as it came.
func (k *call) findTallies() {
	if c := k.target.VirtualHost.VirtualCluster(&k.s.Request); c != nil {
		k.tallies[0], k.s.Info.VirtualCluster = c.Tally, c.Name
	}
	k.tallies[1] = k.target.Route.Tally
}

func (ts *tallies) add(which func(*upstream.Tally) *stats.Counter) {
	for _, t := range ts {
		if t != nil {
			which(t).Inc()
		}
	}
}

func (ts *tallies) code(code int) {
	for _, t := range ts {
		if t != nil {
			t.CountCode(code)
		}
	}
}

func (ts *tallies) time(ms uint64) {
	for _, t := range ts {
		if t != nil {
			t.RecordTime(ms)
		}
	}
}

// The counters that a tally has in common with a cluster.
func total(t *upstream.Tally) *stats.Counter           { return t.RqTotal }
func retried(t *upstream.Tally) *stats.Counter         { return t.RqRetry }
func retriedWell(t *upstream.Tally) *stats.Counter     { return t.RqRetrySuccess }
func retriesOverflow(t *upstream.Tally) *stats.Counter { return t.RqRetryOverflow }
func retriesExceeded(t *upstream.Tally) *stats.Counter { return t.RqRetryLimitExceeded }
func timedOut(t *upstream.Tally) *stats.Counter        { return t.RqTimeout }
