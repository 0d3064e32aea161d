package explain

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonfaultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	proxyprotocolpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lateen-mesh/lateen/proxy"
	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/test/ports"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A world is what proxies under test have in common: the one upstream, and a certificate.
type world struct {
	echo net.Listener
	cert tls.Certificate
	cfg  *anypb.Any // a downstream TLS context
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue("any.test")
	if err != nil {
		t.Fatal(err)
	}
	inline := func(b []byte) *corepb.DataSource {
		return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: b}}
	}
	w := &world{cfg: wrap(t, &tlspb.DownstreamTlsContext{CommonTlsContext: &tlspb.CommonTlsContext{AlpnProtocols: []string{"http/1.1"},
		TlsCertificates: []*tlspb.TlsCertificate{{CertificateChain: inline(cert), PrivateKey: inline(key)}}}})}
	if w.cert, err = tls.X509KeyPair(cert, key); err != nil {
		t.Fatal(err)
	}
	if w.echo, err = net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", ports.One())); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(where)}
	go func() { _ = server.Serve(w) }() // ends with Close
	t.Cleanup(func() { _ = server.Close() })
	return w
}

// Accept takes a connection of this machine, with TLS or without.
func (w *world) Accept() (net.Conn, error) {
	for {
		c, err := w.echo.Accept()
		if err != nil {
			return nil, err
		}
		if from := c.RemoteAddr().(*net.TCPAddr); from.IP.IsLoopback() {
			return &either{Conn: c, cert: w.cert}, nil
		}
		_ = c.Close()
	}
}

// Close ends the upstream.
func (w *world) Close() error { return w.echo.Close() }

// Addr is where the upstream listens.
func (w *world) Addr() net.Addr { return w.echo.Addr() }

// either is a connection that speaks TLS if its client does.
type either struct {
	net.Conn
	cert  tls.Certificate
	known bool
}

// Read finds out how the client begins, the first time.
func (e *either) Read(p []byte) (int, error) {
	if !e.known {
		e.known = true
		first := make([]byte, 1)
		if _, err := io.ReadFull(e.Conn, first); err != nil {
			return 0, err
		}
		e.Conn = &begun{e.Conn, first}
		if first[0] == 0x16 {
			e.Conn = tls.Server(e.Conn, &tls.Config{Certificates: []tls.Certificate{e.cert}})
		}
	}
	return e.Conn.Read(p)
}

// begun is a connection some of whose bytes have been read.
type begun struct {
	net.Conn
	read []byte
}

// Read gives what has been read first.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.read) > 0 {
		n := copy(p, b.read)
		b.read = b.read[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// where answers with the address that it was reached at.
func where(w http.ResponseWriter, r *http.Request) {
	at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	w.Header().Set("x-at", at.String())
	w.WriteHeader(http.StatusOK)
}

func wrap(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// at is the upstream as cluster i reaches it: an address of loopback of its own.
func (w *world) at(i int) netip.AddrPort {
	_, port, _ := net.SplitHostPort(w.echo.Addr().String())
	n, _ := strconv.ParseUint(port, 10, 16) // of a socket
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(1 + i/250), byte(1 + i%250)}), uint16(n))
}

// A live proxy serves a source's resources on loopback.
type live struct {
	clusters map[string]string         // by the address of the upstream
	sockets  map[string]netip.AddrPort // of listeners that have one, by name
	told     map[string]bool           // listeners that are told the destination
}

