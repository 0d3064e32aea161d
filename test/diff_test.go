package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/lateen-mesh/lateen/test/fixture"
)

// A difference is a listed one: what both peers do, why ours differs and who gains by it.
type difference struct {
	file             string
	ours, envoy      string
	reason, benefits string
}

// TestDiff runs every call of every case through our proxy and through a real
// Envoy, both under our control plane. What the case wants must hold on both, and
// all that came back and was logged must be equal, but for listed differences.
func TestDiff(t *testing.T) {
	envoy := fixture.EnvoyPath()
	if envoy == "" {
		t.Skip("the real Envoy is not installed: run `make peers`")
	}
	cases := readCases(t)
	listed := readDifferences(t, cases)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			m := fixture.NewMesh(t, c, programs(t), []fixture.Peer{ours(t), {Name: "envoy", Argv: []string{envoy}}})
			runSteps(t, m, c, func(t *testing.T, call *fixture.Call) {
				var transcripts [2]string
				for i, g := range m.Gateways {
					got, failures := m.Run(g, call)
					for _, f := range failures {
						t.Errorf("%s: %s.txtar calls %s", g.Name, c.Name, f)
					}
					transcripts[i] = got.String()
					if t.Failed() {
						t.Logf("%s did:\n%s", g.Name, got)
					}
				}
				if call.Times <= 1 || call.Ordered { // of many answers each peer has its own first one
					compare(t, listed[c.Name+"/"+call.Name], transcripts[0], transcripts[1])
				}
			})
		})
	}
}

func compare(t *testing.T, listed *difference, got, envoy string) {
	t.Helper()
	if listed == nil {
		if diff := cmp.Diff(envoy, got); diff != "" {
			t.Errorf("UNEXPLAINED: ours differs from Envoy (-envoy +ours):\n%s\nours:\n%s\n\nenvoy:\n%s", diff, got, envoy)
		}
		return
	}
	t.Logf("LISTED: %s", listed.reason)
	if got == envoy {
		t.Errorf("%s: ours no longer differs from Envoy: remove the entry", listed.file)
		return
	}
	if diff := cmp.Diff(listed.ours, got); diff != "" {
		t.Errorf("%s: ours is not as listed (-listed +got):\n%s", listed.file, diff)
	}
	if diff := cmp.Diff(listed.envoy, envoy); diff != "" {
		t.Errorf("%s: Envoy is not as listed (-listed +got):\n%s", listed.file, diff)
	}
}

// TestReplay runs the acceptance scenarios on our proxy under our control plane.
func TestReplay(t *testing.T) {
	if engine() != "standalone" {
		t.Skipf("engine %q is not built yet: the scenarios replay on the standalone engine only", engine())
	}
	for _, c := range readCases(t) {
		if c.Scenario == "" {
			continue
		}
		t.Run("scenario "+c.Scenario, func(t *testing.T) {
			t.Parallel()
			m := fixture.NewMesh(t, c, programs(t), []fixture.Peer{ours(t)})
			runSteps(t, m, c, func(t *testing.T, call *fixture.Call) {
				got, failures := m.Run(m.Gateways[0], call)
				for _, f := range failures {
					t.Errorf("%s.txtar calls %s", c.Name, f)
				}
				if t.Failed() {
					t.Logf("got:\n%s", got)
				}
			})
		})
	}
}

// runSteps does the steps of a case in order; call runs one call.
func runSteps(t *testing.T, m *fixture.Mesh, c *fixture.Case, call func(*testing.T, *fixture.Call)) {
	for _, s := range c.Steps {
		switch {
		case s.Put != "":
			text, ok := c.Later[s.Put]
			if !ok {
				t.Fatalf("line %d: no section later/%s", s.Line, s.Put)
			}
			m.Put(s.Put, text)
		case s.Remove != "":
			m.Remove(s.Remove)
		case s.Admin != "":
			t.Run(s.Call.Name, func(t *testing.T) {
				for _, g := range m.Gateways {
					for _, f := range m.Page(g, s.Admin, s.Call.Want) {
						t.Errorf("%s: %s", g.Name, f)
					}
				}
			})
		default:
			t.Run(s.Call.Name, func(t *testing.T) { call(t, s.Call) })
		}
	}
}

func readCases(t *testing.T) []*fixture.Case {
	t.Helper()
	files, err := filepath.Glob("cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var cases []*fixture.Case
	names := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := fixture.ParseCase(file, data)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.Steps {
			if s.Call != nil && s.Admin == "" {
				full := c.Name + "/" + s.Call.Name
				if names[full] {
					t.Fatalf("%s: two calls are named %q", file, s.Call.Name)
				}
				names[full] = true
			}
		}
		cases = append(cases, c)
	}
	return cases
}

// readDifferences reads differences/*.txtar: in the comment the lines "case:",
// "reason:" and "benefits:", and the sections "ours" and "envoy".
func readDifferences(t *testing.T, cases []*fixture.Case) map[string]*difference {
	t.Helper()
	files, _ := filepath.Glob("differences/*.txtar")
	sort.Strings(files)
	all := map[string]*difference{}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := &difference{file: file}
		var name string
		for line := range strings.SplitSeq(string(archive.Comment), "\n") {
			key, value, _ := strings.Cut(line, ": ")
			switch key {
			case "case":
				name = value
			case "reason":
				d.reason = value
			case "benefits":
				d.benefits = value
			}
		}
		for _, f := range archive.Files {
			text := strings.TrimSuffix(strings.ReplaceAll(string(f.Data), "␍\n", "\r\n"), "\n")
			switch f.Name {
			case "ours":
				d.ours = text
			case "envoy":
				d.envoy = text
			}
		}
		if name == "" || d.reason == "" || d.benefits == "" || d.ours == "" || d.envoy == "" {
			t.Fatal(fmt.Errorf("%s: wants case, reason, benefits, and the sections ours and envoy", file))
		}
		if !hasCall(cases, name) {
			t.Fatalf("%s lists a difference of %q, which no case has", file, name)
		}
		all[name] = d
	}
	return all
}

func hasCall(cases []*fixture.Case, name string) bool {
	return slices.ContainsFunc(cases, func(c *fixture.Case) bool {
		return slices.ContainsFunc(c.Steps, func(s fixture.Step) bool {
			return s.Call != nil && name == c.Name+"/"+s.Call.Name
		})
	})
}
