package foreign

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	_ "github.com/lateen-mesh/lateen/proxy" // for the types of everything that it knows
	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/material"
	"github.com/lateen-mesh/lateen/test/ports"
	"github.com/lateen-mesh/lateen/wellknown"
)

// extensions is the issue that brings what only EnvoyFilter and expressions reach.
const extensions = "reached by EnvoyFilter only, comes with the issue of extensions"

// later are the only parts of the recorded resources that our proxy may refuse, and why.
// One that nothing refuses any more fails the test, so that the list only shrinks.
var later = map[string]string{
	"envoy.extensions.filters.http.lua.v3.Lua: no such filter": extensions,
	"ExpressionFilter): not supported":                         "expressions of access logs come with the issue of telemetry",
}

// resources are the kinds that are recorded, in the order in which they are asked for.
var resources = []struct {
	file, url    string
	fresh        func() proto.Message
	from, within string // what asks for it: a text of another file; "": the proxy itself
}{
	{"cds.json", wellknown.ClusterType, func() proto.Message { return &clusterpb.Cluster{} }, "", ""},
	{"eds.json", wellknown.EndpointType, func() proto.Message { return &endpointpb.ClusterLoadAssignment{} }, "cds.json", `"edsClusterConfig"`},
	{"lds.json", wellknown.ListenerType, func() proto.Message { return &listenerpb.Listener{} }, "", ""},
	{"rds.json", wellknown.RouteType, func() proto.Message { return &routepb.RouteConfiguration{} }, "lds.json", `"rds"`},
}

// TestGolden replays what the original's control plane sent to every proxy of every
// recorded scenario: ours takes all of it, in both forms of the protocol, but for what is
// in the list of later issues by name.
func TestGolden(t *testing.T) {
	folders, err := filepath.Glob(filepath.Join(material.Path(t, "golden"), "*", "*", "lds.json"))
	if err != nil || len(folders) == 0 {
		t.Fatalf("nothing is recorded: %v", err)
	}
	refused := map[string]bool{}
	for _, path := range folders {
		dir := filepath.Dir(path)
		name := filepath.Base(filepath.Dir(dir)) + "/" + filepath.Base(dir)
		for _, form := range []string{"GRPC", "DELTA_GRPC"} {
			t.Run(name+"/"+form, func(t *testing.T) { replay(t, dir, form, refused) })
		}
	}
	for part := range later {
		if !refused[part] {
			t.Errorf("nothing is refused for this any more, take it off the list: %s", part)
		}
	}
}

// replay serves the resources of one proxy until it has answered all of them.
func replay(t *testing.T, dir, form string, refused map[string]bool) {
	server := xdstest.New(t)
	recorded := map[string]int{}
	for _, kind := range resources {
		all := named(t, filepath.Join(dir, kind.file), kind.fresh)
		recorded[kind.url] = len(all)
		server.SetAll(kind.url, all)
	}
	server.SetAll(wellknown.SecretType, identities(t))
	p := start(t, server, form, nodeOf(t, dir))
	taken := map[string]bool{}
	for _, kind := range resources {
		if kind.within != "" && !(taken[kind.from] && contains(t, filepath.Join(dir, kind.from), kind.within)) {
			continue
		}
		server.Settle(t, kind.url)
		taken[kind.file] = true
		for _, r := range server.Requests(kind.url) {
			if r.Error != nil {
				taken[kind.file] = false
				judge(t, kind.file, r.Error.GetMessage(), refused)
			}
		}
	}
	if taken["cds.json"] && taken["lds.json"] {
		p.holds(t, recorded)
	}
}

// judge checks that every resource that a NACK names is refused for a listed part.
func judge(t *testing.T, file, message string, refused map[string]bool) {
	t.Helper()
	_, list, _ := strings.Cut(message, "(s) ")
	for one := range strings.SplitSeq(list, ", ") {
		known := false
		for part := range later {
			if strings.Contains(one, part) {
				known, refused[part] = true, true
			}
		}
		if !known {
			t.Errorf("%s: refused: %s", file, one)
		}
	}
}

// A running proxy of ours.
type running struct{ fixture.Gateway }