// adapt makes resources that can be served on one machine: listeners on loopback, which
// are told the original destination by the PROXY protocol; all clusters on the one upstream,
// but those without endpoints; certificates of the test. Filters that this proxy refuses are
// left out, and logs.
func (w *world) adapt(t *testing.T, s *source) *live {
	t.Helper()
	l := &live{clusters: map[string]string{}, sockets: map[string]netip.AddrPort{}, told: map[string]bool{}}
	r := &s.resources
	assigned := map[string]bool{}
	for _, a := range r.Endpoints {
		for _, g := range a.GetEndpoints() {
			assigned[a.GetClusterName()] = assigned[a.GetClusterName()] || len(g.GetLbEndpoints()) > 0
		}
	}
	for i, c := range r.Clusters {
		name := c.GetName()
		if x := c.GetEdsClusterConfig().GetServiceName(); x != "" {
			name = x
		}
		empty := c.GetType() == clusterpb.Cluster_EDS && !assigned[name] || c.GetName() == "BlackHoleCluster"
		l.clusters[w.at(i).String()] = c.GetName()
		r.Clusters[i] = cluster(c.GetName(), w.at(i), empty)
	}
	r.Endpoints = nil
	for i, rc := range r.Routes {
		r.Routes[i] = w.routes(t, rc)
	}
	bound := 0
	for _, x := range r.Listeners {
		if binds(x) {
			bound++
		}
	}
	free := ports.Claim(bound)
	for i, x := range r.Listeners {
		x = proto.Clone(x).(*listenerpb.Listener)
		r.Listeners[i] = x
		if binds(x) {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(free[0]))
			free = free[1:]
			x.Address, x.AdditionalAddresses = socketAddress(at), nil
			l.sockets[x.GetName()] = at
			l.told[x.GetName()] = x.GetUseOriginalDst().GetValue() || slices.ContainsFunc(x.GetListenerFilters(), restores)
			x.SocketOptions, x.Transparent = nil, nil
		}
		w.listener(t, x, l.told[x.GetName()])
	}
	return l
}

func socketAddress(a netip.AddrPort) *corepb.Address {
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(a.Port())}}}}
}

func cluster(name string, at netip.AddrPort, empty bool) *clusterpb.Cluster {
	c := &clusterpb.Cluster{Name: name, ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STATIC}, ConnectTimeout: durationpb.New(time.Minute)}
	c.LoadAssignment = &endpointpb.ClusterLoadAssignment{ClusterName: name}
	if !empty {
		c.LoadAssignment.Endpoints = []*endpointpb.LocalityLbEndpoints{{LbEndpoints: []*endpointpb.LbEndpoint{{
			HostIdentifier: &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{Address: socketAddress(at)}}}}}}
	}
	return c
}

// refused are filters that come with later issues.
var refused = []string{"filters.http.lua."}

func isRefused(a *anypb.Any) bool {
	return slices.ContainsFunc(refused, func(part string) bool { return strings.Contains(a.GetTypeUrl(), part) })
}

func restores(f *listenerpb.ListenerFilter) bool {
	return strings.HasSuffix(f.GetName(), "original_dst")
}

// listener adapts the filters of a listener.
func (w *world) listener(t *testing.T, l *listenerpb.Listener, told bool) {
	t.Helper()
	l.AccessLog = nil
	if told {
		l.ListenerFilters = slices.DeleteFunc(l.ListenerFilters, restores)
		by := &listenerpb.ListenerFilter{Name: "envoy.filters.listener.proxy_protocol", ConfigType: &listenerpb.ListenerFilter_TypedConfig{TypedConfig: wrap(t, &proxyprotocolpb.ProxyProtocol{})}}
		l.ListenerFilters = append([]*listenerpb.ListenerFilter{by}, l.ListenerFilters...)
	}
	chains := l.GetFilterChains()
	if c := l.GetDefaultFilterChain(); c != nil {
		chains = append(slices.Clip(chains), c)
	}
	for _, c := range chains {
		if c.GetTransportSocket() != nil {
			c.TransportSocket = &corepb.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: w.cfg}}
		}
		c.Filters = slices.DeleteFunc(c.Filters, func(f *listenerpb.Filter) bool { return isRefused(f.GetTypedConfig()) })
		for _, f := range c.Filters {
			if p := (&tcpproxypb.TcpProxy{}); f.GetTypedConfig().MessageIs(p) {
				if err := f.GetTypedConfig().UnmarshalTo(p); err != nil {
					t.Fatal(err)
				}
				p.AccessLog = nil
				f.ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: wrap(t, p)}
			}
			m := &hcmpb.HttpConnectionManager{}
			if !f.GetTypedConfig().MessageIs(m) {
				continue
			}
			if err := f.GetTypedConfig().UnmarshalTo(m); err != nil {
				t.Fatal(err)
			}
			m.HttpFilters = slices.DeleteFunc(m.HttpFilters, func(f *hcmpb.HttpFilter) bool { return isRefused(f.GetTypedConfig()) })
			m.AccessLog, m.Tracing = nil, nil
			if rc := m.GetRouteConfig(); rc != nil {
				m.RouteSpecifier = &hcmpb.HttpConnectionManager_RouteConfig{RouteConfig: w.routes(t, rc)}
			}
			f.ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: wrap(t, m)}
		}
	}
}

