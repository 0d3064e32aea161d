package proxy

import (
	"cmp"
	"slices"
	"strings"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// dump is /config_dump in Envoy's order.
func (s *server) dump(includeEDS bool) []proto.Message {
	views := s.views()
	clusters := s.clusters.View()
	list := []proto.Message{
		&adminpb.BootstrapConfigDump{Bootstrap: s.bootstrapInForce(), LastUpdated: stamp(s.start)},
		s.dumpClusters(views[wellknown.ClusterType], clusters),
	}
	if includeEDS {
		list = append(list, dumpEndpoints(clusters))
	}
	return append(list,
		s.dumpListeners(views[wellknown.ListenerType]),
		s.dumpScopes(),
		s.dumpRoutes(views[wellknown.RouteType], views[wellknown.VirtualHostType].Resources),
		s.dumpSecrets(views[wellknown.SecretType]),
	)
}

// bootstrapInForce has the node as the control plane hears of it.
func (s *server) bootstrapInForce() *bootstrappb.Bootstrap {
	b, _ := proto.Clone(s.boot.Proto).(*bootstrappb.Bootstrap)
	b.Node = s.node()
	return b
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t.Truncate(time.Millisecond))
}

// wrap is m in an Any; a message that came over the wire can be marshalled again.
func wrap(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		return nil
	}
	return a
}

// failure is the state of a resource whose last version was refused, nil for others.
func failure(r xds.ResourceView) *adminpb.UpdateFailureState {
	if r.FailedBody == nil {
		return nil
	}
	return &adminpb.UpdateFailureState{FailedConfiguration: r.FailedBody, LastUpdateAttempt: stamp(r.ErrorAt), Details: r.Error, VersionInfo: r.FailedVersion}
}

func (s *server) dumpClusters(v xds.TypeView, clusters []cluster.View) *adminpb.ClustersConfigDump {
	d := &adminpb.ClustersConfigDump{VersionInfo: v.Version}
	warming := map[string]bool{}
	for _, c := range clusters {
		warming[c.Name] = c.Warming
	}
	for _, c := range s.boot.Proto.GetStaticResources().GetClusters() {
		d.StaticClusters = append(d.StaticClusters, &adminpb.ClustersConfigDump_StaticCluster{Cluster: wrap(c), LastUpdated: stamp(s.start)})
	}
	for _, r := range v.Resources {
		c := &adminpb.ClustersConfigDump_DynamicCluster{VersionInfo: r.Version, Cluster: r.Body, LastUpdated: stamp(r.Updated), ErrorState: failure(r)}
		if warming[r.Name] {
			d.DynamicWarmingClusters = append(d.DynamicWarmingClusters, c)
		} else {
			d.DynamicActiveClusters = append(d.DynamicActiveClusters, c)
		}
	}
	return d
}

func (s *server) dumpListeners(v xds.TypeView) *adminpb.ListenersConfigDump {
	d := &adminpb.ListenersConfigDump{VersionInfo: v.Version}
	warming := map[string]bool{}
	for _, l := range s.listeners.View() {
		warming[l.Name] = warming[l.Name] || l.Warming
		if s.statics[l.Name] {
			d.StaticListeners = append(d.StaticListeners, &adminpb.ListenersConfigDump_StaticListener{Listener: wrap(l.Proto), LastUpdated: stamp(l.Updated)})
		}
	}
	for _, r := range v.Resources {
		l := &adminpb.ListenersConfigDump_DynamicListener{Name: r.Name, ErrorState: failure(r)}
		if r.Body != nil {
			st := &adminpb.ListenersConfigDump_DynamicListenerState{VersionInfo: r.Version, Listener: r.Body, LastUpdated: stamp(r.Updated)}
			if warming[r.Name] {
				l.WarmingState = st
			} else {
				l.ActiveState = st
			}
		}
		d.DynamicListeners = append(d.DynamicListeners, l)
	}
	return d
}

