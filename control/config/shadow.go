package config

import (
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// maxCompared bounds the pairs of matches of one VirtualService that are compared: what is
// behind them is not judged.
const maxCompared = 100_000

// shadowed finds HTTP rules and matches that no request reaches, since an earlier one takes
// more: a shorter prefix, an expression, fewer headers. It leaves out what is said already.
// Rules of TLS and TCP are not taken in order but the narrowest first, so none of them
// shadows another.
func shadowed(vs *networking.VirtualService, said []Unused) (all []Unused) {
	c := comparison{}
	before, compared := 0, 0 // matches of the rules before, and pairs
	for i, rule := range vs.Http {
		compared += before * max(1, len(rule.Match))
		if compared > maxCompared {
			return all
		}
		before += max(1, len(rule.Match))
		all = append(all, c.shadowedRule(vs, i, said)...)
	}
	return all
}

// shadowedRule is the rule of which nothing is left, else those of its matches.
func (c comparison) shadowedRule(vs *networking.VirtualService, i int, said []Unused) (own []Unused) {
	is := func(match int) bool {
		return slices.ContainsFunc(said, func(u Unused) bool { return u.Field == "http" && u.Rule == i && u.Match == match })
	}
	matches := vs.Http[i].Match
	if is(-1) {
		return nil
	}
	if len(matches) == 0 {
		if by := c.coveredBy(vs, i, nil); by != "" {
			return []Unused{shadow(i, -1, by)}
		}
		return nil
	}
	var wider []string
	gone := 0
	for j, m := range matches {
		if is(j) {
			gone++
		} else if by := c.coveredBy(vs, i, m); by != "" {
			gone++
			own, wider = append(own, shadow(i, j, by)), append(wider, by)
		}
	}
	if gone == len(matches) && len(own) > 0 {
		slices.Sort(wider)
		return []Unused{shadow(i, -1, strings.Join(slices.Compact(wider), ", "))}
	}
	return own
}

func shadow(rule, match int, by string) Unused {
	return Unused{Field: "http", Rule: rule, Match: match, By: -1, Why: by + " before it takes all its requests", Own: true}
}

// coveredBy is the first match or rule before rule i that takes all that a match of it
// takes, "" if none does. A rule without matches has nil. What a delegate does not take
// goes on to the next rule.
func (c comparison) coveredBy(vs *networking.VirtualService, i int, m *networking.HTTPMatchRequest) string {
	for k, before := range vs.Http[:i] {
		if before.Delegate != nil {
			continue
		}
		if len(before.Match) == 0 {
			return fmt.Sprintf("http[%d]", k)
		}
		for l, wide := range before.Match {
			if c.coversMatch(wide, m, vs.Gateways) {
				return fmt.Sprintf("http[%d].match[%d]", k, l)
			}
		}
	}
	return ""
}
