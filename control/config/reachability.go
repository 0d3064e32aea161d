package config

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
)

// warnUnreachable warns of rules that no request can reach because earlier ones
// take all that they match.
func warnUnreachable(p place, vs *networking.VirtualService) {
	rules := make([]rule, len(vs.Http))
	for i, r := range vs.Http {
		rules[i].name = r.Name
		for _, m := range r.Match {
			c := proto.CloneOf(m)
			c.Name, c.StatPrefix = "", ""
			rules[i].matches = append(rules[i].matches, c)
		}
	}
	warnDuplicates(p, "http", rules)
	warnCovered(p, vs.Http)
	rules = make([]rule, len(vs.Tls))
	for i, r := range vs.Tls {
		for _, m := range r.Match {
			rules[i].matches = append(rules[i].matches, m)
		}
	}
	warnDuplicates(p, "tls", rules)
	rules = make([]rule, len(vs.Tcp))
	for i, r := range vs.Tcp {
		for _, m := range r.Match {
			rules[i].matches = append(rules[i].matches, m)
		}
	}
	warnDuplicates(p, "tcp", rules)
}

// A rule is a route with what it matches; no matches is every request.
type rule struct {
	name    string
	matches []proto.Message
}

func warnDuplicates(p place, field string, rules []rule) {
	catchAll := -1
	first := map[string]int{}
	for i, r := range rules {
		at := p.at(field, i)
		if len(r.matches) == 0 {
			if catchAll >= 0 {
				at.warnf("is never reached: %s[%d] before it matches everything", field, catchAll)
			}
			catchAll = i
			continue
		}
		used := 0
		for j, m := range r.matches {
			text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				continue
			}
			if k, taken := first[string(text)]; taken {
				at.at("match", j).warnf("is never reached: %s[%d] has the same match", field, k)
				used++
			} else {
				first[string(text)] = i
			}
		}
		if used == len(r.matches) {
			at.warnf("is never reached: rules before it have all its matches")
		}
	}
}

// warnCovered warns of prefixes that a shorter prefix of an earlier match covers,
// all else being equal.
func warnCovered(p place, routes []*networking.HTTPRoute) {
	type seen struct {
		match *networking.HTTPMatchRequest
		where string
	}
	var earlier []seen
	for i, r := range routes {
		for j, m := range r.Match {
			prefix := m.Uri.GetPrefix()
			if prefix == "" {
				continue
			}
			for _, e := range earlier {
				short := e.match.Uri.GetPrefix()
				if short != prefix && strings.HasPrefix(prefix, short) && sameButURI(e.match, m) {
					p.at("http", i).at("match", j).warnf("is never reached: prefix %q of %s covers %q", shorten(short), e.where, shorten(prefix))
					break
				}
			}
			earlier = append(earlier, seen{m, fmt.Sprintf("http[%d].match[%d]", i, j)})
		}
	}
}

func sameButURI(a, b *networking.HTTPMatchRequest) bool {
	ca, cb := proto.CloneOf(a), proto.CloneOf(b)
	ca.Uri, ca.Name, ca.StatPrefix = nil, "", ""
	cb.Uri, cb.Name, cb.StatPrefix = nil, "", ""
	return ca.IgnoreUriCase == cb.IgnoreUriCase && proto.Equal(ca, cb)
}
