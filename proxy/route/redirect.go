package route

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/lateen-mesh/lateen/proxy/format"
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
		"prefix_rewrite", "regex_rewrite", "path_rewrite", "response_code", "strip_query")
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
	if r.RegexRewrite, err = newRegexRewrite(a.GetRegexRewrite()); err != nil {
		return nil, fmt.Errorf("regex_rewrite: %w", err)
	}
	r.PathRewrite, err = newText("path_rewrite", a.GetPathRewrite())
	return r, err
}

func (c *compiler) direct(a *routev3.DirectResponseAction) (d *Direct, err error) {
	if err := xds.Only(a, "status", "body", "body_format"); err != nil {
		return nil, err
	}
	d = &Direct{Status: int(a.GetStatus())}
	if d.Status < 200 || d.Status > 599 {
		return nil, fmt.Errorf("status: must be 200–599, got %d", d.Status)
	}
	if d.Body, err = ReadSource(a.GetBody(), c.maxBody); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if a.GetBodyFormat() == nil {
		return d, nil
	}
	if d.Format, err = format.New(a.GetBodyFormat()); err != nil {
		return nil, fmt.Errorf("body_format: %w", err)
	}
	if d.Type = a.GetBodyFormat().GetContentType(); d.Type == "" && a.GetBodyFormat().GetJsonFormat() != nil {
		d.Type = "application/json"
	}
	return d, nil
}

// ReadSource reads a source as it is now, of at most so many bytes; nil for no source.
func ReadSource(source *corev3.DataSource, limit int) (body []byte, err error) {
	switch s := source.GetSpecifier().(type) {
	case nil:
		if source != nil {
			return nil, errors.New("specifier not set")
		}
	case *corev3.DataSource_InlineString:
		body = []byte(s.InlineString)
	case *corev3.DataSource_InlineBytes:
		body = s.InlineBytes
	case *corev3.DataSource_Filename:
		body, err = readAtMost(s.Filename, limit)
	case *corev3.DataSource_EnvironmentVariable:
		v, ok := os.LookupEnv(s.EnvironmentVariable)
		if !ok {
			return nil, fmt.Errorf("environment variable %q is not set", s.EnvironmentVariable)
		}
		body = []byte(v)
	}
	if err == nil && len(body) > limit {
		err = fmt.Errorf("%d bytes, at most %d (max_direct_response_body_size_bytes)", len(body), limit)
	}
	return body, err
}

// readAtMost reads a file, and one byte more than the limit where it is longer.
func readAtMost(name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(limit)+1))
}

// AppendLocation appends the location header of the route's Redirect. scheme is
// what the client used: x-forwarded-proto.
func (rt *Route) AppendLocation(dst []byte, s *http.Stream, scheme string) []byte {
	d, r := rt.Redirect, &s.Request
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
	return rt.appendLocationPath(dst, s)
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

func (rt *Route) appendLocationPath(dst []byte, s *http.Stream) []byte {
	d, target := rt.Redirect, s.Request.Path
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
	if d.PathRewrite != nil {
		return appendFormatted(dst, path, target, d.PathRewrite, s)
	}
	return rt.appendPath(dst, bytes.TrimSpace(target), d.PrefixRewrite, d.RegexRewrite)
}
