package explain

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpproxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/proxy"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// origin reads where a resource says that it comes from: in our key with the field, or as
// the path of the object.
func (m *Mesh) origin(md *corepb.Metadata) *Origin {
	var o Origin
	if own := md.GetFilterMetadata()["lateen"].GetFields(); own != nil {
		o = Origin{Kind: own["kind"].GetStringValue(), Namespace: own["namespace"].GetStringValue(), Name: own["name"].GetStringValue(), Field: own["field"].GetStringValue()}
	} else {
		// /apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews
		parts := strings.Split(md.GetFilterMetadata()["istio"].GetFields()["config"].GetStringValue(), "/")
		if len(parts) != 8 || parts[4] != "namespaces" {
			return nil
		}
		o = Origin{Kind: camel(parts[6]), Namespace: parts[5], Name: parts[7]}
	}
	o.Place = m.place(&o)
	return &o
}

// camel is a kind as objects write it: VirtualService for virtual-service.
func camel(kind string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(kind, "-") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

// String is "VirtualService default/reviews http[0] (reviews.yaml:12)".
func (o *Origin) String() string {
	text := config.Key{Kind: config.Kind(o.Kind), Namespace: o.Namespace, Name: o.Name}.String()
	if o.Field != "" {
		text += " " + o.Field
	}
	if o.Place != "" {
		text += " (" + o.Place + ")"
	}
	return text
}

// action says what a route does.
func action(r *routepb.Route, host *routepb.VirtualHost) *Action {
	a := &Action{}
	switch {
	case r.GetRedirect() != nil:
		a.Kind = "redirect"
	case r.GetDirectResponse() != nil:
		a.Kind = "direct response"
		a.set("status", fmt.Sprint(r.GetDirectResponse().GetStatus()))
	default:
		a.Kind = "forward"
		a.forward(r.GetRoute(), host)
	}
	a.headers("request header", r.GetRequestHeadersToAdd(), r.GetRequestHeadersToRemove())
	a.headers("response header", r.GetResponseHeadersToAdd(), r.GetResponseHeadersToRemove())
	return a
}

func (a *Action) set(what, value string) {
	if value != "" {
		a.Settings = append(a.Settings, what+" "+value)
	}
}

func (a *Action) forward(f *routepb.RouteAction, host *routepb.VirtualHost) {
	a.set("timeout", timeout(f.GetTimeout()))
	retry := f.GetRetryPolicy()
	if retry == nil {
		retry = host.GetRetryPolicy()
	}
	if retry != nil && (retry.GetNumRetries() == nil || retry.GetNumRetries().GetValue() > 0) {
		n := uint32(1)
		if retry.GetNumRetries() != nil {
			n = retry.GetNumRetries().GetValue()
		}
		text := fmt.Sprintf("up to %d on %s", n, retry.GetRetryOn())
		if d := retry.GetPerTryTimeout(); d != nil {
			text += ", each within " + d.AsDuration().String()
		}
		a.set("retries", text)
	}
	switch {
	case f.GetPrefixRewrite() != "":
		a.set("path prefix becomes", f.GetPrefixRewrite())
	case f.GetRegexRewrite() != nil:
		a.set("path becomes", f.GetRegexRewrite().GetSubstitution()+" where it is "+f.GetRegexRewrite().GetPattern().GetRegex())
	}
	a.set("host becomes", f.GetHostRewriteLiteral())
	for _, p := range f.GetRequestMirrorPolicies() {
		share := 100.0
		if d := p.GetRuntimeFraction().GetDefaultValue(); d != nil {
			share = percent(d.GetNumerator(), d.GetDenominator().String())
		}
		a.set("mirrored", fmt.Sprintf("%g%% to %s", share, p.GetCluster()))
	}
	for _, h := range f.GetHashPolicy() {
		switch {
		case h.GetHeader() != nil:
			a.set("endpoint by header", h.GetHeader().GetHeaderName())
		case h.GetCookie() != nil:
			a.set("endpoint by cookie", h.GetCookie().GetName())
		case h.GetQueryParameter() != nil:
			a.set("endpoint by query parameter", h.GetQueryParameter().GetName())
		case h.GetConnectionProperties().GetSourceIp():
			a.set("endpoint by", "address of the client")
		}
	}
}

func percent(n uint32, denominator string) float64 {
	switch denominator {
	case "TEN_THOUSAND":
		return float64(n) / 100
	case "MILLION":
		return float64(n) / 10000
	}
	return float64(n)
}

func timeout(d *durationpb.Duration) string {
	switch {
	case d == nil:
		return (15 * time.Second).String()
	case d.AsDuration() == 0:
		return "none"
	}
	return d.AsDuration().String()
}

func (a *Action) headers(what string, add []*corepb.HeaderValueOption, remove []string) {
	for _, h := range add {
		verb := "added"
		if x := h.GetAppendAction(); x == corepb.HeaderValueOption_OVERWRITE_IF_EXISTS || x == corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			verb = "set"
		}
		a.set(what, fmt.Sprintf("%s: %s is %s", h.GetHeader().GetKey(), h.GetHeader().GetValue(), verb))
	}
	for _, name := range remove {
		a.set(what, name+" is removed")
	}
}

