package compile

import (
	"cmp"
	"math"
	"strconv"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Names by which a node lists extensions that clusters may use.
const (
	peerExchangeExtension = "envoy.filters.network.upstream.metadata_exchange"
	caresExtension        = "envoy.network.dns_resolver.cares"
)

const (
	defaultConnectTimeout = 10 * time.Second
	passthroughIdle       = 5 * time.Minute
	dnsJitter             = 100 * time.Millisecond
	caresQueries          = 100
)

// Clusters returns what the proxy may call: one cluster for each port and subset of
// each visible service, and for a sidecar what it serves itself and the clusters
// for traffic of unknown destination. Names are unique.
//
// Kinds read: Service, EndpointSlice, ServiceEntry, WorkloadEntry,
// DestinationRule, Sidecar, VirtualService (under a Sidecar, whose imported routes
// import their destinations), Gateway (for AUTO_PASSTHROUGH), PeerAuthentication, MeshConfig.
func Clusters(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy) []ir.Cluster {
	b := clusterBuilder{mesh: s, scope: scope, proxy: p, names: map[string]bool{},
		keepCase: proxyConfig(s, p).GetProxyHeaders().GetPreserveHttp1HeaderCase().GetValue()}
	for _, service := range scope.Services() {
		b.outbound(service, clusterName)
	}
	b.keep(ir.Cluster{Name: wellknown.BlackHoleCluster, StatName: wellknown.BlackHoleCluster + ";",
		Discovery: ir.Static, ConnectTimeout: b.connectTimeout()})
	if p.Type == mesh.Router {
		b.autoPassthrough()
		return b.clusters
	}
	b.keep(b.passthrough(wellknown.PassthroughCluster))
	b.keep(b.passthrough(wellknown.InboundPassthroughCluster))
	b.inbound()
	return b.clusters
}

// clusterBuilder collects the clusters of one proxy.
type clusterBuilder struct {
	mesh     *mesh.Snapshot
	scope    *mesh.Scope
	proxy    *mesh.Proxy
	keepCase bool // of the names of HTTP/1 headers
	names    map[string]bool
	clusters []ir.Cluster
	sans     map[*registry.Service][]string // see identities
}

// keep adds a cluster unless one of its name is there already.
func (b *clusterBuilder) keep(c ir.Cluster) {
	if b.names[c.Name] {
		return
	}
	b.names[c.Name] = true
	b.clusters = append(b.clusters, c)
}

// outbound adds the clusters of a service: for each port the whole service and
// its subsets, under the names that naming gives.
func (b *clusterBuilder) outbound(service *registry.Service, naming func(host, subset string, port uint32) string) {
	rule := b.scope.DestinationRule(service)
	for _, port := range service.Ports {
		if port.Protocol == registry.UDP {
			continue
		}
		t := target{service: service, port: port, rule: rule}
		b.target(t, naming)
		if rule == nil || service.Resolution == registry.DynamicDNS {
			continue
		}
		for _, subset := range rule.Spec.Subsets {
			t.subset = subset
			b.target(t, naming)
		}
	}
}

// A target is what one outbound cluster stands for.
type target struct {
	service *registry.Service
	port    registry.Port
	rule    *mesh.DestinationRule
	subset  *networking.Subset // nil: the whole service
}

func (b *clusterBuilder) target(t target, naming func(host, subset string, port uint32) string) {
	c := ir.Cluster{
		Name:           naming(t.service.Host, t.subset.GetName(), t.port.Number),
		ConnectTimeout: b.connectTimeout(),
		Discovery:      b.discovery(t.service),
		PeerMetadata:   b.proxy.Has(peerExchangeExtension),
		Metadata:       targetMetadata(t),
	}
	c.StatName = cmp.Or(statName(b.mesh.MeshConfig.OutboundClusterStatName, t.service, t.port, t.subset.GetName()), c.Name) + ";"
	policy := policyFor(t.rule, t.subset, t.port.Number)
	b.version(&c, t.port, policy)
	b.applyPolicy(&c, t, policy)
	b.setDNS(&c, t.service)
	if c.Discovery == ir.StrictDNS || c.Discovery == ir.LogicalDNS {
		c.Assignment = b.assignment(c.Name, t, policy)
		if len(c.Assignment.Localities) == 0 {
			return // nothing to resolve; the name is answered as a missing cluster
		}
	}
	b.keep(c)
}

// discovery follows the service's resolution. A gateway sees no original
// destination, so it gets endpoints even where a sidecar would pass through.
func (b *clusterBuilder) discovery(s *registry.Service) ir.Discovery {
	switch s.Resolution {
	case registry.DNSLB:
		return ir.StrictDNS
	case registry.DNSRoundRobin:
		return ir.LogicalDNS
	case registry.DynamicDNS:
		return ir.DynamicForwardProxy
	case registry.Passthrough:
		if b.proxy.Type != mesh.Router {
			return ir.OriginalDestination
		}
	}
	return ir.EDS
}

func (b *clusterBuilder) setDNS(c *ir.Cluster, s *registry.Service) {
	switch c.Discovery {
	case ir.DynamicForwardProxy:
		c.DNS = new(forwardDNS(s, b.proxy))
	case ir.StrictDNS, ir.LogicalDNS:
		c.DNS = &ir.DNS{RefreshRate: b.mesh.MeshConfig.GetDnsRefreshRate().AsDuration(), Jitter: dnsJitter, RespectTTL: true, IPv6: hasIPv6(b.proxy)}
		if b.proxy.Has(caresExtension) {
			c.DNS.CaresQueries = caresQueries
		}
	}
}

// forwardDNS is how names are resolved of which clients name the one that they mean.
func forwardDNS(s *registry.Service, p *mesh.Proxy) ir.DNS {
	return ir.DNS{CacheName: s.Host + "_dfp_dns_cache", IPv6: hasIPv6(p)}
}

// hasIPv6 reports whether the proxy has an IPv6 address of its own.
func hasIPv6(p *mesh.Proxy) bool {
	for _, a := range p.Addresses {
		if strings.Contains(a, ":") {
			return true
		}
	}
	return false
}

func (b *clusterBuilder) connectTimeout() time.Duration {
	if t := b.mesh.MeshConfig.GetConnectTimeout().AsDuration(); t > 0 {
		return t
	}
	return defaultConnectTimeout
}

// targetMetadata says where an outbound cluster comes from. Only the cluster of
// the whole service is marked external, as in the original.
func targetMetadata(t target) ir.ClusterMetadata {
	m := ir.ClusterMetadata{External: t.service.MeshExternal && t.subset == nil, Subset: t.subset.GetName()}
	if t.service.Resolution != registry.DynamicDNS {
		m.Services = []ir.ServiceRef{serviceRef(t.service)}
	}
	if t.rule != nil {
		m.Config = originOf(t.rule.From[0], "").Path
	}
	return m
}

func serviceRef(s *registry.Service) ir.ServiceRef {
	return ir.ServiceRef{Host: s.Host, Name: s.Name, Namespace: s.Namespace}
}

// passthrough forwards to where the client wanted to go. Both directions use the
// same statistics.
func (b *clusterBuilder) passthrough(name string) ir.Cluster {
	idle := passthroughIdle
	c := ir.Cluster{
		Name:           name,
		StatName:       wellknown.PassthroughCluster + ";",
		Discovery:      ir.OriginalDestination,
		ConnectTimeout: b.connectTimeout(),
		LoadBalancer:   ir.LoadBalancer{Balancer: ir.ClusterProvided},
		Limits:         noLimits(),
		HTTP:           &ir.UpstreamHTTP{Version: ir.DownstreamChoice, IdleTimeout: &idle},
	}
	if name == wellknown.InboundPassthroughCluster {
		b.bind(&c)
	} else {
		c.PeerMetadata = b.proxy.Has(peerExchangeExtension)
	}
	b.keepalive(&c, nil)
	return c
}

func noLimits() *ir.Limits {
	return &ir.Limits{MaxConnections: math.MaxUint32, MaxPendingRequests: math.MaxUint32,
		MaxRequests: math.MaxUint32, MaxRetries: math.MaxUint32}
}

// statName fills in a pattern of MeshConfig; "" where there is none.
func statName(pattern string, s *registry.Service, port registry.Port, subset string) string {
	if pattern == "" {
		return ""
	}
	short := s.Host
	if !s.FromEntry {
		short = s.Name + "." + s.Namespace
	}
	return strings.NewReplacer(
		"%SERVICE%", short,
		"%SERVICE_FQDN%", s.Host,
		"%SERVICE_NAME%", s.Name,
		"%SERVICE_PORT%", strconv.Itoa(int(port.Number)),
		"%SERVICE_PORT_NAME%", port.Name,
		"%TARGET_PORT%", strconv.Itoa(int(port.TargetPort)),
		"%SUBSET_NAME%", subset,
	).Replace(pattern)
}

// autoPassthrough adds, for gateways that route by SNI alone, a cluster for each
// service under the name that such an SNI spells. What is inside the connection is
// not touched, so there is no TLS.
func (b *clusterBuilder) autoPassthrough() {
	for _, g := range b.scope.Gateways() {
		for _, server := range g.Spec.Servers {
			if server.GetTls().GetMode() != networking.ServerTLSSettings_AUTO_PASSTHROUGH {
				continue
			}
			for _, s := range b.scope.Services() {
				if !s.MeshExternal {
					b.outbound(s, sniCluster)
				}
			}
			return
		}
	}
}

// isSNICluster reports whether a cluster is one of autoPassthrough's.
func isSNICluster(name string) bool { return strings.HasPrefix(name, "outbound_.") }
