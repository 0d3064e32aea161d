package compile

import (
	"strings"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Where the filter that checks tokens tells their claims.
const (
	jwtFilter  = "envoy.filters.http.jwt_authn"
	jwtPayload = "payload"
)

// claimAttribute is a claim of a valid token, by its path: a text, or a list that has it.
func claimAttribute(path ...string) attribute {
	return attribute{http: true, together: func(values []string) (ir.Condition, bool) {
		m := claim(path...)
		m.InListsToo = true
		for _, v := range values {
			m.Values = append(m.Values, ir.MetadataValue{StringMatch: pattern(v)})
		}
		return ir.Condition{Kind: ir.MetadataCondition, Metadata: m}, true
	}}
}

func claim(path ...string) *ir.MetadataMatch {
	return &ir.MetadataMatch{Filter: jwtFilter, Path: append([]string{jwtPayload}, path...)}
}

// metadataAttribute is what a filter has told under a key: a text or, for [text], a list that
// has it.
func metadataAttribute(filter, key string) attribute {
	return attribute{together: func(values []string) (ir.Condition, bool) {
		m := &ir.MetadataMatch{Filter: filter, Path: []string{key}}
		for _, v := range values {
			inner, list := strings.CutPrefix(v, "[")
			if list {
				inner, list = strings.CutSuffix(inner, "]")
			}
			if !list {
				inner = v
			}
			m.Values = append(m.Values, ir.MetadataValue{StringMatch: pattern(inner), InList: list})
		}
		return ir.Condition{Kind: ir.MetadataCondition, Metadata: m}, true
	}}
}

// requestPrincipalAttribute is issuer/subject of a valid token. A subject has no slash, an
// issuer may.
func requestPrincipalAttribute() attribute {
	return attribute{http: true, together: func(values []string) (ir.Condition, bool) {
		var list []ir.Condition
		for _, v := range values {
			issuer, subject := requestPrincipal(v)
			list = append(list, ir.Condition{Kind: ir.AllOf, Of: []ir.Condition{claimIs("iss", issuer), claimIs("sub", subject)}})
		}
		if len(list) == 1 {
			return list[0], true
		}
		return ir.Condition{Kind: ir.OneOf, Of: list}, true
	}}
}

func claimIs(name string, text ir.StringMatch) ir.Condition {
	m := claim(name)
	m.Values = []ir.MetadataValue{{StringMatch: text}}
	return ir.Condition{Kind: ir.MetadataCondition, Metadata: m}
}

// requestPrincipal reads issuer/subject, where the issuer may begin and the subject may end
// with *. Without a slash *x is the end of a subject, x* the beginning of an issuer, and x an
// issuer whose tokens have no subject.
func requestPrincipal(v string) (issuer, subject ir.StringMatch) {
	anything := pattern("*")
	exact := func(s string) ir.StringMatch { return ir.StringMatch{Kind: ir.Exact, Value: s} }
	i := strings.LastIndexByte(v, '/')
	switch {
	case v == "*":
		return anything, anything
	case i < 0 && strings.HasPrefix(v, "*"):
		return anything, pattern(v)
	case i < 0 && strings.HasSuffix(v, "*"):
		return pattern(v), anything
	case i < 0:
		return exact(v), exact("")
	case strings.HasPrefix(v, "*"):
		return pattern(v[:i]), exact(v[i+1:])
	case strings.HasSuffix(v, "*"):
		return exact(v[:i]), pattern(v[i+1:])
	}
	return exact(v[:i]), exact(v[i+1:])
}
