// Package hcm is the HTTP connection manager: the terminal network filter that makes
// HTTP exchanges of a connection's bytes.
//
// Factory compiles an HttpConnectionManager into a Terminal. Serve runs one goroutine
// for each connection: it reads a request with the codec, prepares it (edge rules,
// path, request id), chooses the route, runs the filters in order until one has an
// answer (the router, mostly), runs them in reverse over the answer, writes it and
// logs it, once, at the end. Everything one exchange needs lives in the connection's
// stream and is used again for the next; in steady state nothing is allocated.
//
// A request for another protocol (Upgrade, or :protocol of HTTP/2), and CONNECT, must be
// allowed by upgrade_configs of the connection manager or of the route, else it is
// answered with 403; it may have a chain of its own. Its bytes are bodies without an end
// of their own, whatever versions of HTTP are spoken on either side.
//
// Filters whose word on a request changes with their configuration (http.Reviewer) are asked
// again about the streams that are open when it changes; those that they deny end.
//
// A watcher looks after each connection by one lazily armed timer: it notices clients
// that leave while their request is under way, stalled streams, idle connections and
// passed time limits, and gives buffers of idle connections back.
//
// What the configuration asks for and is not had is an error that names the field.
package hcm

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/accesslog"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/tracing"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// TypeURL is that of the configuration.
const TypeURL = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

// Deps are what a connection manager uses of the proxy around it.
type Deps struct {
	// Filters are the HTTP filters that configuration may name.
	Filters []http.Factory
	// XDS serves what comes from ADS where there is no Source; nil: nothing does.
	XDS *xds.Client
	// Source finds who serves resources of a type: route configurations, filters; nil: XDS.
	Source func(typeURL string) func(*corev3.ConfigSource) (*xds.Client, error)
	// HasCluster reports a live cluster; the access log names only such.
	HasCluster func(name string) bool
	// AnyCluster is HasCluster for those that warm, too; nil: the clusters of routes are not
	// checked.
	AnyCluster func(name string) bool
	Stats      *stats.Store
	AccessLog  accesslog.Env
	// Known gives route configurations that are at hand, to a proxy that subscribes to none:
	// decode makes its table of the resource. Nil in the running proxy.
	Known func(name string, decode func(*anypb.Any) (*route.Table, error)) *route.Table
	// LocalAddress is what stands in x-forwarded-for for clients of this machine.
	LocalAddress netip.Addr
	// Tracing is the bootstrap's provider of traces, for connection managers that trace and
	// name none; nil: there is none.
	Tracing *tracing.Tracer
	// Runtime has values that may change; nil has none.
	Runtime *runtime.Values
	// Service and Node are the proxy's names (add_user_agent).
	Service, Node string
}

// Factory returns the network filter's factory.
func Factory(d Deps) network.Factory {
	codec := sync.OnceValue(func() *http2.Stats { return http2.NewStats(d.Stats.Scope("")) })
	return network.Factory{
		Name:     "envoy.filters.network.http_connection_manager",
		TypeURLs: []string{TypeURL},
		New: func(cfg *anypb.Any, env network.Env) (network.Built, error) {
			var c hcmv3.HttpConnectionManager
			if err := cfg.UnmarshalTo(&c); err != nil {
				return network.Built{}, fmt.Errorf("http_connection_manager: %w", err)
			}
			release := d.Stats.Scope("http." + c.GetStatPrefix() + ".").Claim()
			m, err := compile(&c, env, d, codec())
			if err != nil {
				release()
				return network.Built{}, fmt.Errorf("http_connection_manager: %w", err)
			}
			return network.Built{Terminal: m, Warm: m.warm(d.Known == nil), Close: func() { m.close(); release() }}, nil
		},
	}
}

// LocalAddress is the first address of this machine that is not loopback, as Envoy
// chooses its own; loopback when there is none.
func LocalAddress() netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok || n.IP.IsLoopback() || n.IP.To4() == nil {
				continue
			}
			ip, _ := netip.AddrFromSlice(n.IP.To4())
			return ip
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// A manager is one compiled connection manager.
type manager struct {
	config
	routes     routes
	chain      chain
	slots      int           // of the longest chain
	discovered []*discovered // filters of the chains that come by themselves
	runners    []http.Runner // filters of the chains that work beside the streams
	closed     chan struct{}
	village    *village // virtual hosts that come by themselves, nil with routes of its own
	stats      counters
	loggers    []accesslog.Logger
	early      earlyLines
	policy     policy
	clock      clock
	drains     drains
	hasCluster func(string) bool
}

// A chain is the filters that a stream passes.
type chain struct {
	links    []link
	enders   []http.Slot // filters to be told of the end, last first
	sleeping bool        // some filters are enabled by routes only
	hold     int         // before which filter streams are held for reviews
}

// A link is one filter of a chain.
type link struct {
	name     string
	filter   http.Filter
	ender    http.Ender // nil: none
	disabled bool       // until a route enables it
}

// Serve runs the exchanges of a connection until it ends.
func (m *manager) Serve(ctx context.Context, nc *network.Conn) {
	c := newConn(m, nc)
	c.why = route.RecorderFrom(ctx)
	c.serve()
}

// speaks reports that a connection is known to be HTTP/2 before its first byte.
func (m *manager) speaks(nc *network.Conn) bool {
	if m.version != versionAny {
		return m.version == version2
	}
	t := nc.TLS()
	return t != nil && t.NegotiatedProtocol == "h2"
}

// release gives up the subscriptions.
func (m *manager) release() {
	m.routes.close()
	for _, x := range m.discovered {
		x.cancel()
	}
	close(m.closed)
}

// close gives up the subscriptions and the log files.
func (m *manager) close() {
	m.release()
	for _, l := range m.loggers {
		l.Close()
	}
}

// routes hold the route table in force.
type routes struct {
	table   pointer[route.Table]
	scopes  *route.Scopes // that have tables of their own instead, nil for none
	village *village      // nil: all virtual hosts are in the configuration
	warm    chan struct{} // nil: at once
	once    sync.Once
	cancel  func()
	changed func() // hears of each new table
}

// find is the table of now for a request, nil when there is none.
func (r *routes) find(request *http.Request) *route.Table {
	if r.scopes != nil {
		return r.scopes.Find(request)
	}
	return r.table.Load()
}

// put puts a table in force.
func (r *routes) put(t *route.Table) {
	r.table.Store(t)
	r.changed()
}

func (r *routes) close() {
	if r.cancel != nil {
		r.cancel()
	}
	if r.village != nil {
		r.village.leave()
	}
}

// update takes a new table. A route configuration that has gone stays in force, with all its
// virtual hosts. One whose virtual hosts come by themselves is in force when they have come.
func (r *routes) update(t *route.Table, present bool) {
	if present && t.Source != nil && r.village != nil {
		r.village.take(t)
		return
	}
	if present {
		r.put(t)
	}
	if r.village != nil {
		r.village.leave()
	}
	r.warmed()
}

func (r *routes) warmed() { r.once.Do(func() { close(r.warm) }) }
