package route_test

import (
	"strings"
	"testing"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
)

func scopes(t *testing.T, extractor, list string) (*route.Scopes, error) {
	t.Helper()
	var c hcmv3.ScopedRoutes
	text := `{"name":"s","rdsConfigSource":{"ads":{}},"scopeKeyBuilder":{"fragments":[{"headerValueExtractor":{"name":"X-Scope",` + extractor + `}}]},` +
		`"scopedRouteConfigurationsList":{"scopedRouteConfigurations":[` + list + `]}}`
	if err := protojson.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return route.CompileScopes(&c, route.CompileEnv{})
}

const scopeA = `{"name":"a","key":{"fragments":[{"stringKey":"a"}]},"routeConfiguration":{"name":"ra"}}`

func TestScopes(t *testing.T) {
	for _, c := range []struct {
		extractor, value string
		found            bool
	}{
		{`"index":0`, "a", true},
		{`"index":0`, "b", false},
		{`"index":1,"elementSeparator":","`, "b,a,c", true},
		{`"index":1,"elementSeparator":","`, "a", false},
		{`"element":{"key":"k","separator":"="},"elementSeparator":";"`, "j=b;k=a", true},
		{`"element":{"key":"k","separator":"="},"elementSeparator":";"`, "j=a", false},
		{`"element":{"key":"k","separator":"="}`, "k=a", true},
	} {
		s, err := scopes(t, c.extractor, scopeA)
		if err != nil {
			t.Fatal(err)
		}
		var r http.Request
		if s.Find(&r) != nil {
			t.Errorf("%s: a table for no header", c.extractor)
		}
		r.Headers.Add([]byte("x-scope"), []byte(c.value))
		if found := s.Find(&r); (found != nil) != c.found || c.found && found.Name != "ra" {
			t.Errorf("%s of %q: %v", c.extractor, c.value, found)
		}
		if n := testing.AllocsPerRun(100, func() { s.Find(&r) }); n != 0 {
			t.Errorf("%s: %v allocations", c.extractor, n)
		}
	}
}

func TestScopesRefused(t *testing.T) {
	for want, list := range map[string]string{
		"route_configuration_name) is not supported with inline": `{"name":"a","key":{"fragments":[{"stringKey":"a"}]},"routeConfigurationName":"ra"}`,
		"You must specify a route_configuration":                 `{"name":"a","key":{"fragments":[{"stringKey":"a"}]}}`,
		"on_demand: not supported":                               `{"name":"a","onDemand":true,"key":{"fragments":[{"stringKey":"a"}]},"routeConfiguration":{}}`,
		"Key":                                                    `{"name":"a","routeConfiguration":{}}`,
	} {
		if _, err := scopes(t, `"index":0`, list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nerror %v\nwant  %s", list, err, want)
		}
	}
	if _, err := scopes(t, `"index":1`, scopeA); err == nil || !strings.Contains(err.Error(), "Index > 0 for empty string element separator.") {
		t.Error(err)
	}
	if _, err := scopes(t, `"elementSeparator":","`, scopeA); err == nil || !strings.Contains(err.Error(), "HeaderValueExtractor") {
		t.Error(err)
	}
	var c hcmv3.ScopedRoutes
	text := `{"name":"s","rdsConfigSource":{"ads":{}},"scopeKeyBuilder":{"fragments":[{"headerValueExtractor":{"name":"x","index":0}}]},"scopedRds":{"scopedRdsConfigSource":{"ads":{}}}}`
	if err := protojson.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if _, err := route.CompileScopes(&c, route.CompileEnv{}); err == nil || err.Error() != "scoped_rds: not supported" {
		t.Error(err)
	}
}