// routes has all answers say which route they are of, and faults take no time.
func (w *world) routes(t *testing.T, rc *routepb.RouteConfiguration) *routepb.RouteConfiguration {
	t.Helper()
	rc = proto.Clone(rc).(*routepb.RouteConfiguration)
	rc.ResponseHeadersToAdd = append(rc.ResponseHeadersToAdd, &corepb.HeaderValueOption{
		Header: &corepb.HeaderValue{Key: "x-route", Value: "%ROUTE_NAME%"}, KeepEmptyValue: true, AppendAction: corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD})
	for _, vh := range rc.GetVirtualHosts() {
		for _, r := range vh.GetRoutes() {
			for name, a := range r.GetTypedPerFilterConfig() {
				if isRefused(a) {
					delete(r.TypedPerFilterConfig, name)
				}
				f := &faultpb.HTTPFault{}
				if !a.MessageIs(f) || a.UnmarshalTo(f) != nil || f.GetDelay().GetFixedDelay() == nil {
					continue
				}
				f = proto.Clone(f).(*faultpb.HTTPFault)
				f.Delay.FaultDelaySecifier = &commonfaultpb.FaultDelay_FixedDelay{FixedDelay: durationpb.New(time.Millisecond)}
				r.TypedPerFilterConfig[name] = wrap(t, f)
			}
		}
	}
	return rc
}

// bootstrap is that of a proxy whose control plane is at a port.
const bootstrap = `{"node": %s,
"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}},
"dynamic_resources": {
  "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
  "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
  "ads_config": {"api_type": "GRPC", "set_node_on_first_message_only": true, "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}},
"static_resources": {"clusters": [{"name": "xds-grpc", "type": "STATIC", "connect_timeout": "60s",
  "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %s}}}}]}]},
  "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}}]}}`

