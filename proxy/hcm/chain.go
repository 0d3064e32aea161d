package hcm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// compileChains builds the HTTP filters, those of upgrades that have their own included.
func (m *manager) compileChains(c *hcmv3.HttpConnectionManager, env network.Env, d Deps) error {
	shared := http.Env{Stats: d.Stats.Scope("http." + c.GetStatPrefix() + "."), Direction: env.Direction, Runtime: d.Runtime}
	if err := m.compileChain(&m.chain, c.GetHttpFilters(), shared, d); err != nil {
		return fmt.Errorf("http_filters%w", err)
	}
	for i, u := range c.GetUpgradeConfigs() {
		if len(u.GetFilters()) == 0 {
			continue
		}
		own := m.upgrades[strings.ToLower(u.GetUpgradeType())]
		own.chain = &chain{}
		if err := m.compileChain(own.chain, u.GetFilters(), shared, d); err != nil {
			return fmt.Errorf("upgrade_configs[%d].filters%w", i, err)
		}
	}
	return nil
}

// compileChain builds one chain. Its errors go on after the name of the list.
func (m *manager) compileChain(to *chain, filters []*hcmv3.HttpFilter, shared http.Env, d Deps) error {
	terminal := false
	for i, f := range filters {
		if f.GetConfigDiscovery() != nil && !terminal {
			m.policy.reviewed.Store(true) // there is no telling what will come
			x, ends, err := m.discover(f, d, shared)
			if err != nil {
				return fmt.Errorf("[%d] %q: %w", i, f.GetName(), err)
			}
			terminal, m.discovered = ends, append(m.discovered, x)
			to.add(f, x)
			to.add(f, place{})
			continue
		}
		config, factory, err := find(f, d.Filters)
		if err != nil {
			if f.GetIsOptional() {
				continue
			}
			return fmt.Errorf("[%d] %q: %w", i, f.GetName(), err)
		}
		if terminal {
			return fmt.Errorf("[%d] %q: comes after a terminal filter", i, f.GetName())
		}
		shared.Name = f.GetName()
		built, err := factory.New(config, shared)
		if err != nil {
			return fmt.Errorf("[%d] %q: %w", i, f.GetName(), err)
		}
		terminal = factory.Terminal
		to.add(f, built)
		if r, ok := built.(http.Runner); ok {
			m.runners = append(m.runners, r)
		}
	}
	slices.Reverse(to.enders)
	if !terminal {
		return errors.New(": must end with a terminal filter")
	}
	if to.holds() {
		m.policy.reviewed.Store(true)
	}
	m.slots = max(m.slots, len(to.links))
	return nil
}

// add appends a filter to the chain.
func (c *chain) add(f *hcmv3.HttpFilter, built http.Filter) {
	l := link{name: f.GetName(), filter: built, disabled: f.GetDisabled()}
	l.ender, _ = built.(http.Ender)
	if l.ender != nil {
		c.enders = append(c.enders, http.Slot(len(c.links)))
	}
	c.links = append(c.links, l)
	c.sleeping = c.sleeping || l.disabled
}

// find returns the factory of a filter and what it makes the filter of.
func find(f *hcmv3.HttpFilter, table []http.Factory) (*anypb.Any, *http.Factory, error) {
	config, url, err := xds.Typed(f.GetTypedConfig())
	if err != nil {
		return nil, nil, fmt.Errorf("typed_config: %w", err)
	}
	for i := range table {
		if url == "" && table[i].Name == f.GetName() || slices.Contains(table[i].TypeURLs, url) {
			return config, &table[i], nil
		}
	}
	if url == "" {
		return nil, nil, errors.New("no such filter")
	}
	return nil, nil, fmt.Errorf("typed_config: %s: no such filter", url)
}

// compileRoutes takes the inline route configuration or subscribes to one.
func (m *manager) compileRoutes(c *hcmv3.HttpConnectionManager, env network.Env, d Deps) error {
	compiler := route.CompileEnv{Filters: d.Filters, HasCluster: d.AnyCluster,
		HTTP: http.Env{Stats: d.Stats.Scope("http." + c.GetStatPrefix() + "."), Direction: env.Direction, Runtime: d.Runtime}}
	switch s := c.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_RouteConfig:
		compiler.Static = true
		t, err := route.Compile(s.RouteConfig, compiler)
		if err != nil {
			return fmt.Errorf("route_config: %w", err)
		}
		m.routes.table.Store(t)
		return nil
	case *hcmv3.HttpConnectionManager_ScopedRoutes:
		compiler.Static = true
		var err error
		if m.routes.scopes, err = route.CompileScopes(s.ScopedRoutes, compiler); err != nil {
			return fmt.Errorf("scoped_routes: %w", err)
		}
		return nil
	case *hcmv3.HttpConnectionManager_Rds:
		return m.subscribe(s.Rds, c.GetStatPrefix(), compiler, d)
	}
	return errors.New("rds, route_config or scoped_routes: one must be set")
}

func (m *manager) subscribe(r *hcmv3.Rds, prefix string, compiler route.CompileEnv, d Deps) error {
	src := r.GetConfigSource()
	client, err := d.client(wellknown.RouteType, src)
	if err != nil {
		return fmt.Errorf("rds.config_source: %w", err)
	}
	if r.GetRouteConfigName() == "" {
		return errors.New("rds.route_config_name: must not be empty")
	}
	if t := route.Type(compiler); d.Known != nil { // with all virtual hosts, wherever they have come from
		m.routes.table.Store(d.Known(r.GetRouteConfigName(), func(body *anypb.Any) (*route.Table, error) {
			return t.Decode(r.GetRouteConfigName(), body)
		}))
		return nil
	}
	t := m.withHosts(route.Type(compiler), compiler, d)
	t.FetchTimeout = xds.FetchTimeout(src)
	m.routes.warm = make(chan struct{})
	t, update := countRoutes(d.Stats.Scope("http."+prefix+".rds."+r.GetRouteConfigName()+"."), t, m.routes.update)
	m.routes.cancel = xds.Subscribe(client, t, r.GetRouteConfigName(), update)
	return nil
}

// overrides fills the stream's per-route configuration, the most specific for each filter.
func (c *chain) overrides(s *http.Stream, t *route.Target) {
	if !c.sleeping && !hasOverrides(t) {
		s.SetOverrides(0, nil)
		return
	}
	s.SetOverrides(len(c.links), func(slot http.Slot) any { return c.links[slot].override(t) })
}

// override is the filter's per-route configuration, nil for none.
func (l *link) override(t *route.Target) any {
	v := override(t, l.name)
	if v == nil && l.disabled {
		return route.Disabled{}
	}
	return v
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
	if t.Table == nil {
		return nil
	}
	return t.Table.PerFilter[name]
}
