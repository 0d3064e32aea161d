package compile

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// sessionLabel of a Service has sessions stay with their endpoint until it is gone.
const sessionLabel = "istio.io/persistent-session"

// Labels by which telemetry names workloads.
const (
	canonicalNameLabel     = "service.istio.io/canonical-name"
	canonicalRevisionLabel = "service.istio.io/canonical-revision"
)

// Endpoints returns the endpoints of one cluster of the proxy, nil when the name is
// not that of an outbound cluster of a service that the proxy sees. A cluster whose
// service or subset has no endpoint has an assignment without localities.
//
// Kinds read: as Clusters.
func Endpoints(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy, cluster string) *ir.Assignment {
	host, subset, number, ok := parseClusterName(cluster)
	if !ok {
		return nil
	}
	service := scope.Service(host)
	if service == nil || service.Port(number) == nil {
		return nil
	}
	t := target{service: service, port: *service.Port(number), rule: scope.DestinationRule(service)}
	if subset != "" {
		if t.subset = t.rule.Subset(subset); t.subset == nil {
			return nil
		}
	}
	b := clusterBuilder{mesh: s, scope: scope, proxy: p}
	return b.assignment(cluster, t, policyFor(t.rule, t.subset, number))
}

// parseClusterName reads "outbound|80|v1|host" and its SNI form
// "outbound_.80_.v1_.host".
func parseClusterName(name string) (host, subset string, port uint32, ok bool) {
	sep := "|"
	if isSNICluster(name) {
		sep = "_."
	}
	parts := strings.SplitN(name, sep, 4)
	if len(parts) != 4 || parts[0] != "outbound" {
		return "", "", 0, false
	}
	n, err := strconv.ParseUint(parts[1], 10, 16)
	return parts[3], parts[2], uint32(n), err == nil
}

// assignment collects the endpoints of a target by locality and spreads them over
// priorities as the policy says.
func (b *clusterBuilder) assignment(cluster string, t target, p policy) *ir.Assignment {
	endpoints := b.endpoints(cluster, t, p)
	if b.discovery(t.service) == ir.EDS {
		endpoints = b.acrossNetworks(endpoints)
	}
	endpoints = lightened(endpoints)
	groups := map[registry.Locality][]*registry.Endpoint{}
	for _, e := range endpoints {
		groups[e.Locality] = append(groups[e.Locality], e)
	}
	var localities []*locality
	for l, list := range groups {
		localities = append(localities, &locality{at: l, endpoints: list, weight: totalWeight(list)})
	}
	slices.SortFunc(localities, func(x, y *locality) int { return cmp.Compare(x.at.String(), y.at.String()) })
	localities = b.spread(localities, p)
	a := &ir.Assignment{Cluster: cluster}
	for _, l := range localities {
		a.Localities = append(a.Localities, l.spell())
	}
	return a
}

// endpoints are those of the target that may take traffic. One that is about to end is
// for sessions that stay with it, where the Service has such, and for all where there is no
// other: what takes its place may be known in a moment only. A gateway that routes by SNI
// reaches only endpoints that take mTLS.
func (b *clusterBuilder) endpoints(cluster string, t target, p policy) []*registry.Endpoint {
	var list, ending []*registry.Endpoint
	sessions := t.service.Labels[sessionLabel] != ""
	for _, e := range b.mesh.Registry.Endpoints(t.service, t.port) {
		e := b.asCalled(e, t.port, p)
		switch {
		case !hasLabels(e.Labels, t.subset.GetLabels()):
		case isSNICluster(cluster) && e.TLSMode != "istio":
		case !e.Unhealthy, e.Draining && sessions:
			list = append(list, e)
		case e.Ending:
			still := *e
			still.Unhealthy, still.Draining = false, false
			ending = append(ending, &still)
		}
	}
	if len(list) == 0 {
		list = ending
	}
	return list
}

// asCalled is an endpoint with the TLS that it is called with: what a DestinationRule says
// holds for all endpoints; without one they are called with mutual TLS that take it.
func (b *clusterBuilder) asCalled(e *registry.Endpoint, port registry.Port, p policy) *registry.Endpoint {
	if b.mesh.ClosedGateway(e.Namespace, e.Labels) && hasPlainServer(b.mesh.GatewaysFor(e.Namespace, e.Labels), port.Number) {
		closed := *e
		closed.TLSMode = "istio"
		e = &closed
	}
	mutual := b.mesh.TakesTLS(e)
	if p.tls != nil {
		mutual = e.TLSMode != "disabled" && p.tls.Mode == networking.ClientTLSSettings_ISTIO_MUTUAL
	}
	if mutual || e.TLSMode == "disabled" {
		return e
	}
	plain := *e
	plain.TLSMode = "disabled"
	return &plain
}

// lightened keeps the shares of endpoints but makes weights small enough for all of
// them to be added up, since a proxy refuses a cluster where they cannot.
func lightened(endpoints []*registry.Endpoint) []*registry.Endpoint {
	var sum uint64
	for _, e := range endpoints {
		sum += uint64(max(e.Weight, 1))
	}
	if sum <= math.MaxUint32 {
		return endpoints
	}
	by := uint32(sum/(math.MaxUint32/2)) + 1 // half: leaves room for weights that become 1
	out := make([]*registry.Endpoint, len(endpoints))
	for i, e := range endpoints {
		light := *e
		light.Weight = max(e.Weight/by, 1)
		out[i] = &light
	}
	return out
}

func hasLabels(labels, want map[string]string) bool {
	for k, v := range want {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

func totalWeight(endpoints []*registry.Endpoint) uint32 {
	var sum uint32
	for _, e := range endpoints {
		sum += max(e.Weight, 1)
	}
	return sum
}

// A locality is the endpoints of one place at one priority.
type locality struct {
	at        registry.Locality
	endpoints []*registry.Endpoint
	weight    uint32
	priority  uint32
}

func (l *locality) spell() ir.LocalityEndpoints {
	out := ir.LocalityEndpoints{
		Locality: &ir.Locality{Region: l.at.Region, Zone: l.at.Zone, SubZone: l.at.SubZone},
		Priority: l.priority,
		Weight:   l.weight,
	}
	for _, e := range l.endpoints {
		out.Endpoints = append(out.Endpoints, spellEndpoint(e))
	}
	return out
}

func spellEndpoint(e *registry.Endpoint) ir.Endpoint {
	out := ir.Endpoint{
		Address:  strings.TrimPrefix(e.Address, "unix://"),
		Port:     e.Port,
		Weight:   max(e.Weight, 1),
		Draining: e.Draining,
		Workload: strings.Join([]string{e.WorkloadName, e.Namespace, canonicalName(e), canonicalRevision(e), e.Cluster}, ";"),
	}
	if e.TLSMode != "disabled" {
		out.TLSMode = e.TLSMode
	}
	return out
}

// canonicalName is the name of an endpoint's workload in telemetry.
func canonicalName(e *registry.Endpoint) string {
	return cmp.Or(e.Labels[canonicalNameLabel], e.Labels["app.kubernetes.io/name"], e.Labels["app"], e.WorkloadName)
}

// canonicalRevision is "" where nothing tells it.
func canonicalRevision(e *registry.Endpoint) string {
	return cmp.Or(e.Labels[canonicalRevisionLabel], e.Labels["app.kubernetes.io/version"], e.Labels["version"])
}
