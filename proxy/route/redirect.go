package route

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

var redirectStatus = map[routev3.RedirectAction_RedirectResponseCode]int{
	routev3.RedirectAction_MOVED_PERMANENTLY: 301, routev3.RedirectAction_FOUND: 302, routev3.RedirectAction_SEE_OTHER: 303,
	routev3.RedirectAction_TEMPORARY_REDIRECT: 307, routev3.RedirectAction_PERMANENT_REDIRECT: 308,
}

func newRedirect(a *routev3.RedirectAction) (*Redirect, error) {
	err := xds.Only(a, "https_redirect", "scheme_redirect", "host_redirect", "port_redirect", "path_redirect",
		"prefix_rewrite", "regex_rewrite", "response_code", "strip_query")
	if err != nil {
		return nil, err
	}
	r := &Redirect{
		Status: redirectStatus[a.GetResponseCode()], HTTPS: a.GetHttpsRedirect(), Scheme: a.GetSchemeRedirect(), Host: a.GetHostRedirect(),
		Port: a.GetPortRedirect(), Path: a.GetPathRedirect(), PrefixRewrite: a.GetPrefixRewrite(), StripQuery: a.GetStripQuery(),
	}
	if r.Status == 0 {
		return nil, fmt.Errorf("response_code: %d is not known", a.GetResponseCode())
	}
	if rewrite := a.GetRegexRewrite(); rewrite != nil {
		re, text, err := match.NewRewrite(rewrite)
		if err != nil {
			return nil, fmt.Errorf("regex_rewrite: %w", err)
		}
		r.RegexRewrite = &RegexRewrite{re, text}
	}
	return r, nil
}

func (c *compiler) direct(a *routev3.DirectResponseAction) (*Direct, error) {
	if err := xds.Only(a, "status", "body"); err != nil {
		return nil, err
	}
	d := &Direct{Status: int(a.GetStatus())}
	if d.Status < 200 || d.Status > 599 {
		return nil, fmt.Errorf("status: must be 200–599, got %d", d.Status)
	}
	switch s := a.GetBody().GetSpecifier().(type) {
	case nil:
		if a.GetBody() != nil {
			return nil, errors.New("body: specifier not set")
		}
	case *corev3.DataSource_InlineString:
		d.Body = []byte(s.InlineString)
	case *corev3.DataSource_InlineBytes:
		d.Body = s.InlineBytes
	default:
		return nil, errors.New("body: only inline_string and inline_bytes are supported")
	}
	if len(d.Body) > c.maxBody {
		return nil, fmt.Errorf("body: %d bytes, at most %d (max_direct_response_body_size_bytes)", len(d.Body), c.maxBody)
	}
	return d, nil
}

// AppendPath appends the target of a request as the route's Forward rewrites it:
// prefix_rewrite takes the place of what the route matched, regex_rewrite works on
// the path; both keep the query. Without a rewrite it is the target itself.
func (rt *Route) AppendPath(dst, target []byte) []byte {
	return rt.appendPath(dst, target, rt.Forward.PrefixRewrite, rt.Forward.RegexRewrite)
}

func (rt *Route) appendPath(dst, target []byte, prefix string, regex *RegexRewrite) []byte {
	path, _ := match.SplitPath(target)
	switch {
	case prefix != "":
		n := len(path) // the whole path for an exact or regex match
		if rt.matcher.kind == pathPrefix || rt.matcher.kind == pathSeparated {
			n = min(rt.matcher.length, n)
		}
		return append(append(dst, prefix...), target[n:]...)
	case regex != nil:
		dst = append(dst, regex.Pattern.ReplaceAll(path, []byte(regex.Substitution))...)
		return append(dst, target[len(path):]...)
	}
	return append(dst, target...)
}

// AppendLocation appends the location header of the route's Redirect. scheme is
// what the client used: x-forwarded-proto.
func (rt *Route) AppendLocation(dst []byte, r *http.Request, scheme string) []byte {
	d := rt.Redirect
	to := scheme
	switch {
	case d.Scheme != "":
		to = d.Scheme
	case d.HTTPS:
		to = "https"
	}
	dst = append(append(dst, to...), "://"...)
	if d.Host != "" {
		dst = append(dst, d.Host...)
	} else {
		dst = append(dst, d.authority(r.Authority, scheme, to)...)
	}
	if d.Port != 0 {
		dst = strconv.AppendUint(append(dst, ':'), uint64(d.Port), 10)
	}
	return rt.appendLocationPath(dst, r.Path)
}

// authority is that of the request, without its port when another one comes or
// when it is the default one of a scheme that changes.
func (d *Redirect) authority(authority []byte, from, to string) []byte {
	if d.KeepPort {
		return authority
	}
	n := hostLength(authority)
	port := string(authority[n:])
	drop := d.Port != 0 || from != to && (from == "https" && port == ":443" || from == "http" && port == ":80")
	if drop {
		return authority[:n]
	}
	return authority
}

func (rt *Route) appendLocationPath(dst, target []byte) []byte {
	d := rt.Redirect
	path, _ := match.SplitPath(target)
	if d.Path != "" {
		dst = append(dst, d.Path...)
		// A query of path_redirect replaces that of the request.
		if d.StripQuery || strings.Contains(d.Path, "?") {
			return dst
		}
		return append(dst, target[len(path):]...)
	}
	if d.StripQuery {
		target = path
	}
	return rt.appendPath(dst, bytes.TrimSpace(target), d.PrefixRewrite, d.RegexRewrite)
}
