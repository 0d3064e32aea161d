package route

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Hash computes what the hash policies take from a request, for ring hash, maglev and
// weighted clusters; false: none of them found anything. cookie is the value of a
// set-cookie header where a policy has made one, nil otherwise.
func (to *Forward) Hash(r *http.Request, i *streaminfo.Info) (hash uint64, cookie []byte, ok bool) {
	for n := range to.HashPolicy {
		p := &to.HashPolicy[n]
		h, made, found := p.of(r, i)
		if made != nil {
			cookie = made
		}
		if !found {
			continue
		}
		hash, ok = bits.RotateLeft64(hash, 1)^h, true
		if p.Terminal {
			break
		}
	}
	return hash, cookie, ok
}

func (p *HashPolicy) of(r *http.Request, i *streaminfo.Info) (hash uint64, cookie []byte, ok bool) {
	switch {
	case p.Header != "":
		hash, ok = p.header(r)
	case p.Cookie != "":
		return p.cookie(r, i)
	case p.Query != "":
		_, query := match.SplitPath(r.Path)
		var v []byte
		v, ok = match.Parameter(query, p.Query)
		hash = xxhash.Sum64(v)
	case p.FilterState != "":
		var v string
		v, ok = filterState(i, p.FilterState)
		hash = xxhash.Sum64String(v)
	case p.SourceIP:
		a := i.DownstreamRemote.Addr()
		var few [64]byte
		hash, ok = xxhash.Sum64(a.AppendTo(few[:0])), a.IsValid()
	}
	return hash, nil, ok
}

// header chains the hashes of a header's values in alphabetical order, so that the
// order in which they came does not matter.
func (p *HashPolicy) header(r *http.Request) (uint64, bool) {
	v, ok := r.First(p.Header)
	if _, more := r.Value(p.Header, 1); !more {
		return xxhash.Sum64(p.rewritten(v)), ok
	}
	var values [][]byte
	for i := 0; ok; i++ {
		if v, ok = r.Value(p.Header, i); ok {
			values = append(values, p.rewritten(v))
		}
	}
	slices.SortFunc(values, bytes.Compare)
	var h uint64
	for _, v := range values {
		d := xxhash.NewWithSeed(h)
		_, _ = d.Write(v) // a hash never fails
		h = d.Sum64()
	}
	return h, true
}

func (p *HashPolicy) rewritten(v []byte) []byte {
	if p.HeaderRewrite == nil {
		return v
	}
	return p.HeaderRewrite.Pattern.ReplaceAll(v, []byte(p.HeaderRewrite.Substitution))
}

// cookie takes the cookie, or makes one where the policy has a ttl.
func (p *HashPolicy) cookie(r *http.Request, i *streaminfo.Info) (hash uint64, made []byte, ok bool) {
	if v, _ := match.CookieValue(r, p.Cookie); len(v) > 0 {
		return xxhash.Sum64(v), nil, true
	}
	if !p.CookieTTLSet {
		return 0, nil, false
	}
	value := fmt.Appendf(nil, "%016x", xxhash.Sum64String(i.DownstreamDirectRemote.String()+i.DownstreamDirectLocal.String()))
	c := append(append([]byte(p.Cookie), `="`...), value...)
	c = append(c, '"')
	if p.CookieTTL > 0 {
		c = strconv.AppendInt(append(c, "; Max-Age="...), int64(p.CookieTTL.Seconds()), 10)
	}
	if p.CookiePath != "" {
		c = append(append(c, "; Path="...), p.CookiePath...)
	}
	c = append(append(c, p.CookieAttributes...), "; HttpOnly"...)
	return xxhash.Sum64(value), c, true
}

// filterState is the text of a stream's filter state.
func filterState(i *streaminfo.Info, key string) (string, bool) {
	if i == nil {
		return "", false
	}
	switch v := i.FilterState[key].(type) {
	case string:
		return v, true
	case fmt.Stringer:
		return v.String(), true
	}
	return "", false
}

func setHash(f *Forward, a *routev3.RouteAction) error {
	for i, p := range a.GetHashPolicy() {
		h, err := newHash(p)
		if err != nil {
			return fmt.Errorf("hash_policy[%d]: %w", i, err)
		}
		f.HashPolicy = append(f.HashPolicy, h)
	}
	return nil
}

func newHash(p *routev3.RouteAction_HashPolicy) (HashPolicy, error) {
	out := HashPolicy{Terminal: p.GetTerminal()}
	if err := xds.Only(p, "header", "cookie", "connection_properties", "query_parameter", "filter_state", "terminal"); err != nil {
		return out, err
	}
	switch s := p.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		out.Header = strings.ToLower(s.Header.GetHeaderName())
		rewrite, err := newRegexRewrite(s.Header.GetRegexRewrite())
		if err != nil {
			return out, fmt.Errorf("header.regex_rewrite: %w", err)
		}
		out.HeaderRewrite = rewrite
	case *routev3.RouteAction_HashPolicy_Cookie_:
		out.Cookie, out.CookiePath = s.Cookie.GetName(), s.Cookie.GetPath()
		out.CookieTTL, out.CookieTTLSet = s.Cookie.GetTtl().AsDuration(), s.Cookie.GetTtl() != nil
		for _, a := range s.Cookie.GetAttributes() {
			out.CookieAttributes += "; " + a.GetName()
			if a.GetValue() != "" {
				out.CookieAttributes += "=" + a.GetValue()
			}
		}
		return out, xds.Only(s.Cookie, "name", "ttl", "path", "attributes")
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		out.SourceIP = s.ConnectionProperties.GetSourceIp()
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		out.Query = s.QueryParameter.GetName()
	case *routev3.RouteAction_HashPolicy_FilterState_:
		out.FilterState = s.FilterState.GetKey()
	default:
		return out, errors.New("policy_specifier: not set")
	}
	return out, nil
}
