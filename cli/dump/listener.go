package dump

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcppb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/wellknown"
)

// A ListenerFilter chooses listeners; what is empty chooses all.
type ListenerFilter struct {
	Address string
	Port    int
	Type    string // HTTP, TCP, HTTP+TCP or UNKNOWN
}

// Listeners are the listeners in force, by port. With brief a listener is one row with
// its type, else there is a row for each of its filter chains.
func (d *Dump) Listeners(f ListenerFilter, brief bool) (*List, error) {
	if d.listeners == nil {
		return nil, errLacks("listeners")
	}
	var bodies []*anypb.Any
	for _, l := range d.listeners.GetDynamicListeners() {
		bodies = append(bodies, l.GetActiveState().GetListener())
	}
	for _, l := range d.listeners.GetStaticListeners() {
		bodies = append(bodies, l.GetListener())
	}
	all, err := unpack[*listenerpb.Listener]("listeners", bodies)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(l *listenerpb.Listener) bool { return !f.picks(l) })
	slices.SortStableFunc(all, func(a, b *listenerpb.Listener) int {
		return cmp.Or(cmp.Compare(portOf(a.GetAddress()), portOf(b.GetAddress())), cmp.Compare(addressesOf(a), addressesOf(b)), cmp.Compare(typeOfListener(a), typeOfListener(b)))
	})
	list := &List{kind: "listener", padding: 1, header: []string{"ADDRESSES", "PORT", "MATCH", "DESTINATION"}}
	if brief {
		list.header = []string{"ADDRESSES", "PORT", "TYPE"}
	}
	for _, l := range all {
		list.addListener(l, brief)
	}
	return list, nil
}

func (list *List) addListener(l *listenerpb.Listener, brief bool) {
	list.messages = append(list.messages, l)
	place := []string{addressesOf(l), strconv.Itoa(portOf(l.GetAddress()))}
	var ways [][]string
	if brief {
		ways = [][]string{{typeOfListener(l)}}
	} else {
		for _, chain := range chains(l) {
			ways = append(ways, []string{chainMatch(chain.GetFilterChainMatch()), destination(chain)})
		}
		slices.SortStableFunc(ways, func(a, b []string) int { return cmp.Compare(b[1], a[1]) })
	}
	for _, way := range ways {
		list.names = append(list.names, l.GetName())
		list.rows = append(list.rows, slices.Concat(place, way))
	}
}

func (f ListenerFilter) picks(l *listenerpb.Listener) bool {
	return (f.Type == "" || strings.EqualFold(f.Type, typeOfListener(l))) &&
		slices.ContainsFunc(places(l), func(a *corepb.Address) bool {
			return (f.Address == "" || strings.EqualFold(f.Address, hostOf(a))) && (f.Port == 0 || f.Port == portOf(a))
		})
}

// places are all addresses of a listener, of which an internal one has none.
func places(l *listenerpb.Listener) []*corepb.Address {
	all := []*corepb.Address{l.GetAddress()}
	for _, more := range l.GetAdditionalAddresses() {
		all = append(all, more.GetAddress())
	}
	return all
}

func addressesOf(l *listenerpb.Listener) string {
	var all []string
	for _, a := range places(l) {
		all = append(all, hostOf(a))
	}
	return strings.Join(all, ",")
}

func hostOf(a *corepb.Address) string {
	if path := a.GetPipe().GetPath(); path != "" {
		return "unix://" + path
	}
	return a.GetSocketAddress().GetAddress()
}

func portOf(a *corepb.Address) int { return int(a.GetSocketAddress().GetPortValue()) }

func chains(l *listenerpb.Listener) []*listenerpb.FilterChain {
	all := slices.Clone(l.GetFilterChains())
	if last := l.GetDefaultFilterChain(); last != nil {
		all = append(all, last)
	}
	return all
}

// typeOfListener is what the filter chains speak, as --type has it.
func typeOfListener(l *listenerpb.Listener) string {
	var http, tcp bool
	for _, chain := range chains(l) {
		switch manager, proxy := lastFilter(chain); {
		case manager != nil:
			http = true
		case proxy != nil:
			tcp = true
		}
	}
	switch {
	case http && tcp:
		return "HTTP+TCP"
	case http:
		return "HTTP"
	case tcp:
		return "TCP"
	}
	return "UNKNOWN"
}

