package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/wellknown"
)

// underADS runs a proxy, with clusters, under a management server in one form of the protocol.
func underADS(t *testing.T, srv *xdstest.Server, form string, clusters ...string) *running {
	t.Helper()
	host, port, err := net.SplitHostPort(srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return launch(t, fmt.Sprintf(`
node: {id: node, cluster: c}
dynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}
  %s
`, form, host, port, strings.Join(clusters, "\n  ")))
}

// adsListener is one with filters, as YAML, before its router, and with routes.
func adsListener(t *testing.T, filters, routes string) proto.Message {
	t.Helper()
	return message(t, &listenerpb.Listener{}, `
name: l
address: {socket_address: {address: 127.0.0.1, port_value: 0}}
filter_chains:
- filters:
  - name: h
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: h
      http_filters:
`+filters+`
      - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
      `+routes)
}

func faultResource(t *testing.T, name, typed string) proto.Message {
	t.Helper()
	return message(t, &corepb.TypedExtensionConfig{}, "name: "+name+"\ntyped_config: "+typed)
}

const oneRoute = `route_config: {virtual_hosts: [{name: vh, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}`

const discoveredFault = `
      - name: faulty
        config_discovery: {config_source: {ads: {}, resource_api_version: V3}, type_urls: [type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault]}`

func abort(status int) string {
	return fmt.Sprintf(`{"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: %d, percentage: {numerator: 100}}}`, status)
}

// statusOf is the status of one request.
func statusOf(t *testing.T, addr, host string) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host, req.Close = host, true
	r, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	return r.StatusCode
}

// TestFilterDiscovery: a listener waits for the configuration of its filters, takes new ones,
// and keeps what it has when one is refused.
func TestFilterDiscovery(t *testing.T) {
	for _, form := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(form, func(t *testing.T) {
			srv := xdstest.New(t)
			srv.SetAll(wellknown.ListenerType, map[string]proto.Message{"l": adsListener(t, discoveredFault, oneRoute)})
			r := underADS(t, srv, form)
			r.eventually("/stats?filter=total_listeners", "listener_manager.total_listeners_warming: 1")
			srv.Set("faulty", faultResource(t, "faulty", abort(555)))
			r.eventually("/ready", "LIVE\n")
			addr := r.listener("l")
			if got := statusOf(t, addr, "a"); got != 555 {
				t.Errorf("status %d", got)
			}
			n := len(srv.Requests(wellknown.ExtensionType))
			srv.Set("faulty", faultResource(t, "faulty", `{"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}`))
			nack := srv.Await(t, wellknown.ExtensionType, n, func(r xdstest.Request) bool { return r.Error != nil })
			want := "Error: filter config has type URL envoy.extensions.filters.http.cors.v3.Cors but expect envoy.extensions.filters.http.fault.v3.HTTPFault."
			if !strings.Contains(nack.Error.GetMessage(), want) {
				t.Errorf("NACK %q", nack.Error.GetMessage())
			}
			if got := statusOf(t, addr, "a"); got != 555 {
				t.Errorf("status %d after a refused configuration", got)
			}
			srv.Set("faulty", faultResource(t, "faulty", abort(556)))
			r.eventually("/stats?filter=faulty.config_reload", "config_reload: 2")
			if got := statusOf(t, addr, "a"); got != 556 {
				t.Errorf("status %d after a new configuration", got)
			}
		})
	}
}

const demandedHosts = `
      - {name: demand, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand}}`

func virtualHost(t *testing.T, name, domain string, status int) proto.Message {
	t.Helper()
	return message(t, &routepb.VirtualHost{}, fmt.Sprintf(`{name: %s, domains: ["%s"], routes: [{match: {prefix: /}, direct_response: {status: %d}}]}`, name, domain, status))
}

