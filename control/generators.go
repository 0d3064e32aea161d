package control

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
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
	secret    bool // not kept for other proxies
}

// routing stands for VirtualServices where no Sidecar is in force: they route then and decide
// on nothing else.
const routing config.Kind = "VirtualService without Sidecar"

// generators is what proxies can ask for, in the order of delivery.
func generators() []generator {
	// VirtualServices decide on clusters too: those that a Sidecar imports bring in the
	// services that they route to.
	traffic := []config.Kind{
		config.VirtualService, config.DestinationRule, config.Sidecar, config.Gateway,
		config.Service, config.EndpointSlice, config.ServiceEntry, config.WorkloadEntry, config.Namespace, config.Pod, config.Node,
	}
	patched := append(slices.Clone(traffic), config.EnvoyFilter)
	called := []config.Kind{config.PeerAuthentication} // whether TLS is spoken
	routed := append(slices.Clone(patched), routing)
	extended := []config.Kind{config.WasmPlugin, config.TrafficExtension}
	guarded := []config.Kind{config.AuthorizationPolicy, config.RequestAuthentication}
	return []generator{
		{resourceType(wellknown.ClusterType, "CDS", slices.Concat(patched, called)), clusters, false},
		{resourceType(wellknown.EndpointType, "EDS", slices.Concat(traffic, called)), endpoints, false},
		{resourceType(wellknown.ListenerType, "LDS", slices.Concat(routed, extended, called, guarded)), listeners, false},
		{resourceType(wellknown.RouteType, "RDS", routed), routeTables, false},
		{resourceType(wellknown.VirtualHostType, "VHDS", routed), virtualHosts, false},
		{resourceType(wellknown.SecretType, "SDS", []config.Kind{config.Secret, config.ConfigMap, readersKind}), secrets, true},
		{resourceType(wellknown.ExtensionType, "ECDS", append(extended, config.EnvoyFilter)), extensions, false},
		{resourceType(nametable.Type, "NDS", traffic), names, false},
		{resourceType(wellknown.ProxyConfigType, "PCDS", []config.Kind{trustKind}), trusted, false},
	}
}

// resourceType describes a type; clusters, listeners and names are asked for as a whole.
func resourceType(url, name string, reads []config.Kind) ads.Type {
	whole := []string{wellknown.ClusterType, wellknown.ListenerType, nametable.Type, wellknown.ProxyConfigType}
	t := ads.Type{URL: url, Name: name, Wildcard: slices.Contains(whole, url)}
	for _, k := range reads {
		t.Reads = append(t.Reads, string(k))
	}
	if url == wellknown.EndpointType {
		t.Subject = compile.ClusterHost
	}
	t.Nested = url == wellknown.VirtualHostType
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
	proxy    *mesh.Proxy // one that stands for it and its like
	likeness compile.Likeness
	sharing  *sharing           // nil: what is made is for this view alone
	scope    func() *mesh.Scope // made once
	flaws    *patchFlaws        // nil: nobody asks
	barred   *barredParts       // nil: none
	readers  *readers           // nil: nobody is asked
	patched  *envoy.Patches     // those that were used last
	tables   madeTables
}

// view is the newest for a proxy. There is one from the first snapshot on, and
// proxies are served from then on.
func (s *Server) view(p *mesh.Proxy) ads.View {
	s.lookForProblems() // what the proxy asks for may not be there
	v := newView(s.snapshot.Load(), p, &s.sharing)
	v.flaws, v.barred, v.readers = &s.flaws, &s.barred, s.readers
	return v
}

// viewAlone is the newest for a proxy that nobody else is like: what is made is not kept.
func (s *Server) viewAlone(p *mesh.Proxy) ads.View {
	v := newView(s.snapshot.Load(), p, nil)
	v.barred = &s.barred
	return v
}

func newView(snapshot *mesh.Snapshot, p *mesh.Proxy, sharing *sharing) *view {
	v := &view{snapshot: snapshot, sharing: sharing, scope: sync.OnceValue(func() *mesh.Scope { return snapshot.Scope(p) })}
	v.proxy, v.likeness = compile.Like(snapshot, p)
	return v
}

func (v *view) Generation() uint64 { return v.snapshot.Generation }

// Key is what the mesh knows of the proxy, that of its workload too.
func (v *view) Key() string { return string(v.likeness[:]) }

// Resources makes the resources of a type. A panic in there must cost one type of one
// proxy, not the mesh.
func (v *view) Resources(typeURL string, names []string) (list []ads.Resource, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	if v.proxy.IsGRPC() {
		return grpcResources(v, typeURL, names)
	}
	for _, g := range generators() {
		if g.URL != typeURL {
			continue
		}
		if v.sharing != nil && !g.secret {
			if c := v.sharing.cohort(v); c != nil {
				return c.resources(v, g, names)
			}
		}
		return g.resources(v, names)
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
	var made []*clusterpb.Cluster
	servers, wanted := resolversOf(v.proxy), among(names)
	for _, c := range compile.Clusters(v.snapshot, v.scope(), v.proxy) {
		if wanted(c.Name) {
			made = append(made, envoy.Cluster(c))
		}
	}
	var list []ads.Resource
	patches := v.patches()
	for _, m := range patches.Clusters(made) {
		if !wanted(m.Name) {
			continue
		}
		if err := resolveWith(m, servers); err != nil {
			return nil, err
		}
		if err := add(&list, m.Name, m); err != nil {
			return nil, err
		}
	}
	v.tell(patches, wellknown.ClusterType, "")
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
	var made []*listenerpb.Listener
	for _, l := range compile.Listeners(v.snapshot, v.scope(), v.proxy) {
		if kept := v.barred.chains(v.snapshot, v.likeness, l); kept != nil {
			made = append(made, envoy.Listener(*kept))
		}
	}
	var list []ads.Resource
	published, wanted, patches := publishingOf(v.proxy), among(names), v.patches()
	for _, m := range patches.Listeners(made) {
		if !wanted(m.Name) {
			continue
		}
		published.apply(m)
		if err := add(&list, m.Name, m); err != nil {
			return nil, err
		}
	}
	v.tell(patches, wellknown.ListenerType, "")
	return list, nil
}

// extensions are settings of filters that listeners ask for by name; WasmPlugins,
// TrafficExtensions and EnvoyFilters bring them.
func extensions(v *view, names []string) ([]ads.Resource, error) {
	var list []ads.Resource
	for _, m := range compile.Modules(v.snapshot, v.proxy, names) {
		if err := add(&list, m.Name, envoy.Module(m)); err != nil {
			return nil, err
		}
	}
	patches := v.patches()
	for _, x := range patches.Extensions(among(names)) {
		if err := add(&list, x.Name, x); err != nil {
			return nil, err
		}
	}
	v.tell(patches, wellknown.ExtensionType, "")
	return list, nil
}

// secrets that cannot be given are left out: the listener or cluster that needs one
// does not come into being, all others do. Status shows why.
func secrets(v *view, names []string) ([]ads.Resource, error) {
	var list []ads.Resource
	for _, n := range names {
		s, err := secretFor(v.snapshot, v.proxy, n)
		if err != nil {
			if v.readers != nil && errors.Is(err, errUnread) {
				v.readers.want(readerOf(v.proxy))
			}
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
