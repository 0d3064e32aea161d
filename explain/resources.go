package explain

import (
	"fmt"
	"slices"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/proxy"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Generate makes all that the control plane would send to a proxy, in the order in which
// the proxy would ask for it.
func Generate(snapshot *mesh.Snapshot, p *mesh.Proxy) (r proxy.Resources, err error) {
	made := func(typeURL string, names []string, take func(*anypb.Any) error) {
		if err != nil || names != nil && len(names) == 0 {
			return
		}
		var list []resource
		if list, err = generated(snapshot, p, typeURL, names); err != nil {
			return
		}
		for _, x := range list {
			if e := take(x.body); e != nil && err == nil {
				err = fmt.Errorf("%s: %w", x.name, e)
			}
		}
	}
	made(wellknown.ClusterType, nil, into(&r.Clusters, func() *clusterpb.Cluster { return &clusterpb.Cluster{} }))
	made(wellknown.EndpointType, assigned(r.Clusters), into(&r.Endpoints, func() *endpointpb.ClusterLoadAssignment { return &endpointpb.ClusterLoadAssignment{} }))
	made(wellknown.ListenerType, nil, into(&r.Listeners, func() *listenerpb.Listener { return &listenerpb.Listener{} }))
	made(wellknown.RouteType, tables(r.Listeners), into(&r.Routes, func() *routepb.RouteConfiguration { return &routepb.RouteConfiguration{} }))
	return r, err
}

type resource struct {
	name string
	body *anypb.Any
}

func generated(snapshot *mesh.Snapshot, p *mesh.Proxy, typeURL string, names []string) (list []resource, err error) {
	all, err := control.Generate(snapshot, p, typeURL, names)
	for _, x := range all {
		list = append(list, resource{x.Name, x.Body})
	}
	return list, err
}

// into decodes messages to the end of a list.
func into[M proto.Message](list *[]M, fresh func() M) func(*anypb.Any) error {
	return func(body *anypb.Any) error {
		m := fresh()
		*list = append(*list, m)
		return body.UnmarshalTo(m)
	}
}

// assigned are the names by which clusters ask for their endpoints; not nil.
func assigned(clusters []*clusterpb.Cluster) []string {
	names := []string{}
	for _, c := range clusters {
		if e := c.GetEdsClusterConfig(); e != nil && e.GetServiceName() != "" {
			names = append(names, e.GetServiceName())
		} else if e != nil {
			names = append(names, c.GetName())
		}
	}
	return names
}

// tables are the route configurations that listeners ask for, each once; not nil.
func tables(listeners []*listenerpb.Listener) []string {
	names := []string{}
	for _, l := range listeners {
		for _, c := range append(slices.Clip(l.GetFilterChains()), l.GetDefaultFilterChain()) {
			if name := manager(c).GetRds().GetRouteConfigName(); name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// manager is the HTTP connection manager of a chain, nil for none.
func manager(c *listenerpb.FilterChain) *hcmpb.HttpConnectionManager {
	for _, f := range c.GetFilters() {
		if m := (&hcmpb.HttpConnectionManager{}); f.GetTypedConfig().MessageIs(m) && f.GetTypedConfig().UnmarshalTo(m) == nil {
			return m
		}
	}
	return nil
}

// FromDump reads what a proxy says that it has: the text of /config_dump?include_eds, of
// our proxy or of an Envoy.
func FromDump(text []byte) (*corepb.Node, proxy.Resources, error) {
	var d adminpb.ConfigDump
	var r proxy.Resources
	var node *corepb.Node
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &d); err != nil {
		return nil, r, fmt.Errorf("configuration dump: %w", err)
	}
	for i, part := range d.GetConfigs() {
		m, err := part.UnmarshalNew()
		if err == nil {
			if b, ok := m.(*adminpb.BootstrapConfigDump); ok {
				node = b.GetBootstrap().GetNode()
			}
			err = take(&r, m)
		}
		if err != nil {
			return nil, r, fmt.Errorf("configuration dump: configs[%d]: %w", i, err)
		}
	}
	return node, r, nil
}

// take adds the active resources of a part of a dump.
func take(r *proxy.Resources, part proto.Message) error {
	cluster := into(&r.Clusters, func() *clusterpb.Cluster { return &clusterpb.Cluster{} })
	endpoints := into(&r.Endpoints, func() *endpointpb.ClusterLoadAssignment { return &endpointpb.ClusterLoadAssignment{} })
	listener := into(&r.Listeners, func() *listenerpb.Listener { return &listenerpb.Listener{} })
	routes := into(&r.Routes, func() *routepb.RouteConfiguration { return &routepb.RouteConfiguration{} })
	var err error
	add := func(to func(*anypb.Any) error, body *anypb.Any) {
		if body != nil && err == nil {
			err = to(body)
		}
	}
	switch d := part.(type) {
	case *adminpb.ClustersConfigDump:
		for _, c := range d.GetStaticClusters() {
			add(cluster, c.GetCluster())
		}
		for _, c := range d.GetDynamicActiveClusters() {
			add(cluster, c.GetCluster())
		}
	case *adminpb.EndpointsConfigDump:
		for _, e := range d.GetDynamicEndpointConfigs() {
			add(endpoints, e.GetEndpointConfig())
		}
	case *adminpb.ListenersConfigDump:
		for _, l := range d.GetStaticListeners() {
			add(listener, l.GetListener())
		}
		for _, l := range d.GetDynamicListeners() {
			add(listener, l.GetActiveState().GetListener())
		}
	case *adminpb.RoutesConfigDump:
		for _, t := range d.GetDynamicRouteConfigs() {
			add(routes, t.GetRouteConfig())
		}
	}
	return err
}
