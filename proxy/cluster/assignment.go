package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// An assignment is a compiled ClusterLoadAssignment.
type assignment struct {
	members          []member
	weights          map[lb.LocalityKey]uint32
	overProvisioning uint32
	weightedHealth   bool
	staleAfter       time.Duration // 0: never
	drop             uint32        // of a million requests
}

// A member is one lb_endpoint. For DNS clusters host and port are still to be resolved.
type member struct {
	host     string // address or name, "" for a pipe
	port     uint16
	pipe     string
	hostname string
	more     []string // further addresses, "ip:port"
	weight   uint32
	locality map[string]map[string]any // metadata of the locality
	key      lb.LocalityKey
	metadata map[string]map[string]any
	check    checkConfig
	health   uint32 // flags of endpoint.Unhealthy that EDS sets
}

// address is what an endpoint at ip is dialled and logged by.
func (m *member) address(ip string) string {
	if m.pipe != "" {
		return "unix:" + m.pipe
	}
	return net.JoinHostPort(ip, strconv.Itoa(int(m.port)))
}

// maxPriority bounds priorities as Envoy's proto does.
const maxPriority = 128

func (cfg *config) decodeEndpoints(c *clusterv3.Cluster) error {
	if cfg.kind != static && cfg.kind != strictDNS && cfg.kind != logicalDNS {
		if c.GetLoadAssignment() != nil {
			return fmt.Errorf("load_assignment: not allowed in a cluster of type %s", typeName(c))
		}
		return nil
	}
	a, err := decodeAssignment(c.GetLoadAssignment(), cfg.kind == static)
	if err != nil {
		return at("load_assignment", err)
	}
	if cfg.kind == logicalDNS && len(a.members) != 1 {
		return errors.New("load_assignment: LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint")
	}
	cfg.assignment = a
	return nil
}

// decodeAssignment compiles a; literal demands IP addresses.
func decodeAssignment(a *endpointv3.ClusterLoadAssignment, literal bool) (*assignment, error) {
	if err := xds.Only(a, "cluster_name", "endpoints", "policy"); err != nil {
		return nil, err
	}
	p := a.GetPolicy()
	if err := xds.Only(p, "overprovisioning_factor", "endpoint_stale_after", "weighted_priority_health", "drop_overloads"); err != nil {
		return nil, at("policy", err)
	}
	out := &assignment{overProvisioning: p.GetOverprovisioningFactor().GetValue(), weightedHealth: p.GetWeightedPriorityHealth(),
		staleAfter: p.GetEndpointStaleAfter().AsDuration()}
	if err := out.decodeDrops(p.GetDropOverloads()); err != nil {
		return nil, at("policy.drop_overloads", err)
	}
	for i, group := range a.GetEndpoints() {
		if err := out.addGroup(group, literal); err != nil {
			return nil, at(fmt.Sprintf("endpoints[%d]", i), err)
		}
	}
	return out, nil
}

func (a *assignment) addGroup(g *endpointv3.LocalityLbEndpoints, literal bool) error {
	if err := xds.Only(g, "locality", "lb_endpoints", "load_balancing_weight", "priority", "metadata"); err != nil {
		return err
	}
	if g.GetPriority() > maxPriority {
		return fmt.Errorf("priority: must be at most %d, got %d", maxPriority, g.GetPriority())
	}
	l := g.GetLocality()
	key := lb.LocalityKey{Priority: g.GetPriority(), Locality: endpoint.Locality{Region: l.GetRegion(), Zone: l.GetZone(), SubZone: l.GetSubZone()}}
	if a.weights == nil {
		a.weights = map[lb.LocalityKey]uint32{}
	}
	a.weights[key] = g.GetLoadBalancingWeight().GetValue()
	metadata := filterMetadata(g.GetMetadata())
	for i, e := range g.GetLbEndpoints() {
		m, err := decodeMember(e, literal)
		if err != nil {
			return at(fmt.Sprintf("lb_endpoints[%d]", i), err)
		}
		m.key, m.locality = key, metadata
		a.members = append(a.members, m)
	}
	return nil
}

