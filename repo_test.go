package lateen

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
)

const module = "github.com/lateen-mesh/lateen/"

// open are the packages that everybody may import.
var open = []string{"wellknown", "logging", "resident", "nametable", "spiffe", "jwt", "pages"}

// imports is the direction of the tree: what each package may import of ours,
// beside the open ones. A package that is not here fails, and so does a rule for a
// path that does not exist. "x/..." stands for x and everything below.
var imports = map[string]string{
	"wellknown": "", "logging": "", "resident": "", "nametable": "", "spiffe": "", "jwt": "", "pages": "",

	"control":               "control/...",
	"control/config":        "",
	"control/ca":            "",
	"control/file":          "control/config",
	"control/kube":          "control/config",
	"control/kube/kubetest": "control/config",
	"control/inject":        "control/config",
	"control/registry":      "control/config",
	"control/mesh":          "control/config control/registry",
	"control/ingress":       "control/config",
	"control/analyze":       "control/config control/registry control/mesh control/inject",
	"control/ir":            "",
	"control/jwks":          "control/mesh",
	"control/compile":       "control/config control/registry control/mesh control/ir control/ingress",
	"control/envoy":         "control/ir control/config",
	"control/ads":           "control/mesh control/registry",

	"proxy":                                "proxy/...",
	"proxy/listener":                       "proxy/network proxy/transport proxy/xds proxy/stats proxy/streaminfo proxy/accesslog",
	"proxy/hcm":                            "proxy/tracing proxy/match proxy/network proxy/http proxy/http1 proxy/http2 proxy/route proxy/accesslog proxy/stats proxy/xds proxy/streaminfo proxy/upstream proxy/cluster proxy/endpoint proxy/lb proxy/format proxy/transport proxy/runtime",
	"proxy/tracing":                        "proxy/http",
	"proxy/network":                        "proxy/streaminfo proxy/transport",
	"proxy/rbac":                           "proxy/http proxy/match proxy/route proxy/streaminfo proxy/xds",
	"proxy/filter/rbac":                    "proxy/http proxy/rbac proxy/stats proxy/xds",
	"proxy/network/rbac":                   "proxy/network proxy/rbac proxy/stats proxy/streaminfo proxy/transport proxy/xds",
	"proxy/network/tcpproxy":               "proxy/peer proxy/format proxy/http proxy/network proxy/cluster proxy/lb proxy/endpoint proxy/upstream proxy/xds proxy/accesslog proxy/streaminfo proxy/stats proxy/transport",
	"proxy/network/metadataexchange":       "proxy/network proxy/peer proxy/streaminfo proxy/transport",
	"proxy/filter/ondemand":                "proxy/http proxy/xds",
	"proxy/filter/istiostats":              "proxy/filter/grpcstats proxy/http proxy/format proxy/network proxy/peer proxy/stats proxy/streaminfo proxy/endpoint proxy/xds",
	"proxy/network/connectionlimit":        "proxy/network proxy/stats proxy/xds proxy/runtime",
	"proxy/network/localratelimit":         "proxy/network proxy/stats proxy/streaminfo proxy/xds proxy/runtime",
	"proxy/network/snicluster":             "proxy/network proxy/network/tcpproxy",
	"proxy/network/setfilterstate":         "proxy/format proxy/network proxy/network/tcpproxy proxy/streaminfo proxy/upstream proxy/xds",
	"proxy/network/directresponse":         "proxy/network proxy/transport",
	"proxy/network/echo":                   "proxy/network",
	"proxy/filter/fault":                   "proxy/http proxy/match proxy/route proxy/streaminfo proxy/stats proxy/xds proxy/runtime",
	"proxy/filter/cors":                    "proxy/http proxy/match proxy/route proxy/streaminfo proxy/stats proxy/xds proxy/runtime",
	"proxy/filter/dynamicforwardproxy":     "proxy/cluster proxy/dns proxy/http proxy/route proxy/streaminfo proxy/xds",
	"proxy/network/snidynamicforwardproxy": "proxy/network proxy/network/tcpproxy proxy/streaminfo proxy/xds",
	"proxy/filter/grpcstats":               "proxy/http proxy/stats proxy/xds",
	"proxy/filter/grpcweb":                 "proxy/http proxy/stats proxy/filter/grpcstats proxy/xds",
	"proxy/filter/headermutation":          "proxy/http proxy/match proxy/route proxy/format proxy/xds",
	"proxy/filter/buffer":                  "proxy/http",
	"proxy/filter/setmetadata":             "proxy/http proxy/stats",
	"proxy/filter/healthcheck":             "proxy/http proxy/match proxy/route proxy/streaminfo",
	"proxy/filter/alpn":                    "proxy/http proxy/stats proxy/xds",
	"proxy/filter/jwtauthn":                "proxy/callout proxy/http proxy/match proxy/route proxy/stats proxy/transport proxy/xds",
	"proxy/filter/router":                  "proxy/http proxy/match proxy/route proxy/lb proxy/endpoint proxy/upstream proxy/streaminfo proxy/stats proxy/transport proxy/xds proxy/format proxy/runtime",
	"proxy/filter/peermetadata":            "proxy/http proxy/peer proxy/stats proxy/streaminfo",
	"proxy/route":                          "proxy/http proxy/match proxy/xds proxy/format proxy/streaminfo proxy/endpoint proxy/runtime proxy/upstream",
	"proxy/runtime":                        "proxy/match proxy/stats",
	"proxy/match":                          "",
	"proxy/format":                         "proxy/http proxy/match proxy/streaminfo",
	"proxy/accesslog":                      "proxy/http proxy/streaminfo proxy/stats proxy/format proxy/match proxy/runtime",
	"proxy/health":                         "proxy/endpoint proxy/format proxy/http proxy/http1 proxy/http2 proxy/match proxy/stats proxy/streaminfo proxy/transport proxy/xds",
	"proxy/cluster":                        "proxy/match proxy/peer proxy/health proxy/lb proxy/upstream proxy/endpoint proxy/dns proxy/outside proxy/xds proxy/stats proxy/transport proxy/http proxy/http1 proxy/http2 proxy/runtime",
	"proxy/lb":                             "proxy/endpoint proxy/stats",
	"proxy/filter/extauthz":                "proxy/callout proxy/format proxy/http proxy/match proxy/network proxy/route proxy/runtime proxy/stats proxy/streaminfo proxy/xds",
	"proxy/callout":                        "proxy/endpoint proxy/format proxy/http proxy/lb proxy/upstream proxy/xds",
	"proxy/upstream":                       "proxy/endpoint proxy/transport proxy/http proxy/http1 proxy/http2 proxy/stats",
	"proxy/http1":                          "proxy/http proxy/match proxy/streaminfo proxy/transport proxy/xds",
	"proxy/http2":                          "proxy/http proxy/transport proxy/stats proxy/streaminfo proxy/xds",
	"proxy/http":                           "proxy/streaminfo proxy/stats proxy/runtime",
	"proxy/outside":                        "",
	"proxy/transport":                      "proxy/match proxy/outside proxy/xds proxy/stats proxy/streaminfo",
	"proxy/streaminfo":                     "proxy/endpoint proxy/peer",
	"proxy/peer":                           "",
	"proxy/endpoint":                       "proxy/stats",
	"proxy/xds":                            "proxy/stats",
	"proxy/xds/xdstest":                    "",
	"proxy/stats":                          "proxy/match",
	"proxy/dns":                            "",
	"proxy/admin":                          "proxy/stats",

	"agent": "agent/...", "agent/redirect": "", "agent/bootstrap": "", "agent/relay": "agent/socket", "agent/socket": "", "agent/status": "", "agent/health": "", "agent/names": "", "agent/secrets": "agent/identity agent/socket", "agent/identity": "",
	"local":           "control control/config control/file agent/bootstrap install install/crds local/apply local/container local/namespace local/outside",
	"local/apply":     "control/config control/file",
	"local/node":      "local/container local/kubelet local/kubelet/image local/namespace local/network local/outside",
	"local/namespace": "", "local/container": "local/namespace local/container/stage", "local/container/stage": "", "cmd/lateen-init": "local/container/stage",
	"local/kubelet": "local/container local/network local/kubelet/...", "local/kubelet/volume": "local/container local/kubelet/env", "local/kubelet/lifecycle": "",
	"local/kubelet/probe": "", "local/kubelet/env": "", "local/kubelet/image": "", "local/kubelet/logs": "",
	"local/outside": "", "local/network": "local/outside agent/redirect",
	"local/apiserver": "local/apiserver/server", "local/apiserver/server": "local/apiserver/...",
	"local/apiserver/controllers": "", "local/apiserver/pki": "", "local/apiserver/registry": "", "local/apiserver/store": "",
	"explain": "control control/compile control/config control/ingress control/mesh proxy proxy/endpoint proxy/http proxy/route spiffe",
	"cli":     "cli/dump explain control/analyze control/config control/file control/inject install install/cluster local samples/...", "cli/dump": "",

	"install":         "control/config control/inject install/crds",
	"install/cluster": "install", "install/crds": "", "install/crds/gen": "",

	"samples":         "samples/...",
	"samples/httpbin": "", "samples/site": "", "samples/testca": "",
	"samples/opa": "samples/opa/authz", "samples/opa/authz": "",
	"samples/helloworld": "", "samples/extauthz": "", "samples/sleep": "", "samples/tcp-echo": "",
	"samples/bookinfo": "", "samples/bookinfo/productpage": "samples/bookinfo", "samples/bookinfo/details": "samples/bookinfo",
	"samples/bookinfo/reviews": "samples/bookinfo", "samples/bookinfo/ratings": "samples/bookinfo",
	"test":       "control/... proxy/... local local/outside cli samples/... test/...",
	"test/build": "", "test/api": "test/build test/ports", "test/broken": "control test/build test/fixture",
	"test/edits":   "control logging test/build test/fixture test/ports test/traffic",
	"test/fixture": "agent/redirect samples/testca test/ports",
	"test/foreign": "proxy proxy/xds/xdstest control/compile control/config control/envoy control/ir control/mesh samples/testca test/build test/fixture test/ports",
	"test/mixed":   "proxy/xds/xdstest samples/testca test/build test/ports test/traffic",
	"test/explain": "explain proxy proxy/http proxy/listener proxy/xds/xdstest samples/testca test/ports",
	"test/jwt":     "test/build test/fixture test/ports",
	"test/ports":   "", "test/rbac": "proxy samples/testca test/fixture test/ports", "test/replay": "", "test/browser": "", "test/proxyless": "control control/config control/file control/mesh logging test/build test/ports wellknown",
	"test/traffic": "", "test/rotation": "control logging test/build test/fixture test/traffic", "test/material": "", "test/report": "test/material", "test/fuzzall": "", "test/mutual": "agent/bootstrap agent/redirect control logging proxy/xds/xdstest samples/testca test/build test/fixture wellknown",
	"test/stock": "agent/bootstrap control logging proxy/xds/xdstest samples/testca test/fixture test/ports wellknown",
	"bench":      "control/... proxy/... samples/... bench/record bench/process", "bench/record": "", "bench/process": "",
	"bench/engine": "bench/record bench/process local", "bench/control": "bench/record bench/process",

	"cmd/lateen-sample": "samples",
	"cmd/istiod":        "control control/ca control/kube", "cmd/lateen-proxy": "proxy", "cmd/pilot-agent": "agent proxy", "cmd/lateen": "cli local", "cmd/lateen-engine": "local local/namespace local/node",
}

