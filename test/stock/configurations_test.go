package stock

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/test/material"
)

// A configuration is what a mesh has in force at one time.
type configuration struct {
	name      string
	documents []string // YAML of objects
	mesh      string   // MeshConfig
	secrets   []string // names of Secrets that gateways ask for
	pair      *pair
}

// A pair is a certificate with its key and its authority.
type pair struct{ cert, key, ca string }

func newPair(t *testing.T) *pair {
	t.Helper()
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue("stock.test")
	if err != nil {
		t.Fatal(err)
	}
	return &pair{string(cert), string(key), string(ca.PEM())}
}

// text is the configuration as one file: the MeshConfig is the ConfigMap that stands for it,
// and no two steps are equal.
func (c configuration) text(step int) string {
	parts := slices.Clone(c.documents)
	parts = append(parts, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: %q}\n", c.mesh),
		fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: step, labels: {step: \"%d\"}}\n", step))
	for _, name := range c.secrets {
		for _, namespace := range []string{"istio-system", "httpbin"} {
			parts = append(parts, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ntype: kubernetes.io/tls\nstringData: {tls.crt: %q, tls.key: %q, ca.crt: %q}\n",
				name, namespace, c.pair.cert, c.pair.key, c.pair.ca))
		}
	}
	return strings.Join(parts, "\n---\n")
}

var credential = regexp.MustCompile(`credentialName: ([a-z0-9.-]+)`)

// newConfiguration reads files of YAML.
func newConfiguration(t *testing.T, name string, p *pair, files ...string) configuration {
	t.Helper()
	c := configuration{name: name, pair: p}
	for _, file := range files {
		text := read(t, file)
		c.documents = append(c.documents, text)
		for _, found := range credential.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(c.secrets, found[1]) {
				c.secrets = append(c.secrets, found[1])
			}
		}
	}
	return c
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A recording is a scenario of golden/ and the proxies that it was recorded for.
type recording struct {
	configuration
	nodes map[string]node
}

func recordings(t *testing.T, p *pair) []recording {
	t.Helper()
	folders, err := filepath.Glob(filepath.Join(material.Path(t, "golden"), "*", "nodes.json"))
	if err != nil || len(folders) == 0 {
		t.Fatalf("nothing is recorded: %v", err)
	}
	var all []recording
	for _, path := range folders {
		dir := filepath.Dir(path)
		r := recording{configuration: newConfiguration(t, filepath.Base(dir), p, glob(t, filepath.Join(dir, "input", "*.yaml"))...)}
		r.mesh = read(t, filepath.Join(dir, "mesh.yaml"))
		if err := json.Unmarshal([]byte(read(t, path)), &r.nodes); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A tour is one proxy and all that it is to take, one after another.
type tour struct {
	node  node
	stops []configuration
}

// recorded are the tours of all proxies that golden/ has.
func recorded(t *testing.T, p *pair) []*tour {
	t.Helper()
	var tours []*tour
	byNode := map[string]*tour{}
	for _, r := range recordings(t, p) {
		for folder, n := range r.nodes {
			key, err := json.Marshal(n)
			if err != nil {
				t.Fatal(err)
			}
			if byNode[string(key)] == nil {
				byNode[string(key)] = &tour{node: n}
				tours = append(tours, byNode[string(key)])
			}
			stop := r.configuration
			stop.name += "/" + folder
			byNode[string(key)].stops = append(byNode[string(key)].stops, stop)
		}
	}
	return tours
}

// written are the tours of a sidecar and of two gateways through what users write: every
// file of the samples and scenarios beside the services that it speaks of.
func written(t *testing.T, p *pair) []*tour {
	t.Helper()
	golden := material.Path(t, "golden")
	base := filepath.Join(golden, "s001a-bookinfo-all-v1")
	services := filepath.Join(base, "input", "00-services.yaml")
	var all, ofGateways []configuration
	known := map[string]bool{}
	for _, root := range []string{material.Path(t, "samples"), material.Path(t, "scenarios"), "../../samples"} {
		files := yamlIn(t, root)
		if len(files) == 0 {
			t.Fatalf("nothing in %s", root)
		}
		for _, file := range files {
			name, err := filepath.Rel(filepath.Dir(root), file)
			if err != nil {
				t.Fatal(err)
			}
			text := read(t, file)
			if !*both && (known[text] || !networked.MatchString(text)) {
				continue
			}
			known[text] = true
			stop := newConfiguration(t, name, p, services, file)
			all = append(all, stop)
			if *both || strings.Contains(text, "Gateway") || strings.Contains(text, "gateway") {
				ofGateways = append(ofGateways, stop)
			}
		}
	}
	var tours []*tour
	for _, who := range []struct {
		scenario, folder string
		stops            []configuration
	}{
		{"s001a-bookinfo-all-v1", "sidecar", all[:len(all)/2]}, {"s001a-bookinfo-all-v1", "sidecar", all[len(all)/2:]},
		{"s001a-bookinfo-all-v1", "router", ofGateways}, {"s002-egress-tls-origination", "router-egress", ofGateways},
	} {
		var nodes map[string]node
		if err := json.Unmarshal([]byte(read(t, filepath.Join(golden, who.scenario, "nodes.json"))), &nodes); err != nil {
			t.Fatal(err)
		}
		tours = append(tours, &tour{nodes[who.folder], who.stops})
	}
	return tours
}

// networked finds files with anything that a proxy is told of.
var networked = regexp.MustCompile(`(?m)^apiVersion: .*(networking|security|telemetry)[.]`)

// yamlIn are the files of YAML below a folder.
func yamlIn(t *testing.T, root string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".yaml") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// title is a name of a subtest.
func (w *tour) title(whole bool) string {
	form := "delta"
	if whole {
		form = "state of the world"
	}
	return w.node.ID + " " + form + " " + strconv.Itoa(len(w.stops))
}
