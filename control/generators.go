package control

import (
	"fmt"
	"runtime/debug"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/nametable"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A generator makes the resources of one type: those of the names that exist, or
// all where names is nil.
type generator struct {
	ads.Type
	resources func(v *view, names []string) ([]ads.Resource, error)
}

// generators is what proxies can ask for, in the order of delivery.
func generators() []generator {
	// VirtualServices decide on clusters too: those that a Sidecar imports bring in the
	// services that they route to.
	traffic := []config.Kind{
		config.VirtualService, config.DestinationRule, config.Sidecar, config.Gateway,
		config.Service, config.EndpointSlice, config.ServiceEntry, config.WorkloadEntry, config.Namespace, config.Pod, config.Node,
	}
	return []generator{
		{resourceType(wellknown.ClusterType, "CDS", traffic), clusters},
		{resourceType(wellknown.EndpointType, "EDS", traffic), endpoints},
		{resourceType(wellknown.ListenerType, "LDS", traffic), listeners},
		{resourceType(wellknown.RouteType, "RDS", traffic), routeTables},
		{resourceType(wellknown.SecretType, "SDS", []config.Kind{config.Secret, config.ConfigMap}), secrets},
		{resourceType(nametable.Type, "NDS", traffic), names},
	}
}

// resourceType describes a type; clusters, listeners and names are asked for as a whole.
func resourceType(url, name string, reads []config.Kind) ads.Type {
	whole := []string{wellknown.ClusterType, wellknown.ListenerType, nametable.Type}
	t := ads.Type{URL: url, Name: name, Wildcard: slices.Contains(whole, url)}
	for _, k := range reads {
		t.Reads = append(t.Reads, string(k))
	}
	return t
}

// types are the types alone, for the discovery service.
func types() []ads.Type {
	var all []ads.Type
	for _, g := range generators() {
		all = append(all, g.Type)
	}
	return all
}

// A view is the mesh as one proxy sees it. What several types have in common is
// made on first use.
type view struct {
	snapshot *mesh.Snapshot
	proxy    *mesh.Proxy
	scoped   *mesh.Scope
}

// view is the newest for a proxy. There is one from the first snapshot on, and
// proxies are served from then on.
func (s *Server) view(p *mesh.Proxy) ads.View {
	s.lookForProblems() // what the proxy asks for may not be there
	return &view{snapshot: s.snapshot.Load(), proxy: p}
}

func (v *view) Generation() uint64 { return v.snapshot.Generation }

func (v *view) scope() *mesh.Scope {
	if v.scoped == nil {
		v.scoped = v.snapshot.Scope(v.proxy)
	}
	return v.scoped
}

// Resources makes the resources of a type. A panic in there must cost one type of one
// proxy, not the mesh.
func (v *view) Resources(typeURL string, names []string) (list []ads.Resource, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	for _, g := range generators() {
		if g.URL == typeURL {
			return g.resources(v, names)
		}
	}
	return nil, nil
}

// among returns a test of whether a name is asked for.
func among(names []string) func(string) bool {
	if names == nil {
		return func(string) bool { return true }
	}
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[n] = true
	}
	return func(n string) bool { return set[n] }
}

func clusters(v *view, names []string) ([]ads.Resource, error) {
	var list []ads.Resource
	servers, wanted := resolversOf(v.proxy), among(names)
	for _, c := range compile.Clusters(v.snapshot, v.scope(), v.proxy) {
		if !wanted(c.Name) {
			continue
		}
		m := envoy.Cluster(c)
		if err := resolveWith(m, servers); err != nil {
			return nil, err
		}
		if err := add(&list, c.Name, m); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func endpoints(v *view, names []string) ([]ads.Resource, error) {
	var list []ads.Resource
	for _, n := range names {
		a := compile.Endpoints(v.snapshot, v.scope(), v.proxy, n)
		if a == nil {
			continue
		}
		if err := add(&list, n, envoy.Assignment(*a)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func listeners(v *view, names []string) ([]ads.Resource, error) {
	var list []ads.Resource
	published, wanted := publishingOf(v.proxy), among(names)
	for _, l := range compile.Listeners(v.snapshot, v.scope(), v.proxy) {
		if !wanted(l.Name) {
			continue
		}
		m := envoy.Listener(l)
		published.apply(m)
		if err := add(&list, l.Name, m); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func routeTables(v *view, names []string) ([]ads.Resource, error) {
	var list []ads.Resource
	for _, r := range compile.Routes(v.snapshot, v.scope(), v.proxy, names...) {
		if err := add(&list, r.Name, envoy.RouteConfiguration(*r)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// secrets that cannot be given are left out: the listener or cluster that needs one
// does not come into being, all others do. Status shows why.
func secrets(v *view, names []string) ([]ads.Resource, error) {
	var list []ads.Resource
	for _, n := range names {
		s, err := compile.Secret(v.snapshot, v.proxy, n)
		if err != nil {
			continue
		}
		if err := add(&list, n, envoy.Secret(*s)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// tableName is that of the one resource that holds a proxy's names.
const tableName = "names"

// names is the table of a sidecar's agent; nothing else is there to be had of the type.
func names(v *view, _ []string) ([]ads.Resource, error) {
	t := compile.Names(v.snapshot, v.scope(), v.proxy)
	if t == nil {
		return nil, nil
	}
	return []ads.Resource{ads.Encoded(tableName, nametable.Type, nametable.Marshal(t))}, nil
}

func add(list *[]ads.Resource, name string, m proto.Message) error {
	r, err := ads.NewResource(name, m)
	if err != nil {
		return err
	}
	*list = append(*list, r)
	return nil
}
