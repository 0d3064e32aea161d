package relay

import (
	"maps"
	"slices"
	"strings"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/lateen-mesh/lateen/wellknown"
)

// A kind is one resource type that is subscribed to.
type kind struct {
	url      string
	all      bool              // subscribed without names: everything that there is for the node
	names    map[string]bool   // subscribed by name
	held     map[string]string // versions by name, of what was accepted
	opened   int               // the epoch of the link on which it is subscribed
	anew     bool              // subscribed there without versions: what the journal has is out of date
	answered bool              // something was delivered
}

func newKind(url string) *kind {
	return &kind{url: url, all: true, names: map[string]bool{}, held: map[string]string{}}
}

// change takes a subscription's change in; first is the first request for the type on a stream.
func (k *kind) change(m *discoverypb.DeltaDiscoveryRequest, first bool) {
	if first {
		k.all = len(m.GetResourceNamesSubscribe()) == 0
		maps.Copy(k.held, m.GetInitialResourceVersions())
	}
	for _, name := range m.GetResourceNamesSubscribe() {
		if k.names[name] && !first { // the proxy has forgotten it and wants it again
			maps.DeleteFunc(k.held, func(n, _ string) bool { return k.means(name, n) })
		}
		k.names[name] = true
	}
	for _, name := range m.GetResourceNamesUnsubscribe() {
		delete(k.names, name)
		maps.DeleteFunc(k.held, func(n, _ string) bool { return k.means(name, n) && !k.wants(n) })
		if name == "*" {
			k.all = false
		}
	}
}

// means reports whether a name asks for a resource: for that of the name and, of virtual hosts,
// for all whose names begin with it and "/".
func (k *kind) means(name, resource string) bool {
	below, ok := strings.CutPrefix(resource, name)
	return ok && (below == "" || k.url == wellknown.VirtualHostType && below[0] == '/')
}

// wants reports whether a resource is part of the subscription.
func (k *kind) wants(name string) bool {
	if k.url == wellknown.VirtualHostType {
		if above, _, ok := strings.Cut(name, "/"); ok && k.names[above] {
			return true
		}
	}
	return k.all || k.names["*"] || k.names[name]
}

// opening is the request that subscribes to the whole anew.
func (k *kind) opening() *discoverypb.DeltaDiscoveryRequest {
	m := &discoverypb.DeltaDiscoveryRequest{TypeUrl: k.url, ResourceNamesSubscribe: slices.Sorted(maps.Keys(k.names)), InitialResourceVersions: maps.Clone(k.held)}
	if k.all && len(k.names) > 0 && !k.names["*"] {
		m.ResourceNamesSubscribe = append([]string{"*"}, m.ResourceNamesSubscribe...)
	}
	return m
}

// accept notes what the proxy has taken.
func (k *kind) accept(m *discoverypb.DeltaDiscoveryResponse) {
	for _, res := range m.GetResources() {
		k.held[res.GetName()] = res.GetVersion()
	}
	for _, name := range m.GetRemovedResources() {
		delete(k.held, name)
	}
}
