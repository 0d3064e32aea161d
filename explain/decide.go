package explain

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/proxy"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Listeners of sidecars that take all connections, by the names that both halves know.
const (
	virtualOutbound = "virtualOutbound"
	virtualInbound  = "virtualInbound"
)

// A BadRequest is a Request that cannot be sent, and what to write instead.
type BadRequest struct {
	Err  error
	Hint string
}

// Error says what is wrong.
func (e *BadRequest) Error() string { return e.Err.Error() }

// Unwrap is the error beneath.
func (e *BadRequest) Unwrap() error { return e.Err }

// wire is a request taken apart.
type wire struct {
	url    *url.URL
	host   string // of the URL, without the port
	port   uint16
	tls    bool
	method string
	target string
	fields []http.Field
}

func (r *Request) parse() (*wire, error) {
	text := r.URL
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, &BadRequest{fmt.Errorf("%q is no URL", r.URL), "for example http://reviews:9080/reviews/0"}
	}
	if u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "tcp" {
		return nil, &BadRequest{fmt.Errorf("%q: scheme %q is not http, https or tcp", r.URL, u.Scheme), "for example http://reviews:9080/reviews/0"}
	}
	w := &wire{url: u, host: u.Hostname(), port: 80, tls: u.Scheme == "https", method: strings.ToUpper(r.Method), target: u.RequestURI()}
	if w.tls {
		w.port = 443
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return nil, &BadRequest{fmt.Errorf("%q: port %s", r.URL, p), "a port is a number from 1 to 65535"}
		}
		w.port = uint16(n)
	}
	if u.Scheme == "tcp" {
		w.method = ""
		return w, nil
	}
	authority := u.Host
	for _, h := range r.Headers {
		name, value, ok := strings.Cut(h, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || name == "" || strings.ContainsAny(name+value, "\r\n") {
			return nil, &BadRequest{fmt.Errorf("header %q", h), `headers are "Name: value"`}
		}
		if strings.EqualFold(name, "host") {
			authority = value
			continue
		}
		w.fields = append(w.fields, http.Field{Name: []byte(name), Value: []byte(value)})
	}
	w.fields = append([]http.Field{{Name: []byte("host"), Value: []byte(authority)}}, w.fields...)
	return w, nil
}

// Explain says what becomes of a request that a program beside the proxy of from makes, or
// that somebody outside sends to it where it is a gateway; and, where it goes to a workload
// of the mesh, what that workload's proxy makes of it. Errors are a *BadRequest, of the
// context or of Ask; that the second proxy cannot be asked is a note.
func (m *Mesh) Explain(ctx context.Context, from *Workload, r Request) (*Explanation, error) {
	w, err := r.parse()
	if err != nil {
		return nil, err
	}
	x := &Explanation{From: from.String(), Method: w.method, URL: r.URL}
	s, err := m.side(ctx, from)
	if err != nil {
		return nil, err
	}
	defer s.model.Close()
	hop, q, err := m.first(s, w, r.Address)
	if err != nil {
		return nil, err
	}
	next := m.ask(s, hop, q)
	x.Hops = append(x.Hops, *hop)
	if to := m.at(next); to != nil && to.labels[tlsMode] == "istio" && !to.Gateway {
		inbound, err := m.inbound(ctx, from, to, next, w, tunnelled(s, hop, next))
		if err != nil {
			x.Hops[0].Notes = append(x.Hops[0].Notes, fmt.Sprintf("what %s makes of it is not known: %v", to, err))
		}
		if inbound != nil {
			x.Hops = append(x.Hops, *inbound)
		}
	}
	x.Verdict = verdict(x.Hops)
	return x, nil
}

// first finds out how the connection reaches the first proxy.
func (m *Mesh) first(s *side, w *wire, address string) (*Hop, proxy.Question, error) {
	hop := &Hop{Proxy: s.w.String(), Direction: "outbound"}
	q := w.question()
	q.From = netip.AddrPortFrom(addr(s.w.addresses[0]), 40000)
	if s.w.Gateway {
		hop.Direction = "gateway"
		port, because, err := m.gatewayPort(s, w.port)
		if err != nil {
			return nil, q, err
		}
		q.Socket = netip.AddrPortFrom(netip.IPv4Unspecified(), port)
		q.From = netip.MustParseAddrPort("203.0.113.1:40000")
		hop.Destination, hop.Because = netip.AddrPortFrom(addr(s.w.addresses[0]), port).String(), because
		return hop, q, nil
	}
	to, because, err := m.resolve(s, w.host, address)
	if err != nil {
		return nil, q, err
	}
	q.To = netip.AddrPortFrom(to, w.port)
	q.Socket = s.socket(virtualOutbound, q.To)
	hop.Destination, hop.Because = q.To.String(), because
	return hop, q, nil
}

