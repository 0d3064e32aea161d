package registry

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/lateen-mesh/lateen/control/config"
)

// Options are the facts about this mesh that services and endpoints carry.
type Options struct {
	Domain      string // DNS domain of Kubernetes Services; "" is cluster.local
	ClusterID   string // name of this cluster in endpoints; "" is Kubernetes
	TrustDomain string // trust domain of service accounts; "" is cluster.local
	// ServiceExportTo is what services export to that do not say it themselves
	// (MeshConfig.defaultServiceExportTo); empty is everybody.
	ServiceExportTo []string
	// Network is that of all workloads that do not name theirs; where it is "", Blocks say it by
	// their addresses, the first that has one.
	Network string
	Blocks  []Block
	// Leaving are workloads that get no traffic any more, whatever else is said of them:
	// their endpoints are Unhealthy.
	Leaving []Departure
}

// A Block is the addresses of a network.
type Block struct {
	Prefix  netip.Prefix
	Network string
}

// A Departure is a workload that is about to end.
type Departure struct {
	Name, Namespace string   // of its Pod, if it has one
	Addresses       []string // of its own
}

// has reports whether the departure is of a Pod.
func (d Departure) has(w *Workload) bool {
	return d.Name == w.Name && d.Namespace == w.Namespace && slices.ContainsFunc(w.Addresses, func(a string) bool { return slices.Contains(d.Addresses, a) })
}

func (o Options) withDefaults() Options {
	o.Domain = cmp.Or(o.Domain, "cluster.local")
	o.ClusterID = cmp.Or(o.ClusterID, "Kubernetes")
	o.TrustDomain = cmp.Or(o.TrustDomain, "cluster.local")
	if len(o.ServiceExportTo) == 0 {
		o.ServiceExportTo = []string{"*"}
	}
	return o
}

// A Registry is every service and endpoint at one generation. It is immutable and
// safe for any number of readers.
type Registry struct {
	services  []*Service
	byHost    map[string][]*Service    // in conflict order
	endpoints map[*Service][]*Endpoint // of all ports
	byAddress map[string]int           // place of an address's first among served
	served    []served

	set     *config.Set // what it was made from
	opts    Options
	pieces  map[*config.Config]*piece
	sources map[*Service]*Service // those of pieces, by their copies

	workloads  []*Workload
	workloadAt map[string]*Workload
}

// An Instance is an endpoint together with what it serves.
type Instance struct {
	Service  *Service
	Port     Port
	Endpoint *Endpoint
}

// A served is an endpoint with its service, and the place of the next one of the same
// address, -1 after the last.
type served struct {
	service  *Service
	endpoint *Endpoint
	next     int
}

// A piece is what one object brings. It is taken over into the next Registry while
// everything that it was made from stays. Its services are copied before use.
type piece struct {
	services  []*Service
	endpoints [][]*Endpoint
	slices    []*config.Config // EndpointSlices that it was made from
}

func (p *piece) add(s *Service, endpoints []*Endpoint) {
	p.services, p.endpoints = append(p.services, s), append(p.endpoints, slices.Clip(endpoints))
}

// Build makes the registry of a set of objects. Objects that cannot be used have
// been refused on decoding; what is still contradictory (a host without any port)
// yields a service that nothing is sent to.
func Build(set *config.Set, opts Options) *Registry { return Next(nil, set, opts) }

// Next is Build after an older registry, whose parts are used again where their objects
// stay. old may be nil.
func Next(old *Registry, set *config.Set, opts Options) *Registry {
	b := builder{set: set, opts: opts.withDefaults(), endpoints: map[*Service][]*Endpoint{}, pieces: map[*config.Config]*piece{}, sources: map[*Service]*Service{}}
	if old != nil && b.stands(old) {
		b.old = old.pieces
	}
	b.indexWorkloads()
	b.indexDepartures()
	b.kubernetes()
	b.entries()
	return b.registry()
}

// Services returns all services in conflict order: older first, then by
// "name.namespace", then by host. The caller must not change the slice.
func (r *Registry) Services() []*Service { return r.services }

// Hosts returns every service that has the host name, one a namespace; a Kubernetes
// Service first, then the oldest. The caller must not change the slice.
func (r *Registry) Hosts(host string) []*Service { return r.byHost[host] }

// Endpoints returns the endpoints of one port of a service, in a stable order.
// Endpoints that must not get traffic any more are marked, not left out.
func (r *Registry) Endpoints(s *Service, port Port) []*Endpoint {
	var list []*Endpoint
	for _, e := range r.endpoints[s] {
		if e.PortName == port.Name {
			list = append(list, e)
		}
	}
	return list
}

// Instances returns what the workload at any of the addresses serves, in the
// order of services.
func (r *Registry) Instances(addresses []string) []Instance {
	var list []Instance
	for _, a := range addresses {
		place, ok := r.byAddress[a]
		for ok && place >= 0 {
			at := r.served[place]
			for _, p := range at.service.Ports {
				if p.Name == at.endpoint.PortName {
					list = append(list, Instance{Service: at.service, Port: p, Endpoint: at.endpoint})
				}
			}
			place = at.next
		}
	}
	return list
}

