package analyze

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/test/material"
)

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A shownMessage is a message as the cases have it.
type shownMessage struct {
	Code   string
	Object string
	Count  int
}

type sharedCase struct {
	Name, Analyzer, MeshConfig, MeshNetworks string
	Input                                    []string
	Expected                                 []shownMessage
	OfflineCLI                               any `json:"offlineCli"`
}

// TestSharedCases compares what each analyzer says of the objects of each case.
func TestSharedCases(t *testing.T) {
	dir := material.Path(t, "data/analysis")
	var cases []sharedCase
	readYAML(t, filepath.Join(dir, "cases.yaml"), &cases)
	for i, c := range cases {
		t.Run(fmt.Sprintf("%d %s", i, c.Name), func(t *testing.T) {
			m := c.mesh(t, dir, Options{Files: true})
			found := m.Messages(Selection{Analyzers: []string{c.Analyzer}})
			if got, want := shown(found), c.want(); !slices.Equal(got, want) {
				t.Errorf("%s says:\n%s\nwant:\n%s", c.Analyzer, joined(found), strings.Join(want, "\n"))
			}
		})
	}
}

// TestSharedCasesOfFiles compares what all analyzers that need no cluster say of the
// configuration alone, in all namespaces.
func TestSharedCasesOfFiles(t *testing.T) {
	dir := material.Path(t, "data/analysis")
	var cases []sharedCase
	readYAML(t, filepath.Join(dir, "cases.yaml"), &cases)
	for i, c := range cases {
		if c.OfflineCLI == "not comparable" {
			continue
		}
		t.Run(fmt.Sprintf("%d %s", i, c.Name), func(t *testing.T) {
			var codes []Code // of the case
			for _, e := range c.Expected {
				codes = append(codes, Code(e.Code))
			}
			m := c.mesh(t, dir, Options{Files: true, Partial: true})
			found := slices.DeleteFunc(m.Messages(Selection{}), func(f Message) bool { return !slices.Contains(codes, f.Code) })
			if got, want := shown(found), c.wantOfFiles(t); !slices.Equal(got, want) {
				t.Errorf("says:\n%s\nwant:\n%s", joined(found), strings.Join(want, "\n"))
			}
		})
	}
}

func (c sharedCase) mesh(t *testing.T, dir string, o Options) *Mesh {
	t.Helper()
	if c.MeshConfig != "" {
		mc, problems := config.DecodeMeshConfig(c.MeshConfig, text(t, filepath.Join(dir, c.MeshConfig)))
		if config.HasErrors(problems) {
			t.Fatal(problems)
		}
		o.MeshConfig = mc
	}
	if c.MeshNetworks != "" {
		networks, err := ParseNetworks(text(t, filepath.Join(dir, c.MeshNetworks)))
		if err != nil {
			t.Fatal(err)
		}
		o.Networks = networks
	}
	m := NewMesh(o)
	for _, name := range c.Input {
		if problems := m.AddText(name, text(t, filepath.Join(dir, name))); len(problems) > 0 {
			t.Fatal(problems)
		}
	}
	return m
}

func text(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// want is the multiset that the analyzer is to report.
func (c sharedCase) want() []string {
	var all []string
	for _, e := range c.Expected {
		all = append(all, e.Code+" "+inDefault(e.Object))
	}
	slices.Sort(all)
	return all
}

func (c sharedCase) wantOfFiles(t *testing.T) []string {
	switch c.OfflineCLI {
	case "same":
		return c.want()
	case "none":
		return nil
	}
	var list []shownMessage
	raw, err := yaml.Marshal(c.OfflineCLI)
	if err == nil {
		err = yaml.Unmarshal(raw, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range list {
		all = append(all, slices.Repeat([]string{e.Code + " " + e.Object}, max(e.Count, 1))...)
	}
	slices.Sort(all)
	return all
}

// inDefault gives an object that was written without a namespace the one that it has.
func inDefault(object string) string {
	kind, name, _ := strings.Cut(object, " ")
	for k, f := range forms() {
		if strings.HasSuffix(string(k), "/"+kind) && f.cluster || strings.Contains(name, "/") {
			return object
		}
	}
	return kind + " " + config.DefaultNamespace + "/" + name
}

func shown(all []Message) []string {
	var list []string
	for _, m := range all {
		list = append(list, string(m.Code)+" "+m.Origin)
	}
	slices.Sort(list)
	return list
}

func joined(all []Message) string {
	var b strings.Builder
	for _, m := range all {
		fmt.Fprintln(&b, m)
	}
	return b.String()
}

// TestSharedMessages compares the table of messages.
func TestSharedMessages(t *testing.T) {
	var want []struct {
		Code, Name, Level, Text string
		Args                    []string
	}
	readYAML(t, filepath.Join(material.Path(t, "data/analysis"), "messages.yaml"), &want)
	have := map[Code]definition{}
	for _, d := range definitions() {
		have[d.code] = d
	}
	if len(have) != len(want) {
		t.Errorf("%d codes, want %d", len(have), len(want))
	}
	for _, w := range want {
		d := have[Code(w.Code)]
		if d.name != w.Name || d.level.String() != w.Level || d.text != w.Text || !slices.Equal(d.args, w.Args) && len(w.Args) > 0 {
			t.Errorf("%s is %+v, want %+v", w.Code, d, w)
		}
	}
}

// TestSamples finds nothing of our own in what is written well: each file of the samples,
// and all of a folder together.
func TestSamples(t *testing.T) {
	for _, root := range []string{"../../samples", material.Path(t, "samples")} {
		folders := map[string]*Mesh{}
		err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(path) != ".yaml" {
				return err
			}
			content := text(t, path)
			alone := NewMesh(Options{Files: true})
			alone.AddText(path, content)
			own(t, alone)
			dir := filepath.Dir(path)
			if folders[dir] == nil {
				folders[dir] = NewMesh(Options{Files: true})
			}
			folders[dir].AddText(path, content)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range folders {
			own(t, m)
		}
	}
}

func own(t *testing.T, m *Mesh) {
	t.Helper()
	for _, f := range m.Messages(Selection{}) {
		if strings.HasPrefix(string(f.Code), "LAT") || f.Code == InternalError {
			t.Error(f)
		}
	}
}