// forbiddenFolders say how something is built, not what it is.
var forbiddenFolders = []string{"util", "utils", "common", "helpers", "misc", "pkg"}

// netHTTP may be imported in proxy/ by these only.
var netHTTP = []string{"proxy/admin", "proxy/http3"}

const maxLines = 600

// A source is one Go file of the project.
type source struct {
	path, dir string // relative, slash-separated
	test      bool
	file      *ast.File
	lines     int
}

// sources reads the whole tree: files that a test opens are part of what its
// cached result depends on.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, data, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		path = filepath.ToSlash(path)
		all = append(all, source{
			path: path, dir: filepath.ToSlash(filepath.Dir(path)), test: strings.HasSuffix(path, "_test.go"),
			file: file, lines: strings.Count(string(data), "\n"),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImportsRunOneWay(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t) {
		seen[s.dir] = true
		allowed, known := imports[s.dir]
		if !known && s.dir != "." {
			t.Errorf("%s: package %s has no line in the table of imports", s.path, s.dir)
			continue
		}
		for _, spec := range s.file.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			if problem := importProblem(s, allowed, path); problem != "" {
				t.Errorf("%s: %s", s.path, problem)
			}
		}
	}
	for dir := range imports {
		if !seen[dir] {
			t.Errorf("the table of imports has a line for %s, which does not exist", dir)
		}
	}
}

