package config

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
)

// An Unused is a rule of a VirtualService, or one of its matches, that no request reaches
// because earlier ones take all that it matches.
type Unused struct {
	Field string // of the rules: "http", "tls" or "tcp"
	Rule  int
	Match int    // -1 is the rule as a whole
	By    int    // the rule that has the requests, -1 where several do
	Why   string // in words
	Own   bool   // Istio's own analysis does not see it
}

// Problem is the field and the message by which validation warns of it.
func (u Unused) Problem() (field, message string) {
	field = fmt.Sprintf("%s[%d]", u.Field, u.Rule)
	if u.Match >= 0 {
		field += fmt.Sprintf(".match[%d]", u.Match)
	}
	return field, "is never reached: " + u.Why
}

func warnUnreachable(p place, vs *networking.VirtualService) {
	for _, u := range UnusedRules(vs) {
		at := p.at(u.Field, u.Rule)
		if u.Match >= 0 {
			at = at.at("match", u.Match)
		}
		_, message := u.Problem()
		at.warnf("%s", message)
	}
}

// UnusedRules finds the rules and matches that no request reaches.
func UnusedRules(vs *networking.VirtualService) []Unused {
	rules := make([]rule, len(vs.Http))
	for i, r := range vs.Http {
		for _, m := range r.Match {
			c := proto.CloneOf(m)
			c.Name, c.StatPrefix = "", ""
			rules[i] = append(rules[i], c)
		}
	}
	all := append(duplicates("http", rules), covered(vs.Http)...)
	all = append(all, shadowed(vs, all)...)
	rules = make([]rule, len(vs.Tls))
	for i, r := range vs.Tls {
		for _, m := range r.Match {
			rules[i] = append(rules[i], m)
		}
	}
	all = append(all, duplicates("tls", rules)...)
	rules = make([]rule, len(vs.Tcp))
	for i, r := range vs.Tcp {
		for _, m := range r.Match {
			rules[i] = append(rules[i], m)
		}
	}
	return append(all, duplicates("tcp", rules)...)
}

// A rule is what a route matches; no matches is every request.
type rule []proto.Message

func duplicates(field string, rules []rule) (all []Unused) {
	catchAll := -1
	first := map[string]int{}
	for i, r := range rules {
		if len(r) == 0 {
			if catchAll >= 0 {
				all = append(all, Unused{Field: field, Rule: i, Match: -1, By: catchAll, Why: fmt.Sprintf("%s[%d] before it matches everything", field, catchAll)})
			}
			catchAll = i
			continue
		}
		used := 0
		for j, m := range r {
			text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				continue
			}
			if k, taken := first[string(text)]; taken {
				all = append(all, Unused{Field: field, Rule: i, Match: j, By: k, Why: fmt.Sprintf("%s[%d] has the same match", field, k)})
				used++
			} else {
				first[string(text)] = i
			}
		}
		if used == len(r) {
			all = append(all, Unused{Field: field, Rule: i, Match: -1, By: -1, Why: "rules before it have all its matches"})
		}
	}
	return all
}

// covered finds prefixes that a shorter prefix of an earlier match covers, all else being
// equal.
func covered(routes []*networking.HTTPRoute) (all []Unused) {
	type seen struct {
		prefix      string
		rule, match int
	}
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
					all = append(all, Unused{Field: "http", Rule: i, Match: j, By: e.rule,
						Why: fmt.Sprintf("prefix %q of http[%d].match[%d] covers %q", shorten(e.prefix), e.rule, e.match, shorten(prefix))})
					break
				}
			}
			earlier[rest] = append(earlier[rest], seen{prefix, i, j})
		}
	}
	return all
}

// besidesURI is a key for what a match asks for besides its URI.
func besidesURI(m *networking.HTTPMatchRequest) (string, error) {
	c := proto.CloneOf(m)
	c.Uri, c.Name, c.StatPrefix = nil, "", ""
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	return string(text), err
}
