// Package mesh holds the Snapshot: the whole mesh at one generation, indexed and
// immutable; the Proxy, a connected data plane; and the Scope, what one proxy sees.
package mesh

import (
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/registry"
)

// A Snapshot is the mesh at one generation. It is built by Build, shared by all
// readers and never changed.
type Snapshot struct {
	Generation uint64
	Config     *config.Set
	Registry   *registry.Registry
	MeshConfig *meshconfig.MeshConfig
	// MeshNetworks is nil where all workloads reach one another.
	MeshNetworks *meshconfig.MeshNetworks
	// TraceSampling is in percent of requests.
	TraceSampling float64
	// SeveralAuthorizers lets policies of action CUSTOM of one workload name several providers.
	SeveralAuthorizers bool
	// RemoteKeys says who fetches the keys that tokens are checked with.
	RemoteKeys RemoteKeys
	Keys       Keys    // that the control plane has fetched; set before anybody has the Snapshot
	Trust      Trust   // set before anybody has the Snapshot, too
	Readers    Readers // likewise; nil where nobody is asked who may read Secrets
	// Identities says that somebody issues certificates to workloads. Where nobody does, no
	// proxy is told to take or to speak mutual TLS of the mesh by itself: it would wait for a
	// certificate without end, and what it serves would not open.
	Identities  bool
	Origination Origination

	index index
}

// A Reader is a service account, as of Proxy.Account, that wants keys of Secrets of a namespace.
type Reader struct{ Account, Namespace string }

// Readers says of those that have asked why they may not have them, "" if they may. A
// Reader that is missing is about to be looked up.
type Readers map[Reader]string

// Origination is how TLS to servers outside of the mesh is made where a DestinationRule
// of mode SIMPLE or MUTUAL leaves it open. The zero value is what is safe: the server's certificate
// is checked against the system's authorities and the name in each request, which is the SNI, too.
type Origination struct {
	Unverified bool // no certificate is checked where the rule names no authorities
	NoAutoSNI  bool // there is no SNI but the rule's, and no name is checked but the rule's
}

// A ProxyType is the role of a proxy, the first part of its node id.
type ProxyType string

// The roles of a proxy.
const (
	SidecarProxy ProxyType = "sidecar"
	Router       ProxyType = "router"
)

// A Proxy is one connected data plane, read from the node of its first
// discovery request (id "type~ip~name.namespace~domain" and metadata).
type Proxy struct {
	ID               string
	Type             ProxyType
	Addresses        []string // INSTANCE_IPS, first the one of the node id
	Name             string
	Namespace        string
	Domain           string // "default.svc.cluster.local"
	Labels           map[string]string
	ServiceAccount   string
	WorkloadName     string
	ClusterID        string
	Network          string
	Locality         registry.Locality
	IstioVersion     string
	InterceptionMode string // REDIRECT, TPROXY, NONE
	DNSCapture       bool
	Mark             uint32 // by which the packets of its sockets are known, 0 for none
	// Extensions are the node's extension names; empty when the node lists none,
	// which is taken as the original's proxy (all istio filters present).
	Extensions map[string]bool
	// HostsApart has virtual hosts sent as resources of their own (VHDS). The stream decides
	// on it, so that who looks at configuration has whole route tables.
	HostsApart bool
	// Anonymous is a proxy that claims to be what it is, on a connection that proves nothing: it
	// gets no secrets.
	Anonymous bool
	// Account is the service account that the credentials of its connection prove, as Kubernetes
	// names it: system:serviceaccount:NAMESPACE:NAME; "" where there are none.
	Account string
	// Metadata is the raw node metadata as decoded JSON.
	Metadata map[string]any
}

// Has reports whether the proxy can load the named extension: true also where
// the proxy lists none (DESIGN "Foreign Envoys").
func (p *Proxy) Has(extension string) bool {
	return len(p.Extensions) == 0 || p.Extensions[extension]
}

// Identified reports whether a proxy has a certificate of the mesh: somebody issues them, and
// an agent hands them to the proxy.
func (s *Snapshot) Identified(p *Proxy) bool { return s.Identities && p.HasAgent() }