// cluster describes a cluster that a request may go to.
func (m *Mesh) cluster(s *side, name string, share float64) Cluster {
	c := Cluster{Name: name, Share: share}
	list, ok := s.model.Endpoints(name)
	if !ok {
		c.Missing = true
		return c
	}
	pb := s.cluster(name)
	if o := m.origin(pb.GetMetadata()); o != nil {
		c.Origin = o
	}
	if p := pb.GetLbPolicy(); pb.GetLoadBalancingPolicy() == nil {
		c.Settings = append(c.Settings, "balancing "+strings.ToLower(strings.ReplaceAll(p.String(), "_", " ")))
	}
	if tls := security(pb); tls != "" {
		c.Settings = append(c.Settings, tls)
	}
	if d := pb.GetConnectTimeout(); d != nil {
		c.Settings = append(c.Settings, "connects within "+d.AsDuration().String())
	}
	for _, e := range list {
		c.Endpoints = append(c.Endpoints, m.endpoint(e))
	}
	return c
}

func (s *side) cluster(name string) *clusterpb.Cluster {
	i := slices.IndexFunc(s.resources.Clusters, func(c *clusterpb.Cluster) bool { return c.GetName() == name })
	if i < 0 {
		return nil
	}
	return s.resources.Clusters[i]
}

// mutual is the name of the transport socket match of workloads that take mutual TLS.
const mutual = "tlsMode-istio"

// security says how connections to a cluster are secured.
func security(c *clusterpb.Cluster) string {
	switch {
	case slices.ContainsFunc(c.GetTransportSocketMatches(), func(x *clusterpb.Cluster_TransportSocketMatch) bool { return x.GetName() == mutual }):
		return "mutual TLS to endpoints that take it"
	case c.GetTransportSocket().GetName() == "envoy.transport_sockets.tls":
		return "TLS"
	}
	return ""
}

// tunnelled reports that what goes to an address by a hop's first cluster goes by the mesh's
// mutual TLS: always, or since the endpoint is said to take it.
func tunnelled(s *side, hop *Hop, at string) bool {
	if len(hop.Clusters) == 0 {
		return false
	}
	c := s.cluster(hop.Clusters[0].Name)
	if len(c.GetTransportSocketMatches()) == 0 {
		var tls tlspb.UpstreamTlsContext
		err := c.GetTransportSocket().GetTypedConfig().UnmarshalTo(&tls)
		return err == nil && slices.Contains(tls.GetCommonTlsContext().GetAlpnProtocols(), "istio")
	}
	for _, a := range append(slices.Clip(s.resources.Endpoints), c.GetLoadAssignment()) {
		for _, l := range a.GetEndpoints() {
			for _, e := range l.GetLbEndpoints() {
				socket := e.GetEndpoint().GetAddress().GetSocketAddress()
				if a.GetClusterName() == c.GetName() && net.JoinHostPort(socket.GetAddress(), strconv.Itoa(int(socket.GetPortValue()))) == at {
					return e.GetMetadata().GetFilterMetadata()["envoy.transport_socket_match"].GetFields()["tlsMode"].GetStringValue() == "istio"
				}
			}
		}
	}
	return false
}

