package proxy

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/listener"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Resources are what a proxy may get over xDS. Nobody changes them afterwards.
type Resources struct {
	Listeners []*listenerpb.Listener
	Routes    []*routepb.RouteConfiguration
	Clusters  []*clusterpb.Cluster
	Endpoints []*endpointpb.ClusterLoadAssignment
}

// A Refusal is a resource that the proxy does not take, and why.
type Refusal struct {
	TypeURL, Name string
	Err           error
}

// A Model is a proxy that serves nobody: it compiles resources as a running one does, with
// the same decoders, filters and matchers, and says what it would do with a request. It
// opens no socket, resolves no name and asks no one; routes and endpoints come from the
// resources themselves, secrets are taken for present. It is safe for concurrent use.
type Model struct {
	s         *server
	resources Resources
	refused   []Refusal
	listeners []*listener.Config

	deciding sync.Mutex // one decision at a time: picks are of one request
	mu       sync.Mutex
	picks    map[string]*endpoint.Endpoint // by cluster, nil for none to choose
	told     []string
}

// tell is how filters of connections say what they would ask; nil in a proxy that serves.
func (m *Model) tell() func(string) {
	if m == nil {
		return nil
	}
	return func(what string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.told = append(m.told, what)
	}
}

// NewModel compiles what a proxy of that node would have.
func NewModel(node *corepb.Node, r Resources) (*Model, error) {
	boot := &bootstrappb.Bootstrap{Node: node, DynamicResources: &bootstrappb.Bootstrap_DynamicResources{AdsConfig: modelSource()}}
	text, err := protojson.Marshal(boot)
	if err != nil {
		return nil, err
	}
	b, err := Load("", string(text), true)
	if err != nil {
		return nil, err
	}
	o := DefaultOptions()
	o.Mode, o.LogLevel = "validate", "off"
	m := &Model{resources: r, picks: map[string]*endpoint.Endpoint{}}
	if m.s, err = newServerFor(m, b, o, io.Discard); err != nil {
		return nil, err
	}
	m.compile()
	return m, nil
}

// modelSource stands for the management server, which is never asked.
func modelSource() *corepb.ApiConfigSource {
	return &corepb.ApiConfigSource{
		ApiType: corepb.ApiConfigSource_GRPC, TransportApiVersion: corepb.ApiVersion_V3,
		GrpcServices: []*corepb.GrpcService{{TargetSpecifier: &corepb.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corepb.GrpcService_EnvoyGrpc{ClusterName: "xds-grpc"}}}},
	}
}

// Close gives everything up.
func (m *Model) Close() {
	for _, c := range m.listeners {
		m.s.listeners.Discard(c)
	}
	m.s.close()
}

// Refused are the resources that the proxy does not take.
func (m *Model) Refused() []Refusal { return m.refused }

func (m *Model) refuse(url, name string, err error) {
	m.refused = append(m.refused, Refusal{url, name, err})
}

// compile decodes all resources in the order of their delivery. Routes that a listener
// names are decoded with it, the others alone.
func (m *Model) compile() {
	for _, a := range m.resources.Endpoints {
		if err := cluster.CheckAssignment(a); err != nil {
			m.refuse(wellknown.EndpointType, a.GetClusterName(), err)
		}
	}
	for _, c := range m.resources.Clusters {
		if err := m.s.clusters.AddStatic(c); err != nil {
			m.refuse(wellknown.ClusterType, c.GetName(), err)
		}
	}
	env := route.CompileEnv{Filters: m.s.httpFilters(), HasCluster: m.s.clusters.Has, HTTP: http.Env{Stats: m.s.stats.Scope("http.model."), Runtime: m.s.boot.runtime}}
	for _, rc := range m.resources.Routes {
		if _, err := route.Compile(rc, env); err != nil {
			m.refuse(wellknown.RouteType, rc.GetName(), err)
		}
	}
	for _, l := range m.resources.Listeners {
		c, err := m.s.listeners.Decode(l)
		if err != nil {
			m.refuse(wellknown.ListenerType, l.GetName(), err)
			continue
		}
		m.listeners = append(m.listeners, c)
	}
}

// assignments is where clusters have their endpoints from; nil in a proxy that serves.
func (m *Model) assignments() func(service string) *endpointpb.ClusterLoadAssignment {
	if m == nil {
		return nil
	}
	return func(service string) *endpointpb.ClusterLoadAssignment {
		return named(m.resources.Endpoints, service, (*endpointpb.ClusterLoadAssignment).GetClusterName)
	}
}

