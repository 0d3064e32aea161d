package health

import (
	"net"
	"strconv"
	"strings"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

// counts are the stats of one check.
type counts struct {
	gauges
	attempt, success, failure, passiveFailure, networkFailure, verifyCluster *stats.Counter
}

// gauges count hosts by what the checks found.
type gauges struct{ healthy, degraded *stats.Gauge }

func newCounts(s *stats.Scope) *counts {
	return &counts{
		gauges:  gauges{healthy: s.Gauge("healthy"), degraded: s.Gauge("degraded")},
		attempt: s.Counter("attempt"), success: s.Counter("success"), failure: s.Counter("failure"),
		passiveFailure: s.Counter("passive_failure"), networkFailure: s.Counter("network_failure"), verifyCluster: s.Counter("verify_cluster"),
	}
}

// fail counts a failure by its cause.
func (c *counts) fail(o outcome) {
	c.failure.Inc()
	switch o.cause {
	case network, networkTimeout:
		c.networkFailure.Inc()
	case passive:
		c.passiveFailure.Inc()
	case active:
	}
}

// set moves a gauge when a host's part of it changes.
func (gauges) set(before, now bool, g *stats.Gauge) {
	switch {
	case now && !before:
		g.Inc()
	case before && !now:
		g.Dec()
	}
}

// withPort is address with another port, itself when port is 0 or there is none.
func withPort(address string, port uint16) string {
	if port == 0 || strings.HasPrefix(address, "unix:") {
		return address
	}
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return net.JoinHostPort(h, strconv.Itoa(int(port)))
}