// run serves adapted resources until the test ends. A resource that is refused fails the test.
func (l *live) run(t *testing.T, s *source) {
	t.Helper()
	server := xdstest.New(t)
	server.SetAll(wellknown.ClusterType, byName(s.resources.Clusters))
	server.SetAll(wellknown.ListenerType, byName(s.resources.Listeners))
	server.SetAll(wellknown.RouteType, byName(s.resources.Routes))
	node, err := protojson.Marshal(s.node)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(server.Addr())
	admin := ports.One()
	b, err := proxy.Load("", fmt.Sprintf(bootstrap, node, admin, port), true)
	if err != nil {
		t.Fatal(err)
	}
	o := proxy.DefaultOptions()
	stop, ended := make(chan struct{}), make(chan error, 1)
	o.LogLevel, o.DisableRestart, o.Stop, o.DrainTime = "error", true, stop, time.Second
	go func() { ended <- proxy.Run(context.Background(), b, o, t.Output()) }()
	t.Cleanup(func() {
		close(stop)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for _, url := range []string{wellknown.ClusterType, wellknown.ListenerType, wellknown.RouteType} {
		if url == wellknown.RouteType && len(s.resources.Routes) == 0 {
			continue
		}
		server.Settle(t, url)
		for _, r := range server.Requests(url) {
			if r.Error != nil {
				t.Fatalf("refused: %s", r.Error.GetMessage())
			}
		}
	}
	await(t, "everything is in force", func() error {
		return inForce(fmt.Sprintf("http://127.0.0.1:%d/stats?filter=listener_manager.total_listeners|cluster_manager.warming|listener_manager.workers_started", admin),
			"cluster_manager.warming_clusters: 0\n", "listener_manager.total_listeners_warming: 0\n", "listener_manager.workers_started: 1\n",
			fmt.Sprintf("listener_manager.total_listeners_active: %d\n", len(s.resources.Listeners)))
	})
	for name, at := range l.sockets {
		await(t, "listener "+name+" accepts", func() error {
			c, err := net.Dial("tcp", at.String())
			if err == nil {
				_ = c.Close()
			}
			return err
		})
	}
}

// inForce looks for lines in a page.
func inForce(url string, lines ...string) error {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	page, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	for _, line := range lines {
		if !bytes.Contains(page, []byte(line)) {
			return fmt.Errorf("no %q in\n%s", line, page)
		}
	}
	return nil
}

func byName[M interface {
	proto.Message
	GetName() string
}](list []M) map[string]proto.Message {
	all := map[string]proto.Message{}
	for _, m := range list {
		all[m.GetName()] = m
	}
	return all
}

// await repeats a check until it passes.
func await(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// A client keeps the connections of one proxy, one for each way in.
type client struct {
	conns map[string]*kept
}

type kept struct {
	net.Conn
	r *bufio.Reader
}

// An answer is what came back; Status 0: the connection ended without one.
type answer struct {
	status              int
	at, route, location string
}

// send sends a request and reads the answer, on a connection that is kept.
func (c *client) send(l *live, x *ask) (answer, error) {
	k := c.conns[x.way()]
	fresh := k == nil
	for {
		if k == nil {
			var err error
			if k, err = dial(l, x); err != nil {
				return answer{}, nil //nolint:nilerr // who ends a handshake answers nothing
			}
		}
		a, on, err := k.exchange(x)
		if on {
			c.conns[x.way()] = k
			return a, err
		}
		_ = k.Close()
		delete(c.conns, x.way())
		if fresh || a.status != 0 || err != nil {
			return a, err
		}
		k, fresh = nil, true // it had ended before: once more on a new one
	}
}

func (c *client) close() {
	for _, k := range c.conns {
		_ = k.Close()
	}
}

func dial(l *live, x *ask) (*kept, error) {
	conn, err := net.Dial("tcp", x.Socket.String())
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return nil, err
	}
	if l.told[x.listener] {
		if _, err := fmt.Fprintf(conn, "PROXY TCP4 %s %s %d %d\r\n", x.From.Addr(), x.To.Addr(), x.From.Port(), x.To.Port()); err != nil {
			return nil, err
		}
	}
	if x.TLS {
		secure := tls.Client(conn, &tls.Config{ServerName: x.ServerName, NextProtos: x.Protocols, InsecureSkipVerify: true})
		if err := secure.Handshake(); err != nil {
			_ = conn.Close()
			return nil, err
		}
		conn = secure
	}
	return &kept{conn, bufio.NewReader(conn)}, nil
}

// exchange is one request; on says that the connection can be used again.
func (k *kept) exchange(x *ask) (a answer, on bool, err error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", x.Method, x.Target)
	for _, f := range x.Fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	b.WriteString("\r\n")
	if _, err := k.Write(b.Bytes()); err != nil {
		return a, false, nil
	}
	r, err := http.ReadResponse(k.r, &http.Request{Method: x.Method})
	if err != nil {
		return a, false, nil
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return a, false, err
	}
	h := r.Header
	return answer{r.StatusCode, h.Get("x-at"), h.Get("x-route"), h.Get("location")}, !r.Close, r.Body.Close()
}
