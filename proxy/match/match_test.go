package match_test

import (
	"net/netip"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/match"
)

// read fills a message from the JSON form of xDS, as users see it in config dumps.
func read[M proto.Message](t *testing.T, text string, m M) M {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestString(t *testing.T) {
	for _, c := range []struct{ matcher, yes, no string }{
		{`{"exact":"/a"}`, "/a", "/a/ /A a"},
		{`{"exact":"/a","ignoreCase":true}`, "/a /A", "/b /a/"},
		{`{"prefix":"/a"}`, "/a /a/b /abc", "/A b/a /"},
		{`{"prefix":"/A","ignoreCase":true}`, "/a /Ab", "/b"},
		{`{"suffix":".png"}`, "x.png .png", "x.pn x.PNG png"},
		{`{"suffix":".png","ignoreCase":true}`, "x.PNG", "x.jpg"},
		{`{"contains":"mid"}`, "mid amidb", "miid MID"},
		{`{"contains":"MID","ignoreCase":true}`, "amIdb", "mi"},
		{`{"safeRegex":{"regex":"a+|b"}}`, "a aaa b", "ab xa"},
		{`{"safeRegex":{"regex":"a+"},"ignoreCase":true}`, "a", "A"},
	} {
		s, err := match.NewString(read(t, c.matcher, &matcherv3.StringMatcher{}))
		if err != nil {
			t.Errorf("%s: %v", c.matcher, err)
			continue
		}
		for v := range strings.FieldsSeq(c.yes) {
			if !s.Match([]byte(v)) {
				t.Errorf("%s does not match %q", c.matcher, v)
			}
		}
		for v := range strings.FieldsSeq(c.no) {
			if s.Match([]byte(v)) {
				t.Errorf("%s matches %q", c.matcher, v)
			}
		}
	}
}

func TestStringRefused(t *testing.T) {
	for matcher, want := range map[string]string{
		`{}`:                             "match_pattern: not set",
		`{"prefix":""}`:                  "prefix: must not be empty",
		`{"safeRegex":{"regex":"a("}}`:   "safe_regex: regex",
		`{"safeRegex":{"regex":"a)(b"}}`: "safe_regex: regex",
		`{"safeRegex":{"regex":"((a{100}){100}){9}"}}`:                 "safe_regex: regex",
		`{"safeRegex":{"regex":""}}`:                                   "must not be empty",
		`{"custom":{"name":"x"}}`:                                      `custom "x": not supported`,
		`{"safeRegex":{"regex":"` + strings.Repeat("a", 20000) + `"}}`: "regex of 20000 bytes: at most 16384",
	} {
		_, err := match.NewString(read(t, matcher, &matcherv3.StringMatcher{}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: error %v, want %q", matcher, err, want)
		}
	}
}

// values are those of a header by any name.
type values []string

func (v values) Value(_ string, i int) ([]byte, bool) {
	if i >= len(v) {
		return nil, false
	}
	return []byte(v[i]), true
}

func TestHeader(t *testing.T) {
	const missing, empty = "(missing)", "(empty)"
	header := func(text string) values {
		switch text {
		case missing:
			return nil
		case empty:
			return values{""}
		}
		return strings.Split(text, "|")
	}
	for _, c := range []struct{ matcher, yes, no string }{
		{`{"name":"A"}`, "x", missing},
		{`{"name":"a","presentMatch":true}`, "x", missing},
		{`{"name":"a","presentMatch":false}`, missing, "x"},
		{`{"name":"a","presentMatch":true,"invertMatch":true}`, missing, "x"},
		{`{"name":"a","stringMatch":{"exact":"x"}}`, "x", "y " + missing},
		{`{"name":"a","stringMatch":{"exact":"x"},"invertMatch":true}`, "y", "x " + missing},
		{`{"name":"a","stringMatch":{"exact":"x"},"invertMatch":true,"treatMissingHeaderAsEmpty":true}`, "y " + missing, "x"},
		{`{"name":"a","exactMatch":"x"}`, "x", "xx"},
		{`{"name":"a","prefixMatch":"x"}`, "xx", "yx"},
		{`{"name":"a","suffixMatch":"x"}`, "yx", "xy"},
		{`{"name":"a","containsMatch":"x"}`, "yxy", "y"},
		{`{"name":"a","safeRegexMatch":{"regex":"x.*"}}`, "xy", "yx"},
		{`{"name":"a","rangeMatch":{"start":"-3","end":"10"}}`, "-3 0 9 +9", "10 -4 a 9a 1234567890123456789012 " + missing},
		{`{"name":"a","rangeMatch":{"start":"-3","end":"10"},"invertMatch":true}`, "10 a", "9 " + missing},
		{`{"name":"a","rangeMatch":{"start":"-3","end":"10"},"invertMatch":true,"treatMissingHeaderAsEmpty":true}`, missing, "9"},
		{`{"name":"a","stringMatch":{"safeRegex":{"regex":"^$"}},"treatMissingHeaderAsEmpty":true}`, missing, "x"},
		{`{"name":"a","stringMatch":{"safeRegex":{"regex":"^$"}}}`, empty, "x " + missing},
		// Several values, as Envoy 1.40 decides.
		{`{"name":"a","stringMatch":{"exact":"x"}}`, "x|y y|x", "x,y y|z"},
		{`{"name":"a","stringMatch":{"exact":"x"},"invertMatch":true}`, "y|z", "x|y y|x"},
		{`{"name":"a","stringMatch":{"safeRegex":{"regex":"x.*y"}}}`, "xay|z", "x|y"},
		{`{"name":"a","rangeMatch":{"start":"1","end":"9"}}`, "5|77 77|5", "77|78"},
	} {
		h, err := match.NewHeader(read(t, c.matcher, &routev3.HeaderMatcher{}))
		if err != nil {
			t.Errorf("%s: %v", c.matcher, err)
			continue
		}
		for v := range strings.FieldsSeq(c.yes) {
			if !h.Match(header(v)) {
				t.Errorf("%s (%s) does not match %q", c.matcher, h.String(), v)
			}
		}
		for v := range strings.FieldsSeq(c.no) {
			if h.Match(header(v)) {
				t.Errorf("%s (%s) matches %q", c.matcher, h.String(), v)
			}
		}
	}
}

func TestQuery(t *testing.T) {
	for _, c := range []struct{ matcher, yes, no string }{
		{`{"name":"a"}`, "a a= a=1 b&a", "b ab=a"},
		{`{"name":"a","presentMatch":false}`, "b", "a"},
		{`{"name":"a","stringMatch":{"exact":"1"}}`, "a=1 b=2&a=1 a=1&a=2", "a=2&a=1 a=%31 a b"},
		{`{"name":"a","stringMatch":{"exact":"x=y"}}`, "a=x=y", "a=x"},
		{`{"name":"a","stringMatch":{"exact":""}}`, "a a=", "a=1"},
	} {
		q, err := match.NewQuery(read(t, c.matcher, &routev3.QueryParameterMatcher{}))
		if err != nil {
			t.Errorf("%s: %v", c.matcher, err)
			continue
		}
		for v := range strings.FieldsSeq(c.yes) {
			if !q.Match([]byte(v)) {
				t.Errorf("%s (%s) does not match %q", c.matcher, q.String(), v)
			}
		}
		for _, v := range append(strings.Fields(c.no), "") {
			if q.Match([]byte(v)) && !strings.Contains(c.matcher, "false") {
				t.Errorf("%s (%s) matches %q", c.matcher, q.String(), v)
			}
		}
	}
}

func TestCIDR(t *testing.T) {
	cidr, err := match.NewCIDR(
		read(t, `{"addressPrefix":"10.1.2.3","prefixLen":8}`, &corev3.CidrRange{}),
		read(t, `{"addressPrefix":"fd00::","prefixLen":16}`, &corev3.CidrRange{}),
		read(t, `{"addressPrefix":"192.0.2.1","prefixLen":32}`, &corev3.CidrRange{}),
	)
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"10.200.0.1": true, "::ffff:10.0.0.1": false, "11.0.0.1": false, "fd00::1": true, "fd01::1": false, "192.0.2.1": true, "192.0.2.2": false,
	} {
		if got := cidr.Match(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	for bad, want := range map[string]string{
		`{"addressPrefix":"x"}`:                       "[0].address_prefix",
		`{"addressPrefix":"10.0.0.0","prefixLen":33}`: "[0].prefix_len: 33 is too long for 10.0.0.0",
	} {
		if _, err := match.NewCIDR(read(t, bad, &corev3.CidrRange{})); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", bad, err, want)
		}
	}
}

func TestMetadata(t *testing.T) {
	metadata := map[string]map[string]any{"f": {
		"s": "text", "n": 2.5, "b": true, "null": nil, "list": []any{"x", 1.0}, "deep": map[string]any{"k": "v"},
	}}
	for _, c := range []struct {
		path, value string
		want        bool
	}{
		{`[{"key":"s"}]`, `{"stringMatch":{"prefix":"te"}}`, true},
		{`[{"key":"s"}]`, `{"doubleMatch":{"exact":1}}`, false},
		{`[{"key":"n"}]`, `{"doubleMatch":{"exact":2.5}}`, true},
		{`[{"key":"n"}]`, `{"doubleMatch":{"range":{"start":1,"end":2.5}}}`, false},
		{`[{"key":"b"}]`, `{"boolMatch":true}`, true},
		{`[{"key":"null"}]`, `{"nullMatch":{}}`, true},
		{`[{"key":"none"}]`, `{"nullMatch":{}}`, false},
		{`[{"key":"none"}]`, `{"presentMatch":false}`, false},
		{`[{"key":"s"}]`, `{"presentMatch":true}`, true},
		{`[{"key":"list"}]`, `{"listMatch":{"oneOf":{"stringMatch":{"exact":"x"}}}}`, true},
		{`[{"key":"list"}]`, `{"listMatch":{"oneOf":{"stringMatch":{"exact":"y"}}}}`, false},
		{`[{"key":"deep"},{"key":"k"}]`, `{"stringMatch":{"exact":"v"}}`, true},
		{`[{"key":"s"},{"key":"k"}]`, `{"stringMatch":{"exact":"v"}}`, false},
		{`[{"key":"s"}]`, `{"orMatch":{"valueMatchers":[{"nullMatch":{}},{"stringMatch":{"exact":"text"}}]}}`, true},
	} {
		m, err := match.NewMetadata(read(t, `{"filter":"f","path":`+c.path+`,"value":`+c.value+`}`, &matcherv3.MetadataMatcher{}))
		if err != nil {
			t.Errorf("%s: %v", c.value, err)
		} else if got := m.Match(metadata); got != c.want {
			t.Errorf("%s %s: %v, want %v", m, c.value, got, c.want)
		}
	}
	inverted, err := match.NewMetadata(read(t, `{"filter":"f","path":[{"key":"s"}],"value":{"nullMatch":{}},"invert":true}`, &matcherv3.MetadataMatcher{}))
	if err != nil || !inverted.Match(nil) {
		t.Errorf("inverted on nothing: %v, want a match", err)
	}
}

func TestRewrite(t *testing.T) {
	for _, c := range []struct{ pattern, substitution, in, want string }{
		{`^/service/([^/]+)(/.*)$`, `\2/instance/\1`, "/service/foo/v1/api", "/v1/api/instance/foo"},
		{`one`, `two`, "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"},
		{`a`, `$1\\`, "/a", `/$1\`},
	} {
		re, text, err := match.NewRewrite(&matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: c.pattern}, Substitution: c.substitution})
		if err != nil {
			t.Fatal(err)
		}
		if got := re.ReplaceAllString(c.in, text); got != c.want {
			t.Errorf("%s → %s on %s: %s, want %s", c.pattern, c.substitution, c.in, got, c.want)
		}
	}
	for substitution, want := range map[string]string{`\`: "single", `\n`: "only", `\2`: "1 groups"} {
		_, _, err := match.NewRewrite(&matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: "(a)"}, Substitution: substitution})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", substitution, err, want)
		}
	}
}

// fixed is one value, made beforehand.
type fixed []byte

func (v fixed) Value(_ string, i int) ([]byte, bool) { return v, i == 0 }

func TestMatchingAllocatesNothing(t *testing.T) {
	s, _ := match.NewString(read(t, `{"contains":"a needle that is longer than thirty-two bytes"}`, &matcherv3.StringMatcher{}))
	h, _ := match.NewHeader(read(t, `{"name":"a","rangeMatch":{"start":"1","end":"9"}}`, &routev3.HeaderMatcher{}))
	q, _ := match.NewQuery(read(t, `{"name":"b","stringMatch":{"safeRegex":{"regex":"x+"}}}`, &routev3.QueryParameterMatcher{}))
	value, number, query := []byte("hay with a needle that is longer than thirty-two bytes in it"), match.Attributes(fixed("no number")), []byte("a=1&b=xxx")
	if n := testing.AllocsPerRun(100, func() {
		s.Match(value)
		h.Match(number)
		q.Match(query)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
