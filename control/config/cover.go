package config

import (
	"regexp"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// A comparison keeps the expressions that it has compiled, nil those that are none.
type comparison map[string]*regexp.Regexp

func (c comparison) compiled(expr string) *regexp.Regexp {
	re, known := c[expr]
	if !known {
		re, _ = regexp.Compile(expr)
		c[expr] = re
	}
	return re
}

// coversMatch reports whether every request that narrow takes is taken by wide as well. It
// says no where that is not certain. gateways are those of the VirtualService.
func (c comparison) coversMatch(wide, narrow *networking.HTTPMatchRequest, gateways []string) bool {
	return c.coversURI(wide, narrow) &&
		c.coversText(wide.GetScheme(), narrow.GetScheme()) &&
		c.coversText(wide.GetMethod(), narrow.GetMethod()) &&
		c.coversText(wide.GetAuthority(), narrow.GetAuthority()) &&
		c.coversAll(wide.GetHeaders(), narrow.GetHeaders(), true) &&
		c.coversAll(wide.GetQueryParams(), narrow.GetQueryParams(), false) &&
		c.coversAbsent(wide.GetWithoutHeaders(), narrow.GetWithoutHeaders()) &&
		(wide.GetPort() == 0 || wide.GetPort() == narrow.GetPort()) &&
		(wide.GetSourceNamespace() == "" || wide.GetSourceNamespace() == narrow.GetSourceNamespace()) &&
		coversLabels(wide.GetSourceLabels(), narrow.GetSourceLabels()) &&
		within(gatewaysOf(narrow, gateways), gatewaysOf(wide, gateways))
}

// gatewaysOf are those for which a match counts.
func gatewaysOf(m *networking.HTTPMatchRequest, ofAll []string) []string {
	switch {
	case len(m.GetGateways()) > 0:
		return m.GetGateways()
	case len(ofAll) > 0:
		return ofAll
	}
	return []string{meshGateway}
}

// coversLabels reports whether who has the labels of narrow has those of wide.
func coversLabels(wide, narrow map[string]string) bool {
	for k, v := range wide {
		if have, there := narrow[k]; !there || have != v {
			return false
		}
	}
	return true
}

func within(inner, outer []string) bool {
	return !slices.ContainsFunc(inner, func(s string) bool { return !slices.Contains(outer, s) })
}

// coversURI compares paths, which begin with a slash.
func (c comparison) coversURI(wide, narrow *networking.HTTPMatchRequest) bool {
	w, n := wide.GetUri(), narrow.GetUri()
	if prefix, ok := prefixOf(w); w == nil || ok && (prefix == "/" || prefix == "") {
		return true
	}
	if n == nil {
		return false
	}
	if !wide.GetIgnoreUriCase() && !narrow.GetIgnoreUriCase() {
		return c.coversText(w, n)
	}
	if w.GetRegex() != "" || n.GetRegex() != "" { // of which case counts always
		return false
	}
	fold := func(m *networking.StringMatch) *networking.StringMatch {
		if exact, ok := m.GetMatchType().(*networking.StringMatch_Exact); ok {
			return &networking.StringMatch{MatchType: &networking.StringMatch_Exact{Exact: strings.ToLower(exact.Exact)}}
		}
		return &networking.StringMatch{MatchType: &networking.StringMatch_Prefix{Prefix: strings.ToLower(m.GetPrefix())}}
	}
	if wide.GetIgnoreUriCase() {
		return c.coversText(fold(w), fold(n))
	}
	text := w.GetExact() + w.GetPrefix()
	return strings.ToLower(text) == strings.ToUpper(text) && c.coversText(w, n)
}

// coversAll reports whether each condition of wide follows from one of narrow. The case of
// names may not count.
func (c comparison) coversAll(wide, narrow map[string]*networking.StringMatch, fold bool) bool {
	for name, w := range wide {
		if n, there := named(narrow, name, fold); !there || !c.coversText(present(w), present(n)) {
			return false
		}
	}
	return true
}

// coversAbsent is coversAll for headers that must not be there: narrow has to exclude no less.
func (c comparison) coversAbsent(wide, narrow map[string]*networking.StringMatch) bool {
	for name, w := range wide {
		if n, there := named(narrow, name, true); !there || !c.coversText(present(n), present(w)) {
			return false
		}
	}
	return true
}

// named is the condition of a name.
func named(conditions map[string]*networking.StringMatch, name string, fold bool) (m *networking.StringMatch, there bool) {
	if m, there = conditions[name]; there || !fold {
		return m, there
	}
	for have, m := range conditions {
		if strings.EqualFold(have, name) {
			return m, true
		}
	}
	return nil, false
}

// present is a condition on a header: one that says nothing wants the header to be there.
func present(m *networking.StringMatch) *networking.StringMatch {
	if m == nil {
		return &networking.StringMatch{}
	}
	return m
}

// coversText reports whether each value of narrow is one of wide: nil is any and none, a
// match that says nothing any value.
func (c comparison) coversText(wide, narrow *networking.StringMatch) bool {
	if wide == nil || narrow == nil {
		return wide == nil
	}
	if prefix, ok := prefixOf(wide); ok {
		return strings.HasPrefix(c.beginning(narrow), prefix)
	}
	exact, isExact := narrow.MatchType.(*networking.StringMatch_Exact)
	switch w := wide.MatchType.(type) {
	case *networking.StringMatch_Exact:
		return isExact && exact.Exact == w.Exact
	case *networking.StringMatch_Regex:
		if n, ok := narrow.MatchType.(*networking.StringMatch_Regex); ok {
			return n.Regex == w.Regex
		}
		if !isExact {
			return false
		}
		re := c.compiled("^(?:" + w.Regex + ")$")
		return re != nil && re.MatchString(exact.Exact)
	}
	return false
}

// prefixOf is what all values of a match begin with, if each that does is one.
func prefixOf(m *networking.StringMatch) (prefix string, ok bool) {
	if m == nil {
		return "", false
	}
	switch t := m.MatchType.(type) {
	case nil:
		return "", true
	case *networking.StringMatch_Prefix:
		return t.Prefix, true
	case *networking.StringMatch_Regex:
		literal, found := strings.CutSuffix(t.Regex, ".*")
		return literal, found && regexp.QuoteMeta(literal) == literal
	}
	return "", false
}

// beginning is what all values of a match begin with.
func (c comparison) beginning(m *networking.StringMatch) string {
	switch t := m.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return t.Exact
	case *networking.StringMatch_Prefix:
		return t.Prefix
	case *networking.StringMatch_Regex:
		re := c.compiled(strings.TrimPrefix(t.Regex, "^"))
		if re == nil {
			return ""
		}
		literal, _ := re.LiteralPrefix()
		return literal
	}
	return ""
}
