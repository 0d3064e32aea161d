package peermetadata_test

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

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
	var node structpb.Struct
	if err := protojson.Unmarshal([]byte(`{"NAME": "ratings-v1-x", "NAMESPACE": "default", "OWNER": "kubernetes://apis/apps/v1/namespaces/default/deployments/ratings-v1",
		"LABELS": {"app": "ratings", "version": "v1", "security.istio.io/tlsMode": "istio"}, "PROXY_CONFIG": {"concurrency": 2}, "MESH_ID": "cluster.local"}`), &node); err != nil {
		t.Fatal(err)
	}
	return peermetadata.Factory(peermetadata.Deps{ID: "sidecar~me", Metadata: &node, External: func(name string) bool { return name == "away" }}).New(&a, http.Env{})
}

const (
	headers     = `[{"istio_headers":{}},{"workload_discovery":{}}]`
	meshHeaders = `[{"istio_headers":{"skip_external_clusters":true}}]`
)

// TestHeaders: what a request and its response have behind the filter.
func TestHeaders(t *testing.T) {
	const id, data = "x-envoy-peer-metadata-id", "x-envoy-peer-metadata"
	both := []string{id, data}
	for _, c := range []struct {
		name, value, cluster string
		peer, upstream       []string // headers that come
		request, response    string
	}{
		{"OB-013 outbound", `{"upstream_discovery":` + headers + `,"upstream_propagation":` + headers + `}`, "c", nil, both, "a id=mine data=mine", "a"},
		{"OB-013 outbound, what the application sent is replaced", `{"upstream_propagation":` + headers + `}`, "c", both, nil, "a id=mine data=mine", "a"},
		{"OB-013 inbound", `{"downstream_discovery":` + headers + `,"downstream_propagation":` + headers + `}`, "c", both, nil, "a", "a id=mine data=mine"},
		{"OB-013 inbound, no peer", `{"downstream_discovery":` + headers + `,"downstream_propagation":` + headers + `}`, "c", nil, nil, "a", "a"},
		{"OB-013 inbound, half a peer", `{"downstream_discovery":` + headers + `,"downstream_propagation":` + headers + `}`, "c", both[:1], nil, "a", "a id=mine"},
		{"outside of the mesh", `{"upstream_propagation":` + meshHeaders + `}`, "away", nil, nil, "a", "a"},
		{"within it", `{"upstream_propagation":` + meshHeaders + `}`, "c", nil, nil, "a id=mine data=mine", "a"},
		{"other methods", `{"downstream_discovery":[{"workload_discovery":{}}],"upstream_discovery":[{"baggage":{}}],"shared_with_upstream":true}`, "c", both, both,
			"id=theirs data=theirs a", "id=theirs data=theirs a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := build(t, "xds", c.value)
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Stream{}
			s.Begin(nil, 1, nil)
			s.Info.Cluster = c.cluster
			for _, name := range slices.Concat(c.peer, []string{"a"}) {
				s.Request.Headers.Add([]byte(name), []byte("theirs"))
			}
			for _, name := range slices.Concat(c.upstream, []string{"a"}) {
				s.Response.Headers.Add([]byte(name), []byte("theirs"))
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

// TestMetadata: what is told can be read as the Struct that it is, and is the same every time.
func TestMetadata(t *testing.T) {
	var first []byte
	for range 20 {
		f, err := build(t, "udpa", `{"upstream_propagation":`+headers+`}`)
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Stream{}
		f.OnRequest(s, 0)
		got := s.Request.Headers.Get("x-envoy-peer-metadata")
		if first == nil {
			first = got
		}
		if !bytes.Equal(got, first) {
			t.Fatalf("%s, then %s", first, got)
		}
	}
	text, err := base64.StdEncoding.DecodeString(string(first))
	if err != nil {
		t.Fatal(err)
	}
	var m structpb.Struct
	if err := proto.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"NAME": "ratings-v1-x", "NAMESPACE": "default", "MESH_ID": "cluster.local",
		"OWNER": "kubernetes://apis/apps/v1/namespaces/default/deployments/ratings-v1",
		"LABELS": map[string]any{"app": "ratings", "version": "v1", "security.istio.io/tlsMode": "istio",
			"service.istio.io/canonical-name": "ratings", "service.istio.io/canonical-revision": "v1"},
	}
	if diff := cmp.Diff(want, m.AsMap()); diff != "" {
		t.Error(diff)
	}
}

func names(h http.Headers) string {
	var out []string
	for _, f := range h.Fields {
		name, value := string(f.Name), "="+string(f.Value)
		switch {
		case name == "a":
			value = ""
		case value != "=theirs":
			value = "=mine"
		}
		out = append(out, strings.Replace(strings.Replace(name, "x-envoy-peer-metadata-id", "id", 1), "x-envoy-peer-metadata", "data", 1)+value)
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
