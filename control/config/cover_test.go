package config

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	networking "istio.io/api/networking/v1alpha3"
	"sigs.k8s.io/yaml"
)

func matchOf(t *testing.T, text string) *networking.HTTPMatchRequest {
	t.Helper()
	m := &networking.HTTPMatchRequest{}
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = protojson.Unmarshal(asJSON, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCoversMatch(t *testing.T) {
	for _, c := range []struct {
		wide, narrow string
		want         bool
	}{
		{"{}", "{uri: {prefix: /a}, headers: {x: {exact: b}}}", true},
		{"{uri: {prefix: /}}", "{headers: {x: {exact: b}}}", true},
		{"{uri: {prefix: /a}}", "{uri: {exact: /ab}}", true},
		{"{uri: {prefix: /a}}", "{uri: {exact: /b}}", false},
		{"{uri: {prefix: /a}}", "{}", false},
		{"{uri: {prefix: /api}}", "{uri: {regex: '/api/v[0-9]+'}}", true},
		{"{uri: {prefix: /api}}", "{uri: {regex: '^/api/.*'}}", true},
		{"{uri: {prefix: /api}}", "{uri: {regex: '/a(pi)?'}}", false},
		{"{uri: {regex: '/api/.*'}}", "{uri: {prefix: /api/v1}}", true},
		{"{uri: {regex: '/api/v[0-9]'}}", "{uri: {exact: /api/v1}}", true},
		{"{uri: {regex: '/api/v[0-9]'}}", "{uri: {exact: /api/v10}}", false},
		{"{uri: {regex: '.*'}}", "{uri: {regex: 'a|b'}}", true},
		{"{uri: {exact: /A}, ignoreUriCase: true}", "{uri: {exact: /a}}", true},
		{"{uri: {exact: /a}}", "{uri: {exact: /a}, ignoreUriCase: true}", false},
		{"{uri: {prefix: /1}}", "{uri: {exact: /1a}, ignoreUriCase: true}", true},
		{"{headers: {X-User: {prefix: j}}}", "{headers: {x-user: {exact: jason}, more: {}}}", true},
		{"{headers: {x-user: {}}}", "{headers: {x-user: {regex: '.+'}}}", true},
		{"{headers: {x-user: {exact: jason}}}", "{headers: {x-user: {}}}", false},
		{"{headers: {x-user: {exact: jason}}}", "{uri: {prefix: /}}", false},
		{"{withoutHeaders: {x: {}}}", "{withoutHeaders: {x: {exact: a}}}", false},
		{"{withoutHeaders: {x: {exact: a}}}", "{withoutHeaders: {x: {}}}", true},
		{"{withoutHeaders: {x: {exact: a}}}", "{headers: {x: {exact: b}}}", false},
		{"{queryParams: {q: {}}}", "{queryParams: {q: {exact: '1'}}}", true},
		{"{method: {exact: GET}}", "{method: {exact: GET}, scheme: {exact: https}}", true},
		{"{method: {exact: GET}}", "{method: {exact: POST}}", false},
		{"{authority: {prefix: a}}", "{authority: {exact: a.example.com}}", true},
		{"{port: 80}", "{}", false},
		{"{port: 80}", "{port: 80, uri: {prefix: /}}", true},
		{"{sourceLabels: {app: a}}", "{sourceLabels: {app: a, version: v1}}", true},
		{"{sourceLabels: {app: a}}", "{}", false},
		{"{sourceNamespace: one}", "{sourceNamespace: two}", false},
		{"{gateways: [mesh]}", "{}", false}, // front is one of the VirtualService's, too
		{"{gateways: [front, mesh]}", "{}", true},
		{"{}", "{gateways: [front]}", true},
	} {
		t.Run(c.wide+" "+c.narrow, func(t *testing.T) {
			if got := (comparison{}).coversMatch(matchOf(t, c.wide), matchOf(t, c.narrow), []string{"front", "mesh"}); got != c.want {
				t.Errorf("covers: %v, want %v", got, c.want)
			}
		})
	}
}

// TestCoversText compares with what texts really match: a match that covers another takes
// all that it takes.
func TestCoversText(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(all []string) string { return all[random.IntN(len(all))] }
	values := []string{"", "/", "/a", "/ab", "/abc", "/b", "/a/b", "a", "ab.", "/a.", "/AB"}
	patterns := append([]string{".*", "/.*", "/a.*", "/ab?", "^/a", "/a|/b", "(/a)+", "/a.", `/a\..*`, "(?i)/ab", "[/a]*", "a.*|/"}, values...)
	newMatch := func() *networking.StringMatch {
		switch random.IntN(4) {
		case 0:
			return &networking.StringMatch{MatchType: &networking.StringMatch_Exact{Exact: pick(values)}}
		case 1:
			return &networking.StringMatch{MatchType: &networking.StringMatch_Prefix{Prefix: pick(values)}}
		case 2:
			return &networking.StringMatch{MatchType: &networking.StringMatch_Regex{Regex: pick(patterns)}}
		}
		return &networking.StringMatch{}
	}
	takes := func(m *networking.StringMatch, value string) bool {
		switch k := m.MatchType.(type) {
		case *networking.StringMatch_Exact:
			return value == k.Exact
		case *networking.StringMatch_Prefix:
			return strings.HasPrefix(value, k.Prefix)
		case *networking.StringMatch_Regex:
			return regexp.MustCompile("^(?:" + k.Regex + ")$").MatchString(value)
		}
		return true
	}
	c, covered := comparison{}, 0
	for range 20_000 {
		wide, narrow := newMatch(), newMatch()
		if !c.coversText(wide, narrow) {
			continue
		}
		covered++
		for _, v := range values {
			if takes(narrow, v) && !takes(wide, v) {
				t.Fatal(fmt.Sprint(wide, " is said to cover ", narrow, ", but not ", v))
			}
		}
	}
	if covered < 1000 {
		t.Errorf("only %d pairs cover each other", covered)
	}
}
