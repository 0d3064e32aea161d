package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/lateen-mesh/lateen/wellknown"
)

// TestWeightsUnderLoad: endpoints whose weight, labels and priority change again and again
// lose no request and no connection, whatever the policy.
func TestWeightsUnderLoad(t *testing.T) {
	for _, policy := range []string{"ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV"} {
		t.Run(policy, func(t *testing.T) {
			backends := []string{answering(t), answering(t)}
			m := newManagement(t)
			m.set(t, wellknown.ClusterType, message(t, &clusterpb.Cluster{}, fmt.Sprintf(`{"name": "app", "type": "EDS", "lb_policy": %q,
				"eds_cluster_config": {"eds_config": {"ads": {}}}, "outlier_detection": {"consecutive_5xx": 1}}`, policy)))
			m.set(t, wellknown.ListenerType, message(t, &listenerpb.Listener{}, retrying("gateway", "app")))
			m.set(t, wellknown.EndpointType, weighing(t, backends, 0))
			f := &fleet{t: t, gateway: start(t, m.bootstrap(""))}
			f.addr = f.gateway.listener("gateway")
			l := f.load(8)
			for round := 1; round <= 50; round++ {
				m.set(t, wellknown.EndpointType, weighing(t, backends, round))
				weight := fmt.Sprintf("app::%s::weight::%d\n", backends[0], 1+round%7)
				for range 1000 {
					if strings.Contains(f.gateway.get("/clusters"), weight) {
						break
					}
					time.Sleep(time.Millisecond)
				}
				if !strings.Contains(f.gateway.get("/clusters"), weight) {
					t.Fatalf("round %d: no %q in %s", round, weight, f.gateway.get("/clusters"))
				}
			}
			l.pass(t)
			l.end()
			for _, want := range []string{"upstream_cx_destroy: 0\n", "membership_total: 2\n", "upstream_rq_retry: 0\n"} {
				if got := f.gateway.get("/stats?filter=cluster.app."); !strings.Contains(got, "cluster.app."+want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
		})
	}
}

// weighing gives two endpoints other weights and labels in each round, and to the second
// another priority in each fifth.
func weighing(t *testing.T, backends []string, round int) *endpointpb.ClusterLoadAssignment {
	a := &endpointpb.ClusterLoadAssignment{ClusterName: "app"}
	for i, b := range backends {
		host, port, _ := net.SplitHostPort(b)
		a.Endpoints = append(a.Endpoints, message(t, &endpointpb.LocalityLbEndpoints{}, fmt.Sprintf(`{"locality": {"zone": "z"}, "priority": %d, "lb_endpoints": [{
			"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %s}}}, "load_balancing_weight": %d,
			"metadata": {"filter_metadata": {"istio": {"workload": "w%d"}}}}]}`, i*(round/5%2), host, port, 1+(round+i)%7, round)))
	}
	return a
}
