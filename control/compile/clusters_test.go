package compile

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/types/known/structpb"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// TestClusters runs testdata/clusters/*.txtar. A case has the files config.yaml,
// mesh.yaml and networks.yaml (optional) and sections that say what a proxy gets. A section begins
// with the line
//
//	proxy ROLE NAMESPACE IP [key=value labels…] [locality=r/z/s] [network=NAME] [view=NAMES] [agent] [none] [tproxy] [stock]
//
// and goes on with lines "CLUSTER PATH = JSON": what is at the path of the Envoy
// cluster. Besides the fields of the cluster, these are paths:
//
//	exists     whether there is such a cluster
//	http       its HttpProtocolOptions
//	tls        its UpstreamTlsContext
//	istio      its metadata for "istio"
//	endpoints  its endpoints as "address:port", "address:port/priority" where the
//	           priority is not 0, "address:port*weight" where the locality's
//	           weight is not the sum of its endpoints'
//	workloads  the workload metadata of its endpoints
//	weights    their weights
//	modes      their TLS modes
func TestClusters(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "clusters", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runClusterCase(t, archive) })
	}
}

func runClusterCase(t *testing.T, archive *txtar.Archive) {
	var objects []*config.Config
	mc, networks := config.DefaultMeshConfig(), (*meshconfig.MeshNetworks)(nil)
	for _, f := range archive.Files {
		switch f.Name {
		case "config.yaml":
			decoded, problems := config.DecodeYAML(f.Name, f.Data)
			if config.HasErrors(problems) {
				t.Fatal(problems)
			}
			objects = decoded
		case "mesh.yaml":
			decoded, problems := config.DecodeMeshConfig(f.Name, f.Data)
			if config.HasErrors(problems) {
				t.Fatal(problems)
			}
			mc = decoded
		case "networks.yaml":
			networks = decodeNetworks(t, string(f.Data))
		}
	}
	s := mesh.Build(config.NewSet(1, objects), mesh.Options{MeshConfig: mc, Networks: networks, Identities: true})
	for _, f := range archive.Files {
		if strings.HasSuffix(f.Name, ".yaml") {
			continue
		}
		t.Run(f.Name, func(t *testing.T) { checkClusters(t, s, string(f.Data)) })
	}
}

// decodeNetworks reads a MeshNetworks as it stands in the ConfigMap of the mesh.
func decodeNetworks(t *testing.T, text string) *meshconfig.MeshNetworks {
	t.Helper()
	object := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  meshNetworks: |\n    " +
		strings.ReplaceAll(text, "\n", "\n    ")
	objects, problems := config.DecodeYAML("map.yaml", []byte(object))
	networks, wrong := config.MeshNetworksOf(config.NewSet(1, objects), "istio-system")
	if problems = append(problems, wrong...); len(problems) > 0 {
		t.Fatal(problems)
	}
	return networks
}

func checkClusters(t *testing.T, s *mesh.Snapshot, section string) {
	var seen view
	checked := 0
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "proxy "); ok {
			seen = look(t, s, parseProxy(t, rest))
			continue
		}
		left, want, ok := strings.Cut(line, " = ")
		cluster, path, ok2 := strings.Cut(left, " ")
		if !ok || !ok2 || seen.clusters == nil {
			t.Fatalf("want a proxy line, then lines CLUSTER PATH = JSON, got %q", line)
		}
		var wanted any
		if err := json.Unmarshal([]byte(want), &wanted); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if got := seen.at(cluster, strings.TrimSpace(path)); !reflect.DeepEqual(got, wanted) {
			text, _ := json.Marshal(got)
			t.Errorf("%s %s\n\twant %s\n\tgot  %s", cluster, path, want, text)
		}
		checked++
	}
	if checked == 0 {
		t.Error("the section checks nothing")
	}
}