// builder collects services and endpoints while a Registry is made.
type builder struct {
	set       *config.Set
	opts      Options
	services  []*Service
	aliases   map[string]string // ExternalName host → target
	endpoints map[*Service][]*Endpoint
	old       map[*config.Config]*piece // those that may be used again
	pieces    map[*config.Config]*piece
	sources   map[*Service]*Service
	byLabel   map[labelKey][]*config.Config // WorkloadEntries; nil until one is looked for

	gone       map[string]bool // addresses of workloads that leave and are no Pods
	pods       []*Workload
	podsIn     map[string][]*Workload // by namespace
	workloads  map[string]*Workload   // pods by "namespace/name"
	localities map[string]Locality    // of Nodes
}

// stands reports whether what every piece may be made from is the same as for an older
// registry: what is left is a piece's own object and its EndpointSlices.
func (b *builder) stands(old *Registry) bool {
	for _, k := range []config.Kind{config.Pod, config.Node, config.Namespace, config.WorkloadEntry} {
		if !slices.Equal(old.set.List(k), b.set.List(k)) {
			return false
		}
	}
	return reflect.DeepEqual(old.opts, b.opts)
}

// piece is that of an object: the older one, or what make adds.
func (b *builder) piece(c *config.Config, endpointSlices []*config.Config, make func(*piece)) {
	p := b.old[c]
	if p == nil || !slices.Equal(p.slices, endpointSlices) {
		p = &piece{slices: endpointSlices}
		make(p)
	}
	b.pieces[c] = p
	for i, s := range p.services {
		own := *s
		b.sources[&own] = s
		b.services = append(b.services, &own)
		b.endpoints[&own] = p.endpoints[i]
	}
}

// serviceOrder is the order in which services claim hosts, ports and addresses.
func serviceOrder(x, y *Service) int {
	return cmp.Or(
		x.CreationTime.Compare(y.CreationTime),
		cmp.Compare(x.Name+"."+x.Namespace, y.Name+"."+y.Namespace),
		cmp.Compare(x.Host, y.Host),
	)
}

func (b *builder) registry() *Registry {
	slices.SortStableFunc(b.services, serviceOrder)
	r := &Registry{byHost: make(map[string][]*Service, len(b.services)), set: b.set, opts: b.opts, pieces: b.pieces, sources: b.sources}
	r.endpoints, r.services = b.merge()
	b.alias(r.services)
	allocateAddresses(r.services)
	r.indexWorkloads(b.pods)
	for _, s := range r.services {
		r.byHost[s.Host] = append(r.byHost[s.Host], s)
	}
	r.indexAddresses()
	for _, list := range r.byHost {
		slices.SortStableFunc(list, func(x, y *Service) int { return rank(x) - rank(y) })
	}
	return r
}

// rank puts Kubernetes Services before ServiceEntries of the same host.
func rank(s *Service) int {
	if s.FromEntry {
		return 1
	}
	return 0
}

// merge joins services of one host and namespace: a Kubernetes Service keeps its
// addresses and takes the endpoints of a ServiceEntry; of two ServiceEntries the
// first keeps its ports and addresses and takes ports that only the second has.
func (b *builder) merge() (map[*Service][]*Endpoint, []*Service) {
	type key struct{ host, namespace string }
	first := map[key]*Service{}
	for _, s := range b.services {
		k := key{s.Host, s.Namespace}
		if f := first[k]; f == nil || rank(s) < rank(f) {
			first[k] = s
		}
	}
	kept := make([]*Service, 0, len(first))
	endpoints := make(map[*Service][]*Endpoint, len(first))
	for _, s := range b.services {
		f := first[key{s.Host, s.Namespace}]
		if f == s {
			kept = append(kept, s)
		} else {
			f.Ports = unitePorts(slices.Clip(f.Ports), s.Ports, f.FromEntry)
		}
		if have := endpoints[f]; len(have) == 0 {
			endpoints[f] = b.endpoints[s]
		} else {
			endpoints[f] = append(have, b.endpoints[s]...)
		}
	}
	return endpoints, kept
}

func unitePorts(have, more []Port, grow bool) []Port {
	if !grow {
		return have
	}
	for _, p := range more {
		if !slices.ContainsFunc(have, func(h Port) bool { return h.Number == p.Number || h.Name == p.Name }) {
			have = append(have, p)
		}
	}
	return have
}

// maxAliases is how many ExternalName Services may lead to one another; it bounds
// circles.
const maxAliases = 16

// alias hands the hosts of ExternalName Services to the service that they name, also
// by way of others.
func (b *builder) alias(services []*Service) {
	byHost := map[string]*Service{}
	for _, s := range services {
		if byHost[s.Host] == nil {
			byHost[s.Host] = s
		}
	}
	for _, host := range slices.Sorted(maps.Keys(b.aliases)) {
		target := b.aliases[host]
		for range maxAliases {
			next, ok := b.aliases[target]
			if !ok {
				break
			}
			target = next
		}
		if s := byHost[target]; s != nil {
			s.Aliases = append(s.Aliases, host)
		}
	}
}

// indexAddresses chains what is served at each address, from the last on, so that the
// chains are in the order of services.
func (r *Registry) indexAddresses() {
	total := 0
	for _, list := range r.endpoints {
		total += len(list)
	}
	r.byAddress, r.served = make(map[string]int, total), make([]served, 0, total)
	for _, s := range slices.Backward(r.services) {
		for _, e := range slices.Backward(r.endpoints[s]) {
			next, ok := r.byAddress[e.Address]
			if !ok {
				next = -1
			}
			r.byAddress[e.Address] = len(r.served)
			r.served = append(r.served, served{s, e, next})
		}
	}
}
