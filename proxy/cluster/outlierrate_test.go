package cluster

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// answers reports so many good and bad answers of each endpoint.
func answers(c *Cluster, good, bad []int) {
	for i, ep := range c.Endpoints() {
		for range good[i] {
			c.Report(ep, 200)
		}
		for range bad[i] {
			c.Report(ep, 500)
		}
	}
}

func TestEjectionByRate(t *testing.T) {
	const all = `"consecutive_5xx": 0, "interval": "10s", "max_ejection_percent": 100, "success_rate_minimum_hosts": 3, "success_rate_request_volume": 10,
		"failure_percentage_minimum_hosts": 3, "failure_percentage_request_volume": 10`
	for _, c := range []struct {
		name, settings string
		good, bad      []int
		want           []int
		stat           string
	}{
		{"far below the mean", `"enforcing_success_rate": 100, "success_rate_stdev_factor": 1000`, []int{20, 20, 10, 20}, []int{0, 0, 10, 0}, []int{2}, "ejections_enforced_success_rate"},
		{"not far enough by default", ``, []int{20, 20, 10, 20}, []int{0, 0, 10, 0}, nil, ""},
		{"all are alike", `"enforcing_success_rate": 100`, []int{10, 10, 10, 10}, []int{10, 10, 10, 10}, nil, ""},
		{"too few requests", `"enforcing_success_rate": 100, "success_rate_stdev_factor": 1000`, []int{20, 20, 1, 20}, []int{0, 0, 1, 0}, nil, ""},
		{"too few hosts", `"enforcing_success_rate": 100, "success_rate_stdev_factor": 500`, []int{20, 0, 0, 10}, []int{0, 0, 0, 10}, nil, ""},
		{"by percentage", `"enforcing_failure_percentage": 100, "failure_percentage_threshold": 50`, []int{20, 20, 10, 11}, []int{0, 0, 10, 9}, []int{2}, "ejections_enforced_failure_percentage"},
		{"85 % by default", `"enforcing_failure_percentage": 100`, []int{20, 20, 3, 4}, []int{0, 0, 17, 16}, []int{2}, "ejections_enforced_failure_percentage"},
		{"percentages are not enforced by default", ``, []int{20, 20, 0, 20}, []int{0, 0, 20, 0}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := stats.NewStore()
				settings := all
				if c.settings != "" {
					settings += ", " + c.settings
				}
				cs, cl := detectingAll(t, store, len(c.good), settings)
				defer cs.Close()
				answers(cl, c.good, c.bad)
				time.Sleep(11 * time.Second)
				synctest.Wait()
				if diff := cmp.Diff(c.want, ejected(cl)); diff != "" {
					t.Errorf("ejected (-want +got):\n%s", diff)
				}
				if c.stat != "" && counters(t, store, c.stat)[c.stat] != int64(len(c.want)) {
					t.Errorf("OB-018 %s is %v", c.stat, counters(t, store, c.stat))
				}
			})
		})
	}
}

// detectingAll is detecting with the default of enforcing_success_rate unless told.
func detectingAll(t *testing.T, store *stats.Store, n int, settings string) (*Clusters, *Cluster) {
	t.Helper()
	cs, c := detecting(t, store, n, `"interval": "1s"`)
	o := newCluster(t, `{"name": "a", "outlier_detection": {`+settings+`}}`)
	if err := c.config.decodeOutlier(o); err != nil {
		t.Fatal(err)
	}
	return cs, c
}

