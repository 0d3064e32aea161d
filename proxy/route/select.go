package route

import (
	"bytes"

	"github.com/lateen-mesh/lateen/proxy/match"
)

// toTLS is the route of a request that came without TLS to a virtual host that
// requires it.
var toTLS = &Route{Redirect: &Redirect{Status: 301, HTTPS: true, KeepPort: true}}

// Select decides the virtual host and the route of a request. It allocates nothing
// when r is nil.
//
// A virtual host that requires TLS decides for a redirect to https when the request
// came without; that Route is none of its own.
func (t *Table) Select(f *Facts, r *Recorder) Decision {
	if r != nil {
		r.Host, r.Steps = "", nil // the choice made anew takes the place of the first
	}
	authority := f.Request.Authority
	if t.hosts.header != "" {
		authority, _ = f.Request.First(t.hosts.header)
	}
	d := Decision{Table: t, VirtualHost: t.hosts.find(authority, r)}
	if d.VirtualHost == nil {
		return d
	}
	if d.VirtualHost.tls != tlsFree && d.VirtualHost.wantsTLS(f) {
		d.Route = toTLS
		if r != nil {
			r.Steps = append(r.Steps, Step{VirtualHost: d.VirtualHost.Name, Index: -1, Matched: true, Reason: "the virtual host requires TLS"})
		}
		return d
	}
	path, query := match.SplitPath(f.Request.Path)
	if t.plainPaths {
		path = withoutParameters(path)
	}
	routes := d.VirtualHost.Routes
	if tree := d.VirtualHost.tree; tree != nil {
		routes, _ = tree.Find(f)
	}
	for i, rt := range routes {
		miss := rt.matcher.miss(f, path, query)
		if r != nil {
			r.Steps = append(r.Steps, Step{d.VirtualHost.Name, i, rt.Name, miss.what == nothing, rt.matcher.explain(miss, f)})
		}
		if miss.what == nothing {
			d.Route = rt
			return d
		}
	}
	return d
}

// withoutParameters is a path up to its first semicolon.
func withoutParameters(path []byte) []byte {
	path, _, _ = bytes.Cut(path, []byte{';'})
	return path
}

type tlsRequirement uint8

const (
	tlsFree     tlsRequirement = iota
	tlsExternal                // of requests that are not from inside
	tlsAll
)

// wantsTLS reports that the request came without TLS and may not. What counts is
// the scheme that the client used at the edge, x-forwarded-proto.
func (vh *VirtualHost) wantsTLS(f *Facts) bool {
	proto, ok := f.Request.Headers.First("x-forwarded-proto")
	if ok && string(proto) == "https" || !ok && f.TLS {
		return false
	}
	if vh.tls == tlsAll {
		return true
	}
	internal, _ := f.Request.Headers.First("x-envoy-internal")
	return string(internal) != "true"
}
