package compile

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/registry"
)

// keepForever is how long the inbound clusters keep an unused destination: there
// is one only, the workload itself. It is the largest number of whole seconds of
// a Go duration, less one, as the original's.
const keepForever = 9223372035 * time.Second

// bind has a sidecar connect to its workload from an address, so that the redirection
// lets the connection through. What the bootstrap says of sockets does not hold for a
// cluster with such a setting of its own, so the mark is said here too.
func (b *clusterBuilder) bind(c *ir.Cluster) {
	c.SourceAddress, c.SourceMark = "127.0.0.6", b.proxy.Mark
	if strings.Contains(b.proxy.Addresses[0], ":") {
		c.SourceAddress = "::6"
	}
}

// inbound adds one cluster for each port on which the proxy's workload serves:
// the Sidecar's ingress listeners, or else what the services say. Without traffic
// capture a workload is reached directly, unless the Sidecar has listeners.
func (b *clusterBuilder) inbound() {
	if ingress := b.scope.Sidecar().GetIngress(); len(ingress) > 0 {
		for _, listener := range ingress {
			b.keep(b.ingress(listener))
		}
		return
	}
	if b.proxy.InterceptionMode == "NONE" {
		return
	}
	byPort := map[uint32][]registry.Instance{}
	var ports []uint32
	for _, i := range b.scope.Instances() {
		if i.Port.Protocol == registry.UDP {
			continue
		}
		if byPort[i.Endpoint.Port] == nil {
			ports = append(ports, i.Endpoint.Port)
		}
		byPort[i.Endpoint.Port] = append(byPort[i.Endpoint.Port], i)
	}
	for _, port := range ports {
		b.keep(b.inboundCluster(port, byPort[port]))
	}
}

// inboundName is the name of the cluster that leads to the workload's own port.
func inboundName(port uint32) string { return fmt.Sprintf("inbound|%d||", port) }

// inboundCluster forwards to the workload's own port. The first service decides
// how; all are named in the metadata.
func (b *clusterBuilder) inboundCluster(port uint32, instances []registry.Instance) ir.Cluster {
	first := instances[0]
	c := b.inboundBase(port, first.Service, first.Port)
	c.Discovery = ir.OriginalDestination
	c.CleanupInterval = keepForever
	c.LoadBalancer.Balancer = ir.ClusterProvided
	b.bind(&c)
	seen := map[ir.ServiceRef]bool{}
	for _, i := range instances {
		if ref := serviceRef(i.Service); !seen[ref] {
			seen[ref] = true
			c.Metadata.Services = append(c.Metadata.Services, ref)
		}
	}
	rule := b.scope.DestinationRule(first.Service)
	if rule.Policy() != nil { // a rule of subsets only has no say here
		c.Metadata.Config = originOf(rule.From[0], "").Path
	}
	pool := policyFor(rule, nil, first.Port.Number).pool
	if own := b.scope.Sidecar().GetInboundConnectionPool(); own != nil {
		pool = own
	}
	b.version(&c, first.Port, policy{})
	b.applyPool(&c, pool, nil)
	return c
}

func (b *clusterBuilder) inboundBase(port uint32, s *registry.Service, p registry.Port) ir.Cluster {
	c := ir.Cluster{
		Name:           inboundName(port),
		ConnectTimeout: b.connectTimeout(),
		LoadBalancer:   ir.LoadBalancer{Common: true},
		Limits:         noLimits(),
	}
	stat := ""
	if s != nil {
		stat = statName(b.mesh.MeshConfig.InboundClusterStatName, s, p, "")
	}
	c.StatName = cmp.Or(stat, c.Name) + ";"
	return c
}

// ingress forwards a Sidecar's ingress listener to its default endpoint; without
// one to the workload's own address and the listener's port.
func (b *clusterBuilder) ingress(l *networking.IstioIngressListener) ir.Cluster {
	number := l.GetPort().GetNumber()
	port := registry.Port{Name: l.GetPort().GetName(), Number: number, Protocol: registry.ParseProtocol(l.GetPort().GetProtocol())}
	var service *registry.Service
	for _, i := range b.scope.Instances() {
		if i.Endpoint.Port == number {
			service, port.Number = i.Service, i.Port.Number
			break
		}
	}
	c := b.inboundBase(number, service, port)
	if service != nil {
		c.Metadata.Services = []ir.ServiceRef{serviceRef(service)}
	}
	b.version(&c, port, policy{})
	address, endpointPort := b.defaultEndpoint(l)
	if address == "" {
		c.Discovery, c.CleanupInterval = ir.OriginalDestination, keepForever
		c.LoadBalancer.Balancer = ir.ClusterProvided
	} else {
		c.Assignment = &ir.Assignment{Cluster: c.Name, Localities: []ir.LocalityEndpoints{
			{Endpoints: []ir.Endpoint{{Address: address, Port: endpointPort}}}}}
	}
	if address != "127.0.0.1" && address != "::1" {
		b.bind(&c)
	}
	pool := b.scope.Sidecar().GetInboundConnectionPool()
	if l.GetConnectionPool() != nil {
		pool = l.GetConnectionPool()
	}
	b.applyPool(&c, pool, nil)
	return c
}

// defaultEndpoint is where an ingress listener forwards to: "" for the address
// that the client called.
func (b *clusterBuilder) defaultEndpoint(l *networking.IstioIngressListener) (string, uint32) {
	endpoint := l.GetDefaultEndpoint()
	if path, ok := strings.CutPrefix(endpoint, "unix://"); ok {
		return path, 0
	}
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return "", 0
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", 0
	}
	switch host {
	case "0.0.0.0", "::":
		host = b.proxy.Addresses[0]
	}
	return host, uint32(n)
}