// TestVirtualHostDiscovery: a request to a host without routes waits until they have come, or
// until the control plane says that there are none.
func TestVirtualHostDiscovery(t *testing.T) {
	srv := xdstest.New(t)
	srv.SetAll(wellknown.ListenerType, map[string]proto.Message{"l": adsListener(t, demandedHosts, `rds: {route_config_name: routes, config_source: {ads: {}, resource_api_version: V3}}`)})
	srv.SetAll(wellknown.RouteType, map[string]proto.Message{"routes": message(t, &routepb.RouteConfiguration{}, `
name: routes
virtual_hosts: [{name: own, domains: [own.test], routes: [{match: {prefix: /}, direct_response: {status: 201}}]}]
vhds: {config_source: {ads: {}, resource_api_version: V3}}`)})
	srv.Set("routes/asked.test", virtualHost(t, "routes/asked.test", "asked.test", 202))
	srv.Set("routes/_sent", virtualHost(t, "routes/_sent", "sent.test", 203))
	r := underADS(t, srv, "DELTA_GRPC")
	r.eventually("/ready", "LIVE\n")
	addr := r.listener("l")
	for _, c := range []struct {
		host string
		want int
	}{{"own.test", 201}, {"asked.test", 202}, {"Asked.Test", 202}, {"asked.test:8080", 404}, {"sent.test", 203}, {"nobody.test", 404}, {"asked.test", 202}} {
		if got := statusOf(t, addr, c.host); got != c.want {
			t.Errorf("%s: status %d, want %d", c.host, got, c.want)
		}
	}
	n := len(srv.Requests(wellknown.VirtualHostType))
	srv.Set("routes/asked.test", virtualHost(t, "routes/asked.test", "asked.test", 204))
	srv.Await(t, wellknown.VirtualHostType, n, func(r xdstest.Request) bool { return r.Nonce != "" && r.Error == nil })
	if got := statusOf(t, addr, "asked.test"); got != 204 {
		t.Errorf("status %d after a change", got)
	}
	n = len(srv.Requests(wellknown.VirtualHostType))
	srv.Set("routes/asked.test", message(t, &routepb.VirtualHost{}, `{name: "routes/asked.test", domains: [asked.test], routes: [{match: {prefix: /}, route: {cluster_specifier_plugin: x}}]}`))
	srv.Await(t, wellknown.VirtualHostType, n, func(r xdstest.Request) bool { return r.Error != nil })
	if got := statusOf(t, addr, "asked.test"); got != 204 {
		t.Errorf("status %d after a refused change", got)
	}
	t.Run("the state of the world has none", func(t *testing.T) {
		r := underADS(t, srv, "GRPC")
		srv.Await(t, wellknown.RouteType, 0, func(r xdstest.Request) bool {
			return r.Error != nil && strings.Contains(r.Error.GetMessage(), "only 'DELTA_GRPC' is supported as an api_type")
		})
		_ = r
	})
}

