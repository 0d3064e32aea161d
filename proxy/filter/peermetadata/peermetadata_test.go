package peermetadata_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/peermetadata"
	"github.com/lateen-mesh/lateen/proxy/http"
)

func build(t *testing.T, kind, value string) (http.Filter, error) {
	t.Helper()
	var a anypb.Any
	text := `{"@type":"type.googleapis.com/` + kind + `.type.v` + map[string]string{"xds": "3", "udpa": "1"}[kind] + `.TypedStruct","typeUrl":"` + peermetadata.TypeURL + `","value":` + value + `}`
	if err := protojson.Unmarshal([]byte(text), &a); err != nil {
		t.Fatal(err)
	}
	return peermetadata.Factory().New(&a, http.Env{})
}

func TestHeadersEndHere(t *testing.T) {
	for _, c := range []struct{ name, kind, value, request, response string }{
		{"gateway", "udpa", `{"upstream_discovery":[{"istio_headers":{}},{"workload_discovery":{}}],"upstream_propagation":[{"istio_headers":{}}]}`, "x-envoy-peer-metadata-id x-envoy-peer-metadata a", "a"},
		{"inbound", "xds", `{"downstream_discovery":[{"istio_headers":{"skip_external_clusters":true}},{"workload_discovery":{}}],"downstream_propagation":[{"istio_headers":{}}],"shared_with_upstream":true}`, "a", "x-envoy-peer-metadata-id x-envoy-peer-metadata a"},
		{"no headers", "udpa", `{"downstream_discovery":[{"workload_discovery":{}}],"upstream_discovery":[{"baggage":{}}]}`, "x-envoy-peer-metadata-id x-envoy-peer-metadata a", "x-envoy-peer-metadata-id x-envoy-peer-metadata a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := build(t, c.kind, c.value)
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Stream{}
			for _, name := range []string{"x-envoy-peer-metadata-id", "x-envoy-peer-metadata", "a"} {
				s.Request.Headers.Add([]byte(name), []byte("v"))
				s.Response.Headers.Add([]byte(name), []byte("v"))
			}
			f.OnRequest(s, 0)
			f.OnResponse(s, 0)
			if got := names(s.Request.Headers); got != c.request {
				t.Errorf("request %s, want %s", got, c.request)
			}
			if got := names(s.Response.Headers); got != c.response {
				t.Errorf("response %s, want %s", got, c.response)
			}
		})
	}
}

func names(h http.Headers) string {
	var out []string
	for _, f := range h.Fields {
		out = append(out, string(f.Name))
	}
	return strings.Join(out, " ")
}

func TestRefused(t *testing.T) {
	for want, value := range map[string]string{
		"other: not supported":                       `{"other":1}`,
		"upstream_discovery: [1].new: not supported": `{"upstream_discovery":[{"baggage":{}},{"new":{}}]}`,
	} {
		if _, err := build(t, "udpa", value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
