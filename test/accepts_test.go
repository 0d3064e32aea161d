package test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/material"
	"github.com/lateen-mesh/lateen/test/ports"
)

// TestEnvoyAccepts generates for a stock Envoy from every input that we have, and
// lets a real one validate it: a stock Envoy must accept everything that is
// generated for it. Most inputs share a process; when one is refused, halves of its
// batch are tried until it stands alone.
func TestEnvoyAccepts(t *testing.T) {
	envoy := fixture.EnvoyPath()
	if envoy == "" {
		t.Skip("the real Envoy is not installed: run `make peers`")
	}
	extensions := extensionsOf(t, envoy)
	pem := writePEMs(t)
	wrong := newStaticBootstrap(pem)
	wrong.StaticResources.Clusters = []*clusterpb.Cluster{{Name: "x"}, {Name: "x"}}
	if validate(t, envoy, wrong) == nil {
		t.Fatal("a configuration with two clusters of one name is accepted")
	}
	for _, source := range []struct {
		name  string
		views func(*testing.T) []stockView
	}{{"golden", goldenViews}, {"compile", compileViews}, {"cases", caseViews}} {
		t.Run(source.name, func(t *testing.T) {
			t.Parallel()
			views := source.views(t)
			for i := range views {
				views[i].node.Extensions = extensions
			}
			for batch := range slices.Chunk(views, 100) {
				accepts(t, envoy, pem, batch)
			}
			t.Logf("%d proxies", len(views))
		})
	}
}

// extensionsOf are those that the binary itself lists, as in the node of its
// first discovery request.
func extensionsOf(t *testing.T, proxy string) []*corepb.Extension {
	t.Helper()
	port := ports.One()
	bootstrap := fmt.Sprintf(`{node: {id: x, cluster: x}, admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}`, port)
	g := fixture.Gateway{Admin: fmt.Sprintf("http://127.0.0.1:%d", port)}
	g.Process = fixture.Start(t, "proxy", []string{proxy, "--config-yaml", bootstrap, "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"})
	defer g.Kill()
	var page string
	fixture.Eventually(t, "the proxy lists its extensions", func() (err error) {
		page, err = g.Get("/server_info")
		return err
	})
	var info adminpb.ServerInfo
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(page), &info); err != nil {
		t.Fatal(err)
	}
	if len(info.GetNode().GetExtensions()) == 0 {
		t.Fatal("the proxy lists no extensions")
	}
	return info.GetNode().GetExtensions()
}

// accepts reports whether Envoy accepts what is generated for all views; it names
// those that it refuses.
func accepts(t *testing.T, envoy string, pem pemFiles, views []stockView) bool {
	t.Helper()
	b := newStaticBootstrap(pem)
	for _, v := range views {
		if err := b.add(v); err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
	}
	err := validate(t, envoy, b)
	if err == nil {
		return true
	}
	if len(views) == 1 {
		t.Errorf("%s: a stock Envoy refuses it: %v", views[0].name, err)
		return false
	}
	half := len(views) / 2
	first := accepts(t, envoy, pem, views[:half])
	if second := accepts(t, envoy, pem, views[half:]); first && second {
		t.Errorf("%s to %s: refused together only: %v", views[0].name, views[len(views)-1].name, err)
	}
	return false
}

