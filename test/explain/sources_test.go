package explain

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/explain"
	"github.com/lateen-mesh/lateen/proxy"
	"github.com/lateen-mesh/lateen/test/material"
)

// A source is what one proxy has.
type source struct {
	name      string
	node      *corepb.Node
	resources proxy.Resources
}

// sources are the proxies of all samples and, where they are at hand, of all recorded
// configurations; in a short run those of every seventh.
func sources(t *testing.T) (list []source) {
	t.Helper()
	groups := append([]group{own}, samples(filepath.Join("..", "..", "samples"))...)
	if root := material.Dir(); root != "" {
		groups = append(groups, samples(filepath.Join(root, "samples"))...)
		groups = append(groups, recorded(t, filepath.Join(root, "golden"))...)
	}
	for i, g := range groups {
		if !testing.Short() || i%7 == 0 {
			list = append(list, g(t)...)
		}
	}
	return slices.DeleteFunc(list, func(s source) bool { return !slices.ContainsFunc(s.resources.Listeners, binds) })
}

// A group makes the proxies of one configuration.
type group func(t *testing.T) []source

// binds reports a listener with a socket of its own.
func binds(l *listenerpb.Listener) bool {
	return l.GetBindToPort() == nil || l.GetBindToPort().GetValue()
}

// samples are the proxies of each folder below a place that has routing: of every workload
// and gateway, with one routing file at a time beside what runs the application.
func samples(root string) (list []group) {
	routing, _ := filepath.Glob(filepath.Join(root, "*", "networking", "*.yaml"))
	for _, path := range routing {
		app := filepath.Dir(filepath.Dir(path))
		files := []string{filepath.Join(app, "platform", "kube", "bookinfo.yaml"), path}
		if !strings.Contains(path, "destination-rule") {
			files = append(files, filepath.Join(filepath.Dir(path), "destination-rule-all.yaml"))
		}
		list = append(list, func(t *testing.T) []source { return generated(t, root, files) })
	}
	for _, set := range [][]string{{"httpbin/httpbin.yaml", "httpbin/httpbin-gateway.yaml"}, {"helloworld/helloworld.yaml", "helloworld/helloworld-gateway.yaml"}, {"tcp-echo/tcp-echo.yaml", "tcp-echo/tcp-echo-all-v1.yaml"}} {
		var files []string
		for _, name := range set {
			if path := filepath.Join(root, name); exists(path) {
				files = append(files, path)
			}
		}
		if len(files) > 0 {
			list = append(list, func(t *testing.T) []source { return generated(t, root, files) })
		}
	}
	return list
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// own are the proxies of the file of this test.
func own(t *testing.T) []source {
	t.Helper()
	return generated(t, "testdata", []string{filepath.Join("testdata", "routing.yaml")})
}

// generated are the gateways of some files and the first workload.
func generated(t *testing.T, root string, paths []string) (list []source) {
	t.Helper()
	var files []explain.File
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, explain.File{Name: path, Text: text})
	}
	m, _ := explain.FromFiles(files, "default", nil)
	name, _ := filepath.Rel(root, paths[len(paths)-1])
	if len(paths) > 1 {
		name, _ = filepath.Rel(root, paths[1])
	}
	sidecar := false
	for _, w := range m.Workloads() {
		if !w.Gateway && sidecar {
			continue
		}
		sidecar = sidecar || !w.Gateway
		node, resources, err := m.Resources(t.Context(), w)
		if err != nil {
			t.Fatalf("%s: %s: %v", name, w, err)
		}
		list = append(list, source{name + "/" + w.Name, node, resources})
	}
	return list
}

// recorded are the proxies of all recorded scenarios.
func recorded(t *testing.T, root string) (list []group) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "*", "*", "lds.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("nothing is recorded below %s: %v", root, err)
	}
	for _, path := range paths {
		list = append(list, func(t *testing.T) []source { return []source{recording(t, filepath.Dir(path))} })
	}
	return list
}

// recording reads what was recorded of one proxy.
func recording(t *testing.T, dir string) source {
	t.Helper()
	s := source{name: filepath.Base(filepath.Dir(dir)) + "/" + filepath.Base(dir)}
	var nodes map[string]json.RawMessage
	if err := json.Unmarshal(read(t, filepath.Join(filepath.Dir(dir), "nodes.json")), &nodes); err != nil {
		t.Fatal(err)
	}
	s.node = &corepb.Node{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(nodes[filepath.Base(dir)], s.node); err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	s.node.Cluster = "recorded"
	s.resources.Clusters = decoded(t, filepath.Join(dir, "cds.json"), func() *clusterpb.Cluster { return &clusterpb.Cluster{} })
	s.resources.Endpoints = decoded(t, filepath.Join(dir, "eds.json"), func() *endpointpb.ClusterLoadAssignment { return &endpointpb.ClusterLoadAssignment{} })
	s.resources.Listeners = decoded(t, filepath.Join(dir, "lds.json"), func() *listenerpb.Listener { return &listenerpb.Listener{} })
	s.resources.Routes = decoded(t, filepath.Join(dir, "rds.json"), func() *routepb.RouteConfiguration { return &routepb.RouteConfiguration{} })
	return s
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// decoded reads a list of resources; a file that is not there has none.
func decoded[M proto.Message](t *testing.T, path string, fresh func() M) (list []M) {
	t.Helper()
	if !exists(path) {
		return nil
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(read(t, path), &raw); err != nil {
		t.Fatal(err)
	}
	for _, x := range raw {
		m := fresh()
		if err := protojson.Unmarshal(x, m); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		list = append(list, m)
	}
	return slices.Clip(list)
}
