package dump

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// An EndpointFilter chooses endpoints; what is empty chooses all.
type EndpointFilter struct {
	Address, Cluster, Status string
	Port                     int
}

func (f EndpointFilter) picks(a *corepb.Address, cluster, status string) bool {
	host := hostOf(a)
	if internal := a.GetEnvoyInternalAddress(); internal != nil {
		host = internal.GetServerListenerName()
	}
	return (f.Address == "" || strings.EqualFold(f.Address, host)) && (f.Port == 0 || f.Port == portOf(a)) &&
		(f.Cluster == "" || strings.EqualFold(f.Cluster, cluster)) && (f.Status == "" || strings.EqualFold(f.Status, status))
}

// endpointAddress names an endpoint.
func endpointAddress(a *corepb.Address) string {
	if internal := a.GetEnvoyInternalAddress(); internal != nil {
		return fmt.Sprintf("envoy://%s/%s", internal.GetServerListenerName(), internal.GetEndpointId())
	}
	if a.GetSocketAddress() != nil {
		return net.JoinHostPort(hostOf(a), strconv.Itoa(portOf(a)))
	}
	return hostOf(a)
}

// Endpoints are the endpoints that a proxy was told of, by their clusters: part of a dump
// that was asked for with include_eds.
func (d *Dump) Endpoints(f EndpointFilter) (*List, error) {
	if d.endpoints == nil {
		return nil, errLacks("endpoints: those come with /config_dump?include_eds")
	}
	var bodies []*anypb.Any
	for _, e := range d.endpoints.GetStaticEndpointConfigs() {
		bodies = append(bodies, e.GetEndpointConfig())
	}
	for _, e := range d.endpoints.GetDynamicEndpointConfigs() {
		bodies = append(bodies, e.GetEndpointConfig())
	}
	all, err := unpack[*endpointpb.ClusterLoadAssignment]("endpoints", bodies)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b *endpointpb.ClusterLoadAssignment) int {
		return serviceOf(a.GetClusterName()).compare(serviceOf(b.GetClusterName()))
	})
	l := &List{kind: "endpoint", padding: 5, header: []string{"NAME", "STATUS", "LOCALITY", "CLUSTER"}}
	for _, a := range all {
		l.addAssignment(a, f)
	}
	return l, nil
}

// addAssignment adds those endpoints of a cluster that a filter picks.
func (l *List) addAssignment(a *endpointpb.ClusterLoadAssignment, f EndpointFilter) {
	picked, _ := proto.Clone(a).(*endpointpb.ClusterLoadAssignment)
	for _, group := range picked.GetEndpoints() {
		group.LbEndpoints = slices.DeleteFunc(group.GetLbEndpoints(), func(e *endpointpb.LbEndpoint) bool {
			return !f.picks(e.GetEndpoint().GetAddress(), a.GetClusterName(), e.GetHealthStatus().String())
		})
		for _, e := range group.GetLbEndpoints() {
			address := strings.TrimPrefix(endpointAddress(e.GetEndpoint().GetAddress()), "unix://")
			l.rows = append(l.rows, []string{address, e.GetHealthStatus().String(), localityText(group.GetLocality()), a.GetClusterName()})
		}
	}
	picked.Endpoints = slices.DeleteFunc(picked.GetEndpoints(), func(g *endpointpb.LocalityLbEndpoints) bool { return len(g.GetLbEndpoints()) == 0 })
	if len(picked.GetEndpoints()) > 0 {
		l.messages = append(l.messages, picked)
	}
}

func localityText(l *corepb.Locality) string {
	return strings.TrimRight(strings.Join([]string{l.GetRegion(), l.GetZone(), l.GetSubZone()}, "/"), "/")
}

// Hosts are the endpoints in use, with what the proxy thinks of their health.
type Hosts struct{ clusters *adminpb.Clusters }

// ParseHosts reads /clusters?format=json.
func ParseHosts(text []byte) (*Hosts, error) {
	h := &Hosts{&adminpb.Clusters{}}
	if err := decode(text, h.clusters); err != nil {
		return nil, fmt.Errorf("list of clusters: %w", err)
	}
	return h, nil
}

// List is the endpoints, by address, port and cluster.
func (h *Hosts) List(f EndpointFilter) *List {
	type host struct {
		cluster string
		*adminpb.HostStatus
	}
	l := &List{kind: "endpoint", padding: 5, header: []string{"ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"}}
	var all []host
	for _, c := range h.clusters.GetClusterStatuses() {
		picked, _ := proto.Clone(c).(*adminpb.ClusterStatus)
		picked.HostStatuses = slices.DeleteFunc(picked.GetHostStatuses(), func(s *adminpb.HostStatus) bool {
			return !f.picks(s.GetAddress(), c.GetName(), healthOf(s))
		})
		for _, s := range picked.GetHostStatuses() {
			all = append(all, host{c.GetName(), s})
		}
		if len(picked.GetHostStatuses()) > 0 {
			l.messages = append(l.messages, picked)
		}
	}
	slices.SortStableFunc(all, func(a, b host) int {
		return cmp.Or(cmp.Compare(hostOf(a.GetAddress()), hostOf(b.GetAddress())), cmp.Compare(portOf(a.GetAddress()), portOf(b.GetAddress())),
			cmp.Compare(a.cluster, b.cluster), cmp.Compare(endpointAddress(a.GetAddress()), endpointAddress(b.GetAddress())))
	})
	for _, s := range all {
		outlier := "OK"
		if s.GetHealthStatus().GetFailedOutlierCheck() {
			outlier = "FAILED"
		}
		l.rows = append(l.rows, []string{endpointAddress(s.GetAddress()), healthOf(s.HostStatus), outlier, s.cluster})
	}
	return l
}

// healthOf is what the control plane says of a host, or the proxy where that has checked.
func healthOf(s *adminpb.HostStatus) string {
	h := s.GetHealthStatus()
	if h.GetFailedActiveHealthCheck() {
		return corepb.HealthStatus_UNHEALTHY.String()
	}
	return h.GetEdsHealthStatus().String()
}