func (m *Mesh) endpoint(e *endpoint.Endpoint) Endpoint {
	out := Endpoint{Address: e.Address, Priority: e.Priority.Load(), Weight: e.Weight.Load(), Health: "healthy"}
	switch e.State() {
	case endpoint.Worse:
		out.Health = "degraded"
	case endpoint.Unhealthy:
		out.Health = "unhealthy"
	}
	if l := e.Locality; l != (endpoint.Locality{}) {
		out.Locality = strings.TrimRight(l.Region+"/"+l.Zone+"/"+l.SubZone, "/")
	}
	if w := m.at(e.Address); w != nil {
		out.Workload = w.String()
	}
	return out
}

// tcpClusters are those of the TCP proxy of the chosen chain, with their weights.
func tcpClusters(listeners []*listenerpb.Listener, d *proxy.Decision) (list []Cluster) {
	for _, l := range listeners {
		if l.GetName() != d.Listener {
			continue
		}
		for _, c := range append(slices.Clip(l.GetFilterChains()), l.GetDefaultFilterChain()) {
			t := tcpOf(c)
			if t == nil || c.GetName() != d.Chain {
				continue
			}
			if t.GetCluster() != "" {
				list = []Cluster{{Name: t.GetCluster(), Share: 100}}
			}
			for _, w := range t.GetWeightedClusters().GetClusters() {
				list = append(list, Cluster{Name: w.GetName(), Share: float64(w.GetWeight())})
			}
			if slices.ContainsFunc(list, func(c Cluster) bool { _, asked := d.Picked[c.Name]; return asked }) {
				return list // of chains with one name the one whose cluster was asked
			}
		}
	}
	return list
}

func tcpOf(c *listenerpb.FilterChain) *tcpproxypb.TcpProxy {
	for _, f := range c.GetFilters() {
		if t := (&tcpproxypb.TcpProxy{}); f.GetTypedConfig().MessageIs(t) && f.GetTypedConfig().UnmarshalTo(t) == nil {
			return t
		}
	}
	return nil
}

// verdict is the outcome of all hops.
func verdict(hops []Hop) string {
	last := hops[len(hops)-1]
	switch {
	case last.Listener == "":
		return "the connection is refused at " + last.Proxy
	case !slices.ContainsFunc(last.Chains, func(s Step) bool { return s.Matched }):
		return "the connection is closed at " + last.Proxy + ": no filter chain takes it"
	case last.Status != 0 && last.Location != "":
		return fmt.Sprintf("%s answers %d, location %s", last.Proxy, last.Status, last.Location)
	case last.Status != 0:
		return fmt.Sprintf("%s answers %d %s (%s)", last.Proxy, last.Status, http.StatusText(last.Status), last.Details)
	case last.Details != "":
		return fmt.Sprintf("the connection is closed at %s (%s)", last.Proxy, last.Details)
	case last.Direction == "inbound":
		return "it reaches the program in " + last.Proxy
	}
	if len(last.Clusters) == 0 {
		return "the connection is closed at " + last.Proxy
	}
	if len(last.Clusters) > 1 {
		return fmt.Sprintf("it is sent to one of %d clusters", len(last.Clusters))
	}
	return "it is sent to " + last.Clusters[0].Name
}
