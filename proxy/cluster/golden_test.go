package cluster

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/test/material"

	// What Any fields of the goldens hold.
	_ "github.com/cncf/xds/go/udpa/type/v1"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
)

// golden returns the files of what the original generates.
func golden(t *testing.T, pattern string) []string {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(material.Path(t, "golden"), pattern))
	if len(files) == 0 {
		t.Skip("shared acceptance material not present: golden/" + pattern)
	}
	return files
}

func each[T proto.Message](t *testing.T, file string, fresh func() T, f func(T)) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	for _, raw := range list {
		m := fresh()
		if err := protojson.Unmarshal(raw, m); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		f(m)
	}
}

// Every cluster that the original generates is taken, but for what is listed here.
func TestGoldenClusters(t *testing.T) {
	refused := map[string]string{
		"explicit HTTP/2": "typed_extension_protocol_options: explicit HTTP/2 to the upstream is not supported",
	}
	idle := xds.New(xds.Options{})
	for _, file := range golden(t, "*/*/cds.json") {
		name := filepath.Base(filepath.Dir(filepath.Dir(file))) + "/" + filepath.Base(filepath.Dir(file))
		t.Run(name, func(t *testing.T) {
			cs := New(Options{
				Source:   func(*corev3.ConfigSource) (*xds.Client, error) { return idle, nil },
				Resolver: dns.New(dns.Options{Servers: []string{"127.0.0.1:1"}}),
			})
			t.Cleanup(cs.Close)
			each(t, file, func() *clusterv3.Cluster { return &clusterv3.Cluster{} }, func(pb *clusterv3.Cluster) {
				c, err := cs.build(pb, false)
				if err == nil {
					cs.adopt(c)
					return
				}
				for _, text := range refused {
					if err.Error() == text {
						return
					}
				}
				t.Errorf("%s: %v", pb.GetName(), err)
			})
		})
	}
}

func TestGoldenEndpoints(t *testing.T) {
	for _, file := range golden(t, "*/*/eds.json") {
		each(t, file, func() *endpointv3.ClusterLoadAssignment { return &endpointv3.ClusterLoadAssignment{} }, func(pb *endpointv3.ClusterLoadAssignment) {
			if _, err := decodeAssignment(pb, true); err != nil {
				t.Errorf("%s: %s: %v", strings.TrimSuffix(file, "/eds.json"), pb.GetClusterName(), err)
			}
		})
	}
}
