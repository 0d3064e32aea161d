package cluster

import (
	"log/slog"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// byEDS is a cluster whose endpoints the test assigns itself.
func byEDS(t *testing.T) *Cluster {
	t.Helper()
	source := xds.New(xds.Options{Logger: slog.New(slog.DiscardHandler)}) // never run
	cs := New(Options{Logger: slog.New(slog.DiscardHandler), Source: func(*corev3.ConfigSource) (*xds.Client, error) { return source, nil }})
	t.Cleanup(cs.Close)
	if err := cs.AddStatic(newCluster(t, `{"name": "a", "type": "EDS", `+ads+`, "outlier_detection": {"consecutive_5xx": 1, "max_ejection_percent": 100},
		"lb_subset_config": {"fallback_policy": "ANY_ENDPOINT", "subset_selectors": [{"keys": ["v"], "fallback_policy": "NO_FALLBACK"}]}}`)); err != nil {
		t.Fatal(err)
	}
	return cs.all()[0]
}

// assigned compiles an assignment of one address.
func assigned(t *testing.T, json string) *assignment {
	t.Helper()
	json = strings.ReplaceAll(json, "ADDRESS", `{"socket_address": {"address": "127.0.0.1", "port_value": 1}}`)
	a, err := decodeAssignment(parse(t, &endpointv3.ClusterLoadAssignment{}, json), true)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestEndpointsThatStay: what an assignment changes of an endpoint without making it
// another one. Each row was asked of Envoy 1.40.
func TestEndpointsThatStay(t *testing.T) {
	const first = `{"endpoints": [{"locality": {"zone": "z"}, "lb_endpoints": [{"endpoint": {"address": ADDRESS}, "load_balancing_weight": 1}]}]}`
	for _, c := range []struct {
		name, second string
		stays        bool
		changes      uint64 // of the membership, after the first one
	}{
		{"the same", first, true, 0},
		{"weight", `{"endpoints": [{"locality": {"zone": "z"}, "lb_endpoints": [{"endpoint": {"address": ADDRESS}, "load_balancing_weight": 7}]}]}`, true, 0},
		{"metadata", `{"endpoints": [{"locality": {"zone": "z"}, "lb_endpoints": [{"endpoint": {"address": ADDRESS}, "metadata": {"filter_metadata": {"envoy.lb": {"v": "2"}}}}]}]}`, true, 0},
		{"health", `{"endpoints": [{"locality": {"zone": "z"}, "lb_endpoints": [{"endpoint": {"address": ADDRESS}, "health_status": "DRAINING"}]}]}`, true, 0},
		{"priority", `{"endpoints": [{"locality": {"zone": "z"}, "priority": 1, "lb_endpoints": [{"endpoint": {"address": ADDRESS}}]}]}`, true, 2},
		{"how it would be checked", `{"endpoints": [{"locality": {"zone": "z"}, "lb_endpoints": [{"endpoint": {"address": ADDRESS, "health_check_config": {"port_value": 9}}}]}]}`, true, 0},
		{"listed again elsewhere", `{"endpoints": [{"locality": {"zone": "z"}, "lb_endpoints": [{"endpoint": {"address": ADDRESS}}]},
			{"locality": {"zone": "y"}, "lb_endpoints": [{"endpoint": {"address": ADDRESS}}]}]}`, true, 0},
		{"locality", `{"endpoints": [{"locality": {"zone": "y"}, "lb_endpoints": [{"endpoint": {"address": ADDRESS}}]}]}`, false, 1},
		{"host name", `{"endpoints": [{"locality": {"zone": "z"}, "lb_endpoints": [{"endpoint": {"address": ADDRESS, "hostname": "h"}}]}]}`, false, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := byEDS(t)
			cl.assign(assigned(t, first))
			ep := cl.Endpoints()[0]
			report(cl, ep, 500) // it is ejected
			before := cl.changes
			cl.assign(assigned(t, c.second))
			now := cl.Endpoints()
			if len(now) != 1 || (now[0] == ep) != c.stays {
				t.Errorf("%d endpoints, the same: %v", len(now), now[0] == ep)
			}
			if ejected := now[0].Unhealthy.Load()&endpoint.FailedOutlier != 0; ejected != c.stays {
				t.Errorf("ejected: %v", ejected)
			}
			if got := cl.changes - before; got != c.changes {
				t.Errorf("%d changes of the membership, want %d", got, c.changes)
			}
			want := assigned(t, c.second).members[0]
			if e := now[0]; e.Weight.Load() != want.weight || e.Priority.Load() != want.key.Priority || e.Metadata.Load()["envoy.lb"]["v"] != want.metadata["envoy.lb"]["v"] {
				t.Errorf("weight %d, priority %d, metadata %v", e.Weight.Load(), e.Priority.Load(), e.Metadata.Load())
			}
		})
	}
}

// TestSubsetsOfNewLabels: an endpoint is chosen by the labels that it has now.
func TestSubsetsOfNewLabels(t *testing.T) {
	cl := byEDS(t)
	label := func(v string) *assignment {
		return assigned(t, `{"endpoints": [{"lb_endpoints": [{"endpoint": {"address": ADDRESS}, "metadata": {"filter_metadata": {"envoy.lb": {"v": "`+v+`"}}}}]}]}`)
	}
	pick := func(v string) bool { return cl.Pick(&lb.Context{Match: map[string]any{"v": v}}) != nil }
	cl.assign(label("1"))
	if !pick("1") || pick("2") {
		t.Fatal("not chosen by the first label alone")
	}
	cl.assign(label("2"))
	if pick("1") || !pick("2") {
		t.Error("not chosen by the second label alone")
	}
}

// TestDropsWait: drop_overloads that change alone come into force with the next change of
// the endpoints, as in Envoy.
func TestDropsWait(t *testing.T) {
	cl := byEDS(t)
	for _, step := range []struct {
		name, assignment string
		dropped          bool
	}{
		{"none at first", `{"endpoints": [{"lb_endpoints": [{"endpoint": {"address": ADDRESS}}]}]}`, false},
		{"they alone change", `{"policy": {"drop_overloads": [{"category": "c", "drop_percentage": {"numerator": 100}}]}, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": ADDRESS}}]}]}`, false},
		{"and now a weight", `{"policy": {"drop_overloads": [{"category": "c", "drop_percentage": {"numerator": 100}}]}, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": ADDRESS}, "load_balancing_weight": 2}]}]}`, true},
		{"they alone go", `{"endpoints": [{"lb_endpoints": [{"endpoint": {"address": ADDRESS}, "load_balancing_weight": 2}]}]}`, true},
		{"with a weight", `{"endpoints": [{"lb_endpoints": [{"endpoint": {"address": ADDRESS}, "load_balancing_weight": 3}]}]}`, false},
	} {
		cl.assign(assigned(t, step.assignment))
		if dropped, _ := cl.Drops(); dropped != step.dropped {
			t.Errorf("%s: dropped %v", step.name, dropped)
		}
	}
}
