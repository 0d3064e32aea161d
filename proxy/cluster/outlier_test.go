package cluster

import (
	"fmt"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// detecting is a cluster of n endpoints with outlier detection.
func detecting(t *testing.T, store *stats.Store, n int, settings string) (*Clusters, *Cluster) {
	t.Helper()
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("127.0.0.1:%d", i+1))
	}
	cs := New(Options{Stats: store, Logger: slog.New(slog.DiscardHandler)})
	if err := cs.AddStatic(newCluster(t, `{"name": "a", "common_lb_config": {"healthy_panic_threshold": {}}, "load_assignment": `+to(list...)+`,
		"outlier_detection": {"enforcing_success_rate": 0, `+settings+`}}`)); err != nil {
		t.Fatal(err)
	}
	return cs, cs.Get("a")
}

func report(c *Cluster, ep *endpoint.Endpoint, statuses ...int) {
	for _, s := range statuses {
		c.Report(ep, s)
	}
}

func ejected(c *Cluster) (list []int) {
	for i, ep := range c.Endpoints() {
		if ep.Unhealthy.Load()&endpoint.FailedOutlier != 0 {
			list = append(list, i)
		}
	}
	return list
}

func TestEjection(t *testing.T) {
	for _, c := range []struct {
		name, settings string
		statuses       []int
		want           []int
	}{
		{"DR-034 five 5xx in a row by default", `"max_ejection_percent": 100`, []int{500, 503, 500, 501, 599}, []int{0}},
		{"four do not suffice", `"max_ejection_percent": 100`, []int{500, 500, 500, 500}, nil},
		{"a success begins anew", `"max_ejection_percent": 100`, []int{500, 500, 500, 500, 200, 500, 500}, nil},
		{"DR-034 consecutive5xxErrors 0 is off", `"max_ejection_percent": 100, "consecutive_5xx": 0`, []int{500, 500, 500, 500, 500, 500}, nil},
		{"DR-035 gateway errors are counted apart", `"max_ejection_percent": 100, "consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100`, []int{502, 504}, []int{0}},
		{"a 500 is no gateway error", `"max_ejection_percent": 100, "consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100`, []int{502, 500, 504}, nil},
		{"gateway errors are not enforced by default", `"max_ejection_percent": 100, "consecutive_gateway_failure": 2`, []int{502, 504}, nil},
		{"DR-040 not above the percentage", `"max_ejection_percent": 40, "consecutive_5xx": 1`, []int{500}, nil},
		{"but one if told so", `"max_ejection_percent": 40, "consecutive_5xx": 1, "always_eject_one_host": true`, []int{500}, []int{0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cs, cl := detecting(t, nil, 2, c.settings)
			defer cs.Close()
			report(cl, cl.Endpoints()[0], c.statuses...)
			if diff := cmp.Diff(c.want, ejected(cl)); diff != "" {
				t.Errorf("ejected (-want +got):\n%s", diff)
			}
			for range 10 {
				if len(c.want) > 0 && cl.Pick(&lb.Context{}) == cl.Endpoints()[0] {
					t.Fatal("an ejected host is chosen")
				}
			}
		})
	}
}

// TestEjectionOfTCP: of a TCP stream it counts whether it was connected.
func TestEjectionOfTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cs := New(Options{Logger: slog.New(slog.DiscardHandler)})
	defer cs.Close()
	if err := cs.AddStatic(newCluster(t, `{"name": "a", "load_assignment": `+to(l.Addr().String())+`,
		"outlier_detection": {"enforcing_success_rate": 0, "max_ejection_percent": 100, "consecutive_5xx": 2}}`)); err != nil {
		t.Fatal(err)
	}
	c := cs.Get("a")
	ep := c.Endpoints()[0]
	c.connected(ep.Owner.(*host), false)
	conn, err := c.Dial(t.Context(), ep, transport.Target{})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	c.connected(ep.Owner.(*host), false)
	if len(ejected(c)) > 0 {
		t.Error("ejected by two failures with a success between them")
	}
	c.connected(ep.Owner.(*host), false)
	if len(ejected(c)) != 1 {
		t.Error("not ejected by two failures in a row")
	}
}

func TestReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := stats.NewStore()
		cs, c := detecting(t, store, 1, `"max_ejection_percent": 100, "consecutive_5xx": 1, "interval": "10s", "base_ejection_time": "15s"`)
		defer cs.Close()
		ep := c.Endpoints()[0]
		report(c, ep, 500)
		if c.Pick(&lb.Context{}) != nil {
			t.Error("DR-040 all may be ejected, and yet one is chosen")
		}
		names := []string{"ejections_active", "ejections_enforced_total", "ejections_enforced_consecutive_5xx", "ejections_detected_consecutive_5xx"}
		want := map[string]int64{"ejections_active": 1, "ejections_enforced_total": 1, "ejections_enforced_consecutive_5xx": 1, "ejections_detected_consecutive_5xx": 1}
		if diff := cmp.Diff(want, counters(t, store, names...)); diff != "" {
			t.Errorf("OB-018 (-want +got):\n%s", diff)
		}
		in := func(d time.Duration, want []int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if diff := cmp.Diff(want, ejected(c)); diff != "" {
				t.Errorf("after %v (-want +got):\n%s", d, diff)
			}
		}
		// DR-038: back on a sweep, the first one after 15 s is at 20 s.
		in(19*time.Second, []int{0})
		in(2*time.Second, nil)
		// DR-039: the second time it is twice as long.
		report(c, ep, 500)
		in(29*time.Second, []int{0})
		in(12*time.Second, nil)
		if counters(t, store, "ejections_active")["ejections_active"] != 0 {
			t.Error("the gauge still shows it")
		}
	})
}

func TestConnectFailuresEject(t *testing.T) {
	cs, c := detecting(t, nil, 1, `"max_ejection_percent": 100, "consecutive_5xx": 2`)
	defer cs.Close()
	ep := c.Endpoints()[0]
	for range 2 {
		if _, err := c.Dial(t.Context(), ep, transport.Target{}); err == nil {
			t.Fatal("port 1 answers")
		}
	}
	if len(ejected(c)) != 1 {
		t.Error("not ejected")
	}
}
