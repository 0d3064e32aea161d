package route

import (
	"fmt"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Disabled is the typed_per_filter_config of a filter that does not run for the
// route: the chain leaves it out for both phases.
type Disabled struct{}

const corsFilter = "envoy.filters.http.cors"

// perFilter compiles typed_per_filter_config by filter name.
func (c *compiler) perFilter(configs map[string]*anypb.Any) (map[string]any, error) {
	if len(configs) == 0 {
		return nil, nil
	}
	out := make(map[string]any, len(configs))
	for name, cfg := range configs {
		v, err := c.override(name, cfg)
		if err != nil {
			return nil, fmt.Errorf("typed_per_filter_config[%s]: %w", name, err)
		}
		if v != nil {
			out[name] = v
		}
	}
	return out, nil
}

// override compiles one entry; nil is an optional one that we do not have.
func (c *compiler) override(name string, cfg *anypb.Any) (any, error) {
	optional := false
	if cfg.MessageIs((*routev3.FilterConfig)(nil)) {
		var wrapped routev3.FilterConfig
		if err := cfg.UnmarshalTo(&wrapped); err != nil {
			return nil, err
		}
		if wrapped.GetDisabled() {
			return Disabled{}, nil
		}
		if cfg, optional = wrapped.GetConfig(), wrapped.GetIsOptional(); cfg == nil {
			return nil, fmt.Errorf("Empty route/virtual host per filter configuration for %s filter", name) //nolint:staticcheck // Envoy's words
		}
	}
	cfg, url, err := xds.Typed(cfg)
	if err != nil {
		return nil, err
	}
	factory := c.factory(url)
	switch {
	case factory == nil && optional:
		return nil, nil
	case factory == nil:
		return nil, fmt.Errorf("%s: not supported", url)
	case factory.Override == nil:
		return nil, fmt.Errorf("%s: filter %s takes no configuration of routes", url, factory.Name)
	}
	return factory.Override(cfg, c.env.HTTP)
}

func (c *compiler) factory(url string) *http.Factory {
	for i := range c.env.Filters {
		if slices.Contains(c.env.Filters[i].TypeURLs, url) {
			return &c.env.Filters[i]
		}
	}
	return nil
}

// withCORS adds the older form of a CORS policy, a field of virtual host or action,
// to the filter configurations; the newer form wins.
func (c *compiler) withCORS(configs map[string]any, policy *routev3.CorsPolicy) (map[string]any, error) {
	if policy == nil || configs[corsFilter] != nil {
		return configs, nil
	}
	for i := range c.env.Filters {
		if c.env.Filters[i].Name != corsFilter {
			continue
		}
		body, err := anypb.New(&corsv3.CorsPolicy{
			AllowOriginStringMatch: policy.GetAllowOriginStringMatch(), AllowMethods: policy.GetAllowMethods(), AllowHeaders: policy.GetAllowHeaders(),
			ExposeHeaders: policy.GetExposeHeaders(), MaxAge: policy.GetMaxAge(), AllowCredentials: policy.GetAllowCredentials(),
			FilterEnabled: policy.GetFilterEnabled(), ShadowEnabled: policy.GetShadowEnabled(),
			AllowPrivateNetworkAccess: policy.GetAllowPrivateNetworkAccess(), ForwardNotMatchingPreflights: policy.GetForwardNotMatchingPreflights(),
		})
		if err != nil {
			return nil, err
		}
		v, err := c.env.Filters[i].Override(body, c.env.HTTP)
		if err != nil {
			return nil, fmt.Errorf("cors: %w", err)
		}
		if configs == nil {
			configs = map[string]any{}
		}
		configs[corsFilter] = v
		return configs, nil
	}
	return nil, fmt.Errorf("cors: not supported")
}
