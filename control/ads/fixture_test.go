package ads_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/wellknown"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var types = []ads.Type{
	{URL: wellknown.ClusterType, Name: "CDS", Wildcard: true, Reads: []string{"Service", "DestinationRule"}},
	{URL: wellknown.EndpointType, Name: "EDS", Reads: []string{"EndpointSlice"}, Subject: subject},
	{URL: wellknown.ListenerType, Name: "LDS", Wildcard: true, Reads: []string{"Gateway"}},
	{URL: wellknown.RouteType, Name: "RDS", Reads: []string{"VirtualService"}},
	{URL: wellknown.VirtualHostType, Name: "VHDS", Reads: []string{"VirtualService"}, Nested: true},
	{URL: wellknown.SecretType, Name: "SDS", Reads: []string{"Secret"}},
}

// subject is what is before the dot of a name: a.v1 is about a.
func subject(name string) string {
	s, _, _ := strings.Cut(name, ".")
	return s
}

func url(short string) string {
	for _, t := range types {
		if t.Name == short {
			return t.URL
		}
	}
	return short
}

func short(url string) string {
	for _, t := range types {
		if t.URL == url {
			return t.Name
		}
	}
	return url
}

// A resource's text is kept in a field of each type that nothing else uses here.
func message(url, name, text string) proto.Message {
	switch short(url) {
	case "CDS":
		return &clusterpb.Cluster{Name: name, AltStatName: text, ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS}}
	case "EDS":
		return &endpointpb.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointpb.LocalityLbEndpoints{{Locality: &corepb.Locality{Region: text}}}}
	case "LDS":
		return &listenerpb.Listener{Name: name, StatPrefix: text}
	case "RDS":
		return &routepb.RouteConfiguration{Name: name, VirtualHosts: []*routepb.VirtualHost{{Name: text, Routes: []*routepb.Route{{
			Action: &routepb.Route_Route{Route: &routepb.RouteAction{ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: text}}}}}}}}
	case "VHDS":
		return &routepb.VirtualHost{Name: name, Domains: []string{text}}
	}
	return &tlspb.Secret{Name: name, Type: &tlspb.Secret_GenericSecret{GenericSecret: &tlspb.GenericSecret{
		Secret: &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: text}}}}}
}

func show(body *anypb.Any) string {
	m, err := body.UnmarshalNew()
	if err != nil {
		return err.Error()
	}
	switch m := m.(type) {
	case *clusterpb.Cluster:
		return m.Name + "=" + m.AltStatName
	case *endpointpb.ClusterLoadAssignment:
		return m.ClusterName + "=" + m.Endpoints[0].Locality.Region
	case *listenerpb.Listener:
		return m.Name + "=" + m.StatPrefix
	case *routepb.RouteConfiguration:
		text := m.Name + "=" + m.VirtualHosts[0].Name
		for _, r := range m.VirtualHosts[0].Routes[1:] { // announced
			text += "+" + r.GetRoute().GetCluster()
		}
		return text
	case *routepb.VirtualHost:
		return m.Name + "=" + m.Domains[0]
	case *tlspb.Secret:
		return m.Name + "=" + m.GetGenericSecret().GetSecret().GetInlineString()
	}
	return fmt.Sprintf("%T", m)
}

// A world is the mesh that the tests push: "CDS a=1" lines.
type world struct {
	mu         sync.Mutex
	generation uint64
	resources  map[string]map[string]ads.Resource // by URL and name
	asked      []string                           // types that were generated
	fail       string                             // type whose resources cannot be made
	key        string                             // of all proxies
}

// set replaces the resources of the types that the lines name: "CDS a=1 b=2".
func (w *world) set(t *testing.T, lines ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.generation++
	for _, line := range lines {
		f := strings.Fields(line)
		all := map[string]ads.Resource{}
		for _, r := range f[1:] {
			name, text, _ := strings.Cut(r, "=")
			res, err := ads.NewResource(name, message(url(f[0]), name, text))
			if err != nil {
				t.Fatal(err)
			}
			all[name] = res
		}
		w.resources[url(f[0])] = all
	}
}

type view struct {
	*world
	generation uint64
	key        string
}

func (v view) Generation() uint64 { return v.generation }

func (v view) Key() string { return v.key }