// tables is where connection managers have their routes from, likewise. One that is not
// there, or refused, is a table without hosts: its requests are not found.
func (m *Model) tables() func(string, func(*anypb.Any) (*route.Table, error)) *route.Table {
	if m == nil {
		return nil
	}
	return func(name string, decode func(*anypb.Any) (*route.Table, error)) *route.Table {
		if rc := named(m.resources.Routes, name, (*routepb.RouteConfiguration).GetName); rc != nil {
			if t, err := decode(wrap(rc)); err == nil {
				return t
			}
		}
		t, _ := route.Compile(&routepb.RouteConfiguration{Name: name}, route.CompileEnv{}) // nothing in it can be wrong
		return t
	}
}

func named[M any](list []M, name string, of func(M) string) (found M) {
	if i := slices.IndexFunc(list, func(x M) bool { return of(x) == name }); i >= 0 {
		return list[i]
	}
	return found
}

// A watched cluster chooses endpoints as ever, and notes the choice, but nobody gets there.
type watched struct {
	*cluster.Cluster
	m *Model
}

func (m *Model) watch(name string) *watched {
	if c := m.s.clusters.Get(name); c != nil {
		return &watched{c, m}
	}
	return nil
}

// Pick notes the first choice for a request.
func (w *watched) Pick(x *lb.Context) *endpoint.Endpoint {
	ep := w.Cluster.Pick(x)
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if _, ok := w.m.picks[w.Name()]; !ok {
		w.m.picks[w.Name()] = ep
	}
	return nil
}

// Drops is of no request: what is shed is left to chance.
func (w *watched) Drops() (drop, all bool) { return false, false }

// A Question is a request, or a connection that carries none.
type Question struct {
	listener.Facts
	Method, Target string // of the request line; "" for a connection without a request
	Fields         []http.Field
}

// A Decision is what the proxy would do, and why.
type Decision struct {
	// Listener and Chain are "" where none takes the connection.
	Listener, Chain string
	Connection      listener.Recorder
	// Secured says that the chain begins with a TLS handshake: a connection that does not
	// ends there.
	Secured bool
	// Ended says why a filter of the chain has ended a connection without HTTP, as its log would.
	Ended string
	// Notes are what filters of the chain would have asked others about the connection.
	Notes []string
	// Request is what was decided about the request; of a connection without HTTP it holds nothing.
	Request route.Recorder
	// Picked are the endpoints that clusters chose, nil where they had none, by cluster.
	Picked map[string]*endpoint.Endpoint
}

// Decide says what becomes of a request. What is left to chance (a cluster by weight, an
// endpoint) is chosen as a running proxy would.
func (m *Model) Decide(q Question) *Decision {
	m.deciding.Lock()
	defer m.deciding.Unlock()
	d := &Decision{}
	c := listener.Choose(m.listeners, q.Facts, &d.Connection)
	if c == nil {
		return d
	}
	d.Listener, d.Chain, d.Secured = c.Listener, c.Chain, c.Secured
	if d.Secured && !q.TLS {
		return d
	}
	clear(m.picks)
	ctx, cancel := context.WithCancel(route.WithRecorder(context.Background(), &d.Request))
	defer cancel()
	c.Serve(ctx, newSpoken(q, q.text(d.Secured)))
	m.mu.Lock()
	defer m.mu.Unlock()
	d.Picked, d.Notes, d.Ended = m.picks, m.told, c.Ended()
	m.picks, m.told = map[string]*endpoint.Endpoint{}, nil
	return d
}

// Endpoints are those of a cluster; ok is false when there is no such cluster.
func (m *Model) Endpoints(name string) (list []*endpoint.Endpoint, ok bool) {
	c := m.s.clusters.Get(name)
	if c == nil {
		return nil, false
	}
	return c.Endpoints(), true
}

// hello is the beginning of TLS, which is no HTTP where nobody ends it.
const hello = "\x16\x03\x01\x00\x05hello"

// text is what the filters read: the request, as the only one of its connection, or what
// of TLS they see.
func (q *Question) text(secured bool) string {
	if q.TLS && !secured {
		return hello
	}
	if q.Method == "" {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", q.Method, q.Target)
	for _, f := range q.Fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	b.WriteString("connection: close\r\n\r\n")
	return b.String()
}