// question is the part of the question that the request itself decides.
func (w *wire) question() proxy.Question {
	q := proxy.Question{Method: w.method, Target: w.target, Fields: w.fields}
	if w.tls {
		q.TLS, q.ServerName, q.Protocols = true, w.host, []string{"h2", "http/1.1"}
	} else if w.method != "" {
		q.HTTP = "http/1.1"
	}
	return q
}

func addr(text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.IPv4Unspecified()
	}
	return a.Unmap()
}

// socket is where a sidecar takes connections: on the listener of that name, or where the
// client wants to go when there is none.
func (s *side) socket(name string, to netip.AddrPort) netip.AddrPort {
	for _, l := range s.resources.Listeners {
		if a := l.GetAddress().GetSocketAddress(); l.GetName() == name && a != nil {
			return netip.AddrPortFrom(addr(a.GetAddress()), uint16(a.GetPortValue()))
		}
	}
	return to
}

// beyond is an address of nobody (RFC 5737), which stands for those that only DNS knows.
const beyond = "198.51.100.1"

// resolve finds the address of a host as the agent of a pod would.
func (m *Mesh) resolve(s *side, host, given string) (netip.Addr, string, error) {
	if given != "" {
		a, err := netip.ParseAddr(given)
		if err != nil {
			return a, "", &BadRequest{fmt.Errorf("address %q: %w", given, err), "for example 192.0.2.1"}
		}
		return a.Unmap(), "as asked", nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap(), "", nil
	}
	table := compile.Names(m.snapshot, m.snapshot.Scope(s.proxy), s.proxy)
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	names := []string{host, host + "." + s.w.Namespace + ".svc." + domain, host + ".svc." + domain, host + "." + domain}
	if _, rest, ok := strings.Cut(host, "."); ok {
		names = append(names, "*."+rest)
	}
	for _, name := range names {
		if n, ok := table[name]; ok && len(n.Addresses) > 0 {
			return addr(n.Addresses[0]), name, nil
		}
	}
	return addr(beyond), "a name that the mesh does not know the address of: any that DNS gives", nil
}

// gatewayPort is where a gateway listens for what its Service, or the machine, has on a port.
func (m *Mesh) gatewayPort(s *side, port uint16) (uint16, string, error) {
	var open []uint16
	for _, l := range s.resources.Listeners {
		if a := l.GetAddress().GetSocketAddress(); a != nil {
			open = append(open, uint16(a.GetPortValue()))
		}
	}
	for _, i := range m.snapshot.Registry.Instances(s.w.addresses) {
		if i.Port.Number == uint32(port) && slices.Contains(open, uint16(i.Endpoint.Port)) {
			return uint16(i.Endpoint.Port), fmt.Sprintf("port %d of %s", port, i.Service.Host), nil
		}
	}
	if slices.Contains(open, port) {
		return port, "", nil
	}
	slices.Sort(open)
	var ports []string
	for _, p := range slices.Compact(open) {
		ports = append(ports, strconv.Itoa(int(p)))
	}
	hint := "it listens nowhere: does a Gateway object select it?"
	if len(ports) > 0 {
		hint = "it listens on " + strings.Join(ports, ", ")
	}
	return 0, "", &BadRequest{fmt.Errorf("gateway %s has no listener for port %d", s.w, port), hint}
}

// inbound asks the proxy of a workload that a request has come to; nil when it has none.
func (m *Mesh) inbound(ctx context.Context, from, to *Workload, at string, w *wire, mutual bool) (*Hop, error) {
	s, err := m.side(ctx, to)
	if err != nil {
		return nil, err
	}
	defer s.model.Close()
	if !slices.ContainsFunc(s.resources.Listeners, func(l *listenerpb.Listener) bool { return l.GetName() == virtualInbound }) {
		return nil, nil
	}
	q := w.question()
	q.To = netip.MustParseAddrPort(at)
	q.Socket = s.socket(virtualInbound, q.To)
	q.From = netip.AddrPortFrom(addr(from.addresses[0]), 40000)
	hop := &Hop{Proxy: to.String(), Direction: "inbound", Destination: at}
	if mutual {
		q.Peer = m.identity(from)
		q.TLS, q.ServerName, q.Protocols, q.HTTP = true, "", []string{"istio", "istio-peer-exchange"}, ""
		if w.method != "" && !w.tls {
			q.Protocols = []string{"istio-http/1.1", "istio", "http/1.1"}
		}
		hop.Because = "by mutual TLS, with a certificate that both proxies are taken to have"
	}
	m.ask(s, hop, q)
	return hop, nil
}

