package install

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPaths(t *testing.T) {
	tree := func() map[string]any {
		return map[string]any{"a": map[string]any{"b.c": "x"}, "l": []any{
			map[string]any{"name": "one", "v": 1}, map[string]any{"name": "two", "v": 2}}, "s": []any{"--x", "a:b"}}
	}
	for _, c := range []struct {
		name, path string
		value      any
		where      string // "" is path
		want       any
	}{
		{"a key", "a.n", 1, "", 1},
		{"a key with a dot", `a.b\.c`, "y", "", "y"},
		{"what is not there is made", "n.m[0].k", 1, "", 1},
		{"an index", "l[1].v", 3, "l.[name:two].v", 3},
		{"an index behind a dot", "l.[1].v", 3, "l.[name:two].v", 3},
		{"the last one", "l[-1].v", 3, "l.[name:two].v", 3},
		{"one more", "l[2].name", "three", "l[2].name", "three"},
		{"one more at the end", "s.[-1]", "--y", "s[2]", "--y"},
		{"by a field", "l.[name:one].v", 3, "l[0].v", 3},
		{"by its value", "s.[--x]", "--y", "s[0]", "--y"},
		{"by its value, with a colon before", "s.[:--x]", "--y", "s[0]", "--y"},
		{"by a value with a colon", "s.[a:b]", "c", "s[1]", "c"},
		{"nothing removes a key", "a", nil, "", nil},
		{"nothing removes an element", "l.[name:one]", nil, "l[0].name", "two"},
	} {
		t.Run("OP-016 "+c.name, func(t *testing.T) {
			steps, err := parsePath(c.path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := put(tree(), steps, c.value)
			if err != nil {
				t.Fatal(err)
			}
			where := c.where
			if where == "" {
				where = c.path
			}
			if diff := cmp.Diff(c.want, At(t, got, where)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"a.b[0].c", `a\.b`, "l.[name:x].v", "[:x]", "[-1]", "a[", "a..b", `\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		steps, err := parsePath(path)
		if err != nil {
			return
		}
		if len(steps) == 0 || len(steps) > maxSteps {
			t.Fatalf("%d steps", len(steps))
		}
		_, _ = put(map[string]any{"a": []any{"x", map[string]any{"b": 1}}}, steps, "v")
		_, _ = put(map[string]any{"a": []any{"x", map[string]any{"b": 1}}}, steps, nil)
	})
}

func FuzzInput(f *testing.F) {
	f.Add("kind: IstioOperator\nspec: {profile: demo}\n", "meshConfig.accessLogFile=/dev/stdout")
	f.Add("kind: IstioOperator\nspec: {values: {global: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}}}\n", "components.pilot.k8s.overlays[0].kind=x")
	f.Add("kind: IstioOperator\nspec: {components: {ingressGateways: [{name: a, enabled: true, label: {x: y}}]}}\n", "values.gateways.istio-ingressgateway.ports[0].port=7")
	f.Fuzz(func(t *testing.T, file, set string) {
		i, err := New(Input{Files: [][]byte{[]byte(file)}, Set: []string{set}})
		if err != nil {
			return
		}
		if _, err := i.Objects(); err != nil {
			t.Fatal(err)
		}
	})
}
