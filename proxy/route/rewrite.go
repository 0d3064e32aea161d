package route

import (
	"errors"
	"fmt"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/rewrite/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
)

// newRegexRewrite compiles a substitution, nil for none.
func newRegexRewrite(m *matcherv3.RegexMatchAndSubstitute) (*RegexRewrite, error) {
	if m == nil {
		return nil, nil
	}
	re, text, err := match.NewRewrite(m)
	if err != nil {
		return nil, err
	}
	return &RegexRewrite{re, text}, nil
}

// newText compiles a text with command operators, nil for "".
func newText(field, text string) (*format.Format, error) {
	if text == "" {
		return nil, nil
	}
	if strings.ContainsAny(text, "\x00\r\n") {
		return nil, fmt.Errorf("%s: has a control character", field)
	}
	f, err := format.ParseHeader(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return f, nil
}

func setPathRewrite(f *Forward, a *routev3.RouteAction) (err error) {
	set := 0
	for _, is := range []bool{a.GetPrefixRewrite() != "", a.GetRegexRewrite() != nil, a.GetPathRewritePolicy() != nil, a.GetPathRewrite() != ""} {
		if is {
			set++
		}
	}
	if set > 1 {
		return errors.New("prefix_rewrite, regex_rewrite, path_rewrite_policy and path_rewrite: only one may be set")
	}
	if f.RegexRewrite, err = newRegexRewrite(a.GetRegexRewrite()); err != nil {
		return fmt.Errorf("regex_rewrite: %w", err)
	}
	f.PathRewrite, err = newText("path_rewrite", a.GetPathRewrite())
	return err
}

func setHostRewrite(f *Forward, a *routev3.RouteAction) (err error) {
	if f.HostRewritePath, err = newRegexRewrite(a.GetHostRewritePathRegex()); err != nil {
		return fmt.Errorf("host_rewrite_path_regex: %w", err)
	}
	f.HostRewriteFormat, err = newText("host_rewrite", a.GetHostRewrite())
	return err
}

// setTemplate takes path_rewrite_policy, which uses the variables of the route's match.
func (rt *Route) setTemplate(a *routev3.RouteAction) error {
	p := a.GetPathRewritePolicy()
	if p == nil {
		return nil
	}
	var c templatev3.UriTemplateRewriteConfig
	if err := p.GetTypedConfig().UnmarshalTo(&c); err != nil {
		return fmt.Errorf("path_rewrite_policy %q: not supported", p.GetName())
	}
	if rt.matcher.template == nil {
		return errors.New("path_rewrite_policy: needs a path_match_policy")
	}
	rewrite, err := rt.matcher.template.NewRewrite(c.GetPathTemplateRewrite())
	if err != nil {
		return fmt.Errorf("path_rewrite_policy: %w", err)
	}
	rt.template = rewrite
	return nil
}

// Rewrites reports whether the route's Forward changes paths.
func (rt *Route) Rewrites() bool {
	f := rt.Forward
	return f.PrefixRewrite != "" || f.RegexRewrite != nil || rt.template != nil || f.PathRewrite != nil
}

// AppendPath appends the target of a request as the route's Forward rewrites it:
// prefix_rewrite takes the place of what the route matched, the other rewrites work on
// the path; all keep the query. Without a rewrite it is the target itself.
func (rt *Route) AppendPath(dst []byte, s *http.Stream) []byte {
	target := s.Request.Path
	path, _ := match.SplitPath(target)
	f := rt.Forward
	switch {
	case rt.template != nil:
		return append(rt.matcher.template.Append(dst, path, rt.template), target[len(path):]...)
	case f.PathRewrite != nil:
		return appendFormatted(dst, path, target, f.PathRewrite, s)
	}
	return rt.appendPath(dst, target, f.PrefixRewrite, f.RegexRewrite)
}

// appendFormatted is a path that a format makes, with the query of target; an empty one
// changes nothing.
func appendFormatted(dst, path, target []byte, f *format.Format, s *http.Stream) []byte {
	n := len(dst)
	if dst = f.Append(dst, format.Of(s)); len(dst) == n {
		return append(dst, target...)
	}
	return append(dst, target[len(path):]...)
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

// Host is the host by which the route or a header of the request replaces that of the
// request, nil for none.
func (t *Target) Host(s *http.Stream) []byte {
	f := t.Route.Forward
	switch {
	case f.HostRewrite != "":
		return []byte(f.HostRewrite)
	case len(f.HostRewriteHeader) > 0:
		v, _ := s.Request.First(text(f.HostRewriteHeader))
		return v
	case f.HostRewritePath != nil:
		path, _ := match.SplitPath(s.Request.Path)
		return f.HostRewritePath.Pattern.ReplaceAll(path, []byte(f.HostRewritePath.Substitution))
	case f.HostRewriteFormat != nil:
		return s.Keep(f.HostRewriteFormat.Append(s.Scratch(), format.Of(s)))
	}
	return nil
}
