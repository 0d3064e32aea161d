package crds_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/install/crds"
	"github.com/lateen-mesh/lateen/test/material"
)

// An object is a decoded JSON object.
type object = map[string]any

// definitions are the objects of a YAML stream by metadata.name.
func definitions(t testing.TB, text []byte) map[string]object {
	t.Helper()
	all := map[string]object{}
	for _, o := range documents(t, text) {
		all[o["metadata"].(object)["name"].(string)] = o
	}
	return all
}

// documents are the objects of a YAML stream, as JSON would hold them.
func documents(t testing.TB, text []byte) (all []object) {
	t.Helper()
	stream := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := stream.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		plain, err := yaml.Marshal(&doc)
		if err != nil {
			t.Fatal(err)
		}
		var o object
		if err := sigsyaml.Unmarshal(plain, &o); err != nil {
			t.Fatal(err)
		}
		if o != nil {
			all = append(all, o)
		}
	}
}

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Everything about a definition but its schemas equals the original's.
func TestResourcesAreTheOriginals(t *testing.T) {
	want := definitions(t, read(t, material.Path(t, "data", "crds", "istio", "crd-all.gen.yaml")))
	got := definitions(t, crds.All())
	t.Run("IN-019 fifteen kinds, their names, categories, labels, columns and versions", func(t *testing.T) {
		if len(got) != 15 || len(want) != 15 {
			t.Errorf("%d definitions, the original has %d", len(got), len(want))
		}
		for name := range want {
			compare(t, name, shell(want[name]), shell(got[name]))
		}
	})
	t.Run("VS-001 versions of a kind have one schema, and the original's is stored", func(t *testing.T) {
		for name, definition := range got {
			var first any
			for _, version := range versions(definition) {
				if first == nil {
					first = version["schema"]
				}
				compare(t, name, first, version["schema"])
			}
		}
	})
}

// shell is a definition without its schemas and without the words of its columns.
func shell(definition object) object {
	bare := clone(definition).(object)
	list := versions(bare)
	slices.SortFunc(list, func(a, b object) int { return strings.Compare(a["name"].(string), b["name"].(string)) })
	for _, version := range list {
		delete(version, "schema")
		columns, _ := version["additionalPrinterColumns"].([]any)
		for _, column := range columns {
			delete(column.(object), "description")
		}
	}
	bare["spec"].(object)["versions"] = list
	return bare
}

func versions(definition object) (all []object) {
	for _, v := range definition["spec"].(object)["versions"].([]any) {
		all = append(all, v.(object))
	}
	return all
}

// The schemas accept and refuse what the original's do, but for these classes of
// difference; what remains after they are taken away must be equal.
//
//	words        descriptions are our own
//	spelling     fields may be written by their name in the .proto file; a field
//	             that is required is so by either name
//	layout       CEL rules differ in quotes, blanks and parentheses
//	newer        the original's file is younger than the istio.io/api we build on
func TestSchemasAreTheOriginals(t *testing.T) {
	want := definitions(t, read(t, material.Path(t, "data", "crds", "istio", "crd-all.gen.yaml")))
	got := definitions(t, crds.All())
	for name := range want {
		t.Run(name, func(t *testing.T) {
			theirs, ours := schemas(want[name]), schemas(got[name])
			for version := range theirs {
				compare(t, version, canonical(theirs[version]), canonical(ours[version]))
			}
		})
	}
}

func schemas(definition object) object {
	all := object{}
	for _, version := range versions(definition) {
		all[version["name"].(string)] = version["schema"].(object)["openAPIV3Schema"]
	}
	return all
}

// newer are fields that the original's file has and istio.io/api v1.31 has not.
var newer = []string{"backendUtilization", "transportSocket", "ecdhCurves", "presence"}

// canonical takes the classes of difference away from a schema.
func canonical(node any) any {
	switch n := node.(type) {
	case []any:
		all := []any{}
		for _, e := range n {
			if !requiresNewer(e) {
				all = append(all, canonical(e))
			}
		}
		return all
	case object:
		bare := object{}
		for key, value := range n {
			switch key {
			case "properties":
				bare[key] = properties(value.(object))
			case "x-kubernetes-validations":
				bare[key] = rules(value.([]any))
			case "required":
				bare[key] = sorted(value.([]any))
			case "description":
			default:
				bare[key] = canonical(value)
			}
		}
		return eitherAsRequired(bare)
	}
	return node
}

func requiresNewer(node any) bool {
	o, _ := node.(object)
	names, _ := o["required"].([]any)
	return len(names) == 1 && slices.Contains(newer, names[0].(string))
}

// properties leaves out second spellings and newer fields.
func properties(all object) object {
	bare := object{}
	for name, schema := range all {
		if !strings.Contains(name, "_") && !slices.Contains(newer, name) {
			bare[name] = canonical(schema)
		}
	}
	return bare
}

// eitherAsRequired turns "this name or its second spelling" back into "this name",
// in the node and in what its allOf says beside.
func eitherAsRequired(node object) object {
	require := func(names []any) {
		old, _ := node["required"].([]any)
		node["required"] = sorted(append(old, names...))
	}
	if list, _ := node["anyOf"].([]any); len(list) == 2 {
		second, _ := list[1].(object)["required"].([]any)
		if len(second) == 1 && strings.Contains(second[0].(string), "_") {
			delete(node, "anyOf")
			require(list[0].(object)["required"].([]any))
		}
	}
	list, _ := node["allOf"].([]any)
	for _, e := range list {
		if names, ok := e.(object)["required"].([]any); ok {
			delete(node, "allOf")
			require(names)
		}
	}
	return node
}

var layout = regexp.MustCompile(`[\s()]`)

func rules(list []any) []any {
	var all []any
	for _, e := range list {
		r := e.(object)
		all = append(all, fmt.Sprint(r["message"], ": ", layout.ReplaceAllString(strings.ReplaceAll(r["rule"].(string), "'", `"`), "")))
	}
	return sorted(all)
}

func sorted(list []any) []any {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	return list
}

func clone(node any) any {
	switch n := node.(type) {
	case []any:
		all := make([]any, len(n))
		for i := range n {
			all[i] = clone(n[i])
		}
		return all
	case object:
		all := object{}
		for key := range n {
			all[key] = clone(n[key])
		}
		return all
	}
	return node
}

// compare reports where two trees differ, deepest first.
func compare(t *testing.T, path string, want, got any) {
	t.Helper()
	a, aok := want.(object)
	b, bok := got.(object)
	if !aok || !bok {
		if !reflect.DeepEqual(want, got) {
			t.Errorf("%s is %v, the original's is %v", path, got, want)
		}
		return
	}
	for key := range a {
		compare(t, path+"."+key, a[key], b[key])
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			t.Errorf("%s.%s is %v, the original has none", path, key, b[key])
		}
	}
}
