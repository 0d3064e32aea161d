package router

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// balanced is a cluster of which only the choice of endpoints matters.
type balanced struct {
	Cluster
	lb.Balancer
}

func (balanced) OriginalDstHeader() string { return "x-to" }

func (b balanced) Pick(x *lb.Context) *endpoint.Endpoint { return b.Balancer.Pick(x) }

// retrying is a call whose every attempt is answered with 503.
func retrying(p *route.RetryPolicy, priorities ...uint32) (attempt func() *endpoint.Endpoint) {
	var s lb.Set
	for i, priority := range priorities {
		e := &endpoint.Endpoint{Address: fmt.Sprint(i)}
		e.Priority.Store(priority)
		e.Weight.Store(1)
		s.Endpoints = append(s.Endpoints, e)
	}
	scope := stats.NewStore().Scope("cluster.c.")
	p.On, p.Retries = route.On5xx, 100
	k := &call{r: &router{}, s: &http.Stream{}, forward: &route.Forward{Retry: p}, stats: upstream.NewStats(scope), limits: upstream.NewLimits(upstream.DefaultThresholds, scope),
		cluster: balanced{Balancer: lb.New(lb.Policy{Kind: lb.Random}, s)}}
	k.retry.begin(k)
	return func() *endpoint.Endpoint {
		k.s.Info.Attempts++
		k.endpoint = k.pick()
		if j := k.retry.response(k, &http.Response{Status: 503}); j != again {
			panic(fmt.Sprint("judgement ", j))
		}
		return k.endpoint
	}
}

// TestPreviousHosts: a retry goes to another endpoint, also when it was an answer that
// asked for it.
func TestPreviousHosts(t *testing.T) {
	for range 100 {
		attempt := retrying(&route.RetryPolicy{PreviousHosts: true, HostAttempts: 100}, 0, 0)
		if first, second := attempt(), attempt(); first == second {
			t.Fatal("the same endpoint again")
		}
	}
}

// TestPreviousPriorities: after every second attempt the priorities that were tried are
// left out, and when all were, none is.
func TestPreviousPriorities(t *testing.T) {
	attempt := retrying(&route.RetryPolicy{PreviousPriorities: 2}, 0, 0, 1, 1, 2)
	var got []uint32
	for range 8 {
		got = append(got, attempt().Priority.Load())
	}
	if diff := cmp.Diff([]uint32{0, 0, 1, 1, 2, 2, 0, 0}, got); diff != "" {
		t.Errorf("priorities (-want +got):\n%s", diff)
	}
}

// TestOriginalDst: where an ORIGINAL_DST cluster connects to is what its header says, else
// where a captured client wanted to go.
func TestOriginalDst(t *testing.T) {
	scope := stats.NewStore().Scope("cluster.c.")
	wanted := netip.MustParseAddrPort("10.0.0.1:80")
	for _, c := range []struct {
		header   string
		captured bool
		want     netip.AddrPort
		invalid  uint64
	}{
		{"", true, wanted, 0},
		{"", false, netip.AddrPort{}, 0},
		{"10.0.0.2:81", true, netip.MustParseAddrPort("10.0.0.2:81"), 0},
		{"10.0.0.2:81", false, netip.MustParseAddrPort("10.0.0.2:81"), 0},
		{"[fd00::1]:81", true, netip.MustParseAddrPort("[fd00::1]:81"), 0},
		{"a.test:80", true, wanted, 1},
	} {
		k := &call{r: &router{}, s: &http.Stream{}, cluster: counted{stats: upstream.NewStats(scope)}}
		k.s.Info.DownstreamLocal, k.s.Info.LocalRestored = wanted, c.captured
		if c.header != "" {
			k.s.Request.Headers.Add([]byte("X-To"), []byte(c.header))
		}
		before := scope.Counter("original_dst_host_invalid").Value()
		if got := k.originalDst(); got != c.want {
			t.Errorf("%q, captured %v: %v, want %v", c.header, c.captured, got, c.want)
		}
		if n := scope.Counter("original_dst_host_invalid").Value() - before; n != c.invalid {
			t.Errorf("%q counts %d as invalid", c.header, n)
		}
	}
}

// counted is a cluster with stats that looks at a header.
type counted struct {
	balanced
	stats *upstream.Stats
}

func (c counted) Stats() *upstream.Stats { return c.stats }
