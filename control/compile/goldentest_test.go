package compile

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/test/material"
)

// The golden tests compare what is generated here with what Istio's control
// plane generated for the same input and node, resource by resource and field by
// field. Resources are matched by name. Differences that are meant are listed with
// their reason in testdata/golden_differences.txt.

// A scenario is one folder of golden output.
type scenario struct {
	name     string
	dir      string
	snapshot *mesh.Snapshot
	proxies  map[string]*mesh.Proxy // by the name of the folder with the output
}

// goldenScenarios loads every scenario, in order of name.
func goldenScenarios(t testing.TB) []scenario {
	t.Helper()
	nodes, err := filepath.Glob(filepath.Join(material.Path(t, "golden"), "*", "nodes.json"))
	if err != nil || len(nodes) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	var list []scenario
	for _, n := range nodes {
		list = append(list, loadScenario(t, filepath.Dir(n)))
	}
	return list
}

func loadScenario(t testing.TB, dir string) scenario {
	t.Helper()
	sc := scenario{name: filepath.Base(dir), dir: dir, proxies: map[string]*mesh.Proxy{}}
	files, err := filepath.Glob(filepath.Join(dir, "input", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var objects []*config.Config
	for _, f := range files {
		decoded, problems := config.DecodeYAML(f, mustRead(t, f))
		for _, p := range problems {
			t.Logf("%s: %v", sc.name, p)
		}
		objects = append(objects, decoded...)
	}
	mc, problems := config.DecodeMeshConfig("mesh.yaml", mustRead(t, filepath.Join(dir, "mesh.yaml")))
	if config.HasErrors(problems) {
		t.Fatalf("%s: %v", sc.name, problems)
	}
	sc.snapshot = mesh.Build(config.NewSet(1, objects), mesh.Options{MeshConfig: mc, Identities: true})
	var nodes map[string]struct {
		ID       string         `json:"id"`
		Metadata map[string]any `json:"metadata"`
	}
	if err := json.Unmarshal(mustRead(t, filepath.Join(dir, "nodes.json")), &nodes); err != nil {
		t.Fatal(err)
	}
	for name, n := range nodes {
		metadata, err := structpb.NewStruct(n.Metadata)
		if err != nil {
			t.Fatal(err)
		}
		node := &corev3.Node{Id: n.ID, Metadata: metadata}
		if l, ok := n.Metadata["LOCALITY"].(string); ok {
			parts := append(strings.Split(l, "/"), "", "")
			node.Locality = &corev3.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
		}
		if sc.proxies[name], err = mesh.ParseProxy(node); err != nil {
			t.Fatal(err)
		}
	}
	return sc
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenResources reads one file of golden output ("cds", "eds", "lds", "rds") by
// resource name.
func goldenResources(t testing.TB, sc scenario, proxy, kind string) map[string]any {
	t.Helper()
	var list []any
	if err := json.Unmarshal(mustRead(t, filepath.Join(sc.dir, proxy, kind+".json")), &list); err != nil {
		t.Fatal(err)
	}
	return byName(list)
}

// jsonResources turns generated resources into the form of goldenResources.
func jsonResources[M proto.Message](t testing.TB, resources []M) map[string]any {
	t.Helper()
	list := make([]any, 0, len(resources))
	for _, r := range resources {
		text, err := protojson.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	return byName(list)
}

func byName(list []any) map[string]any {
	m := map[string]any{}
	for _, r := range list {
		fields := r.(map[string]any)
		name, ok := fields["name"].(string)
		if !ok {
			name, _ = fields["clusterName"].(string)
		}
		m[name] = r
	}
	return m
}

// A difference is one place where two resources disagree. A resource that only one
// side has differs at the path "missing" or "extra".
type difference struct {
	kind, scenario, proxy, resource, path string
	want, got                             any
}

func (d difference) String() string {
	return fmt.Sprintf("%s %s/%s %s: %s\n\twant %s\n\tgot  %s", d.kind, d.scenario, d.proxy, d.resource, d.path, brief(d.want), brief(d.got))
}

func brief(v any) string {
	if v == nil {
		return "(nothing)"
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	if len(text) > 600 {
		text = append(text[:600], "…"...)
	}
	return string(text)
}

// compare lists where the generated resources differ from the golden ones.
func compare(sc scenario, proxy, kind string, want, got map[string]any) []difference {
	var list []difference
	for _, name := range slices.Sorted(maps.Keys(union(want, got))) {
		d := difference{kind: kind, scenario: sc.name, proxy: proxy, resource: name, want: want[name], got: got[name]}
		switch {
		case d.got == nil:
			d.path, d.want = "missing", nil
			list = append(list, d)
		case d.want == nil:
			d.path, d.got = "extra", nil
			list = append(list, d)
		default:
			walk(d, &list)
		}
	}
	return list
}

func union(a, b map[string]any) map[string]any {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// walk goes down both values as far as they have the same shape.
func walk(d difference, list *[]difference) {
	if reflect.DeepEqual(d.want, d.got) {
		return
	}
	want, wantFields := d.want.(map[string]any)
	got, gotFields := d.got.(map[string]any)
	wantList, isList := d.want.([]any)
	gotList, gotIsList := d.got.([]any)
	switch {
	case wantFields && gotFields:
		for _, k := range slices.Sorted(maps.Keys(union(want, got))) {
			walk(d.at(strings.TrimPrefix(d.path+"."+k, "."), want[k], got[k]), list)
		}
	case isList && gotIsList && len(wantList) == len(gotList):
		for i := range wantList {
			walk(d.at(fmt.Sprintf("%s[%d]", d.path, i), wantList[i], gotList[i]), list)
		}
	default:
		*list = append(*list, d)
	}
}

func (d difference) at(path string, want, got any) difference {
	d.path, d.want, d.got = path, want, got
	return d
}

// An exception is a line of testdata/golden_differences.txt: which differences are
// meant, and why.
type exception struct {
	kind, scenario, resource, path, reason string
	line                                   int
	used                                   bool
}

// covers reports whether the exception is about the difference. Scenario (also
// "scenario/proxy") and resource may be "*" or end in "*"; the path covers all
// below it.
func (e *exception) covers(d difference) bool {
	return e.kind == d.kind &&
		(glob(e.scenario, d.scenario) || glob(e.scenario, d.scenario+"/"+d.proxy)) &&
		glob(e.resource, d.resource) &&
		(e.path == d.path || e.path == "*" || strings.HasPrefix(d.path, e.path+".") || strings.HasPrefix(d.path, e.path+"["))
}

func glob(pattern, s string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(s, prefix)
	}
	return pattern == s
}

// goldenExceptions reads the lines for the given kinds. A line is
//
//	kind  scenario  resource  path  # reason
func goldenExceptions(t testing.TB, kinds ...string) []*exception {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "golden_differences.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []*exception
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text, reason, _ := strings.Cut(lines.Text(), " # ")
		fields := strings.Fields(text)
		if len(fields) == 0 || strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		if len(fields) != 4 || strings.TrimSpace(reason) == "" {
			t.Fatalf("golden_differences.txt:%d: want: kind scenario resource path # reason", n)
		}
		if slices.Contains(kinds, fields[0]) {
			list = append(list, &exception{kind: fields[0], scenario: fields[1], resource: fields[2], path: fields[3],
				reason: strings.TrimSpace(reason), line: n})
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// A goldenKind makes one kind of resources for a proxy and brings both sides into the
// form in which they are compared.
type goldenKind struct {
	generate func(testing.TB, *mesh.Snapshot, *mesh.Proxy) map[string]any
	form     func(map[string]any) map[string]any
}

// checkGolden generates each kind for each proxy of each scenario and fails for
// every difference that no exception covers, and for every exception that covers
// none. It logs for each proxy what is compared and which differences are listed.
func checkGolden(t *testing.T, kinds map[string]goldenKind) {
	exceptions := goldenExceptions(t, slices.Collect(maps.Keys(kinds))...)
	reasons, equal, total := map[string]int{}, 0, 0
	for _, sc := range goldenScenarios(t) {
		t.Run(sc.name, func(t *testing.T) {
			for _, name := range slices.Sorted(maps.Keys(sc.proxies)) {
				listed, resources := map[string]int{}, 0
				for _, kind := range slices.Sorted(maps.Keys(kinds)) {
					form := kinds[kind].form
					want, got := form(goldenResources(t, sc, name, kind)), form(kinds[kind].generate(t, sc.snapshot, sc.proxies[name]))
					resources += len(want)
					for _, d := range compare(sc, name, kind, want, got) {
						e := firstCovering(exceptions, d)
						if e == nil {
							t.Error(d)
							continue
						}
						e.used = true
						reasons[e.reason]++
						listed[kind+": "+e.reason]++
					}
				}
				total++
				if len(listed) == 0 {
					equal++
				}
				t.Logf("%s: %d resources, %s", name, resources, listing(listed))
			}
		})
	}
	for _, e := range exceptions {
		if !e.used {
			t.Errorf("golden_differences.txt:%d: nothing differs any more", e.line)
		}
	}
	t.Logf("%d of %d proxies are equal, the others except for what is listed: %s", equal, total, listing(reasons))
}

// listing is differences by reason.
func listing(reasons map[string]int) string {
	if len(reasons) == 0 {
		return "no difference"
	}
	var lines []string
	for _, r := range slices.Sorted(maps.Keys(reasons)) {
		lines = append(lines, fmt.Sprintf("\n\t%4d × %s", reasons[r], r))
	}
	return "listed differences:" + strings.Join(lines, "")
}

func firstCovering(exceptions []*exception, d difference) *exception {
	for _, e := range exceptions {
		if e.covers(d) {
			return e
		}
	}
	return nil
}
