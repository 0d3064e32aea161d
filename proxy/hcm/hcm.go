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

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/accesslog"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/route"
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
	// XDS serves route configurations by name; nil: only inline ones.
	XDS *xds.Client
	// HasCluster reports a live cluster; the access log names only such.
	HasCluster func(name string) bool
	Stats      *stats.Store
	AccessLog  accesslog.Env
	// LocalAddress is what stands in x-forwarded-for for clients of this machine.
	LocalAddress netip.Addr
	// Tracing is the bootstrap's provider of traces, for connection managers that trace and
	// name none; nil: there is none.
	Tracing *tracing.Tracer
	// Service and Node are the proxy's names (add_user_agent).
	Service, Node string
}

// Factory returns the network filter's factory.
func Factory(d Deps) network.Factory {
	return network.Factory{
		Name:     "envoy.filters.network.http_connection_manager",
		TypeURLs: []string{TypeURL},
		New: func(cfg *anypb.Any, env network.Env) (network.Built, error) {
			var c hcmv3.HttpConnectionManager
			if err := cfg.UnmarshalTo(&c); err != nil {
				return network.Built{}, fmt.Errorf("http_connection_manager: %w", err)
			}
			release := d.Stats.Scope("http." + c.GetStatPrefix() + ".").Claim()
			m, err := compile(&c, env, d)
			if err != nil {
				release()
				return network.Built{}, fmt.Errorf("http_connection_manager: %w", err)
			}
			return network.Built{Terminal: m, Warm: m.routes.warm, Close: func() { m.close(); release() }}, nil
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
	chain      []link
	enders     []http.Slot // filters to be told of the end, last first
	stats      counters
	loggers    []accesslog.Logger
	clock      clock
	drains     drains
	hasCluster func(string) bool
}

// A link is one filter of the chain.
type link struct {
	name   string
	filter http.Filter
	ender  http.Ender // nil: none
}

// Serve runs the exchanges of a connection until it ends.
func (m *manager) Serve(ctx context.Context, nc *network.Conn) {
	newConn(m, nc).serve(ctx)
}

// close gives up the subscription and the log files.
func (m *manager) close() {
	m.routes.close()
	for _, l := range m.loggers {
		l.Close()
	}
}

// routes hold the route table in force.
type routes struct {
	table  pointer[route.Table]
	warm   chan struct{} // nil: at once
	once   sync.Once
	cancel func()
}

func (r *routes) close() {
	if r.cancel != nil {
		r.cancel()
	}
}

// update takes a new table. A route configuration that has gone stays in force.
func (r *routes) update(t *route.Table, present bool) {
	if present {
		r.table.Store(t)
	}
	r.once.Do(func() { close(r.warm) })
}