func (v view) Resources(typeURL string, names []string) ([]ads.Resource, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked = append(v.asked, short(typeURL))
	if v.fail == short(typeURL) {
		return nil, fmt.Errorf("broken on purpose")
	}
	var out []ads.Resource
	for n, r := range v.resources[typeURL] {
		table, _, below := strings.Cut(n, "/")
		if names == nil || slices.Contains(names, n) || below && slices.Contains(names, table) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b ads.Resource) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// A fixture is a server with a world behind it, in one bubble of fake time.
type fixture struct {
	*world
	t      *testing.T
	server *ads.Server
	log    *lockedBuffer
	reg    *prometheus.Registry
	conn   *grpc.ClientConn
	known  chan struct{} // closed when a proxy may leave
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func proxyOf(_ context.Context, n *corepb.Node) (*mesh.Proxy, error) {
	if n.GetId() == "" {
		return nil, fmt.Errorf("id: must not be empty")
	}
	return &mesh.Proxy{ID: n.Id, Name: "gw", Namespace: "istio-system", IstioVersion: "1.31.0", Metadata: n.GetMetadata().AsMap()}, nil
}

// run calls f in a bubble with a server that serves the lines.
func run(t *testing.T, lines []string, f func(*fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := &fixture{world: &world{resources: map[string]map[string]ads.Resource{}}, t: t, log: &lockedBuffer{}, reg: prometheus.NewRegistry(), known: make(chan struct{})}
		x.set(t, lines...)
		l, err := logging.New(logging.Options{Output: x.log, Levels: "debug"})
		if err != nil {
			t.Fatal(err)
		}
		x.server = ads.NewServer(ads.Options{
			Types: types, Proxy: proxyOf, Log: l.Scope("ads"), Metrics: ads.NewMetrics(x.reg), Identifier: "me",
			Leave: func(ctx context.Context, _ *mesh.Proxy) {
				select {
				case <-x.known:
				case <-ctx.Done():
				}
			},
			View: func(*mesh.Proxy) ads.View {
				x.mu.Lock()
				defer x.mu.Unlock()
				return view{x.world, x.generation, x.key}
			},
		})
		g := grpc.NewServer(ads.ServerOption())
		x.server.Register(g)
		pipe := bufconn.Listen(1 << 16)
		served := make(chan error, 1)
		go func() { served <- g.Serve(pipe) }()
		x.conn, err = grpc.NewClient("passthrough:///ads", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithStaticStreamWindowSize(1<<16), grpc.WithStaticConnWindowSize(1<<26),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			x.conn.Close()
			x.server.Close()
			g.Stop()
			<-served
		}()
		f(x)
	})
}

// push changes the world and tells the server.
func (x *fixture) push(change ads.Change, lines ...string) {
	x.t.Helper()
	x.set(x.t, lines...)
	x.server.Push(change)
}

var everything = ads.Change{All: true}

// A client speaks one of the two forms. Its methods take short type names.
type client struct {
	*fixture
	delta  bool
	cancel context.CancelFunc
	write  func(req request) error
	in     chan response
	nonce  map[string]string // last received, by type
	vers   map[string]string // last version_info, by type
	names  map[string][]string
	have   map[string]map[string]string // delta: type → name → version
	first  bool
	reads  chan struct{} // closed when the client begins to read

	program bool // it is a gRPC program
	apart   bool // it takes virtual hosts apart from their tables
}

type request struct {
	typ, nonce, nack   string
	names, unsubscribe []string
	initial            map[string]string
	version            string
}

type response struct {
	typ, nonce, version, text string
	vers                      map[string]string
	err                       error
}

func (x *fixture) connect(delta bool) *client {
	x.t.Helper()
	c := x.connectSlow(delta)
	close(c.reads)
	return c
}

// connectSlow returns a client that does not read until its reads is closed.
func (x *fixture) connectSlow(delta bool) *client {
	x.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{fixture: x, delta: delta, cancel: cancel, in: make(chan response, 1000), first: true, reads: make(chan struct{}),
		nonce: map[string]string{}, vers: map[string]string{}, names: map[string][]string{}, have: map[string]map[string]string{}}
	api := discoverypb.NewAggregatedDiscoveryServiceClient(x.conn)
	if delta {
		s, err := api.DeltaAggregatedResources(ctx)
		if err != nil {
			x.t.Fatal(err)
		}
		c.write = func(r request) error { return s.Send(c.deltaRequest(r)) }
		go c.read(func() (response, error) { return readDelta(s) })
		return c
	}
	s, err := api.StreamAggregatedResources(ctx)
	if err != nil {
		x.t.Fatal(err)
	}
	c.write = func(r request) error { return s.Send(c.worldRequest(r)) }
	go c.read(func() (response, error) { return readWorld(s) })
	return c
}

func (c *client) read(next func() (response, error)) {
	<-c.reads
	for {
		r, err := next()
		if err != nil {
			c.in <- response{err: err}
			return
		}
		c.in <- r
	}
}

func (c *client) node() *corepb.Node {
	if !c.first {
		return nil
	}
	c.first = false
	n := &corepb.Node{Id: "router~127.0.0.1~gw.istio-system~istio-system.svc.cluster.local", UserAgentName: "envoy"}
	if c.apart {
		n.UserAgentName, n.ClientFeatures = "lateen-proxy", []string{wellknown.HostsFeature}
	}
	if c.program {
		n.UserAgentName, n.Metadata = "gRPC Go", &structpb.Struct{Fields: map[string]*structpb.Value{"GENERATOR": structpb.NewStringValue("grpc")}}
	}
	return n
}

func (c *client) deltaRequest(r request) *discoverypb.DeltaDiscoveryRequest {
	m := &discoverypb.DeltaDiscoveryRequest{Node: c.node(), TypeUrl: url(r.typ), ResponseNonce: r.nonce,
		ResourceNamesSubscribe: r.names, ResourceNamesUnsubscribe: r.unsubscribe, InitialResourceVersions: r.initial}
	if r.nack != "" {
		m.ErrorDetail = &statuspb.Status{Code: 3, Message: r.nack}
	}
	return m
}

func (c *client) worldRequest(r request) *discoverypb.DiscoveryRequest {
	m := &discoverypb.DiscoveryRequest{Node: c.node(), TypeUrl: url(r.typ), ResponseNonce: r.nonce, ResourceNames: r.names, VersionInfo: r.version}
	if r.nack != "" {
		m.ErrorDetail = &statuspb.Status{Code: 3, Message: r.nack}
	}
	return m
}

func readDelta(s discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) (response, error) {
	m, err := s.Recv()
	if err != nil {
		return response{}, err
	}
	r := response{typ: short(m.TypeUrl), nonce: m.Nonce, text: short(m.TypeUrl), vers: map[string]string{}}
	for _, res := range m.Resources {
		r.text += " " + show(res.Resource)
		r.vers[res.Name] = res.Version
	}
	for _, n := range m.RemovedResources {
		r.text += " -" + n
	}
	return r, nil
}

func readWorld(s discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesClient) (response, error) {
	m, err := s.Recv()
	if err != nil {
		return response{}, err
	}
	r := response{typ: short(m.TypeUrl), nonce: m.Nonce, version: m.VersionInfo, text: short(m.TypeUrl)}
	for _, body := range m.Resources {
		r.text += " " + show(body)
	}
	return r, nil
}

// send writes a request and waits until the server has taken it.
func (c *client) send(r request) {
	c.t.Helper()
	if err := c.write(r); err != nil {
		c.t.Fatalf("send: %v", err)
	}
	synctest.Wait()
}

// ask subscribes to names, all of them where there are none. In the state of the
// world the list replaces the one before and answers the last response.
func (c *client) ask(typ string, names ...string) {
	c.t.Helper()
	r := request{typ: typ, names: names}
	if !c.delta {
		r.nonce, r.version = c.nonce[typ], c.vers[typ]
		c.names[typ] = names
	}
	c.send(r)
}

func (c *client) ack(typ string) {
	c.t.Helper()
	c.send(request{typ: typ, nonce: c.nonce[typ], names: c.worldNames(typ), version: c.vers[typ]})
}

func (c *client) nack(typ, text string) {
	c.t.Helper()
	c.send(request{typ: typ, nonce: c.nonce[typ], names: c.worldNames(typ), nack: text})
}

func (c *client) worldNames(typ string) []string {
	if c.delta {
		return nil
	}
	return c.names[typ]
}

// want takes the next responses and compares them with the lines: "CDS a=1 -b".
func (c *client) want(lines ...string) {
	c.t.Helper()
	for _, line := range lines {
		synctest.Wait()
		select {
		case r := <-c.in:
			if r.err != nil {
				c.t.Fatalf("stream ended with %v, want %q", r.err, line)
			}
			if r.text != line {
				c.t.Fatalf("got response %q, want %q\n%s", r.text, line, c.log)
			}
			c.nonce[r.typ], c.vers[r.typ] = r.nonce, r.version
			if c.have[r.typ] == nil {
				c.have[r.typ] = map[string]string{}
			}
			maps.Copy(c.have[r.typ], r.vers)
		default:
			c.t.Fatalf("no response, want %q\n%s", line, c.log)
		}
	}
}

// quiet fails when a response is waiting.
func (c *client) quiet() {
	c.t.Helper()
	synctest.Wait()
	select {
	case r := <-c.in:
		c.t.Fatalf("got response %q %v, want none\n%s", r.text, r.err, c.log)
	default:
	}
}

// wantEnd takes the stream's end.
func (c *client) wantEnd(text string) {
	c.t.Helper()
	synctest.Wait()
	select {
	case r := <-c.in:
		if r.err == nil || !strings.Contains(r.err.Error(), text) {
			c.t.Fatalf("got %q %v, want an end with %q", r.text, r.err, text)
		}
	default:
		c.t.Fatalf("the stream goes on, want an end with %q", text)
	}
}

// refusals are those of all types.
func refusals(c ads.ConnStatus) []ads.Refusal {
	var all []ads.Refusal
	for _, w := range c.Watches {
		all = append(all, w.Refused...)
	}
	return all
}