func TestLocalFailures(t *testing.T) {
	const split = `"max_ejection_percent": 100, "split_external_local_origin_errors": true, "enforcing_local_origin_success_rate": 0`
	for _, c := range []struct {
		name string
		do   func(c *Cluster, h *host)
		want []int
	}{
		{"five connects in a row", func(c *Cluster, h *host) {
			for range 5 {
				c.connected(h, false)
			}
		}, []int{0}},
		{"an answer ends the row", func(c *Cluster, h *host) {
			for range 4 {
				c.connected(h, false)
			}
			c.Report(h.ep, 200)
			c.connected(h, false)
		}, nil},
		{"an answer of 500 ends it, too", func(c *Cluster, h *host) {
			for range 4 {
				c.connected(h, false)
			}
			c.Report(h.ep, 500)
			c.connected(h, false)
		}, nil},
		{"a stream that broke was connected", func(c *Cluster, h *host) {
			for range 9 {
				c.ReportFailure(h.ep, false)
			}
		}, nil},
		{"answers of 500 are counted apart", func(c *Cluster, h *host) {
			for range 5 {
				c.Report(h.ep, 500)
			}
		}, []int{0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cs, cl := detecting(t, nil, 2, split)
			defer cs.Close()
			c.do(cl, cl.Endpoints()[0].Owner.(*host))
			if diff := cmp.Diff(c.want, ejected(cl)); diff != "" {
				t.Errorf("ejected (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("without a split timeouts and breaks are answers of 504 and 503", func(t *testing.T) {
		cs, cl := detecting(t, nil, 2, `"max_ejection_percent": 100, "consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100`)
		defer cs.Close()
		ep := cl.Endpoints()[0]
		cl.ReportFailure(ep, true)
		cl.ReportFailure(ep, false)
		if len(ejected(cl)) != 1 {
			t.Error("not ejected")
		}
	})
}

// A health check that passes ends an ejection, unless it is told not to.
func TestHealthCheckReadmits(t *testing.T) {
	for setting, want := range map[string]int{`"consecutive_5xx": 1`: 0, `"consecutive_5xx": 1, "successful_active_health_check_uneject_host": false`: 1} {
		cs, c := detecting(t, nil, 1, `"max_ejection_percent": 100, `+setting)
		ep := c.Endpoints()[0]
		c.Report(ep, 500)
		c.healed(ep.Owner.(*host))
		if got := len(ejected(c)); got != want {
			t.Errorf("%s: %d are ejected, want %d", setting, got, want)
		}
		cs.Close()
	}
}

func TestMaxEjectionTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cs, c := detecting(t, nil, 1, `"max_ejection_percent": 100, "consecutive_5xx": 1, "interval": "1s", "base_ejection_time": "10s", "max_ejection_time": "25s", "max_ejection_time_jitter": "5s"`)
		defer cs.Close()
		ep := c.Endpoints()[0]
		// Each follows on the one before at once: 10, 20, 25 and 25 seconds, and the jitter.
		for i, least := range []time.Duration{10, 20, 25, 25} {
			c.Report(ep, 500)
			began := time.Now()
			for len(ejected(c)) > 0 {
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
			}
			if took := time.Since(began); took < least*time.Second || took > least*time.Second+7*time.Second {
				t.Errorf("ejection %d took %v, want %ds and up to 5s more", i+1, took, least)
			}
		}
	})
}

// However endpoints answer: never are more ejected than allowed, and the gauge is right.
func TestEjectionBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n, percent := rapid.IntRange(1, 8).Draw(rt, "n"), rapid.IntRange(0, 100).Draw(rt, "percent")
		store := stats.NewStore()
		cs, c := detecting(t, store, n, `"consecutive_5xx": 2, "max_ejection_percent": `+strconv.Itoa(percent))
		defer cs.Close()
		eps := c.Endpoints()
		for range rapid.IntRange(0, 60).Draw(rt, "requests") {
			c.Report(rapid.SampledFrom(eps).Draw(rt, "endpoint"), rapid.SampledFrom([]int{200, 500, 503}).Draw(rt, "status"))
		}
		out := 0
		for _, ep := range eps {
			if ep.Unhealthy.Load()&endpoint.FailedOutlier != 0 {
				out++
			}
		}
		if 100*out > percent*n {
			rt.Fatalf("%d of %d are ejected, %d %% may be", out, n, percent)
		}
		if got := counters(t, store, "ejections_active")["ejections_active"]; got != int64(out) {
			rt.Fatalf("the gauge is %d, want %d", got, out)
		}
	})
}
