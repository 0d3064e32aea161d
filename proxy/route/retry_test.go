package route_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
)

// TestRetriesAskedFor: what request headers of trusted clients make of a retry policy,
// and that they end here.
func TestRetriesAskedFor(t *testing.T) {
	const on5xx = `"retryPolicy":{"retryOn":"5xx","numRetries":3,"retriableStatusCodes":[418]}`
	for _, c := range []struct {
		name, policy, headers string
		none                  bool
		on                    route.RetryOn
		retries               int
		codes                 []int
		names                 int
	}{
		{name: "nothing asked, nothing configured", none: true},
		{name: "a number makes no policy", headers: "x-envoy-max-retries: 4", none: true},
		{name: "conditions do", headers: "x-envoy-retry-on: connect-failure|x-envoy-retry-grpc-on: internal", on: route.OnConnectFailure | route.OnGRPCInternal, retries: 1},
		{name: "more conditions and another number", policy: on5xx, headers: "x-envoy-retry-on: reset|x-envoy-max-retries: 7", on: route.On5xx | route.OnReset, retries: 7, codes: []int{418}},
		{name: "statuses and headers", policy: on5xx, headers: "x-envoy-retriable-status-codes: 404, x,409|x-envoy-retriable-header-names: X-Again, x-later",
			on: route.On5xx, retries: 3, codes: []int{418, 404, 409}, names: 2},
		{name: "no number", policy: on5xx, headers: "x-envoy-max-retries: -1", on: route.On5xx, retries: 3, codes: []int{418}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fields := `"cluster":"c"`
			if c.policy != "" {
				fields += "," + c.policy
			}
			configured := forward(t, fields).Retry
			var h http.Headers
			fill(&h, c.headers)
			p := configured.AskedBy(&h)
			equal(t, lines(&h), "")
			if (p == nil) != c.none {
				t.Fatalf("policy %+v", p)
			}
			if p == nil {
				return
			}
			if p.On != c.on || p.Retries != c.retries || len(p.RetriableHeaders) != c.names || p.BackOffBase <= 0 || p.BackOffMax < p.BackOffBase {
				t.Errorf("%+v", p)
			}
			if diff := cmp.Diff(c.codes, p.StatusCodes); diff != "" {
				t.Errorf("statuses (-want +got):\n%s", diff)
			}
			if configured != nil && (configured.Retries != 3 || len(configured.StatusCodes) != 1) {
				t.Errorf("the route's own policy has changed: %+v", configured)
			}
		})
	}
}
