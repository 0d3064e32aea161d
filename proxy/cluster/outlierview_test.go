package cluster

import (
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// TestRatesAreShown: the success rates of the last interval, as Envoy shows them on
// /clusters.
func TestRatesAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cs, c := detecting(t, nil, 3, `"interval": "1s", "consecutive_5xx": 100, "success_rate_minimum_hosts": 2, "success_rate_request_volume": 4`)
		defer cs.Close()
		eps := c.Endpoints()
		at := func(i int) *endpoint.Endpoint { return eps[i] }
		for _, step := range []struct {
			name               string
			first, second      []int
			average, threshold float64
			rates              map[*endpoint.Endpoint]float64
		}{
			{"none yet", nil, nil, -1, -1, nil},
			{"one endpoint has enough", []int{200, 200, 200, 500}, []int{200}, -1, -1, map[*endpoint.Endpoint]float64{at(0): 75}},
			{"two have", []int{200, 200, 500, 500}, []int{200, 200, 200, 200}, 75, 27.5, map[*endpoint.Endpoint]float64{at(0): 50, at(1): 100}},
			{"an interval without requests", nil, nil, -1, -1, nil},
		} {
			report(c, at(0), step.first...)
			report(c, at(1), step.second...)
			time.Sleep(time.Second + time.Millisecond)
			synctest.Wait()
			got := cs.View()[0].Outlier
			if got.Average[0] != step.average || got.Threshold[0] != step.threshold || !cmp.Equal(got.Endpoints[0], step.rates) {
				t.Errorf("%s: average %v, threshold %v, rates %v", step.name, got.Average[0], got.Threshold[0], got.Endpoints[0])
			}
			if got.Average[1] != -1 || got.Endpoints[1] != nil {
				t.Errorf("%s: rates of local origin without split_external_local_origin_errors: %v %v", step.name, got.Average[1], got.Endpoints[1])
			}
		}
	})
}

// TestStreamsOfTheEjected: TCP streams end with the health of their endpoint where the
// cluster says so, and stay otherwise.
func TestStreamsOfTheEjected(t *testing.T) {
	for _, ends := range []bool{false, true} {
		cs := New(Options{Logger: slog.New(slog.DiscardHandler)})
		t.Cleanup(cs.Close)
		setting := map[bool]string{true: `"close_connections_on_host_health_failure": true, `}[ends]
		if err := cs.AddStatic(newCluster(t, `{"name": "a", `+setting+`"load_assignment": `+to(echoServer(t, "one"))+`,
			"outlier_detection": {"consecutive_5xx": 1, "max_ejection_percent": 100}}`)); err != nil {
			t.Fatal(err)
		}
		c := cs.Get("a")
		ep := c.Pick(&lb.Context{})
		conn, err := c.Dial(t.Context(), ep, transport.Target{})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		greeting(t, conn)
		c.Report(ep, 503)
		if got := ejected(c); !slices.Equal(got, []int{0}) {
			t.Fatalf("ejected %v", got)
		}
		_, err = conn.Write([]byte("x"))
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
		if closed := err != nil; closed != ends {
			t.Errorf("close_connections_on_host_health_failure %v: %v", ends, err)
		}
		if n := ep.ActiveConns.Load(); n != map[bool]int64{false: 1}[ends] {
			t.Errorf("close_connections_on_host_health_failure %v: %d connections", ends, n)
		}
	}
}
