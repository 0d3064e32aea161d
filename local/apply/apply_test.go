package apply

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A desk is an Applier whose API takes everything at once.
type desk struct {
	*testing.T
	*Applier
	dir string
}

func newDesk(t *testing.T) desk {
	t.Helper()
	d := desk{T: t, dir: filepath.Join(t.TempDir(), "files")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return d.again()
}

// again is the desk after an end and a new start.
func (d desk) again() desk {
	d.Helper()
	log := slog.New(slog.DiscardHandler)
	var err error
	d.Applier, err = New(Options{Config: &rest.Config{Host: "http://api.invalid"}, Tree: file.Tree{Paths: []string{d.dir}, Log: log},
		Memory: filepath.Join(filepath.Dir(d.dir), "applied.json"), Log: log})
	if err != nil {
		d.Fatal(err)
	}
	return d
}

// write replaces files; no text removes one.
func (d desk) write(name, text string) {
	d.Helper()
	path := filepath.Join(d.dir, name)
	err := os.Remove(path)
	if text != "" {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		d.Fatal(err)
	}
}

// pass looks at the files and does what is to be done: "+one", "-two".
func (d desk) pass() string {
	d.Helper()
	want := d.read()
	todo := d.compare(want)
	var done []string
	for _, doc := range todo.apply {
		d.note(doc, "v1")
		done = append(done, "+"+doc.Object.Name)
	}
	for id := range todo.remove {
		delete(d.applied, id)
		done = append(done, "-"+id.Name)
	}
	d.conclude(want, nil)
	slices.Sort(done)
	return strings.Join(done, " ")
}

func (d desk) check(what, want string) {
	d.Helper()
	if got := d.pass(); got != want {
		d.Errorf("%s: %q, want %q", what, got, want)
	}
	if got := d.pass(); got != "" {
		d.Errorf("%s: once more: %q", what, got)
	}
}

func object(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {key: %s}\n---\n", name, value)
}

func TestFilesSayWhatThereIs(t *testing.T) {
	d := newDesk(t)
	d.write("a.yaml", object("one", "1")+object("two", "2"))
	d.write("b.yaml", object("three", "3"))
	d.check("all", "+one +three +two")
	d.write("b.yaml", "# moved\n"+object("three", "3"))
	d.check("a line further down", "")
	d.write("b.yaml", object("three", "4"))
	d.check("changed", "+three")
	d.write("b.yaml", strings.Replace(object("three", "4"), "{name: three}", "{name: three, namespace: default}", 1))
	d.check("the namespace it is in, said", "+three")
	d.write("a.yaml", object("one", "1"))
	d.check("gone from a file", "-two")
	d.write("b.yaml", "")
	d = d.again()
	d.check("a file that went while nobody watched", "-three")
	if st := d.Status(); st.Objects != 1 || st.Files != 1 || len(st.Problems) != 0 {
		t.Errorf("status %+v", st)
	}
}

// TestOwnObjects: those of the engine are applied like those of files, but what is to be made once is
// left alone where it is; they are no objects of files.
func TestOwnObjects(t *testing.T) {
	d := newDesk(t)
	own := func(text string, once bool) func() []Own {
		docs, problems := config.Documents("", []byte(text))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return func() []Own {
			var all []Own
			for _, doc := range docs {
				all = append(all, Own{doc, once && doc.Object.Name == "once"})
			}
			return all
		}
	}
	const first = "{apiVersion: v1, kind: ConfigMap, metadata: {name: once}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: always}}\n"
	changed := strings.ReplaceAll(first, "}}", "}, data: {a: b}}")
	for _, c := range []struct {
		name, text string
		once       bool
		want       string
	}{
		{"at first", first, true, "+always +once"},
		{"again", first, true, ""},
		{"changed", changed, true, "+always"},
		{"changed by who may", changed, false, "+once"},
	} {
		d.o.Own = own(c.text, c.once)
		if got := d.pass(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	d.conclude(d.read(), nil)
	if st := d.Status(); st.Objects != 0 || st.Files != 0 {
		t.Errorf("status %+v, want nothing of files", st)
	}
}

func TestOfTwoFilesTheFirstCounts(t *testing.T) {
	d := newDesk(t)
	d.write("b.yaml", object("one", "second"))
	d.check("alone", "+one")
	d.write("a.yaml", object("one", "first"))
	d.check("a file before it", "+one")
	if got := ReadPlaces(d.o.Memory).Of("ConfigMap default/one", ""); got != filepath.Join(d.dir, "a.yaml")+":1" {
		t.Errorf("it is in %q", got)
	}
	d.write("b.yaml", object("one", "third"))
	d.check("what does not count changes", "")
	d.write("a.yaml", "")
	d.check("the second is left", "+one")
}

func TestFaultsDeleteNothing(t *testing.T) {
	for name, spoil := range map[string]func(d desk, path string) error{
		"syntax": func(_ desk, path string) error {
			return os.WriteFile(path, []byte(object("one", "1")+"kind: [\n"), 0o600)
		},
		"no object": func(_ desk, path string) error {
			return os.WriteFile(path, []byte(object("one", "1")+"just words\n"), 0o600)
		},
		"empty name": func(_ desk, path string) error {
			return os.WriteFile(path, []byte("apiVersion: v1\nkind: ConfigMap\n"), 0o600)
		},
		"too large": func(_ desk, path string) error { return os.Truncate(path, maxFile+1) },
		"path gone": func(d desk, _ string) error { return os.Rename(d.dir, d.dir+".away") },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.write("a.yaml", object("one", "1")+object("two", "2"))
			d.check("before", "+one +two")
			if err := spoil(d, filepath.Join(d.dir, "a.yaml")); err != nil {
				t.Fatal(err)
			}
			d.check("spoilt", "")
			d = d.again()
			d.check("spoilt, after a new start", "")
			if st := d.Status(); len(st.Problems) == 0 || st.Objects != 2 || !strings.HasPrefix(st.Problems[0].Source.File, d.dir) {
				t.Errorf("status %+v", st)
			}
		})
	}
}

func TestMemory(t *testing.T) {
	d := newDesk(t)
	d.write("a.yaml", object("one", "1"))
	d.check("before", "+one")
	for name, text := range map[string]string{"cut off": "[{", "something else": `{"a": 1}`} {
		t.Run("damaged: "+name, func(t *testing.T) {
			if err := os.WriteFile(d.o.Memory, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := ReadPlaces(d.o.Memory).Of("ConfigMap default/one", ""); got != "" {
				t.Errorf("it has a place: %s", got)
			}
			again := desk{T: t, dir: d.dir}.again()
			again.check("everything is applied anew", "+one")
			if kept, err := os.ReadFile(d.o.Memory + ".damaged"); err != nil || string(kept) != text {
				t.Errorf("kept %q, %v", kept, err)
			}
		})
	}
	if info, err := os.Stat(d.o.Memory); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	unreadable := d.o
	unreadable.Memory = d.dir // a directory
	if _, err := New(unreadable); err == nil {
		t.Error("a memory that cannot be read passes for an empty one")
	}
}

func TestPlaces(t *testing.T) {
	d := newDesk(t)
	const text = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: web
spec:
  hosts: [a.example]
  http:
  - route: []
---
apiVersion: v1
kind: Namespace
metadata:
  name: team
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: same}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: same}
`
	d.write("a.yaml", text)
	d.check("all", "+same +same +team +web")
	path := filepath.Join(d.dir, "a.yaml")
	check := func(object, field, want string) {
		t.Helper()
		if got := ReadPlaces(d.o.Memory).Of(object, field); got != want {
			t.Errorf("%s %s: %q, want %q", object, field, got, want)
		}
	}
	check("VirtualService default/web", "", path+":1")
	check("VirtualService default/web", "http[0].route", path+":8")
	check("VirtualService default/web", "spec.hosts", path+":6")
	check("VirtualService default/web", "metadata.name", path+":4")
	check("VirtualService other/web", "", "")
	check("Namespace team", "metadata.name", path+":13")
	check("Gateway default/same", "", "") // two kinds, nobody knows which
	d.write("a.yaml", "# one more\n"+text)
	check("VirtualService default/web", "http[0].route", path+":9")
	d.write("a.yaml", "")
	check("VirtualService default/web", "http[0].route", path+":1")
}

func TestRefusals(t *testing.T) {
	docs, problems := config.Documents("a.yaml", []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: -1\n  replica: 3\n"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	kind := schema.GroupKind{Group: "apps", Kind: "Deployment"}
	status := func(reason metav1.StatusReason, causes ...metav1.StatusCause) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Reason: reason, Message: "the whole", Details: &metav1.StatusDetails{Causes: causes}}}
	}
	for name, c := range map[string]struct {
		err  error
		want string // each with its hint
	}{
		"no such kind": {&meta.NoKindMatchError{GroupKind: kind, SearchedVersions: []string{"v1"}},
			"a.yaml:1: Deployment web: no such kind in apps/v1 (apply its CustomResourceDefinition, or correct apiVersion and kind)"},
		"values": {status(metav1.StatusReasonInvalid, metav1.StatusCause{Field: "spec.replicas", Message: "negative"}, metav1.StatusCause{Field: "spec.selector", Message: "required"}),
			"a.yaml:6: Deployment web: spec.replicas: negative ()\na.yaml:5: Deployment web: spec.selector: required ()"},
		"causes without a field": {status(metav1.StatusReasonInvalid, metav1.StatusCause{Message: "what"}), "a.yaml:1: Deployment web: the whole ()"},
		"unknown field, strict":  {errors.New(`strict decoding error: unknown field "spec.replica"`), "a.yaml:7: Deployment web: spec.replica: unknown field ()"},
		"unknown field, schema":  {errors.New(`failed to create typed patch object: .spec.replica: field not declared in schema`), "a.yaml:7: Deployment web: spec.replica: unknown field ()"},
		"anything else":          {errors.New("no"), "a.yaml:1: Deployment web: no ()"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range refusals(docs[0], c.err) {
				got = append(got, fmt.Sprintf("%s (%s)", p.Error(), p.Hint))
			}
			if text := strings.Join(got, "\n"); text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
		})
	}
}

func FuzzUnknownField(f *testing.F) {
	f.Add(`unknown field "spec.a"`)
	f.Add(`.spec.a: field not declared in schema`)
	f.Fuzz(func(t *testing.T, message string) {
		if field := unknownField(message); !strings.Contains(message, field) {
			t.Errorf("%q is not in %q", field, message)
		}
	})
}
