package mesh

import (
	"cmp"
	"strings"

	"google.golang.org/protobuf/proto"
	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/registry"
)

// MeshGateway is the name by which a VirtualService binds to sidecars.
const MeshGateway = "mesh"

// Options are the facts of a mesh that no object holds.
type Options struct {
	MeshConfig *meshconfig.MeshConfig // nil: Istio's defaults
	Domain     string                 // DNS domain of the cluster; "" is cluster.local
	ClusterID  string                 // "" is Kubernetes
	Networks   *meshconfig.MeshNetworks
	Leaving    []registry.Departure // workloads that get no traffic any more
	// TraceSampling is the share of requests, in percent, that are traced where MeshConfig
	// does not say it; nil is 1.
	TraceSampling *float64
	// ScopeGateways has Gateways select proxies of their own namespace only.
	ScopeGateways bool
	// As in Snapshot.
	SeveralAuthorizers bool
	RemoteKeys         RemoteKeys
	Identities         bool // as in Snapshot
	Origination        Origination
}

// index is what Build derives from the objects.
type index struct {
	old       *Snapshot // while the index is made: one that parts can be taken from, or nil
	domain    string
	gateways  []*Gateway
	scoped    bool // Gateways are for their own namespace
	virtual   []*VirtualService
	resolved  map[*config.Config]*VirtualService
	bound     map[string][]*VirtualService // by gateway "ns/name" or "mesh"
	rules     map[string]*ruleSet          // DestinationRules by namespace
	sidecars  map[string][]*config.Config  // by namespace, in conflict order
	delegates map[string]*VirtualService   // by "ns/name"

	duplicateSubsets int

	networks map[string][]NetworkGateway // by the name of the network that they lead into

	extensions   []*Extension              // in the order of filters
	envoyFilters map[string][]*EnvoyFilter // by namespace, in the order of application
	patchKeys    map[string]bool           // metadata by which EnvoyFilters select proxies

	authorization  map[string][]*AuthorizationPolicy   // by namespace, oldest first
	authentication map[string][]*RequestAuthentication // the same

	peers map[string]*authentications // PeerAuthentications by namespace
}

// A Gateway is a Gateway object with its typed body.
type Gateway struct {
	*config.Config
	Spec *networking.Gateway
}

// FullName is "namespace/name", as VirtualServices name the gateway.
func (g *Gateway) FullName() string { return g.Namespace + "/" + g.Name }

// Build makes the snapshot of a set of objects.
func Build(set *config.Set, opts Options) *Snapshot { return Next(nil, set, opts) }

// Next is Build after an older snapshot, whose parts are used again where what they are made
// from stays. old may be nil.
func Next(old *Snapshot, set *config.Set, opts Options) *Snapshot {
	if old == nil {
		old = &Snapshot{}
	}
	s := build(old, set, opts)
	s.index.old = nil // or all snapshots would stay
	return s
}

func build(old *Snapshot, set *config.Set, opts Options) *Snapshot {
	mc := opts.MeshConfig
	if mc == nil {
		mc = config.DefaultMeshConfig()
	}
	network, blocks := networksOf(set, cmp.Or(mc.RootNamespace, config.DefaultRootNamespace), cmp.Or(opts.ClusterID, "Kubernetes"), opts.Networks)
	s := &Snapshot{
		Generation: set.Generation(),
		Config:     set,
		MeshConfig: mc,

		MeshNetworks:  opts.Networks,
		TraceSampling: 1,

		SeveralAuthorizers: opts.SeveralAuthorizers,
		RemoteKeys:         opts.RemoteKeys,

		Identities:  opts.Identities,
		Origination: opts.Origination,
		Registry: registry.Next(old.Registry, set, registry.Options{
			Domain:          opts.Domain,
			ClusterID:       opts.ClusterID,
			TrustDomain:     mc.TrustDomain,
			ServiceExportTo: mc.DefaultServiceExportTo,
			Network:         network,
			Blocks:          blocks,
			Leaving:         opts.Leaving,
		}),
	}
	if opts.TraceSampling != nil {
		s.TraceSampling = *opts.TraceSampling
	}
	s.index.domain = cmp.Or(opts.Domain, "cluster.local")
	if old.index.domain == s.index.domain && proto.Equal(old.MeshConfig, mc) {
		s.index.old = old
	}
	s.index.scoped = opts.ScopeGateways
	s.indexGateways()
	s.indexVirtualServices()
	s.indexDestinationRules()
	s.indexSidecars()
	s.indexEnvoyFilters()
	s.indexNetworks()
	s.indexExtensions()
	s.indexPolicies()
	s.indexPeerAuthentications()
	return s
}

// RootNamespace is the namespace whose objects apply to the whole mesh.
func (s *Snapshot) RootNamespace() string {
	return cmp.Or(s.MeshConfig.RootNamespace, config.DefaultRootNamespace)
}

// LocalityOf is where a proxy runs: what it says itself, else where its Pod does.
func (s *Snapshot) LocalityOf(p *Proxy) registry.Locality {
	if p.Locality == (registry.Locality{}) {
		if w := s.Registry.WorkloadAt(p.Addresses); w != nil {
			return w.Locality
		}
	}
	return p.Locality
}

func (s *Snapshot) indexGateways() {
	for _, c := range s.Config.List(config.Gateway) {
		s.index.gateways = append(s.index.gateways, &Gateway{Config: c, Spec: c.Spec.(*networking.Gateway)})
	}
}

func (s *Snapshot) indexSidecars() {
	s.index.sidecars = map[string][]*config.Config{}
	for _, c := range s.Config.List(config.Sidecar) {
		s.index.sidecars[c.Namespace] = append(s.index.sidecars[c.Namespace], c)
	}
}

// FQDN resolves a host as objects write it: a name without a dot is a Service of
// the object's own namespace.
func (s *Snapshot) FQDN(host, namespace string) string {
	host = strings.ToLower(host)
	if host == "" || strings.ContainsAny(host, ".*/:") {
		return host
	}
	return host + "." + namespace + ".svc." + s.index.domain
}

// visible reports whether an object of namespace owner that exports to the given
// namespaces (empty: by default) is seen from namespace from.
func visible(exportTo, byDefault []string, owner, from string) bool {
	if len(exportTo) == 0 {
		exportTo = byDefault
	}
	for _, e := range exportTo {
		switch {
		case e == "*", e == from, e == "." && owner == from:
			return true
		}
	}
	return len(exportTo) == 0
}

// Selects reports whether every label of the selector is among the labels.
func Selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}