// dumpRoutes: static routes are those within listeners. Virtual hosts that have come by
// themselves are shown where they are in force.
func (s *server) dumpRoutes(v xds.TypeView, hosts []xds.ResourceView) *adminpb.RoutesConfigDump {
	d := &adminpb.RoutesConfigDump{}
	for _, l := range s.listeners.View() {
		for _, m := range managers(l.Proto) {
			if r := m.GetRouteConfig(); r != nil {
				d.StaticRouteConfigs = append(d.StaticRouteConfigs, &adminpb.RoutesConfigDump_StaticRouteConfig{RouteConfig: wrap(r), LastUpdated: stamp(l.Updated)})
			}
		}
	}
	for _, r := range v.Resources {
		one := &adminpb.RoutesConfigDump_DynamicRouteConfig{VersionInfo: r.Version, RouteConfig: r.Body, LastUpdated: stamp(r.Updated), ErrorState: failure(r)}
		withHosts(one, r, hosts)
		d.DynamicRouteConfigs = append(d.DynamicRouteConfigs, one)
	}
	return d
}

// withHosts adds the virtual hosts that have come to a route configuration, by name, those for
// any host last; what was refused of them counts as refused of the whole. How they came is left
// out: tools compare the table with the control plane's, which is whole.
func withHosts(d *adminpb.RoutesConfigDump_DynamicRouteConfig, r xds.ResourceView, hosts []xds.ResourceView) {
	var table routepb.RouteConfiguration
	if r.Body == nil || len(hosts) == 0 || r.Body.UnmarshalTo(&table) != nil || table.GetVhds() == nil {
		return
	}
	var last []*routepb.VirtualHost
	updated := r.Updated
	for _, h := range hosts {
		if !strings.HasPrefix(h.Name, r.Name+"/") {
			continue
		}
		if d.ErrorState == nil {
			d.ErrorState = failure(h)
		}
		vh := &routepb.VirtualHost{}
		switch {
		case h.Body == nil || h.Body.UnmarshalTo(vh) != nil:
			continue
		case slices.Contains(vh.GetDomains(), "*"):
			last = append(last, vh)
		default:
			table.VirtualHosts = append(table.VirtualHosts, vh)
		}
		if h.Updated.After(updated) {
			updated = h.Updated
		}
	}
	table.VirtualHosts, table.Vhds = append(table.VirtualHosts, last...), nil
	d.RouteConfig, d.LastUpdated = wrap(&table), stamp(updated)
}

// dumpScopes: scopes are those within listeners.
func (s *server) dumpScopes() *adminpb.ScopedRoutesConfigDump {
	d := &adminpb.ScopedRoutesConfigDump{}
	for _, l := range s.listeners.View() {
		for _, m := range managers(l.Proto) {
			scopes := m.GetScopedRoutes()
			if scopes == nil {
				continue
			}
			one := &adminpb.ScopedRoutesConfigDump_InlineScopedRouteConfigs{Name: scopes.GetName(), LastUpdated: stamp(l.Updated)}
			for _, scope := range scopes.GetScopedRouteConfigurationsList().GetScopedRouteConfigurations() {
				one.ScopedRouteConfigs = append(one.ScopedRouteConfigs, wrap(scope))
			}
			d.InlineScopedRouteConfigs = append(d.InlineScopedRouteConfigs, one)
		}
	}
	return d
}

// managers are the connection managers of a listener.
func managers(l *listenerpb.Listener) []*hcmpb.HttpConnectionManager {
	var list []*hcmpb.HttpConnectionManager
	for _, ch := range append(l.GetFilterChains(), l.GetDefaultFilterChain()) {
		for _, f := range ch.GetFilters() {
			c := &hcmpb.HttpConnectionManager{}
			if f.GetTypedConfig().MessageIs(c) && f.GetTypedConfig().UnmarshalTo(c) == nil {
				list = append(list, c)
			}
		}
	}
	return list
}

