package compile

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
)

var update = flag.Bool("update", false, "rewrite the wanted values of testdata/gateway and testdata/route")

// TestRouteCases runs testdata/{gateway,route}/*.txtar. A case has the file
// config.yaml, mesh.yaml where the mesh has settings, and sections that say what a
// proxy gets. A section begins with the line
//
//	proxy ROLE NAMESPACE IP [key=value labels…] [agent] [none] [tproxy] [stock] [http1] [mark]
//
// and goes on with lines that end in "= JSON":
//
//	listeners                 the names of its listeners
//	tables                    the names of the route tables that they refer to
//	listener NAME PATH        what is at the path of a listener
//	hosts TABLE               the virtual hosts of a table with their domains
//	table TABLE PATH          what is at the path of a table
//	host TABLE HOST PATH      what is at the path of a virtual host
//	routes TABLE HOST         its routes in one line each
//
// In paths of listeners "http[n]" is the connection manager of chain n, "tcp[n]"
// its TCP proxy, "tls[n]" its TLS settings, "filters[n]" the names of its HTTP filters.
func TestRouteCases(t *testing.T) {
	for _, folder := range []string{"gateway", "route"} {
		files, err := filepath.Glob(filepath.Join("testdata", folder, "*.txtar"))
		if err != nil || len(files) == 0 && !*update {
			t.Fatalf("no cases: %v", err)
		}
		for _, file := range files {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(folder+"/"+strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runRouteCase(t, archive) })
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func runRouteCase(t *testing.T, archive *txtar.Archive) {
	var objects []*config.Config
	mc := config.DefaultMeshConfig()
	for _, f := range archive.Files {
		var problems []config.Problem
		switch f.Name {
		case "config.yaml":
			objects, problems = config.DecodeYAML(f.Name, f.Data)
		case "mesh.yaml":
			mc, problems = config.DecodeMeshConfig(f.Name, f.Data)
		}
		if config.HasErrors(problems) {
			t.Fatal(problems)
		}
	}
	s := mesh.Build(config.NewSet(1, objects), mesh.Options{MeshConfig: mc, Identities: true})
	for i := range archive.Files {
		if f := &archive.Files[i]; !strings.HasSuffix(f.Name, ".yaml") {
			t.Run(f.Name, func(t *testing.T) { f.Data = checkRoutes(t, s, string(f.Data)) })
		}
	}
}

// checkRoutes checks one section and returns it with the values that were found.
func checkRoutes(t *testing.T, s *mesh.Snapshot, section string) []byte {
	var v *routeView
	var out strings.Builder
	checked := 0
	for line := range strings.Lines(section) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || strings.HasPrefix(line, "#"):
		case words[0] == "proxy":
			p := parseProxy(t, strings.TrimPrefix(strings.TrimSpace(line), "proxy "))
			v = &routeView{}
			v.lds, v.rds = generateListeners(t, s, p)
		default:
			checked++
			line = checkRouteLine(t, v, strings.TrimSpace(line))
		}
		out.WriteString(line)
	}
	if checked == 0 {
		t.Error("the section checks nothing")
	}
	return []byte(out.String())
}

func checkRouteLine(t *testing.T, v *routeView, line string) string {
	question, want, ok := strings.Cut(line, " = ")
	if !ok {
		question, want = strings.TrimSuffix(line, " ="), "null"
	}
	if v == nil {
		t.Fatalf("%q: no proxy line before it", line)
	}
	var wanted any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	got := v.answer(t, question)
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	if !*update && !reflect.DeepEqual(plain, wanted) {
		t.Errorf("%s\n\twant %s\n\tgot  %s", question, want, text)
	}
	if reflect.DeepEqual(plain, wanted) && ok {
		return line + "\n"
	}
	return fmt.Sprintf("%s = %s\n", question, readable(text))
}

// readable undoes the escapes that JSON in web pages needs.
func readable(text []byte) string {
	return strings.NewReplacer(`\u003e`, ">", `\u003c`, "<", `\u0026`, "&").Replace(string(text))
}

// routeView is what one proxy gets, by resource name.
type routeView struct{ lds, rds map[string]any }