// TestVirtualHostsAhead: where all virtual hosts are sent ahead, nobody waits for one, and no
// request finds a table without them.
func TestVirtualHostsAhead(t *testing.T) {
	const apart = `{name: routes, vhds: {config_source: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}}}`
	const own = `{name: routes, virtual_hosts: [{name: own, domains: [a.test], routes: [{match: {prefix: /}, direct_response: {status: 201}}]}]}`
	began := func(t *testing.T, table string) (*xdstest.Server, *running) {
		t.Helper()
		srv := xdstest.New(t)
		srv.SetAll(wellknown.ListenerType, map[string]proto.Message{"l": adsListener(t, "", `rds: {route_config_name: routes, config_source: {ads: {}, resource_api_version: V3}}`)})
		srv.Set("routes", message(t, &routepb.RouteConfiguration{}, table))
		srv.Hold(wellknown.VirtualHostType, true)
		return srv, underADS(t, srv, "DELTA_GRPC")
	}
	taken := func(t *testing.T, srv *xdstest.Server, url string, change func()) {
		t.Helper()
		n := len(srv.Requests(url))
		change()
		srv.Await(t, url, n, func(r xdstest.Request) bool { return r.Nonce != "" && r.Error == nil })
	}
	answers := func(t *testing.T, r *running, host string, want int) {
		t.Helper()
		if got := statusOf(t, r.listener("l"), host); got != want {
			t.Errorf("%s: status %d, want %d", host, got, want)
		}
	}
	asked := func(name string) func(xdstest.Request) bool {
		return func(r xdstest.Request) bool { return slices.Contains(r.Subscribe, name) }
	}
	t.Run("a listener waits for them, and no request does", func(t *testing.T) {
		srv, r := began(t, apart)
		srv.Await(t, wellknown.VirtualHostType, 0, asked("routes"))
		r.eventually("/stats?filter=total_listeners", "listener_manager.total_listeners_warming: 1")
		srv.Set("routes/_a:80", virtualHost(t, "a:80", "a.test", 202))
		srv.Hold(wellknown.VirtualHostType, false)
		r.eventually("/ready", "LIVE\n")
		answers(t, r, "a.test", 202)
		n := len(srv.Requests(wellknown.VirtualHostType))
		answers(t, r, "nobody.test", 404)
		if more := srv.Requests(wellknown.VirtualHostType)[n:]; len(more) > 0 {
			t.Errorf("asked for %v", more)
		}
		srv.Set("routes/_b:80", virtualHost(t, "b:80", "b.test", 203))
		taken(t, srv, wellknown.VirtualHostType, func() { srv.Set("routes/_any", virtualHost(t, "any", "*", 204)) })
		answers(t, r, "b.test", 203)
		answers(t, r, "nobody.test", 204)
		dump := r.eventually("/config_dump?resource=dynamic_route_configs", `"name": "any"`)
		for _, want := range []string{`"name": "a:80"`, `"name": "b:80"`, `"name": "any"`} {
			if !strings.Contains(dump, want) {
				t.Errorf("the dump has no %s: %s", want, dump)
			}
		}
		taken(t, srv, wellknown.VirtualHostType, func() { srv.Remove(wellknown.VirtualHostType, "routes/_b:80") })
		answers(t, r, "b.test", 204)
		answers(t, r, "a.test", 202)
	})
	t.Run("one that is refused leaves the others, and a listener that replaces another has all", func(t *testing.T) {
		srv, r := began(t, apart)
		srv.Set("routes/_a", virtualHost(t, "a", "a.test", 202))
		srv.Hold(wellknown.VirtualHostType, false)
		r.eventually("/ready", "LIVE\n")
		n := len(srv.Requests(wellknown.VirtualHostType))
		srv.Set("routes/_twice", virtualHost(t, "twice", "a.test", 203))
		nack := srv.Await(t, wellknown.VirtualHostType, n, func(r xdstest.Request) bool { return r.Error != nil })
		if got := nack.Error.GetMessage(); !strings.Contains(got, `domain "a.test" is of virtual host "a" already`) {
			t.Errorf("refused with %s", got)
		}
		answers(t, r, "a.test", 202)
		taken(t, srv, wellknown.VirtualHostType, func() { srv.Remove(wellknown.VirtualHostType, "routes/_twice") })
		n = len(srv.Requests(wellknown.VirtualHostType))
		srv.Set("l", adsListener(t, "", `rds: {route_config_name: routes, config_source: {ads: {}, resource_api_version: V3}}
      server_name: another`))
		r.eventually("/stats?filter=listener_modified", "listener_manager.listener_modified: 1")
		r.eventually("/stats?filter=total_listeners", "listener_manager.total_listeners_warming: 0")
		answers(t, r, "a.test", 202)
		for _, more := range srv.Requests(wellknown.VirtualHostType)[n:] {
			if len(more.Subscribe) > 0 {
				t.Errorf("asked once more for %v", more.Subscribe)
			}
		}
	})
	t.Run("a table that gives its own up, and takes them back", func(t *testing.T) {
		srv, r := began(t, own)
		r.eventually("/ready", "LIVE\n")
		answers(t, r, "a.test", 201)
		taken(t, srv, wellknown.RouteType, func() { srv.Set("routes", message(t, &routepb.RouteConfiguration{}, apart)) })
		srv.Await(t, wellknown.VirtualHostType, 0, asked("routes"))
		answers(t, r, "a.test", 201) // those that come instead are not there yet
		srv.Set("routes/_a", virtualHost(t, "a", "a.test", 202))
		taken(t, srv, wellknown.VirtualHostType, func() { srv.Hold(wellknown.VirtualHostType, false) })
		answers(t, r, "a.test", 202)
		n := len(srv.Requests(wellknown.VirtualHostType))
		taken(t, srv, wellknown.RouteType, func() { srv.Set("routes", message(t, &routepb.RouteConfiguration{}, own)) })
		answers(t, r, "a.test", 201)
		srv.Await(t, wellknown.VirtualHostType, n, func(r xdstest.Request) bool { return slices.Contains(r.Unsubscribe, "routes") })
	})
	t.Run("a table that has gone stays in force, with all of them", func(t *testing.T) {
		srv, r := began(t, apart)
		srv.Set("routes/_a", virtualHost(t, "a", "a.test", 202))
		srv.Hold(wellknown.VirtualHostType, false)
		r.eventually("/ready", "LIVE\n")
		n := len(srv.Requests(wellknown.VirtualHostType))
		taken(t, srv, wellknown.RouteType, func() { srv.Remove(wellknown.RouteType, "routes") })
		srv.Await(t, wellknown.VirtualHostType, n, func(r xdstest.Request) bool { return slices.Contains(r.Unsubscribe, "routes") })
		srv.Remove(wellknown.VirtualHostType, "routes/_a")
		answers(t, r, "a.test", 202)
	})
}

