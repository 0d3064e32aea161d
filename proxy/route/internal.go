package route

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	listedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/allow_listed_routes/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/previous_routes/v3"
	safev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/safe_cross_scheme/v3"
)

// setRedirects takes internal_redirect_policy, or what was in its place before it.
func setRedirects(f *Forward, a *routev3.RouteAction) error {
	p := a.GetInternalRedirectPolicy()
	if p == nil {
		if a.GetInternalRedirectAction() == routev3.RouteAction_HANDLE_INTERNAL_REDIRECT {
			f.Redirects = &InternalRedirect{Max: 1, Codes: map[int]bool{302: true}}
			if a.GetMaxInternalRedirects() != nil {
				f.Redirects.Max = int(a.GetMaxInternalRedirects().GetValue())
			}
		}
		return nil
	}
	r := &InternalRedirect{Max: 1, Codes: map[int]bool{}, CrossScheme: p.GetAllowCrossSchemeRedirect(), Copy: p.GetResponseHeadersToCopy()}
	if p.GetMaxInternalRedirects() != nil {
		r.Max = int(p.GetMaxInternalRedirects().GetValue())
	}
	for _, code := range p.GetRedirectResponseCodes() {
		switch code {
		case 301, 302, 303, 307, 308:
			r.Codes[int(code)] = true
		}
	}
	if len(p.GetRedirectResponseCodes()) == 0 {
		r.Codes[302] = true
	}
	for i, predicate := range p.GetPredicates() {
		if err := r.setPredicate(predicate); err != nil {
			return fmt.Errorf("internal_redirect_policy.predicates[%d] %q: %w", i, predicate.GetName(), err)
		}
	}
	f.Redirects = r
	return nil
}

func (r *InternalRedirect) setPredicate(p *corev3.TypedExtensionConfig) error {
	m, err := p.GetTypedConfig().UnmarshalNew()
	if err != nil {
		return err
	}
	switch c := m.(type) {
	case *previousv3.PreviousRoutesConfig:
		r.NotBefore = true
	case *safev3.SafeCrossSchemeConfig:
		r.SafeScheme = true
	case *listedv3.AllowListedRoutesConfig:
		r.Routes = append([]string{}, c.GetAllowedRouteNames()...)
	default:
		return fmt.Errorf("%s: not supported", p.GetTypedConfig().GetTypeUrl())
	}
	return nil
}

// subset is the metadata by which endpoints are chosen, with that of a level above.
func subset(m *corev3.Metadata, above map[string]any) map[string]any {
	own := m.GetFilterMetadata()["envoy.lb"].AsMap()
	if len(own) == 0 {
		return above
	}
	for key, value := range above {
		if _, ok := own[key]; !ok {
			own[key] = value
		}
	}
	return own
}
