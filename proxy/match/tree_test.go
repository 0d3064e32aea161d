package match_test

import (
	"strings"
	"testing"

	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/match"
)

// facts are values by name; an input reads one, an action is a text.
type facts map[string]string

var treeEnv = match.TreeEnv[facts, string]{
	Input: func(a *anypb.Any) (match.Input[facts], error) {
		var name wrapperspb.StringValue
		err := a.UnmarshalTo(&name)
		return func(f *facts) ([]byte, bool) {
			v, ok := (*f)[name.GetValue()]
			return []byte(v), ok
		}, err
	},
	Action: func(a *anypb.Any) (string, error) {
		var text wrapperspb.StringValue
		err := a.UnmarshalTo(&text)
		return text.GetValue(), err
	},
}

func value(text string) string {
	return `{"name":"x","typedConfig":{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"` + text + `"}}`
}

func action(text string) string { return `{"action":` + value(text) + `}` }

func tree(t *testing.T, text string) (*match.Tree[facts, string], error) {
	t.Helper()
	var m matcherv3.Matcher
	if err := protojson.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return match.NewTree(&m, treeEnv)
}

func is(input, want string) string {
	return `{"singlePredicate":{"input":` + value(input) + `,"valueMatch":` + want + `}}`
}

func TestTree(t *testing.T) {
	custom := func(kind, fields string) string {
		return `{"singlePredicate":{"input":` + value("a") + `,"customMatch":{"name":"c","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.matching.input_matchers.` + kind + `",` + fields + `}}}}`
	}
	list := func(predicate string) string {
		return `{"matcherList":{"matchers":[{"predicate":` + predicate + `,"onMatch":` + action("yes") + `}]},"onNoMatch":` + action("no") + `}`
	}
	for _, c := range []struct {
		name, config string
		in           facts
		want         string
	}{
		{"exact", `{"matcherTree":{"input":` + value("a") + `,"exactMatchMap":{"map":{"1":` + action("one") + `}}}}`, facts{"a": "1"}, "one"},
		{"no entry", `{"matcherTree":{"input":` + value("a") + `,"exactMatchMap":{"map":{"1":` + action("one") + `}}}}`, facts{"a": "2"}, ""},
		{"no value", `{"matcherTree":{"input":` + value("a") + `,"exactMatchMap":{"map":{"":` + action("one") + `}}},"onNoMatch":` + action("none") + `}`, facts{}, "none"},
		{"longest prefix", `{"matcherTree":{"input":` + value("a") + `,"prefixMatchMap":{"map":{"x":` + action("short") + `,"xy":` + action("long") + `}}}}`, facts{"a": "xyz"}, "long"},
		{"a longer prefix that leads nowhere", `{"matcherTree":{"input":` + value("a") + `,"prefixMatchMap":{"map":{"x":` + action("short") + `,"xy":{"matcher":{"matcherTree":{"input":` + value("b") + `,"exactMatchMap":{"map":{"1":` + action("long") + `}}}}}}}}}`, facts{"a": "xyz"}, "short"},
		{"list", list(is("a", `{"suffix":"z"}`)), facts{"a": "xyz"}, "yes"},
		{"list, none", list(is("a", `{"suffix":"y"}`)), facts{"a": "xyz"}, "no"},
		{"and", list(`{"andMatcher":{"predicate":[` + is("a", `{"exact":"1"}`) + `,` + is("b", `{"exact":"2"}`) + `]}}`), facts{"a": "1", "b": "3"}, "no"},
		{"or", list(`{"orMatcher":{"predicate":[` + is("a", `{"exact":"1"}`) + `,` + is("b", `{"exact":"2"}`) + `]}}`), facts{"a": "1", "b": "3"}, "yes"},
		{"not", list(`{"notMatcher":` + is("a", `{"exact":"1"}`) + `}`), facts{"a": "2"}, "yes"},
		{"not, without a value", list(`{"notMatcher":` + is("a", `{"exact":"1"}`) + `}`), facts{}, "yes"},
		{"keep matching", `{"matcherList":{"matchers":[{"predicate":` + is("a", `{"exact":"1"}`) + `,"onMatch":{"keepMatching":true,"action":` + value("first") + `}},{"predicate":` + is("a", `{"exact":"1"}`) + `,"onMatch":` + action("second") + `}]}}`, facts{"a": "1"}, "second"},
		{"address", list(custom("ip.v3.Ip", `"cidrRanges":[{"addressPrefix":"10.0.0.0","prefixLen":8}],"statPrefix":"s"`)), facts{"a": "10.1.2.3"}, "yes"},
		{"no address", list(custom("ip.v3.Ip", `"cidrRanges":[{"addressPrefix":"10.0.0.0","prefixLen":8}],"statPrefix":"s"`)), facts{"a": "ten"}, "no"},
		{"share", list(custom("runtime_fraction.v3.RuntimeFraction", `"runtimeFraction":{"defaultValue":{"numerator":100}}`)), facts{"a": "x"}, "yes"},
		{"hash", list(custom("consistent_hashing.v3.ConsistentHashing", `"modulo":10,"threshold":10`)), facts{"a": "x"}, "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			compiled, err := tree(t, c.config)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := compiled.Find(&c.in); got != c.want || ok != (c.want != "") {
				t.Errorf("%q, %v, want %q", got, ok, c.want)
			}
		})
	}
}

func TestTreeRefused(t *testing.T) {
	deep := is("a", `{"exact":"1"}`)
	for range 40 {
		deep = `{"notMatcher":` + deep + `}`
	}
	list := func(predicate string) string {
		return `{"matcherList":{"matchers":[{"predicate":` + predicate + `,"onMatch":` + action("x") + `}]}}`
	}
	for want, config := range map[string]string{
		"matcher_type: not set":      `{}`,
		"nested deeper than":         list(deep),
		"on_match: not set":          `{"onNoMatch":{}}`,
		"predicate: match_type":      list(`{}`),
		"want two or more":           list(`{"andMatcher":{"predicate":[` + is("a", `{"exact":"1"}`) + `]}}`),
		"tree_type: not set":         `{"matcherTree":{"input":` + value("a") + `}}`,
		"value_match: match_pattern": list(is("a", `{}`)),
		`custom_match "c"`:           `{"matcherTree":{"input":` + value("a") + `,"customMatch":{"name":"c"}}}`,
	} {
		if _, err := tree(t, config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: error %v, want %q", config, err, want)
		}
	}
}

// FuzzTree: every matcher is refused or decides.
func FuzzTree(f *testing.F) {
	for _, text := range []string{`{"matcherTree":{"input":` + value("a") + `,"prefixMatchMap":{"map":{"x":` + action("y") + `}}}}`, `{"matcherList":{"matchers":[{"predicate":` + is("a", `{"exact":"1"}`) + `,"onMatch":` + action("x") + `}]}}`} {
		var m matcherv3.Matcher
		if err := protojson.Unmarshal([]byte(text), &m); err != nil {
			f.Fatal(err)
		}
		raw, _ := proto.Marshal(&m)
		f.Add(raw, "xyz")
	}
	f.Fuzz(func(t *testing.T, raw []byte, v string) {
		var m matcherv3.Matcher
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		if compiled, err := match.NewTree(&m, treeEnv); err == nil {
			compiled.Find(&facts{"a": v})
		}
	})
}
