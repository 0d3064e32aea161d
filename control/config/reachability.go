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
	type seen struct{ prefix, where string }
	earlier := map[string][]seen{} // by what a match asks for besides
	for i, r := range routes {
		for j, m := range r.Match {
			prefix := m.Uri.GetPrefix()
			if prefix == "" {
				continue
			}
			rest, err := besidesURI(m)
			if err != nil {
				continue
			}
			for _, e := range earlier[rest] {
				if e.prefix != prefix && strings.HasPrefix(prefix, e.prefix) {
					p.at("http", i).at("match", j).warnf("is never reached: prefix %q of %s covers %q", shorten(e.prefix), e.where, shorten(prefix))
					break
				}
			}
			earlier[rest] = append(earlier[rest], seen{prefix, fmt.Sprintf("http[%d].match[%d]", i, j)})
		}
	}
}

// besidesURI is a key for what a match asks for besides its URI.
func besidesURI(m *networking.HTTPMatchRequest) (string, error) {
	c := proto.CloneOf(m)
	c.Uri, c.Name, c.StatPrefix = nil, "", ""
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	return string(text), err
}
