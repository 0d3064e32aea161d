package envoy

import (
	"errors"
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Types of filters that end their chain.
const (
	managerType  = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	tcpProxyType = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
	routerType   = "envoy.extensions.filters.http.router.v3.Router"
)

// Listeners returns a proxy's listeners patched. The list and what is in it belong to the
// Patches from then on.
func (p *Patches) Listeners(list []*listenerv3.Listener) []*listenerv3.Listener {
	if !p.any(ir.PatchListener, ir.PatchListenerFilter, ir.PatchFilterChain, ir.PatchNetworkFilter, ir.PatchHTTPFilter,
		ir.PatchRoutes, ir.PatchVirtualHost, ir.PatchRoute) {
		return list
	}
	return patchedList(p, ir.PatchListener, "listener", list, p.listener)
}

// listener patches a listener and what is in it; nil if it is removed, or all of its
// chains are: none would be refused.
func (p *Patches) listener(l *listenerv3.Listener) *listenerv3.Listener {
	c := p.context(l.TrafficDirection == corev3.TrafficDirection_INBOUND)
	for _, pt := range p.all[ir.PatchListener] {
		switch {
		case !pt.in(c) || !pt.selectsListener(l):
		case pt.Operation == ir.PatchRemove:
			return nil
		case pt.merges():
			l = merged(p, pt, l, l.Name)
		}
	}
	for _, pt := range p.all[ir.PatchListenerFilter] {
		if pt.in(c) && pt.selectsListener(l) {
			l.ListenerFilters = edited(p, pt, l.ListenerFilters, listenerFilters(pt, l.Name))
		}
	}
	some := len(l.FilterChains) > 0 || l.DefaultFilterChain != nil
	l.FilterChains = slices.DeleteFunc(l.FilterChains, func(fc *listenerv3.FilterChain) bool { return !p.chain(c, l, fc) })
	if l.DefaultFilterChain != nil && !p.chain(c, l, l.DefaultFilterChain) {
		l.DefaultFilterChain = nil
	}
	p.addChains(c, l)
	if some && len(l.FilterChains) == 0 && l.DefaultFilterChain == nil {
		return nil
	}
	return l
}

// addChains adds filter chains to a listener. Two chains that match the same would be
// refused with the whole listener.
func (p *Patches) addChains(c ir.PatchContext, l *listenerv3.Listener) {
	for _, pt := range p.all[ir.PatchFilterChain] {
		if pt.Operation != ir.PatchAdd || !pt.in(c) || !pt.selectsListener(l) {
			continue
		}
		added := clone[*listenerv3.FilterChain](pt)
		same := slices.IndexFunc(l.FilterChains, func(fc *listenerv3.FilterChain) bool { return sameMatch(fc, added) })
		if same >= 0 {
			p.flaw(pt, l.Name, fmt.Errorf("patch.value.filter_chain_match: the chain %q matches the same", l.FilterChains[same].Name))
			continue
		}
		p.touch(pt, l.Name)
		l.FilterChains = append(l.FilterChains, added)
	}
}

// sameMatch reports whether two chains match the same; no match is an empty one.
func sameMatch(a, b *listenerv3.FilterChain) bool {
	full := func(fc *listenerv3.FilterChain) *listenerv3.FilterChainMatch {
		if fc.FilterChainMatch == nil {
			return &listenerv3.FilterChainMatch{}
		}
		return fc.FilterChainMatch
	}
	return proto.Equal(full(a), full(b))
}

func listenerFilters(pt *patch, resource string) selection[*listenerv3.ListenerFilter] {
	name := ""
	if pt.Listener != nil {
		name = pt.Listener.Filter
	}
	return selection[*listenerv3.ListenerFilter]{
		specific: name != "",
		selects: func(f *listenerv3.ListenerFilter) bool {
			return name == "" || sameFilter(ir.PatchListenerFilter, f.Name, name)
		},
		resource: resource,
	}
}

// chain patches a filter chain in place; false if it is removed.
func (p *Patches) chain(c ir.PatchContext, l *listenerv3.Listener, fc *listenerv3.FilterChain) bool {
	for _, pt := range p.all[ir.PatchFilterChain] {
		switch {
		case !pt.in(c) || !pt.selectsChain(l, fc):
		case pt.Operation == ir.PatchRemove:
			p.touch(pt, l.Name)
			return false
		case pt.merges():
			become(fc, merged(p, pt, fc, l.Name))
		}
	}
	for _, pt := range p.all[ir.PatchNetworkFilter] {
		if pt.in(c) && pt.selectsChain(l, fc) {
			fc.Filters = edited(p, pt, fc.Filters, networkFilters(pt, l.Name))
		}
	}
	for _, f := range fc.Filters {
		if typeOf(f) == managerType {
			p.manager(c, l, fc, f)
		}
	}
	return true
}

func networkFilters(pt *patch, resource string) selection[*listenerv3.Filter] {
	name, specific := pt.networkFilter()
	ends := func(f *listenerv3.Filter) bool { t := typeOf(f); return t == managerType || t == tcpProxyType }
	return selection[*listenerv3.Filter]{
		specific: specific,
		selects: func(f *listenerv3.Filter) bool {
			return !specific || sameFilter(ir.PatchNetworkFilter, f.Name, name)
		},
		end:      func(list []*listenerv3.Filter) int { return beforeLast(list, ends) },
		must:     func(list []*listenerv3.Filter) bool { return endsLast(list, ends) },
		resource: resource,
	}
}

// beforeLast is where a filter is added: at the end, but before the one that ends the
// chain.
func beforeLast[M any](list []M, ends func(M) bool) int {
	if n := len(list); n > 0 && ends(list[n-1]) {
		return n - 1
	}
	return len(list)
}

// endsLast reports whether nothing stands behind a filter that ends the chain.
func endsLast[M any](list []M, ends func(M) bool) bool {
	at := slices.IndexFunc(list, ends)
	return at < 0 || at == len(list)-1
}

// manager patches the HTTP side of a chain: the routes that it holds itself, and its
// filters.
func (p *Patches) manager(c ir.PatchContext, l *listenerv3.Listener, fc *listenerv3.FilterChain, f *listenerv3.Filter) {
	var patches []*patch
	for _, pt := range p.all[ir.PatchHTTPFilter] {
		name, specific := pt.networkFilter()
		if pt.in(c) && pt.selectsChain(l, fc) && (!specific || sameFilter(ir.PatchNetworkFilter, f.Name, name)) {
			patches = append(patches, pt)
		}
	}
	if len(patches) == 0 && !p.any(ir.PatchRoutes, ir.PatchVirtualHost, ir.PatchRoute) {
		return
	}
	m := &hcmv3.HttpConnectionManager{}
	if f.GetTypedConfig().UnmarshalTo(m) != nil {
		return // a patch has put it there, and what it put there has been read
	}
	if m.GetRouteConfig() != nil {
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: p.table(c, m.GetRouteConfig(), l.Name)}
	}
	m.HttpFilters = p.httpFilters(patches, m.HttpFilters, l.Name)
	f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: typed(m)}
}