func importProblem(s source, allowed, path string) string {
	ours, isOurs := strings.CutPrefix(path, module)
	switch {
	case isOurs && (s.test || ours == s.dir || slices.Contains(open, ours)):
		return crossing(s, ours)
	case isOurs:
		for rule := range strings.FieldsSeq(allowed) {
			if below, ok := strings.CutSuffix(rule, "/..."); rule == ours || ok && (ours == below || strings.HasPrefix(ours, below+"/")) {
				return ""
			}
		}
		return fmt.Sprintf("%s may not import %s", s.dir, ours)
	case s.test:
		return ""
	case s.dir == "control/ir" && strings.Contains(path, "."):
		return "ir imports the standard library only, not " + path
	case strings.HasPrefix(s.dir, "proxy/") && path == "net/http" && !slices.Contains(netHTTP, s.dir):
		return "net/http is for proxy/admin and proxy/http3"
	case strings.HasPrefix(path, "k8s.io/kubernetes") && !within(s.dir, "local/apiserver"):
		return "Kubernetes itself is for the module of local/apiserver"
	case strings.HasPrefix(path, "k8s.io/client-go") && !within(s.dir, "control/kube", "local", "cli", "cni", "install/cluster", "test/api"):
		return "a Kubernetes client is for control/kube, local, cli, cni and install/cluster"
	}
	return ""
}