func (v *routeView) answer(t *testing.T, question string) any {
	q := strings.Fields(question)
	switch {
	case question == "listeners":
		return append([]string{}, slices.Sorted(maps.Keys(v.lds))...)
	case question == "tables":
		return append([]string{}, slices.Sorted(maps.Keys(v.rds))...)
	case q[0] == "listener" && len(q) == 3:
		return listenerAt(v.lds[q[1]], q[2])
	case q[0] == "hosts" && len(q) == 2:
		out := map[string]any{}
		for _, h := range virtualHostsOf(v.rds[q[1]]) {
			out[at(h, "name").(string)] = at(h, "domains")
		}
		return out
	case q[0] == "table" && len(q) == 3:
		return dig(v.rds[q[1]], steps(q[2]))
	case q[0] == "host" && len(q) == 4:
		return dig(v.host(q[1], q[2]), steps(q[3]))
	case q[0] == "routes" && len(q) == 3:
		out := []string{}
		routes, _ := at(v.host(q[1], q[2]), "routes").([]any)
		for _, r := range routes {
			out = append(out, routeLine(r))
		}
		return out
	}
	t.Fatalf("%q: not a question", question)
	return nil
}

func virtualHostsOf(table any) []any {
	hosts, _ := at(table, "virtualHosts").([]any)
	return hosts
}

func (v *routeView) host(table, name string) any {
	for _, h := range virtualHostsOf(v.rds[table]) {
		if at(h, "name") == name {
			return h
		}
	}
	return nil
}

// steps splits "routes[0].match" into "routes", "[0]", "match". A step in quotes
// keeps its dots.
func steps(path string) []string {
	var out []string
	for i, part := range strings.Split(path, `"`) {
		if i%2 == 1 {
			out = append(out, part)
			continue
		}
		for s := range strings.SplitSeq(strings.ReplaceAll(part, "[", ".["), ".") {
			if s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}

func listenerAt(listener any, path string) any {
	p := steps(path)
	if len(p) > 1 {
		chain := dig(listener, []string{"filterChains", p[1]})
		last := func() any {
			filters, _ := at(chain, "filters").([]any)
			if len(filters) == 0 {
				return nil
			}
			return at(filters[len(filters)-1], "typedConfig")
		}
		switch p[0] {
		case "http", "tcp":
			return dig(last(), p[2:])
		case "tls":
			return dig(chain, append([]string{"transportSocket", "typedConfig"}, p[2:]...))
		case "filters":
			names := []any{}
			filters, _ := at(last(), "httpFilters").([]any)
			for _, f := range filters {
				names = append(names, at(f, "name"))
			}
			return names
		}
	}
	return dig(listener, p)
}

// routeLine is a route as "match → action".
func routeLine(r any) string {
	match := at(r, "match").(map[string]any)
	var line string
	switch {
	case match["path"] != nil:
		line = "=" + match["path"].(string)
	case match["safeRegex"] != nil:
		line = "~" + at(match, "safeRegex", "regex").(string)
	default:
		line = match["prefix"].(string) + "*"
	}
	headers, _ := match["headers"].([]any)
	for _, h := range headers {
		line += " " + matcherText(h)
	}
	query, _ := match["queryParameters"].([]any)
	for _, q := range query {
		line += " ?" + matcherText(q)
	}
	return line + " → " + actionText(r)
}

func matcherText(m any) string {
	name := at(m, "name").(string)
	if at(m, "invertMatch") == true {
		name = "!" + name
	}
	value, _ := at(m, "stringMatch").(map[string]any)
	switch {
	case value["exact"] != nil:
		return fmt.Sprintf("%s=%s", name, value["exact"])
	case value["prefix"] != nil:
		return fmt.Sprintf("%s=%s*", name, value["prefix"])
	case value["safeRegex"] != nil:
		return fmt.Sprintf("%s~%s", name, at(value, "safeRegex", "regex"))
	}
	return name
}

func actionText(r any) string {
	if s := at(r, "directResponse", "status"); s != nil {
		return fmt.Sprint(s)
	}
	if at(r, "redirect") != nil {
		return "redirect"
	}
	if c := at(r, "route", "cluster"); c != nil {
		return c.(string)
	}
	var parts []string
	clusters, _ := at(r, "route", "weightedClusters", "clusters").([]any)
	for _, c := range clusters {
		parts = append(parts, fmt.Sprintf("%v×%v", at(c, "weight"), at(c, "name")))
	}
	return strings.Join(parts, " + ")
}