// ask has the model decide and describes the decision. It returns the address of the
// endpoint that the request goes to, "" for none.
func (m *Mesh) ask(s *side, hop *Hop, q proxy.Question) string {
	d := s.model.Decide(q)
	hop.Listener = d.Listener
	for _, c := range d.Connection.Steps {
		hop.Chains = append(hop.Chains, Step{Name: c.Chain, Matched: c.Matched, Reason: c.Reason})
	}
	if d.Listener == "" {
		hop.Notes = append(append(hop.Notes, "no listener takes the connection"), s.refused(wellknown.ListenerType, "")...)
		return ""
	}
	if !slices.ContainsFunc(hop.Chains, func(c Step) bool { return c.Matched }) {
		hop.Notes = append(hop.Notes, "no filter chain takes the connection: it is closed")
		return ""
	}
	if d.Secured && !q.TLS {
		hop.Notes = append(hop.Notes, "the filter chain wants TLS, which the connection does not begin with: it is closed")
		return ""
	}
	r := &d.Request
	hop.Notes = append(append(hop.Notes, d.Notes...), r.Notes...)
	m.access(s, hop, d)
	if r.Target == nil && r.Status == 0 {
		return m.tcp(s, hop, d)
	}
	m.routes(s, hop, r)
	forwarded := false
	if t := r.Target; t != nil && t.Route != nil && t.Route.Forward != nil {
		m.forward(s, hop, t.Route.Forward, t)
		_, forwarded = d.Picked[t.Cluster]
		if ep := d.Picked[t.Cluster]; ep != nil {
			return ep.Address
		}
	}
	if hop.Status, hop.Details, hop.Location = r.Status, r.Details, r.Location; forwarded {
		hop.Notes = append(hop.Notes, "the cluster has no endpoint to choose")
	}
	return ""
}

// refused says which resources of a type the proxy does not take; name "" is any.
func (s *side) refused(typeURL, name string) (notes []string) {
	for _, x := range s.model.Refused() {
		if x.TypeURL == typeURL && (name == "" || x.Name == name) {
			notes = append(notes, fmt.Sprintf("the proxy refuses %s: %v", x.Name, x.Err))
		}
	}
	return notes
}

// tcp describes a connection whose bytes are moved.
func (m *Mesh) tcp(s *side, hop *Hop, d *proxy.Decision) string {
	if hop.Details = d.Ended; hop.Details != "" {
		hop.Notes = append(hop.Notes, "a filter closes the connection: "+hop.Details)
		return ""
	}
	clusters := tcpClusters(s.resources.Listeners, d)
	total := 0.0
	for _, c := range clusters {
		total += c.Share
	}
	for _, c := range clusters {
		c.Share = 100 * c.Share / max(total, 1)
		hop.Clusters = append(hop.Clusters, m.cluster(s, c.Name, c.Share))
	}
	if len(clusters) == 0 {
		return ""
	}
	hop.Action = &Action{Kind: "forward the connection"}
	for _, c := range clusters {
		if ep := d.Picked[c.Name]; ep != nil {
			return ep.Address
		}
	}
	return ""
}

// routes describes the choice of the route.
func (m *Mesh) routes(s *side, hop *Hop, r *route.Recorder) {
	t := r.Target
	if t == nil || t.Table == nil {
		return
	}
	hop.Table, hop.HostWhy = t.Table.Name, r.Host
	hop.Notes = append(hop.Notes, s.refused(wellknown.RouteType, hop.Table)...)
	var host *routepb.VirtualHost
	if t.VirtualHost != nil {
		hop.Host = t.VirtualHost.Name
		host = s.host(t.Table.Name, hop.Host)
	}
	for _, step := range r.Steps {
		out := Step{Name: step.Route, Matched: step.Matched, Reason: step.Reason}
		if pb := routeAt(host, step); pb != nil {
			out.Origin = m.origin(pb.GetMetadata())
			if step.Matched {
				hop.Action = action(pb, host)
			}
		}
		hop.Routes = append(hop.Routes, out)
	}
}

// host finds the resource of a virtual host: in the route configuration, or in a listener.
func (s *side) host(table, name string) *routepb.VirtualHost {
	all := s.resources.Routes
	for _, l := range s.resources.Listeners {
		for _, c := range append(slices.Clip(l.GetFilterChains()), l.GetDefaultFilterChain()) {
			if rc := manager(c).GetRouteConfig(); rc != nil {
				all = append(slices.Clip(all), rc)
			}
		}
	}
	for _, rc := range all {
		for _, vh := range rc.GetVirtualHosts() {
			if rc.GetName() == table && vh.GetName() == name {
				return vh
			}
		}
	}
	return nil
}

// routeAt is the resource of a route that was tried.
func routeAt(host *routepb.VirtualHost, step route.Step) *routepb.Route {
	if list := host.GetRoutes(); step.Index >= 0 && step.Index < len(list) && host.GetMatcher() == nil && list[step.Index].GetName() == step.Route {
		return list[step.Index]
	}
	return nil
}

// forward describes the clusters of a route.
func (m *Mesh) forward(s *side, hop *Hop, f *route.Forward, t *route.Target) {
	if len(f.Clusters) == 0 {
		if t.Cluster != "" {
			hop.Clusters = append(hop.Clusters, m.cluster(s, t.Cluster, 100))
		}
		return
	}
	for _, c := range f.Clusters {
		hop.Clusters = append(hop.Clusters, m.cluster(s, c.Name, 100*float64(c.Weight)/float64(max(f.TotalWeight, 1))))
	}
}