// TestClusterGoneWithItsRoute: a request that a filter holds while its route and cluster are taken
// away goes by the routes of now (WI-030); a cluster that the newest routes name and nobody has is
// 503, as ever, and nothing that filters would refuse passes by them.
func TestClusterGoneWithItsRoute(t *testing.T) {
	const held = `
      - name: held
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, delay: {fixed_delay: 1s, percentage: {numerator: 100}}}`
	routes := func(action string) proto.Message {
		return message(t, &routepb.RouteConfiguration{}, `
name: routes
virtual_hosts: [{name: vh, domains: ["*"], routes: [{match: {prefix: /}, `+action+`}]}]`)
	}
	srv := xdstest.New(t)
	srv.SetAll(wellknown.ListenerType, map[string]proto.Message{"l": adsListener(t, held, `rds: {route_config_name: routes, config_source: {ads: {}, resource_api_version: V3}}`)})
	srv.SetAll(wellknown.RouteType, map[string]proto.Message{"routes": routes(`route: {cluster: gone}`)})
	r := underADS(t, srv, "DELTA_GRPC")
	r.eventually("/ready", "LIVE\n")
	addr := r.listener("l")
	if got := statusOf(t, addr, "a"); got != http.StatusServiceUnavailable {
		t.Errorf("status %d where the cluster is nowhere", got)
	}
	answer := make(chan int, 1)
	begin := func() {
		t.Helper()
		r.eventually("/stats?filter=h.downstream_rq_active", "downstream_rq_active: 0") // not the one before
		go func() { answer <- statusOf(t, addr, "a") }()
		r.eventually("/stats?filter=h.downstream_rq_active", "downstream_rq_active: 1")
	}
	begin()
	srv.Set("routes", routes(`direct_response: {status: 207}`))
	if got := <-answer; got != 207 {
		t.Errorf("status %d, want that of the new route", got)
	}

	// What the new route tells filters came too late for this request, which is not let by.
	srv.Set("routes", routes(`route: {cluster: gone}`))
	r.eventually("/stats?filter=rds.routes.config_reload", "config_reload: 3")
	begin()
	srv.Set("routes", routes(`direct_response: {status: 207}, typed_per_filter_config: {held: `+abort(403)+`}`))
	if got := <-answer; got != http.StatusServiceUnavailable {
		t.Errorf("status %d where the new route would have refused the request", got)
	}
}
