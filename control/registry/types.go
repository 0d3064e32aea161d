// Package registry knows the services of the mesh and their endpoints, from
// Kubernetes Services with EndpointSlices and Pods and from ServiceEntries with
// WorkloadEntries and Pods. A Registry is built whole from a config.Set and is immutable.
//
// An EndpointSlice says which addresses serve a Service and in what state they are; the
// Pod of an address says who serves there (labels, service account, place). A Service's
// sessionAffinity is for traffic that no proxy sees and has no part in this.
package registry

import (
	"time"

	"github.com/lateen-mesh/lateen/control/config"
)

// A Protocol is what a service port speaks, by port name, appProtocol or
// ServiceEntry protocol.
type Protocol string

// The protocols that decide how a port is proxied.
const (
	HTTP        Protocol = "HTTP"
	HTTP2       Protocol = "HTTP2"
	GRPC        Protocol = "GRPC"
	GRPCWeb     Protocol = "GRPC-Web"
	HTTPS       Protocol = "HTTPS"
	TLS         Protocol = "TLS"
	TCP         Protocol = "TCP"
	UDP         Protocol = "UDP"
	Mongo       Protocol = "Mongo"
	Redis       Protocol = "Redis"
	MySQL       Protocol = "MySQL"
	Unsupported Protocol = "UnsupportedProtocol" // undeclared: detected on the connection
)

// IsHTTP reports whether requests on the port can be routed by HTTP rules.
func (p Protocol) IsHTTP() bool { return p == HTTP || p == HTTP2 || p == GRPC || p == GRPCWeb }

// IsHTTP2 reports whether the upstream is spoken to in HTTP/2.
func (p Protocol) IsHTTP2() bool { return p == HTTP2 || p == GRPC || p == GRPCWeb }

// IsTLS reports whether connections are routed by SNI.
func (p Protocol) IsTLS() bool { return p == TLS || p == HTTPS }

// A Resolution says how a service's endpoints become addresses.
type Resolution uint8

// The resolutions of a service.
const (
	ClientSideLB  Resolution = iota // endpoints by EDS (Kubernetes Services, ServiceEntry STATIC)
	DNSLB                           // STRICT_DNS (ServiceEntry DNS)
	DNSRoundRobin                   // LOGICAL_DNS (ServiceEntry DNS_ROUND_ROBIN)
	Passthrough                     // ORIGINAL_DST (ServiceEntry NONE, headless Services)
	DynamicDNS                      // ServiceEntry DYNAMIC_DNS
)

// A Port is one port of a Service.
type Port struct {
	Name       string
	Number     uint32 // what clients connect to
	TargetPort uint32 // what endpoints listen on, 0 where each endpoint says it
	Protocol   Protocol
}

// A Service is one host name with ports.
type Service struct {
	Host      string // fully qualified
	Name      string // metadata.name of the Kubernetes Service; the host for a ServiceEntry
	Namespace string
	Ports     []Port
	Addresses []string // virtual IPs or CIDRs
	// ExternalAddresses are where a Service is reached from outside of the cluster: of its
	// load balancer, and its externalIPs.
	ExternalAddresses []string
	AutoAddress       string   // address allocated to a ServiceEntry host without addresses, "" if none
	Aliases           []string // hosts of ExternalName Services that name this host
	Resolution        Resolution
	MeshExternal      bool
	Headless          bool
	FromEntry         bool // defined by a ServiceEntry
	ExportTo          []string
	Labels            map[string]string
	Selector          map[string]string
	CreationTime      time.Time
	SANs              []string // ServiceEntry.subjectAltNames
	Origin            *config.Config
}

// Port returns the port with the given number, nil if there is none.
func (s *Service) Port(number uint32) *Port {
	for i := range s.Ports {
		if s.Ports[i].Number == number {
			return &s.Ports[i]
		}
	}
	return nil
}

// A Locality is where an endpoint runs.
type Locality struct{ Region, Zone, SubZone string }

// An Endpoint is one address that serves one port of a service.
type Endpoint struct {
	Address        string // IP, host name (DNS resolutions) or unix:///path
	Port           uint32
	PortName       string // service port name that it serves
	Labels         map[string]string
	Weight         uint32
	Locality       Locality
	Network        string
	Cluster        string
	Namespace      string
	WorkloadName   string
	Hostname       string // of a Pod that has a name of its own below its headless Service, "" otherwise
	ServiceAccount string // SPIFFE identity or ""
	TLSMode        string // "istio", "disabled"; tunnelling mode of a workload's proxy
	Unhealthy      bool   // must not get traffic
	Draining       bool   // Unhealthy, and still serving those it knows
	Ending         bool   // Unhealthy only since its workload is about to end: better than none
}

// A Workload is one Pod that has an address.
type Workload struct {
	Name           string // of the Pod
	Namespace      string
	Addresses      []string
	Labels         map[string]string
	ServiceAccount string // name, not identity
	Owner          string // name of the Deployment, StatefulSet, … that the Pod is of, else its own
	Locality       Locality
	Network        string
	TLSMode        string // as in Endpoint
	Ready          bool
	Leaving        bool // its proxy is about to end
	Terminating    bool // it is to end
	HostNetwork    bool // its addresses are those of its node
}