// lastFilter is what a chain ends in: HTTP or TCP, or neither of both. The black hole has no
// endpoints: a chain that leads there serves nothing.
func lastFilter(chain *listenerpb.FilterChain) (*hcmpb.HttpConnectionManager, *tcppb.TcpProxy) {
	for _, f := range chain.GetFilters() {
		manager, proxy := &hcmpb.HttpConnectionManager{}, &tcppb.TcpProxy{}
		switch body := f.GetTypedConfig(); {
		case body.MessageIs(manager) && body.UnmarshalTo(manager) == nil:
			return manager, nil
		case body.MessageIs(proxy) && body.UnmarshalTo(proxy) == nil && proxy.GetCluster() != wellknown.BlackHoleCluster:
			return nil, proxy
		}
	}
	return nil, nil
}

// protocolNames stand for lists of protocols that occur again and again.
var protocolNames = map[string]string{
	"http/1.0,http/1.1,h2c":     "HTTP",
	"istio-peer-exchange,istio": "TCP TLS",
}

// chainMatch is what a filter chain is chosen by.
func chainMatch(m *listenerpb.FilterChainMatch) string {
	var all []string
	if names := m.GetServerNames(); len(names) > 0 {
		all = append(all, "SNI: "+strings.Join(names, ","))
	}
	if t := m.GetTransportProtocol(); t != "" {
		all = append(all, "Trans: "+t)
	}
	if protocols := strings.Join(m.GetApplicationProtocols(), ","); protocols != "" {
		all = append(all, "App: "+cmp.Or(protocolNames[protocols], protocols))
	}
	if a := addressMatch(m); a != "" {
		all = append(all, "Addr: "+a)
	}
	if len(all) == 0 {
		return "ALL"
	}
	return strings.Join(all, "; ")
}

func addressMatch(m *listenerpb.FilterChainMatch) string {
	port := ""
	if p := m.GetDestinationPort(); p != nil {
		port = fmt.Sprintf(":%d", p.GetValue())
	}
	var all []string
	for _, r := range m.GetPrefixRanges() {
		address, n := r.GetAddressPrefix(), r.GetPrefixLen().GetValue()
		whole := n == 32 && !strings.Contains(address, ":") || n == 128
		switch {
		case !whole:
			address = fmt.Sprintf("%s/%d", address, n)
		case port != "" && strings.Contains(address, ":"):
			address = "[" + address + "]"
		}
		all = append(all, address+port)
	}
	if len(all) == 0 && port != "" {
		return "*" + port
	}
	return strings.Join(all, ",")
}

// destination is where a filter chain leads.
func destination(chain *listenerpb.FilterChain) string {
	manager, proxy := lastFilter(chain)
	switch {
	case manager.GetRds() != nil:
		return "Route: " + manager.GetRds().GetRouteConfigName()
	case manager.GetRouteConfig() != nil:
		return inlineRoute(manager.GetRouteConfig())
	case manager.GetScopedRoutes() != nil:
		return "Scoped Route: " + manager.GetScopedRoutes().GetName()
	case manager != nil:
		return "HTTP"
	case len(proxy.GetWeightedClusters().GetClusters()) > 0:
		var all []string
		for _, c := range proxy.GetWeightedClusters().GetClusters() {
			all = append(all, c.GetName())
		}
		return "Cluster: " + strings.Join(all, ",")
	case proxy != nil:
		return clusterText(proxy.GetCluster())
	}
	return "Non-HTTP/Non-TCP"
}

// inlineRoute is the cluster where all requests go to the same, else what is matched.
func inlineRoute(r *routepb.RouteConfiguration) string {
	var matches []string
	var only string
	for _, host := range r.GetVirtualHosts() {
		for _, route := range host.GetRoutes() {
			matches = append(matches, pathMatch(route.GetMatch()))
			only = route.GetRoute().GetCluster()
		}
	}
	if len(matches) == 1 && matches[0] == "/*" && only != "" {
		return clusterText(only)
	}
	return "Inline Route: " + strings.Join(slices.Compact(matches), ", ")
}

// clusterText: clusters of the mesh itself are known by their names.
func clusterText(name string) string {
	if strings.Contains(name, "Cluster") && !strings.Contains(name, "|") {
		return name
	}
	return "Cluster: " + name
}
