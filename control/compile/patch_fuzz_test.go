package compile

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
)

// FuzzPatches does patches of any value to everything: what Envoy takes before, it takes
// after.
func FuzzPatches(f *testing.F) {
	targets := []ir.PatchTarget{ir.PatchListener, ir.PatchListenerFilter, ir.PatchFilterChain, ir.PatchNetworkFilter, ir.PatchHTTPFilter,
		ir.PatchRoutes, ir.PatchVirtualHost, ir.PatchRoute, ir.PatchCluster, ir.PatchExtension}
	operations := []ir.PatchOperation{ir.PatchMerge, ir.PatchMergeReplace, ir.PatchAdd, ir.PatchRemove, ir.PatchBefore, ir.PatchAfter, ir.PatchFirst, ir.PatchReplace}
	for i, value := range []string{
		`{"name": "x", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": 7}}`,
		`{"typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "http_filters": [{"name": "x"}]}}`,
		`{"virtual_hosts": [{"name": "x", "domains": ["*"]}]}`, `{"match": {"safe_regex": {"regex": "("}}}`, `{"connect_timeout": "-1s"}`,
		`{"filter_chains": [{}], "address": {"pipe": {"path": "/x"}}}`, `{"transport_socket": {"name": "envoy.transport_sockets.tls"}}`, `[`,
	} {
		f.Add(uint8(i), uint8(i), false, "", value)
		f.Add(uint8(3), uint8(0), true, "envoy.filters.network.http_connection_manager", value)
	}
	f.Fuzz(func(t *testing.T, target, operation uint8, gateway bool, name, value string) {
		p := ir.Patch{Target: targets[int(target)%len(targets)], Operation: operations[int(operation)%len(operations)], Context: ir.PatchAnywhere, Value: value}
		if name != "" {
			p.Listener = &ir.ListenerSelector{Filter: name, Chain: &ir.ChainSelector{Filter: &ir.FilterSelector{Name: name, HTTP: gateway, HTTPFilter: name}}}
			p.Routes = &ir.RoutesSelector{VirtualHost: &ir.VirtualHostSelector{Route: &ir.RouteSelector{Name: name}}}
		}
		proxy := "sidecar"
		if gateway {
			proxy = "gateway"
		}
		r, patches := resourcesBefore(t, proxy), envoy.NewPatches([]ir.Patch{p, p}, gateway)
		var all []proto.Message
		for _, l := range patches.Listeners(r.listeners) {
			all = append(all, l)
		}
		for _, c := range patches.Clusters(r.clusters) {
			all = append(all, c)
		}
		for _, rc := range r.routes {
			all = append(all, patches.Routes(rc))
		}
		for _, x := range patches.Extensions(func(string) bool { return true }) {
			all = append(all, x)
		}
		for _, m := range all {
			if err := m.(interface{ ValidateAll() error }).ValidateAll(); err != nil {
				t.Errorf("%s %s of %s: %v", p.Operation, p.Target, value, err)
			}
		}
	})
}