func decodeMember(e *endpointv3.LbEndpoint, literal bool) (member, error) {
	if err := xds.Only(e, "endpoint", "health_status", "metadata", "load_balancing_weight"); err != nil {
		return member{}, err
	}
	if err := xds.Only(e.GetEndpoint(), "address", "hostname", "health_check_config", "additional_addresses"); err != nil {
		return member{}, at("endpoint", err)
	}
	m := member{hostname: e.GetEndpoint().GetHostname(), weight: 1, health: healthFlags(e.GetHealthStatus())}
	var err error
	if m.check, err = decodeCheck(e.GetEndpoint().GetHealthCheckConfig()); err != nil {
		return m, at("endpoint.health_check_config", err)
	}
	if w := e.GetLoadBalancingWeight(); w != nil {
		if m.weight = w.GetValue(); m.weight == 0 {
			return m, errors.New("load_balancing_weight: value must be at least 1")
		}
	}
	m.metadata = filterMetadata(e.GetMetadata())
	if err := m.decodeAddress(e.GetEndpoint().GetAddress(), literal); err != nil {
		return m, at("endpoint.address", err)
	}
	for i, more := range e.GetEndpoint().GetAdditionalAddresses() {
		var other member
		if err := other.decodeAddress(more.GetAddress(), true); err != nil || other.pipe != "" {
			return m, at(fmt.Sprintf("endpoint.additional_addresses[%d].address", i), cmp.Or(err, errors.New("must be an IP address")))
		}
		m.more = append(m.more, other.address(other.host))
	}
	return m, nil
}

// filterMetadata is filter_metadata as JSON-like values, nil when empty.
func filterMetadata(m *corev3.Metadata) map[string]map[string]any {
	f := m.GetFilterMetadata()
	if len(f) == 0 {
		return nil
	}
	out := make(map[string]map[string]any, len(f))
	for k, v := range f {
		out[k] = v.AsMap()
	}
	return out
}

func (m *member) decodeAddress(a *corev3.Address, literal bool) error {
	switch t := a.GetAddress().(type) {
	case *corev3.Address_Pipe:
		m.pipe = t.Pipe.GetPath()
		return xds.Only(t.Pipe, "path")
	case *corev3.Address_SocketAddress:
		s := t.SocketAddress
		if err := xds.Only(s, "address", "port_value", "protocol", "ipv4_compat"); err != nil {
			return err
		}
		if s.GetProtocol() != corev3.SocketAddress_TCP {
			return fmt.Errorf("protocol: %s is not supported", s.GetProtocol())
		}
		if s.GetPortValue() > 65535 {
			return fmt.Errorf("port_value: must be at most 65535, got %d", s.GetPortValue())
		}
		m.host, m.port = s.GetAddress(), uint16(s.GetPortValue())
		if ip, err := netip.ParseAddr(m.host); err == nil {
			m.host = ip.Unmap().String()
		} else if literal {
			return fmt.Errorf("malformed IP address: %s. Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'", m.host)
		}
		if !literal && m.hostname == "" { // what auto_host_rewrite uses
			m.hostname = m.host
		}
		return nil
	case nil:
		return errors.New("value is required")
	}
	return errors.New("envoy_internal_address: not supported")
}

func healthFlags(s corev3.HealthStatus) uint32 {
	switch s {
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_TIMEOUT:
		return endpoint.FailedEDSHealth
	case corev3.HealthStatus_DRAINING:
		return endpoint.Draining
	case corev3.HealthStatus_DEGRADED:
		return endpoint.Degraded
	}
	return 0
}

// edsHealth are the flags that a new assignment decides.
const edsHealth = endpoint.FailedEDSHealth | endpoint.Draining | endpoint.Degraded

// endpointType is the xDS type of assignments.
var endpointType = xds.Type[*assignment]{URL: wellknown.EndpointType, Decode: decodeEDS}

func decodeEDS(_ string, body *anypb.Any) (*assignment, error) {
	var a endpointv3.ClusterLoadAssignment
	if err := proto.Unmarshal(body.GetValue(), &a); err != nil {
		return nil, err
	}
	return decodeAssignment(&a, true)
}