// validate starts Envoy for no more than reading a configuration.
func validate(t *testing.T, envoy string, b *staticBootstrap) error {
	t.Helper()
	data, err := proto.Marshal(b.Bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bootstrap.pb")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(envoy, "--mode", "validate", "-c", file, "--concurrency", "1", "-l", "error", "--use-dynamic-base-id").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// A stockView is one proxy of one input.
type stockView struct {
	name     string
	snapshot *mesh.Snapshot
	node     *corepb.Node
}

// snapshotOf decodes as the files of a mesh are: what is wrong is left out.
func snapshotOf(t *testing.T, meshConfig string, files map[string]string) *mesh.Snapshot {
	t.Helper()
	var objects []*config.Config
	for _, name := range slices.Sorted(maps.Keys(files)) {
		decoded, _ := config.DecodeYAML(name, []byte(files[name]))
		objects = append(objects, decoded...)
	}
	mc, problems := config.DecodeMeshConfig("mesh.yaml", []byte(meshConfig))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	return mesh.Build(config.NewSet(1, objects), mesh.Options{MeshConfig: mc})
}

// nodeOf makes a node; metadata holds what JSON can.
func nodeOf(t *testing.T, id string, metadata map[string]any) *corepb.Node {
	t.Helper()
	m, err := structpb.NewStruct(metadata)
	if err != nil {
		t.Fatal(err)
	}
	return &corepb.Node{Id: id, Metadata: m}
}

// usualNodes are a gateway and a sidecar without an agent, as a bare Envoy is.
func usualNodes(t *testing.T) map[string]*corepb.Node {
	return map[string]*corepb.Node{
		"router": nodeOf(t, "router~127.0.2.1~gw.istio-system~istio-system.svc.cluster.local",
			map[string]any{"NAMESPACE": "istio-system", "LABELS": map[string]any{"istio": "ingressgateway"}}),
		"sidecar": nodeOf(t, "sidecar~127.0.1.1~app.default~default.svc.cluster.local", map[string]any{"NAMESPACE": "default"}),
	}
}

// goldenViews are the inputs of the observed scenarios with their proxies, with and
// without the agent that they were started by.
func goldenViews(t *testing.T) []stockView {
	nodes, err := filepath.Glob(filepath.Join(material.Path(t, "golden"), "*", "nodes.json"))
	if err != nil || len(nodes) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	var views []stockView
	for _, file := range nodes {
		dir := filepath.Dir(file)
		inputs, _ := filepath.Glob(filepath.Join(dir, "input", "*.yaml"))
		files := map[string]string{}
		for _, f := range inputs {
			files[f] = read(t, f)
		}
		s := snapshotOf(t, read(t, filepath.Join(dir, "mesh.yaml")), files)
		var list map[string]struct {
			ID       string         `json:"id"`
			Metadata map[string]any `json:"metadata"`
		}
		if err := json.Unmarshal([]byte(read(t, file)), &list); err != nil {
			t.Fatal(err)
		}
		for name, n := range list {
			views = append(views, stockView{filepath.Base(dir) + "/" + name, s, nodeOf(t, n.ID, n.Metadata)})
			delete(n.Metadata, "PILOT_SAN") // by which an agent is known
			views = append(views, stockView{filepath.Base(dir) + "/" + name + "/bare", s, nodeOf(t, n.ID, n.Metadata)})
		}
	}
	slices.SortFunc(views, func(a, b stockView) int { return cmp.Compare(a.name, b.name) })
	return views
}

// compileViews are the cases of the compiler, for the proxies that they name and the
// usual ones.
func compileViews(t *testing.T) []stockView {
	files, err := filepath.Glob("../control/compile/testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var views []stockView
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		objects, meshConfig, nodes := map[string]string{}, "", usualNodes(t)
		for _, f := range archive.Files {
			switch f.Name {
			case "config.yaml":
				objects[f.Name] = string(f.Data)
			case "mesh.yaml":
				meshConfig = string(f.Data)
			default:
				for line := range strings.Lines(string(f.Data)) {
					if words := strings.Fields(line); len(words) > 3 && words[0] == "proxy" {
						nodes[strings.Join(words[1:], " ")] = sectionNode(t, words[1:])
					}
				}
			}
		}
		s := snapshotOf(t, meshConfig, objects)
		for _, name := range slices.Sorted(maps.Keys(nodes)) {
			views = append(views, stockView{strings.TrimSuffix(strings.TrimPrefix(file, "../control/compile/testdata/"), ".txtar") + "/" + name, s, nodes[name]})
		}
	}
	return views
}

// sectionNode reads "ROLE NAMESPACE IP [key=value labels…] [agent] [none]".
func sectionNode(t *testing.T, words []string) *corepb.Node {
	t.Helper()
	labels := map[string]any{}
	metadata := map[string]any{"NAMESPACE": words[1], "LABELS": labels}
	for _, w := range words[3:] {
		key, value, isLabel := strings.Cut(w, "=")
		switch {
		case isLabel && key != "locality":
			labels[key] = value
		case key == "agent":
			metadata["PILOT_SAN"] = "istiod.istio-system.svc"
		case key == "none":
			metadata["INTERCEPTION_MODE"] = "NONE"
		}
	}
	return nodeOf(t, fmt.Sprintf("%s~%s~p.%s~%s.svc.cluster.local", words[0], words[2], words[1], words[1]), metadata)
}

var caseVariable = regexp.MustCompile(`\$\{[^}]*\}`)

// caseViews are the cases of this package, with what is in force at first and with
// each later change alone.
func caseViews(t *testing.T) []stockView {
	var views []stockView
	for _, c := range readCases(t) {
		states := map[string]map[string]string{"": c.Config}
		for name, text := range c.Later {
			state := maps.Clone(c.Config)
			state[name] = text
			states["/"+name] = state
		}
		for _, state := range slices.Sorted(maps.Keys(states)) {
			for name, text := range states[state] {
				text = strings.ReplaceAll(text, "${certificate", "${ignored") // Secrets are the test's own
				states[state][name] = caseVariable.ReplaceAllStringFunc(text, func(v string) string {
					if strings.HasPrefix(v, "${ignored") {
						return "{}"
					}
					return "8080" // the port of a backend
				})
			}
			s := snapshotOf(t, c.Mesh, states[state])
			for role, node := range usualNodes(t) {
				views = append(views, stockView{c.Name + state + "/" + role, s, node})
			}
		}
	}
	slices.SortFunc(views, func(a, b stockView) int { return cmp.Compare(a.name, b.name) })
	return views
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
