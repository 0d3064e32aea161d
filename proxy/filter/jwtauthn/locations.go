package jwtauthn

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
)

// locations are where tokens may stand, headers first, then parameters, then cookies, each in
// the order of their names: the order counts where a request has several tokens.
type locations []location

type place uint8

const (
	inHeader place = iota
	inParameter
	inCookie
)

type location struct {
	place   place
	name    string // of a header in lower case
	prefix  string // of a header's value
	issuers map[string]bool
	any     bool // of whatever issuer
}

// add gives the locations of a provider, which may be several providers'.
func (l *locations) add(c *jwtv3.JwtProvider) {
	for _, h := range c.GetFromHeaders() {
		l.one(inHeader, strings.ToLower(h.GetName()), h.GetValuePrefix(), c.GetIssuer())
	}
	for _, name := range c.GetFromParams() {
		l.one(inParameter, name, "", c.GetIssuer())
	}
	for _, name := range c.GetFromCookies() {
		l.one(inCookie, name, "", c.GetIssuer())
	}
	if len(c.GetFromHeaders())+len(c.GetFromParams())+len(c.GetFromCookies()) == 0 {
		l.one(inHeader, "authorization", "Bearer ", c.GetIssuer())
		l.one(inParameter, "access_token", "", c.GetIssuer())
	}
}

func (l *locations) one(p place, name, prefix, issuer string) {
	i := slices.IndexFunc(*l, func(x location) bool { return x.place == p && x.name+x.prefix == name+prefix })
	if i < 0 {
		i = len(*l)
		*l = append(*l, location{place: p, name: name, prefix: prefix, issuers: map[string]bool{}})
	}
	at := &(*l)[i]
	at.issuers[issuer] = true
	at.any = at.any || issuer == ""
}

// merge adds what another provider has.
func (l *locations) merge(other locations) {
	for i := range other {
		for issuer := range other[i].issuers {
			l.one(other[i].place, other[i].name, other[i].prefix, issuer)
		}
	}
}

func (l *locations) sort() {
	slices.SortFunc(*l, func(a, b location) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.name+a.prefix, b.name+b.prefix))
	})
}

// A candidate is a text that stands where a token may.
type candidate struct {
	text string
	at   *location
}

// allows reports whether the location is for tokens of an issuer.
func (c *candidate) allows(issuer string) bool { return c.at.any || c.at.issuers[issuer] }

// in lists the tokens of a request.
func (l locations) in(r *http.Request) (out []candidate) {
	var q match.QueryValues
	for i := range l {
		at := &l[i]
		switch at.place {
		case inHeader:
			for n := 0; ; n++ {
				v, ok := r.Value(at.name, n)
				if !ok {
					break
				}
				if token, ok := at.token(string(v)); ok {
					out = append(out, candidate{token, at})
				}
			}
		case inParameter:
			if q == nil {
				_, text := match.SplitPath(r.Path)
				q = match.ParseQuery(string(text))
			}
			if v := q[at.name]; len(v) > 0 {
				out = append(out, candidate{v[0], at})
			}
		case inCookie:
			if v, ok := match.CookieValue(r, at.name); ok {
				out = append(out, candidate{string(v), at})
			}
		}
	}
	return out
}

// token is what follows the prefix in a header's value, wherever that stands; false: it does
// not. Bytes that no token begins with are skipped.
func (l *location) token(value string) (string, bool) {
	if l.prefix == "" {
		return value, true
	}
	i := strings.Index(value, l.prefix)
	if i < 0 {
		return "", false
	}
	rest := value[i+len(l.prefix):]
	if j := strings.IndexFunc(rest, begins); j >= 0 {
		return rest[j:], true
	}
	return value, true
}

func begins(r rune) bool {
	return r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
}

// remove takes the token out of the request; a cookie stays, as in Envoy.
func (l *location) remove(s *http.Stream) {
	switch l.place {
	case inHeader:
		s.Request.Headers.Remove(l.name)
	case inParameter:
		path, text := match.SplitPath(s.Request.Path)
		q := match.ParseQuery(string(text))
		delete(q, l.name)
		s.Request.Path = q.Append(bytes.Clone(path))
	}
}
