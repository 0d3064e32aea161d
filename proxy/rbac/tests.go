package rbac

import (
	"fmt"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// header asks for a header of the request.
func (c compiler) header(m *routev3.HeaderMatcher) (test, error) {
	h, err := match.NewHeader(m)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if !c.http {
		return nil, fmt.Errorf("header: Found header(%s) rule, not supported by RBAC network filter", h.Name)
	}
	return func(f Facts) bool { return f.Request != nil && h.Match(f.Request) }, nil
}

// path is the path of the request without its query; a CONNECT may have none.
func path(f Facts) ([]byte, bool) {
	if f.Request == nil || len(f.Request.Path) == 0 {
		return nil, false
	}
	p, _ := match.SplitPath(f.Request.Path)
	return p, true
}

func urlPath(m *matcherv3.PathMatcher) (test, error) {
	text, err := match.NewString(m.GetPath())
	if err != nil {
		return nil, fmt.Errorf("url_path.path: %w", err)
	}
	return func(f Facts) bool {
		p, ok := path(f)
		return ok && text.Match(p)
	}, nil
}

// serverName asks for the SNI; without one it is "".
func serverName(m *matcherv3.StringMatcher) (test, error) {
	text, err := match.NewString(m)
	if err != nil {
		return nil, fmt.Errorf("requested_server_name: %w", err)
	}
	return func(f Facts) bool { return text.MatchText(f.Info.ServerName) }, nil
}

// The addresses of a connection that rules may ask for.
func local(i *streaminfo.Info) netip.Addr  { return i.DownstreamLocal.Addr() }
func source(i *streaminfo.Info) netip.Addr { return i.Source().Addr() }
func direct(i *streaminfo.Info) netip.Addr { return i.DownstreamDirectRemote.Addr() }
func remote(i *streaminfo.Info) netip.Addr { return i.DownstreamRemote.Addr() }

func address(field string, r *corev3.CidrRange, of func(*streaminfo.Info) netip.Addr) (test, error) {
	ranges, err := match.NewCIDR(r)
	if err != nil {
		return nil, fmt.Errorf("%s%w", field, err) // which names [0], of the one there is
	}
	return func(f Facts) bool { return ranges.Match(of(f.Info)) }, nil
}

const maxPort = 65535

func port(want uint32) (test, error) {
	if want > maxPort {
		return nil, fmt.Errorf("destination_port: %d is more than %d", want, maxPort)
	}
	return func(f Facts) bool {
		at := f.Info.DownstreamLocal
		return at.IsValid() && uint32(at.Port()) == want
	}, nil
}

// portRange is of ports from start, end not among them.
func portRange(r *typev3.Int32Range) (test, error) {
	start, end := r.GetStart(), r.GetEnd()
	switch {
	case start < 0 || start > maxPort+1:
		return nil, fmt.Errorf("destination_port_range: range start %d is out of bounds", start)
	case end < 0 || end > maxPort+1:
		return nil, fmt.Errorf("destination_port_range: range end %d is out of bounds", end)
	case start >= end:
		return nil, fmt.Errorf("destination_port_range: range start %d cannot be greater or equal than range end %d", start, end)
	}
	return func(f Facts) bool {
		at := f.Info.DownstreamLocal
		return at.IsValid() && int32(at.Port()) >= start && int32(at.Port()) < end
	}, nil
}

// metadata asks for dynamic metadata, or for that of the route, of which there must be one.
func metadata(field string, m *matcherv3.MetadataMatcher, from rbacv3.MetadataSource) (test, error) {
	c, err := match.NewMetadata(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	switch from {
	case rbacv3.MetadataSource_DYNAMIC:
		return func(f Facts) bool { return c.Match(f.Info.Metadata) }, nil
	case rbacv3.MetadataSource_ROUTE:
		return func(f Facts) bool {
			if f.Route == nil {
				return false
			}
			r, _ := f.Route.(interface {
				RouteMetadata() map[string]map[string]any
			})
			return r != nil && c.Match(r.RouteMetadata())
		}, nil
	}
	return nil, fmt.Errorf("%s: source %d: unknown", field, from)
}

func filterState(m *matcherv3.FilterStateMatcher) (test, error) {
	c, err := route.NewStateMatcher(m)
	if err != nil {
		return nil, fmt.Errorf("filter_state %q: %w", m.GetKey(), err)
	}
	return func(f Facts) bool { return c.Match(f.Info) }, nil
}

// authenticated asks who the peer is by its certificate: by any of its URI names, else of its
// DNS names, else by its subject, which is "" where it has shown none. Without a name any
// connection with TLS is meant, as in Envoy.
func authenticated(a *rbacv3.Principal_Authenticated) (test, error) {
	if a.GetPrincipalName() == nil {
		return func(f Facts) bool { return f.Info.TLSVersion != "" }, nil
	}
	name, err := match.NewString(a.GetPrincipalName())
	if err != nil {
		return nil, fmt.Errorf("authenticated.principal_name: %w", err)
	}
	is := name.MatchText
	return func(f Facts) bool {
		i := f.Info
		return i.TLSVersion != "" && (slices.ContainsFunc(i.PeerURISANs, is) || slices.ContainsFunc(i.PeerDNSSANs, is) || is(i.PeerSubject))
	}, nil
}