// httpFilters patches the HTTP filters of a chain. Without one that ends it, it would be
// refused with the whole listener: who takes that away, and leaves no other, has no effect.
func (p *Patches) httpFilters(patches []*patch, list []*hcmv3.HttpFilter, resource string) []*hcmv3.HttpFilter {
	ended := func(list []*hcmv3.HttpFilter) bool {
		return slices.ContainsFunc(list, func(f *hcmv3.HttpFilter) bool { return typeOf(f) == routerType })
	}
	out := list
	for _, pt := range patches {
		out = edited(p, pt, out, chosenHTTPFilters(pt, resource))
	}
	if ended(out) || !ended(list) {
		return out
	}
	out = list
	for _, pt := range patches {
		after := edited(p, pt, out, chosenHTTPFilters(pt, resource))
		if ended(out) && !ended(after) {
			p.flaw(pt, resource, errors.New("a chain without its last filter is refused"))
			continue
		}
		out = after
	}
	return out
}

func chosenHTTPFilters(pt *patch, resource string) selection[*hcmv3.HttpFilter] {
	var sub ir.FilterSelector
	if _, ok := pt.networkFilter(); ok {
		sub = *pt.Listener.Chain.Filter
	}
	ends := func(f *hcmv3.HttpFilter) bool { return typeOf(f) == routerType }
	return selection[*hcmv3.HttpFilter]{
		specific: sub.HTTP,
		selects: func(f *hcmv3.HttpFilter) bool {
			return !sub.HTTP || sameFilter(ir.PatchHTTPFilter, f.Name, sub.HTTPFilter)
		},
		end:      func(list []*hcmv3.HttpFilter) int { return place(list, pt.Class, ends) },
		must:     func(list []*hcmv3.HttpFilter) bool { return endsLast(list, ends) },
		resource: resource,
	}
}

