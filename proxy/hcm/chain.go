package hcm

import (
	"errors"
	"fmt"
	"slices"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// compileChain builds the HTTP filters.
func (m *manager) compileChain(c *hcmv3.HttpConnectionManager, env network.Env, d Deps) error {
	shared := http.Env{Stats: d.Stats.Scope("http." + c.GetStatPrefix() + "."), Direction: env.Direction}
	terminal := false
	for i, f := range c.GetHttpFilters() {
		factory, err := find(f, d.Filters)
		if err != nil {
			if f.GetIsOptional() {
				continue
			}
			return fmt.Errorf("http_filters[%d] %q: %w", i, f.GetName(), err)
		}
		if terminal {
			return fmt.Errorf("http_filters[%d] %q: comes after a terminal filter", i, f.GetName())
		}
		built, err := factory.New(f.GetTypedConfig(), shared)
		if err != nil {
			return fmt.Errorf("http_filters[%d] %q: %w", i, f.GetName(), err)
		}
		terminal = factory.Terminal
		l := link{name: f.GetName(), filter: built}
		l.ender, _ = built.(http.Ender)
		if l.ender != nil {
			m.enders = append(m.enders, http.Slot(len(m.chain)))
		}
		m.chain = append(m.chain, l)
	}
	slices.Reverse(m.enders)
	if !terminal {
		return errors.New("http_filters: must end with a terminal filter")
	}
	return nil
}

// find returns the factory of a filter.
func find(f *hcmv3.HttpFilter, table []http.Factory) (*http.Factory, error) {
	switch {
	case f.GetConfigDiscovery() != nil:
		return nil, errors.New("config_discovery: not supported")
	case f.GetDisabled():
		return nil, errors.New("disabled: not supported")
	}
	url, err := innerType(f.GetTypedConfig())
	if err != nil {
		return nil, err
	}
	for i := range table {
		if url == "" && table[i].Name == f.GetName() || slices.Contains(table[i].TypeURLs, url) {
			return &table[i], nil
		}
	}
	if url == "" {
		return nil, errors.New("no such filter")
	}
	return nil, fmt.Errorf("typed_config: %s: no such filter", url)
}

// innerType is the type URL of a configuration; that within for a TypedStruct.
func innerType(a *anypb.Any) (string, error) {
	switch url := a.GetTypeUrl(); url {
	case "type.googleapis.com/udpa.type.v1.TypedStruct":
		var t udpav1.TypedStruct
		err := a.UnmarshalTo(&t)
		return t.GetTypeUrl(), err
	case "type.googleapis.com/xds.type.v3.TypedStruct":
		var t xdsv3.TypedStruct
		err := a.UnmarshalTo(&t)
		return t.GetTypeUrl(), err
	default:
		return url, nil
	}
}

// compileRoutes takes the inline route configuration or subscribes to one.
func (m *manager) compileRoutes(c *hcmv3.HttpConnectionManager, env network.Env, d Deps) error {
	compiler := route.CompileEnv{Filters: d.Filters,
		HTTP: http.Env{Stats: d.Stats.Scope("http." + c.GetStatPrefix() + "."), Direction: env.Direction}}
	switch s := c.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_RouteConfig:
		t, err := route.Compile(s.RouteConfig, compiler)
		if err != nil {
			return fmt.Errorf("route_config: %w", err)
		}
		m.routes.table.Store(t)
		return nil
	case *hcmv3.HttpConnectionManager_Rds:
		return m.subscribe(s.Rds, compiler, d)
	}
	return errors.New("rds or route_config: one must be set")
}

func (m *manager) subscribe(r *hcmv3.Rds, compiler route.CompileEnv, d Deps) error {
	src := r.GetConfigSource()
	if src.GetAds() == nil && src.GetSelf() == nil || d.XDS == nil {
		return errors.New("rds.config_source: only ads is supported")
	}
	if r.GetRouteConfigName() == "" {
		return errors.New("rds.route_config_name: must not be empty")
	}
	t := route.Type(compiler)
	t.FetchTimeout = duration(src.GetInitialFetchTimeout(), defaultFetch)
	m.routes.warm = make(chan struct{})
	m.routes.cancel = xds.Subscribe(d.XDS, t, r.GetRouteConfigName(), m.routes.update)
	return nil
}

// overrides fills the stream's per-route configuration, the most specific for each filter.
func (m *manager) overrides(s *http.Stream, t *route.Target) {
	if !hasOverrides(t) {
		s.SetOverrides(0, nil)
		return
	}
	s.SetOverrides(len(m.chain), func(slot http.Slot) any { return override(t, m.chain[slot].name) })
}

func hasOverrides(t *route.Target) bool {
	return t.Table != nil && len(t.Table.PerFilter) > 0 || t.VirtualHost != nil && len(t.VirtualHost.PerFilter) > 0 ||
		t.Route != nil && len(t.Route.PerFilter) > 0 || t.Weighted != nil && len(t.Weighted.PerFilter) > 0
}

func override(t *route.Target, name string) any {
	if t.Weighted != nil {
		if v := t.Weighted.PerFilter[name]; v != nil {
			return v
		}
	}
	if t.Route != nil {
		if v := t.Route.PerFilter[name]; v != nil {
			return v
		}
	}
	if t.VirtualHost != nil {
		if v := t.VirtualHost.PerFilter[name]; v != nil {
			return v
		}
	}
	return t.Table.PerFilter[name]
}
