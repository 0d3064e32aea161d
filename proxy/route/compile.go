package route

import (
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Compile checks and compiles a RouteConfiguration. Its error names virtual host,
// route and field; the whole resource is refused, what was in force stays.
func Compile(rc *routev3.RouteConfiguration, env CompileEnv) (*Table, error) {
	t, err := newCompiler(rc, env).table()
	if err == nil {
		err = rc.ValidateAll() // the constraints that the schema itself states
	}
	if err != nil {
		return nil, fmt.Errorf("route configuration %q: %w", rc.GetName(), err)
	}
	return t, nil
}

// A compiler holds what the parts of one RouteConfiguration need of the whole.
type compiler struct {
	env     CompileEnv
	config  *routev3.RouteConfiguration
	maxBody int // of direct responses
}

func newCompiler(rc *routev3.RouteConfiguration, env CompileEnv) *compiler {
	c := &compiler{env: env, config: rc, maxBody: 4096}
	if n := rc.GetMaxDirectResponseBodySizeBytes(); n != nil {
		c.maxBody = int(n.GetValue())
	}
	return c
}

func (c *compiler) table() (*Table, error) {
	rc := c.config
	err := xds.Only(rc, "name", "vhds", "virtual_hosts", "response_headers_to_add", "response_headers_to_remove", "request_headers_to_add",
		"request_headers_to_remove", "most_specific_header_mutations_wins", "validate_clusters", "max_direct_response_body_size_bytes",
		"request_mirror_policies", "ignore_port_in_host_matching", "typed_per_filter_config", "metadata", "vhost_header",
		"ignore_path_parameters_in_path_matching")
	if err != nil {
		return nil, err
	}
	t := &Table{Name: rc.GetName(), Source: sourceOf(rc), SpecificWins: rc.GetMostSpecificHeaderMutationsWins()}
	t.hosts = hosts{exact: map[string]*VirtualHost{}, anyPort: rc.GetIgnorePortInHostMatching(), header: strings.ToLower(rc.GetVhostHeader())}
	t.plainPaths = rc.GetIgnorePathParametersInPathMatching()
	if t.Edits, err = newEdits(rc); err != nil {
		return nil, err
	}
	if t.PerFilter, err = c.perFilter(rc.GetTypedPerFilterConfig()); err != nil {
		return nil, err
	}
	if t.Metadata, err = metadata(rc.GetMetadata()); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, v := range rc.GetVirtualHosts() {
		vh, err := c.virtualHost(v)
		if err == nil {
			err = t.addHost(vh, v.GetDomains(), names)
		}
		if err != nil {
			return nil, fmt.Errorf("virtual host %q: %w", v.GetName(), err)
		}
	}
	t.hosts.order()
	return t, nil
}

// sourceOf is the configuration itself where further virtual hosts come by themselves.
func sourceOf(rc *routev3.RouteConfiguration) *routev3.RouteConfiguration {
	if rc.GetVhds() == nil {
		return nil
	}
	return rc
}

// addHost gives a table that is being made a virtual host.
func (t *Table) addHost(vh *VirtualHost, domains []string, names map[string]bool) error {
	if names[vh.Name] {
		return errors.New("name: there are two of it")
	}
	names[vh.Name] = true
	for i, domain := range domains {
		if err := t.hosts.add(domain, vh); err != nil {
			return fmt.Errorf("domains[%d]: %w", i, err)
		}
	}
	return nil
}

func (c *compiler) virtualHost(v *routev3.VirtualHost) (*VirtualHost, error) {
	err := xds.Only(v, "name", "domains", "routes", "require_tls", "request_headers_to_add", "request_headers_to_remove",
		"response_headers_to_add", "response_headers_to_remove", "cors", "typed_per_filter_config", "include_request_attempt_count",
		"include_attempt_count_in_response", "retry_policy", "per_request_buffer_limit_bytes", "request_body_buffer_limit",
		"request_mirror_policies", "metadata", "matcher", "virtual_clusters", "hedge_policy", "include_is_timeout_retry_header")
	if err != nil {
		return nil, err
	}
	vh := &VirtualHost{
		Name:                          v.GetName(),
		IncludeAttemptCount:           v.GetIncludeRequestAttemptCount(),
		IncludeAttemptCountInResponse: v.GetIncludeAttemptCountInResponse(),
		IncludeTimeoutRetry:           v.GetIncludeIsTimeoutRetryHeader(),
	}
	switch v.GetRequireTls() {
	case routev3.VirtualHost_ALL:
		vh.tls = tlsAll
	case routev3.VirtualHost_EXTERNAL_ONLY:
		vh.tls = tlsExternal
	}
	if vh.Edits, err = newEdits(v); err != nil {
		return nil, err
	}
	if vh.PerFilter, err = c.perFilter(v.GetTypedPerFilterConfig()); err != nil {
		return nil, err
	}
	if vh.PerFilter, err = c.withCORS(vh.PerFilter, v.GetCors()); err != nil {
		return nil, err
	}
	if vh.Metadata, err = metadata(v.GetMetadata()); err != nil {
		return nil, err
	}
	if vh.clusters, err = c.virtualClusters(v); err != nil {
		return nil, err
	}
	for i, r := range v.GetRoutes() {
		rt, err := c.route(v, r)
		if err != nil {
			return nil, fmt.Errorf("routes[%d] %q: %w", i, r.GetName(), err)
		}
		vh.Routes = append(vh.Routes, rt)
	}
	if v.GetMatcher() == nil {
		return vh, nil
	}
	if vh.tree, err = c.tree(v); err != nil {
		return nil, fmt.Errorf("matcher: %w", err)
	}
	return vh, nil
}

func (c *compiler) route(v *routev3.VirtualHost, r *routev3.Route) (*Route, error) {
	err := xds.Only(r, "name", "match", "route", "redirect", "direct_response", "metadata", "decorator", "typed_per_filter_config",
		"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
		"per_request_buffer_limit_bytes", "stat_prefix", "request_body_buffer_limit")
	if err != nil {
		return nil, err
	}
	rt := &Route{Name: r.GetName()}
	if r.GetStatPrefix() != "" {
		rt.Tally = c.tally(v, "route", r.GetStatPrefix())
	}
	if p := r.GetDecorator().GetPropagate(); p == nil || p.GetValue() {
		rt.Decorator = r.GetDecorator().GetOperation()
	}
	if rt.matcher, err = newMatcher(r.GetMatch(), c.env.HTTP.Runtime); err != nil {
		return nil, fmt.Errorf("match: %w", err)
	}
	if rt.Edits, err = newEdits(r); err != nil {
		return nil, err
	}
	if rt.PerFilter, err = c.perFilter(r.GetTypedPerFilterConfig()); err != nil {
		return nil, err
	}
	if rt.Metadata, err = metadata(r.GetMetadata()); err != nil {
		return nil, err
	}
	return rt, c.action(rt, v, r)
}

// action sets the one of Forward, Redirect and Direct that r asks for.
func (c *compiler) action(rt *Route, v *routev3.VirtualHost, r *routev3.Route) (err error) {
	switch a := r.GetAction().(type) {
	case *routev3.Route_Route:
		if rt.Forward, err = c.forward(v, r, a.Route); err != nil {
			return fmt.Errorf("route: %w", err)
		}
		if err = rt.setTemplate(a.Route); err != nil {
			return fmt.Errorf("route: %w", err)
		}
		if rt.PerFilter, err = c.withCORS(rt.PerFilter, a.Route.GetCors()); err != nil {
			return fmt.Errorf("route: %w", err)
		}
	case *routev3.Route_Redirect:
		if rt.Redirect, err = newRedirect(a.Redirect); err != nil {
			return fmt.Errorf("redirect: %w", err)
		}
	case *routev3.Route_DirectResponse:
		if rt.Direct, err = c.direct(a.DirectResponse); err != nil {
			return fmt.Errorf("direct_response: %w", err)
		}
	default:
		return errors.New("action: not set")
	}
	return nil
}

// bufferLimit is the first limit that is set, -1 for none.
func bufferLimit(r *routev3.Route, v *routev3.VirtualHost) int64 {
	for _, limit := range []proto.Message{
		r.GetRequestBodyBufferLimit(), r.GetPerRequestBufferLimitBytes(), v.GetRequestBodyBufferLimit(), v.GetPerRequestBufferLimitBytes(),
	} {
		switch n := limit.(type) {
		case *wrapperspb.UInt64Value:
			if n != nil {
				return int64(min(n.GetValue(), 1<<62))
			}
		case *wrapperspb.UInt32Value:
			if n != nil {
				return int64(n.GetValue())
			}
		}
	}
	return -1
}

// metadata is filter_metadata as JSON-like values.
func metadata(m *corev3.Metadata) (map[string]map[string]any, error) {
	if m == nil {
		return nil, nil
	}
	if err := xds.Only(m, "filter_metadata"); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	out := make(map[string]map[string]any, len(m.GetFilterMetadata()))
	for name, s := range m.GetFilterMetadata() {
		out[name] = s.AsMap()
	}
	return out, nil
}