// place is where an HTTP filter of a class is added: behind those of the mesh that do
// what the class is named for, and before those that come after them in every chain.
func place(list []*hcmv3.HttpFilter, class ir.PatchClass, ends func(*hcmv3.HttpFilter) bool) int {
	var after, before []string
	switch class {
	case ir.PatchAuthn:
		after, before = []string{"envoy.filters.http.jwt_authn", "istio_authn"}, []string{"envoy.filters.http.rbac", metricsFilter}
	case ir.PatchAuthz:
		after, before = []string{"envoy.filters.http.rbac", "envoy.filters.http.jwt_authn", "istio_authn"}, []string{metricsFilter}
	case ir.PatchStats:
		before = []string{metricsFilter}
	}
	for _, name := range after {
		for i, f := range slices.Backward(list) {
			if f.Name == name {
				return i + 1
			}
		}
	}
	for _, name := range before {
		if i := slices.IndexFunc(list, func(f *hcmv3.HttpFilter) bool { return f.Name == name }); i >= 0 {
			return i
		}
	}
	return beforeLast(list, ends)
}

// networkFilter is the filter that a patch names, and whether it names one.
func (pt *patch) networkFilter() (string, bool) {
	if pt.Listener == nil || pt.Listener.Chain == nil || pt.Listener.Chain.Filter == nil {
		return "", false
	}
	return pt.Listener.Chain.Filter.Name, true
}

// holdsAll reports whether a listener takes the connections to many ports, which are told
// apart by its chains.
func holdsAll(l *listenerv3.Listener) bool {
	return l.Name == "virtualInbound" || l.Name == "virtualOutbound"
}

func (pt *patch) selectsListener(l *listenerv3.Listener) bool {
	s := pt.Listener
	if s == nil {
		return true
	}
	if s.Name != "" && s.Name != l.Name {
		return false
	}
	if s.Port == 0 || pt.Target != ir.PatchListener && holdsAll(l) {
		return true
	}
	return l.GetAddress().GetSocketAddress().GetPortValue() == s.Port
}

func (pt *patch) selectsChain(l *listenerv3.Listener, fc *listenerv3.FilterChain) bool {
	if !pt.selectsListener(l) {
		return false
	}
	if pt.Listener == nil {
		return true
	}
	m := fc.GetFilterChainMatch()
	port := m.GetDestinationPort().GetValue()
	if holdsAll(l) && pt.Listener.Port != 0 && port != pt.Listener.Port {
		return false
	}
	s := pt.Listener.Chain
	if s == nil {
		return true
	}
	for _, protocol := range s.ApplicationProtocols {
		if !slices.Contains(m.GetApplicationProtocols(), protocol) {
			return false
		}
	}
	return (s.Name == "" || s.Name == fc.Name) &&
		(s.ServerName == "" || slices.Contains(m.GetServerNames(), s.ServerName)) &&
		(s.TransportProtocol == "" || s.TransportProtocol == m.GetTransportProtocol()) &&
		(s.DestinationPort == 0 || s.DestinationPort == port)
}

// Extensions returns the extension configurations that patches add, by name: those of
// the given names.
func (p *Patches) Extensions(wanted func(name string) bool) []*corev3.TypedExtensionConfig {
	if !p.any(ir.PatchExtension) {
		return nil
	}
	var out []*corev3.TypedExtensionConfig
	for _, pt := range p.all[ir.PatchExtension] {
		if !pt.in(p.context(true)) && !pt.in(p.context(false)) {
			continue
		}
		x := clone[*corev3.TypedExtensionConfig](pt)
		at := slices.IndexFunc(out, func(o *corev3.TypedExtensionConfig) bool { return o.Name == x.Name })
		switch {
		case !wanted(x.Name):
		case pt.merges() && at >= 0:
			out[at] = merged(p, pt, out[at], x.Name)
		case pt.merges():
		case at >= 0:
			p.flaw(pt, x.Name, fmt.Errorf("patch.value.name: there is an extension %s already", x.Name))
		default:
			p.touch(pt, x.Name)
			out = append(out, x)
		}
	}
	return out
}