// start runs the proxy for a node under the server.
func start(t *testing.T, server *xdstest.Server, form string, node json.RawMessage) *running {
	t.Helper()
	admin := ports.One()
	_, port, _ := strings.Cut(server.Addr(), ":")
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	text := fmt.Sprintf(bootstrap, node, admin, form, grpcCluster("xds-grpc", port), grpcCluster("sds-grpc", port))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &running{fixture.Gateway{Admin: fmt.Sprintf("http://127.0.0.1:%d", admin)}}
	r.Process = fixture.Start(t, "lateen-proxy", []string{binary(t, "lateen-proxy"), "-c", file, "-l", "warning", "--use-dynamic-base-id", "--drain-time-s", "1"})
	return r
}

// bootstrap is what the original's agent gives its proxies, as far as it concerns xDS.
const bootstrap = `{
"node": %s,
"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}},
"layered_runtime": {"layers": [{"name": "global config", "static_layer": {"re2.max_program_size.error_level": "32768"}}]},
"dynamic_resources": {
  "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
  "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
  "ads_config": {"api_type": %q, "set_node_on_first_message_only": true, "transport_api_version": "V3",
    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}},
"static_resources": {"clusters": [%s, %s]}}`

func grpcCluster(name, port string) string {
	return fmt.Sprintf(`{"name": %q, "type": "STATIC", "connect_timeout": "1s",
  "load_assignment": {"cluster_name": %[1]q, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %s}}}}]}]},
  "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}}`, name, port)
}

// holds checks that everything recorded is in force: no listener and no cluster waits.
func (r *running) holds(t *testing.T, recorded map[string]int) {
	t.Helper()
	fixture.Eventually(t, "the proxy is ready", func() error {
		_, err := r.Get("/ready")
		return err
	})
	fixture.Eventually(t, "everything is in force", func() error {
		page, err := r.Get("/stats?filter=listener_manager.total_listeners|cluster_manager.active_clusters|cluster_manager.warming_clusters")
		if err != nil {
			return err
		}
		for _, want := range []string{
			fmt.Sprintf("cluster_manager.active_clusters: %d\n", recorded[wellknown.ClusterType]+2), // and the two of the bootstrap
			"cluster_manager.warming_clusters: 0\n",
			fmt.Sprintf("listener_manager.total_listeners_active: %d\n", recorded[wellknown.ListenerType]),
			"listener_manager.total_listeners_warming: 0\n",
		} {
			if !strings.Contains(page, want) {
				return fmt.Errorf("no %q in\n%s", want, page)
			}
		}
		return nil
	})
}

func contains(t *testing.T, file, text string) bool {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(data), text)
}

// named reads recorded resources by name.
func named(t *testing.T, file string, fresh func() proto.Message) map[string]proto.Message {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		t.Fatal(err)
	}
	all := map[string]proto.Message{}
	for _, x := range raw {
		m := fresh()
		if err := protojson.Unmarshal(x, m); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[nameOf(m)] = m
	}
	return all
}

func nameOf(m proto.Message) string {
	if a, ok := m.(*endpointpb.ClusterLoadAssignment); ok {
		return a.GetClusterName()
	}
	return m.(interface{ GetName() string }).GetName()
}

// nodeOf is the node that the resources were recorded for.
func nodeOf(t *testing.T, dir string) json.RawMessage {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "nodes.json"))
	if err != nil {
		t.Fatal(err)
	}
	var nodes map[string]map[string]any
	if err := json.Unmarshal(data, &nodes); err != nil {
		t.Fatal(err)
	}
	node := nodes[filepath.Base(dir)]
	if node == nil {
		t.Fatalf("no node %s in nodes.json", filepath.Base(dir))
	}
	node["cluster"] = "recorded"
	out, err := json.Marshal(node)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// identities are secrets under all names that the recorded resources ask for.
func identities(t *testing.T) map[string]proto.Message {
	t.Helper()
	all, err := fixture.Secrets(
		[]string{"default", "kubernetes://bookinfo-credential", "kubernetes://my-secret", "kubernetes://a-cred", "kubernetes://c-cred", "file-cert:/certs/tls.crt~/certs/tls.key"},
		[]string{"ROOTCA", "file-root:system", "kubernetes://c-cred-cacert"})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