// dumpSecrets shows certificates and roots, never keys.
func (s *server) dumpSecrets(v xds.TypeView) *adminpb.SecretsConfigDump {
	d := &adminpb.SecretsConfigDump{}
	versions := map[string]string{}
	for _, r := range v.Resources {
		versions[r.Name] = r.Version
	}
	for _, v := range s.secrets.View() {
		body := wrap(cmp.Or(v.Source, &tlspb.Secret{Name: v.Name}))
		switch {
		case !v.Dynamic:
			d.StaticSecrets = append(d.StaticSecrets, &adminpb.SecretsConfigDump_StaticSecret{Name: v.Name, LastUpdated: stamp(v.Updated), Secret: body})
		case v.Ready:
			d.DynamicActiveSecrets = append(d.DynamicActiveSecrets, &adminpb.SecretsConfigDump_DynamicSecret{Name: v.Name, VersionInfo: versions[v.Name], LastUpdated: stamp(v.Updated), Secret: body})
		default:
			d.DynamicWarmingSecrets = append(d.DynamicWarmingSecrets, &adminpb.SecretsConfigDump_DynamicSecret{Name: v.Name, Secret: body})
		}
	}
	return d
}

// dumpEndpoints shows the endpoints in force of every cluster.
func dumpEndpoints(clusters []cluster.View) *adminpb.EndpointsConfigDump {
	d := &adminpb.EndpointsConfigDump{}
	for _, c := range clusters {
		body := wrap(assignment(c))
		if c.Dynamic {
			d.DynamicEndpointConfigs = append(d.DynamicEndpointConfigs, &adminpb.EndpointsConfigDump_DynamicEndpointConfig{EndpointConfig: body})
			continue
		}
		d.StaticEndpointConfigs = append(d.StaticEndpointConfigs, &adminpb.EndpointsConfigDump_StaticEndpointConfig{EndpointConfig: body})
	}
	return d
}

// assignment is a cluster's endpoints as Envoy prints them: one group per locality
// and priority.
func assignment(c cluster.View) *endpointpb.ClusterLoadAssignment {
	name := c.Name
	if c.EDSService != "" {
		name = c.EDSService
	}
	a := &endpointpb.ClusterLoadAssignment{ClusterName: name, Policy: &endpointpb.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(140)}}
	type place struct {
		region, zone, sub string
		priority          uint32
	}
	groups := map[place]*endpointpb.LocalityLbEndpoints{}
	for _, e := range c.Endpoints {
		at := place{e.Locality.Region, e.Locality.Zone, e.Locality.SubZone, e.Priority.Load()}
		g := groups[at]
		if g == nil {
			g = &endpointpb.LocalityLbEndpoints{Priority: at.priority, Locality: &corepb.Locality{Region: at.region, Zone: at.zone, SubZone: at.sub},
				LoadBalancingWeight: wrapperspb.UInt32(c.Weights[lb.LocalityKey{Locality: e.Locality, Priority: at.priority}])}
			groups[at] = g
			a.Endpoints = append(a.Endpoints, g)
		}
		st := corepb.HealthStatus_HEALTHY
		if !e.Healthy() {
			st = corepb.HealthStatus_UNHEALTHY
		}
		g.LbEndpoints = append(g.LbEndpoints, &endpointpb.LbEndpoint{
			HealthStatus: st, LoadBalancingWeight: wrapperspb.UInt32(e.Weight.Load()), Metadata: metadata(e),
			HostIdentifier: &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{
				Address: addressProto(e.Address), Hostname: e.Hostname, HealthCheckConfig: &endpointpb.Endpoint_HealthCheckConfig{},
			}},
		})
	}
	return a
}

// metadata is what an endpoint was told with, nil for nothing.
func metadata(e *endpoint.Endpoint) *corepb.Metadata {
	if len(e.Metadata.Load()) == 0 {
		return nil
	}
	m := &corepb.Metadata{FilterMetadata: map[string]*structpb.Struct{}}
	for name, values := range e.Metadata.Load() {
		if s, err := structpb.NewStruct(values); err == nil { // they were one
			m.FilterMetadata[name] = s
		}
	}
	return m
}
