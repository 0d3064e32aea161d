package cluster

import (
	"log/slog"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/lb"
)

// FuzzCluster: whatever a control plane sends as a cluster is refused, or chooses endpoints.
func FuzzCluster(f *testing.F) {
	for _, json := range []string{
		`{"name": "a", "lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 7}, "load_assignment": ` + to("127.0.0.1:1", "127.0.0.1:2") + `}`,
		`{"name": "a", "lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 3, "maximum_ring_size": 9}, "load_assignment": ` + to("127.0.0.1:1") + `}`,
		`{"name": "a", "lb_subset_config": {"fallback_policy": 2, "default_subset": {"a": 1}, "subset_selectors": [{"keys": ["a"]}]}, "load_assignment": ` + to("127.0.0.1:1") + `}`,
		`{"name": "a", "common_lb_config": {"locality_weighted_lb_config": {}}, "outlier_detection": {}, "load_assignment": ` + to("127.0.0.1:1") + `}`,
		aggregateOf,
	} {
		b, err := proto.Marshal(newCluster(f, json))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var pb clusterv3.Cluster
		if proto.Unmarshal(data, &pb) != nil || tooBig(&pb) {
			return
		}
		cs := New(Options{Logger: slog.New(slog.DiscardHandler), Resolver: dns.New(dns.Options{Servers: []string{"127.0.0.1:1"}, Tries: 1})})
		defer cs.Close()
		c, err := cs.build(&pb, false)
		if err != nil {
			return
		}
		defer c.close()
		if c.config.kind == static {
			c.assign(c.config.assignment)
		}
		for h := range uint64(3) {
			c.Pick(&lb.Context{HasHash: true, Hash: h, Match: map[string]any{"a": 1.0}})
		}
	})
}

// tooBig are tables that are allowed but take long to make.
func tooBig(c *clusterv3.Cluster) bool {
	r := c.GetRingHashLbConfig()
	return r.GetMinimumRingSize().GetValue() > 10_000 || r.GetMaximumRingSize().GetValue() > 100_000 || c.GetMaglevLbConfig().GetTableSize().GetValue() > 100_000 ||
		c.GetLoadBalancingPolicy() != nil
}

// FuzzAssignment: whatever comes as endpoints is refused, or balanced.
func FuzzAssignment(f *testing.F) {
	f.Add([]byte(to("127.0.0.1:1")))
	f.Add([]byte(`{"cluster_name": "a", "policy": {"drop_overloads": [{"category": "x", "drop_percentage": {"numerator": 3}}], "weighted_priority_health": true}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var pb endpointv3.ClusterLoadAssignment
		if protojson.Unmarshal(data, &pb) != nil {
			return
		}
		a, err := decodeAssignment(&pb, true)
		if err != nil {
			return
		}
		cs := New(Options{Logger: slog.New(slog.DiscardHandler)})
		defer cs.Close()
		if err := cs.AddStatic(&clusterv3.Cluster{Name: "a"}); err != nil {
			t.Fatal(err)
		}
		c := cs.Get("a")
		c.assign(a)
		ep := c.Pick(&lb.Context{})
		if ep == nil && len(c.Endpoints()) > 0 {
			t.Fatalf("nobody is chosen of %v, in panic or not", addresses(c))
		}
	})
}