// parseProxy reads the words after "proxy".
func parseProxy(t *testing.T, text string) *mesh.Proxy {
	words := strings.Fields(text)
	if len(words) < 3 {
		t.Fatalf("proxy %s: want ROLE NAMESPACE IP", text)
	}
	labels, metadata := map[string]any{}, map[string]any{}
	node := &corev3.Node{Id: fmt.Sprintf("%s~%s~p.%s~%s.svc.cluster.local", words[0], words[2], words[1], words[1])}
	for _, w := range words[3:] {
		key, value, hasValue := strings.Cut(w, "=")
		switch {
		case key == "locality":
			parts := append(strings.Split(value, "/"), "", "")
			node.Locality = &corev3.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
		case key == "network":
			metadata["NETWORK"] = value
		case key == "view":
			metadata["REQUESTED_NETWORK_VIEW"] = value
		case hasValue:
			labels[key] = value
		case key == "agent":
			metadata["PILOT_SAN"] = "istiod.istio-system.svc"
		case key == "none":
			metadata["INTERCEPTION_MODE"] = "NONE"
		case key == "tproxy":
			metadata["INTERCEPTION_MODE"] = "TPROXY"
		case key == "stock": // an Envoy without the original's extensions
			node.Extensions = []*corev3.Extension{{Name: "envoy.filters.http.router"}, {Name: "envoy.tracers.zipkin"},
				{Name: "envoy.filters.http.header_mutation"}}
		case key == "mark":
			metadata[wellknown.MarkKey] = "1337"
		}
	}
	metadata["LABELS"] = labels
	var err error
	if node.Metadata, err = structpb.NewStruct(metadata); err != nil {
		t.Fatal(err)
	}
	p, err := mesh.ParseProxy(node)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// view is what one proxy gets.
type view struct {
	clusters    map[string]any
	assignments map[string]*ir.Assignment
}

// look generates for a proxy; every resource must pass the validation rules of
// Envoy's own API.
func look(t *testing.T, s *mesh.Snapshot, p *mesh.Proxy) view {
	scope := s.Scope(p)
	v := view{clusters: map[string]any{}, assignments: map[string]*ir.Assignment{}}
	for _, c := range Clusters(s, scope, p) {
		spelled := envoy.Cluster(c)
		if err := spelled.Validate(); err != nil {
			t.Errorf("cluster %s: %v", c.Name, err)
		}
		maps.Copy(v.clusters, jsonResources(t, []*clusterv3.Cluster{spelled}))
		v.assignments[c.Name] = c.Assignment
		if c.Discovery == ir.EDS {
			v.assignments[c.Name] = Endpoints(s, scope, p, c.Name)
			if err := envoy.Assignment(*v.assignments[c.Name]).Validate(); err != nil {
				t.Errorf("endpoints %s: %v", c.Name, err)
			}
		}
	}
	return v
}

func (v view) at(cluster, path string) any {
	c := v.clusters[cluster]
	switch path {
	case "exists":
		return c != nil
	case "endpoints":
		return v.list(cluster, endpointText)
	case "workloads":
		return v.list(cluster, func(_ ir.LocalityEndpoints, e ir.Endpoint) any { return e.Workload })
	case "weights":
		return v.list(cluster, func(_ ir.LocalityEndpoints, e ir.Endpoint) any { return float64(e.Weight) })
	case "modes":
		return v.list(cluster, func(_ ir.LocalityEndpoints, e ir.Endpoint) any { return e.TLSMode })
	}
	alias := map[string][]string{
		"http":  {"typedExtensionProtocolOptions", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"},
		"tls":   {"transportSocket", "typedConfig"},
		"istio": {"metadata", "filterMetadata", "istio"},
	}
	var steps []string
	for step := range strings.SplitSeq(strings.ReplaceAll(path, "[", ".["), ".") {
		if full := alias[step]; len(steps) == 0 && full != nil {
			steps = append(steps, full...)
		} else {
			steps = append(steps, step)
		}
	}
	return dig(c, steps)
}

func (v view) list(cluster string, text func(ir.LocalityEndpoints, ir.Endpoint) any) any {
	a := v.assignments[cluster]
	if a == nil {
		return nil
	}
	list := []any{}
	for _, l := range a.Localities {
		for _, e := range l.Endpoints {
			list = append(list, text(l, e))
		}
	}
	return list
}

func endpointText(l ir.LocalityEndpoints, e ir.Endpoint) any {
	text := fmt.Sprintf("%s:%d", e.Address, e.Port)
	if l.Priority > 0 {
		text += fmt.Sprintf("/%d", l.Priority)
	}
	var sum uint32
	for _, e := range l.Endpoints {
		sum += e.Weight
	}
	if l.Weight != sum {
		text += fmt.Sprintf("*%d", l.Weight)
	}
	return text
}

// dig goes down by field names and "[n]" steps; what is not there is nil.
func dig(v any, steps []string) any {
	for _, step := range steps {
		switch have := v.(type) {
		case map[string]any:
			v = have[step]
		case []any:
			n, err := strconv.Atoi(strings.Trim(step, "[]"))
			if err != nil || n >= len(have) {
				return nil
			}
			v = have[n]
		default:
			return nil
		}
	}
	if fields, ok := v.(map[string]any); ok && fields["@type"] != nil {
		fields = maps.Clone(fields)
		delete(fields, "@type")
		return fields
	}
	return v
}