// within reports whether a folder is one of some, or below it.
func within(dir string, tops ...string) bool {
	return slices.ContainsFunc(tops, func(top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") })
}

// crossing keeps the halves apart in tests too.
func crossing(s source, ours string) string {
	half := func(path string) string { h, _, _ := strings.Cut(path, "/"); return h }
	if half(s.dir) == "control" && half(ours) == "proxy" || half(s.dir) == "proxy" && half(ours) == "control" {
		return "the halves share no code: " + s.dir + " and " + ours
	}
	return ""
}

func TestNoPackageIsNamedForATechnique(t *testing.T) {
	for _, s := range sources(t) {
		for part := range strings.SplitSeq(s.dir, "/") {
			if slices.Contains(forbiddenFolders, part) {
				t.Errorf("%s: a folder named %q tells nothing", s.path, part)
			}
		}
	}
}

func TestFilesStayShort(t *testing.T) {
	for _, s := range sources(t) {
		if s.lines > maxLines {
			t.Errorf("%s has %d lines, more than %d: is there a concept inside that wants a file of its own?", s.path, s.lines, maxLines)
		}
	}
}

func TestEveryPackageHasItsManual(t *testing.T) {
	has := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			has[s.dir] = has[s.dir] || s.file.Doc != nil
		}
	}
	for dir, ok := range has {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.file.Name.Name == "main" {
			continue
		}
		for _, decl := range s.file.Decls {
			for _, name := range undocumented(decl) {
				t.Errorf("%s: %s is exported and has no comment", s.path, name)
			}
		}
	}
}

func undocumented(decl ast.Decl) (names []string) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || exportedReceiver(d.Recv)) {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			if ts, ok := spec.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil {
				names = append(names, ts.Name.Name)
			}
			if vs, ok := spec.(*ast.ValueSpec); ok && vs.Names[0].IsExported() && d.Doc == nil && vs.Doc == nil && vs.Comment == nil {
				names = append(names, vs.Names[0].Name)
			}
		}
	}
	return names
}

// exportedReceiver reports whether the method belongs to a type that others see.
// Methods that only satisfy an interface of an unexported type need no comment.
func exportedReceiver(recv *ast.FieldList) bool {
	expr := recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.IndexListExpr:
			expr = e.X
		case *ast.Ident:
			return e.IsExported()
		default:
			return false
		}
	}
}

func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: order is data, not init functions", s.path)
			}
		}
	}
}

func TestFiltersHaveAReadme(t *testing.T) {
	dirs, err := filepath.Glob("proxy/filter/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "README.md"))
		if err != nil {
			t.Errorf("%s has no README.md", dir)
			continue
		}
		for _, section := range []string{"## Configuration", "## Behaviour", "## Differences"} {
			if !strings.Contains(string(text), section) {
				t.Errorf("%s/README.md lacks the section %q", dir, section)
			}
		}
	}
}

// machinePath finds what must not be in a commit: paths of the machine it was made on.
var machinePath = regexp.MustCompile(`/(root|home/[a-z]+|work)/[a-z.]`)

func TestNoPathOfAMachine(t *testing.T) {
	for _, s := range sources(t) {
		data, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		if s.path != "repo_test.go" && machinePath.Match(data) {
			t.Errorf("%s holds a path of a machine: %s", s.path, machinePath.Find(data))
		}
	}
}

// TestProxyLinksNothingOfTheControlPlane asks the Go tool what the binary links;
// the walk of the tree before it makes the cached result depend on every source.
func TestProxyLinksNothingOfTheControlPlane(t *testing.T) {
	sources(t)
	out, err := exec.Command("go", "list", "-deps", "./cmd/lateen-proxy").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		for _, bad := range []string{module + "control", "k8s.io/", "sigs.k8s.io/", "istio.io/"} {
			if strings.HasPrefix(dep, bad) && !strings.HasPrefix(dep, "istio.io/api/envoy/") {
				t.Errorf("cmd/lateen-proxy links %s", dep)
			}
		}
	}
}

// TestModuleLists compares the modules that each binary links with the list beside
// its main.go, so that growth is seen in review. LATEEN_UPDATE=1 rewrites them.
func TestModuleLists(t *testing.T) {
	sources(t)
	mains, err := filepath.Glob("cmd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range mains {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "./"+dir).Output()
		if err != nil {
			t.Fatalf("go list %s: %v", dir, err)
		}
		modules := strings.Fields(string(out))
		sort.Strings(modules)
		got := strings.Join(slices.Compact(modules), "\n") + "\n"
		file := filepath.Join(dir, "modules.txt")
		if os.Getenv("LATEEN_UPDATE") != "" {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, _ := os.ReadFile(file); string(want) != got {
			t.Errorf("%s links other modules than modules.txt says (LATEEN_UPDATE=1 go test . rewrites it):\n%s", dir, got)
		}
	}
}
