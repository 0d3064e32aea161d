package runtime

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/match"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func values(t *testing.T, layers string) *Values {
	t.Helper()
	var config bootstrapv3.LayeredRuntime
	if err := protojson.Unmarshal([]byte(`{"layers":[`+layers+`]}`), &config); err != nil {
		t.Fatal(err)
	}
	v, err := New(&config, "service")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRead(t *testing.T) {
	v := values(t, `{"name":"a","staticLayer":{"whole":5,"part":2.5,"less":-1,"text":"7","on":true,"off":"FALSE","word":"x",
		"few":{"numerator":3,"denominator":"MILLION"},"in":{"side":{"deep":9}},"many":250}}`)
	half := match.Fraction{Numerator: 50, Denominator: 100}
	for _, c := range []struct {
		key      string
		whole    uint64
		number   float64
		on       bool
		fraction match.Fraction
	}{
		{"whole", 5, 5, false, match.Fraction{Numerator: 5, Denominator: 100}},
		{"part", 2, 2.5, false, match.Fraction{Numerator: 2, Denominator: 100}},
		{"less", 77, -1, false, half},
		{"text", 7, 7, false, match.Fraction{Numerator: 7, Denominator: 100}},
		{"on", 77, 7.7, true, half},
		{"off", 77, 7.7, false, half},
		{"word", 77, 7.7, false, half},
		{"few", 77, 7.7, false, match.Fraction{Numerator: 3, Denominator: 1_000_000}},
		{"in.side.deep", 9, 9, false, match.Fraction{Numerator: 9, Denominator: 100}},
		{"many", 250, 250, false, match.Fraction{Numerator: 100, Denominator: 100}},
		{"none", 77, 7.7, false, half},
		{"", 77, 7.7, false, half},
	} {
		share := v.Share(&corev3.RuntimeFractionalPercent{RuntimeKey: c.key, DefaultValue: &typev3.FractionalPercent{Numerator: 50}})
		if got := share.Fraction(); got != c.fraction {
			t.Errorf("%q: share %v, want %v", c.key, got, c.fraction)
		}
		if got := v.Below(c.key, "", half); got != c.fraction {
			t.Errorf("%q: share below %v, want %v", c.key, got, c.fraction)
		}
		if got := v.Whole(c.key, 77); got != c.whole {
			t.Errorf("%q: whole %d, want %d", c.key, got, c.whole)
		}
		if got := v.Number(c.key, 7.7); got != c.number {
			t.Errorf("%q: number %v, want %v", c.key, got, c.number)
		}
		if got := v.Switch(&corev3.RuntimeFeatureFlag{RuntimeKey: c.key}).On(); got != c.on {
			t.Errorf("%q: switch %v, want %v", c.key, got, c.on)
		}
	}
}

func TestWithoutValues(t *testing.T) {
	var v *Values
	on := v.Switch(&corev3.RuntimeFeatureFlag{RuntimeKey: "k", DefaultValue: wrapperspb.Bool(true)})
	if !on.On() || v.Whole("k", 3) != 3 || v.Number("k", 1.5) != 1.5 || v.Share(nil).Of(0) {
		t.Error("values where there are none")
	}
}

func TestLayers(t *testing.T) {
	v := values(t, `{"name":"a","staticLayer":{"k":1,"l":1}},{"name":"b","rtdsLayer":{}},{"name":"c","adminLayer":{}}`)
	want := func(k, l uint64) {
		t.Helper()
		if gotK, gotL := v.Whole("k", 0), v.Whole("l", 0); gotK != k || gotL != l {
			t.Errorf("k %d l %d, want %d %d", gotK, gotL, k, l)
		}
	}
	want(1, 1)
	sent, _ := structpb.NewStruct(map[string]any{"k": 2, "l": 2})
	if err := v.Replace("b", sent); err != nil {
		t.Fatal(err)
	}
	want(2, 2)
	if err := v.Modify(map[string]string{"k": "3", "new": "{numerator: 1}"}); err != nil {
		t.Fatal(err)
	}
	want(3, 2)
	names, entries := v.Layers()
	if len(names) != 3 || entries["k"][0] != "1" || entries["k"][1] != "2" || entries["k"][2] != "3" || entries["new"][2] != "{numerator: 1}" {
		t.Errorf("%v %v", names, entries)
	}
	if err := v.Modify(map[string]string{"k": ""}); err != nil {
		t.Fatal(err)
	}
	if err := v.Replace("b", nil); err != nil {
		t.Fatal(err)
	}
	want(1, 1)
	list, _ := structpb.NewStruct(map[string]any{"k": []any{1}})
	if err := v.Replace("b", list); err == nil {
		t.Error("a list was taken")
	}
	if err := values(t, "").Modify(map[string]string{"k": "1"}); err == nil || err.Error() != "No admin layer specified" {
		t.Error(err)
	}
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	write := func(version, name, text string) {
		t.Helper()
		file := filepath.Join(dir, version, "sub", "service", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one", "a/b", "# a comment\n5\n")
	write("two", "a/b", "6")
	root := filepath.Join(dir, "current")
	link := func(version string) {
		t.Helper()
		if err := os.Symlink(filepath.Join(dir, version), root+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(root+".new", root); err != nil {
			t.Fatal(err)
		}
	}
	link("one")
	v := values(t, `{"name":"d","diskLayer":{"symlinkRoot":"`+root+`","subdirectory":"sub","appendServiceCluster":true}},{"name":"r","rtdsLayer":{}}`)
	if got := v.Whole("a.b", 0); got != 5 {
		t.Errorf("a.b is %d", got)
	}
	changed := make(chan error, 1)
	go func() { changed <- v.Follow(t.Context()) }()
	if err := v.Replace("r", nil); err != nil { // while Follow begins
		t.Fatal(err)
	}
	for v.Whole("a.b", 0) != 6 { // ends by the test's own time limit if the change is never seen
		link("two")
	}
	if err := os.RemoveAll(filepath.Join(dir, "two")); err != nil {
		t.Fatal(err)
	}
	v.reload()
	if names, _ := v.Layers(); !slices.Equal(names, []string{"r"}) || v.Whole("a.b", 0) != 0 {
		t.Error("a directory that is gone is still a layer")
	}
}

// TestAllocations: reading takes nothing.
func TestAllocations(t *testing.T) {
	v := values(t, `{"name":"a","staticLayer":{"a.b":5}}`)
	share := v.ShareOf("a.b", match.Fraction{Denominator: 100})
	n := testing.AllocsPerRun(100, func() {
		share.Of(3)
		v.Below("a.", "b", match.Fraction{})
		v.Whole("a.b", 1)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzModify(f *testing.F) {
	for _, seed := range []string{"1", "1.5", "true", "{numerator: 1, denominator: MILLION}", "[", "a: {b: c}", "&a [*a]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v := values(t, `{"name":"a","adminLayer":{}}`)
		if err := v.Modify(map[string]string{"k": text}); err != nil {
			t.Fatal(err)
		}
		if share := v.ShareOf("k", match.Fraction{Denominator: 100}).Fraction(); share.Denominator == 0 {
			t.Errorf("%q is a share of nothing", text)
		}
		if _, entries := v.Layers(); text != "" && entries["k"][0] != text {
			t.Errorf("%q is shown as %q", text, entries["k"][0])
		}
	})
}
