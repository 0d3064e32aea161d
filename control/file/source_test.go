package file_test

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A bench is a configuration directory with a source on it.
type bench struct {
	*testing.T
	dir   string
	state string
	store *config.Store
	src   *file.Source
}

func newBench(t *testing.T, files ...string) *bench {
	b := &bench{T: t, dir: t.TempDir(), state: filepath.Join(t.TempDir(), "state")}
	for i := 0; i+1 < len(files); i += 2 {
		b.write(files[i], files[i+1])
	}
	b.start()
	return b
}

// start is a (re)start of the control plane.
func (b *bench) start() {
	b.Helper()
	b.store = config.NewStore()
	b.src = file.New(b.store, file.Options{Paths: []string{b.dir}, State: b.state, Log: slog.New(slog.DiscardHandler)})
	if err := b.src.Load(); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) write(name, text string) {
	b.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) remove(name string) {
	b.Helper()
	if err := os.Remove(filepath.Join(b.dir, name)); err != nil {
		b.Fatal(err)
	}
}

// want compares what is in force, each entry as "name host", and the stale files.
func (b *bench) want(when string, entries ...string) {
	b.Helper()
	if diff := cmp.Diff(entries, inForce(b.store.Current()), nilIsEmpty()); diff != "" {
		b.Errorf("%s: in force (-want +got):\n%s", when, diff)
	}
}

func (b *bench) wantStale(when string, names ...string) {
	b.Helper()
	var stale []string
	for _, st := range b.src.Status() {
		if st.Stale {
			stale = append(stale, filepath.Base(st.Path))
		}
	}
	if diff := cmp.Diff(names, stale, nilIsEmpty()); diff != "" {
		b.Errorf("%s: stale files (-want +got):\n%s", when, diff)
	}
}

func (b *bench) problems(name string) string {
	b.Helper()
	for _, st := range b.src.Status() {
		if filepath.Base(st.Path) == name {
			var texts []string
			for _, p := range st.Problems {
				texts = append(texts, strings.ReplaceAll(p.Error(), b.dir+"/", ""))
			}
			return strings.Join(texts, "\n")
		}
	}
	b.Fatalf("no status of %s", name)
	return ""
}

func nilIsEmpty() cmp.Option {
	return cmp.Transformer("list", func(s []string) string { return strings.Join(s, "\n") })
}

func inForce(s *config.Set) []string {
	var all []string
	for _, o := range s.List(config.ServiceEntry) {
		all = append(all, o.Name+" "+o.Spec.(*networking.ServiceEntry).Hosts[0])
	}
	return all
}

// entry is a ServiceEntry; a port of 0 makes it invalid.
func entry(name, host, port string) string {
	return "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: " + name + "}\nspec:\n  hosts: [" + host +
		"]\n  ports: [{name: http, number: " + port + ", protocol: HTTP}]\n  resolution: DNS\n---\n"
}

func TestDirectory(t *testing.T) {
	b := newBench(t, "b.yaml", entry("b", "b.test", "80"), "sub/c.yml", entry("c", "c.test", "80"),
		"a.json", `{"apiVersion":"networking.istio.io/v1","kind":"ServiceEntry","metadata":{"name":"a"},"spec":{"hosts":["a.test"],"resolution":"DNS","ports":[{"name":"http","number":80}]}}`,
		"notes.txt", "not: [yaml", ".hidden.yaml", entry("h", "h.test", "80"), ".git/x.yaml", entry("x", "x.test", "80"))
	b.want("all files with the right suffix, at any depth, none hidden", "a a.test", "b b.test", "c c.test")
	if got := b.store.Current().Generation(); got != 1 {
		t.Errorf("generation %d, want 1: everything at once", got)
	}
	b.src.Refresh()
	if got := b.store.Current().Generation(); got != 1 {
		t.Errorf("generation %d after a look without changes, want 1", got)
	}
	b.remove("b.yaml")
	b.src.Refresh()
	b.want("a deleted file takes its objects with it", "a a.test", "c c.test")
}

func TestChangesOfOneLookAreOneGeneration(t *testing.T) {
	b := newBench(t, "a.yaml", entry("a", "a.test", "80"), "b.yaml", entry("b", "b.test", "80"))
	b.write("a.yaml", entry("a", "a2.test", "80"))
	b.write("c.yaml", entry("c", "c.test", "80"))
	b.remove("b.yaml")
	if set := b.src.Refresh(); set.Generation() != 2 {
		t.Errorf("generation %d, want 2", set.Generation())
	}
	b.want("after", "a a2.test", "c c.test")
}

func TestBrokenFileKeepsItsLastGoodState(t *testing.T) {
	b := newBench(t, "a.yaml", entry("a", "a.test", "80")+entry("a2", "a2.test", "80"), "b.yaml", entry("b", "b.test", "80"))
	b.write("a.yaml", "apiVersion: networking.istio.io/v1\nkind: [\n")
	b.write("b.yaml", entry("b", "new.test", "80"))
	b.src.Refresh()
	b.want("the broken file's objects stay, the other file is read", "a a.test", "a2 a2.test", "b new.test")
	b.wantStale("after the break", "a.yaml")
	if got := b.problems("a.yaml"); !strings.HasPrefix(got, "a.yaml:") || !strings.Contains(got, "YAML syntax") {
		t.Errorf("problem %q does not name file and fault", got)
	}

	b.start()
	b.want("after a restart", "a a.test", "a2 a2.test", "b new.test")
	b.wantStale("after a restart", "a.yaml")

	b.write("a.yaml", entry("a", "a3.test", "80"))
	b.src.Refresh()
	b.want("mended, one object taken out", "a a3.test", "b new.test")
	b.wantStale("mended")
}

func TestBrokenObjectKeepsItsLastGoodStateAndSiblingsApply(t *testing.T) {
	b := newBench(t, "a.yaml", entry("bad", "old.test", "80")+entry("good", "old.test", "80")+entry("gone", "gone.test", "80"))
	b.write("a.yaml", entry("bad", "new.test", "0")+entry("good", "new.test", "80"))
	b.src.Refresh()
	b.want("the bad object as before, its sibling as written, the third one gone", "bad old.test", "good new.test")
	b.wantStale("then", "a.yaml")
	if got, want := b.problems("a.yaml"), "a.yaml:6: ServiceEntry default/bad: ports[0].number: must be 1–65535, got 0"; got != want {
		t.Errorf("problem %q, want %q", got, want)
	}
	b.start()
	b.want("after a restart", "bad old.test", "good new.test")
}

func TestObjectThatWasNeverGoodIsNotInForce(t *testing.T) {
	b := newBench(t, "a.yaml", entry("bad", "bad.test", "0")+entry("good", "good.test", "80"))
	b.want("at first", "good good.test")
	b.wantStale("nothing older is in force")
}

func TestFileThatBreaksWhileNothingRuns(t *testing.T) {
	b := newBench(t, "a.yaml", entry("a", "a.test", "80"), "b.yaml", entry("b", "b.test", "80"))
	b.write("a.yaml", "\tbroken")
	b.remove("b.yaml")
	b.start()
	b.want("broken file from the state, deleted file gone", "a a.test")
	b.write("b.yaml", "\tbroken")
	b.src.Refresh()
	b.want("the state of a deleted file is forgotten", "a a.test")
}

func TestSecretsInTheState(t *testing.T) {
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/tls\nstringData: {tls.crt: C, tls.key: K}\n"
	b := newBench(t, "s.yaml", secret)
	b.write("s.yaml", "kind: {")
	b.start()
	if b.store.Current().Get(config.Secret, "default", "s") == nil {
		t.Error("the secret is not in force after a restart")
	}
	err := filepath.WalkDir(b.state, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSameObjectInTwoFiles(t *testing.T) {
	b := newBench(t, "1.yaml", entry("x", "first.test", "80"), "2.yaml", entry("x", "second.test", "80")+entry("z", "z.test", "80"))
	b.want("the first file in path order has it", "x first.test", "z z.test")
	if got, want := b.problems("2.yaml"), "2.yaml:1: ServiceEntry default/x: already defined in 1.yaml:1: that one is used"; got != want {
		t.Errorf("problem %q, want %q", got, want)
	}
	b.remove("1.yaml")
	b.src.Refresh()
	b.want("without the first file", "x second.test", "z z.test")

	b.write("1.yaml", entry("x", "first.test", "80"))
	b.src.Refresh()
	b.write("1.yaml", "kind: {")
	b.src.Refresh()
	b.want("what is written goes before what is kept", "x second.test", "z z.test")
	b.wantStale("nothing of the broken file is in force")
}

func TestMovingAnObjectWithinItsFileMovesItsSource(t *testing.T) {
	b := newBench(t, "a.yaml", entry("a", "a.test", "80"))
	b.write("a.yaml", "# a comment\n"+entry("a", "a.test", "80"))
	set := b.src.Refresh()
	if got := set.Get(config.ServiceEntry, "default", "a").Source.Line; got != 2 {
		t.Errorf("line %d, want 2", got)
	}
}

func TestStandardInputAndSingleFiles(t *testing.T) {
	dir := t.TempDir()
	one := filepath.Join(dir, "one.conf") // a named file is read whatever its suffix
	if err := os.WriteFile(one, []byte(entry("one", "one.test", "80")), 0o600); err != nil {
		t.Fatal(err)
	}
	store := config.NewStore()
	src := file.New(store, file.Options{Paths: []string{"-", one}, Namespace: "shop", Stdin: strings.NewReader(entry("in", "in.test", "80") + entry("bad", "in.test", "0")),
		Log: slog.New(slog.DiscardHandler)})
	if err := src.Load(); err != nil {
		t.Fatal(err)
	}
	if got, want := inForce(store.Current()), []string{"in in.test", "one one.test"}; !slices.Equal(got, want) {
		t.Errorf("in force %v, want %v", got, want)
	}
	if got := src.Status()[0].Problems[0].Error(); got != "stdin:14: ServiceEntry shop/bad: ports[0].number: must be 1–65535, got 0" {
		t.Errorf("problem %q", got)
	}
}

func TestMissingPath(t *testing.T) {
	src := file.New(config.NewStore(), file.Options{Paths: []string{filepath.Join(t.TempDir(), "none")}, Log: slog.New(slog.DiscardHandler)})
	if err := src.Load(); err == nil {
		t.Error("Load of a path that does not exist succeeded")
	}
}

func TestPathThatGoes(t *testing.T) {
	b := newBench(t, "a.yaml", entry("a", "a.test", "80"), "deep/b.yaml", entry("b", "b.test", "80"))
	away := b.dir + "-away"
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		b.src.Refresh()
	}
	move(b.dir, away)
	b.want("without the directory", "a a.test", "b b.test")
	b.wantStale("without the directory", "a.yaml", "b.yaml")
	if got := b.problems("b.yaml"); !strings.Contains(got, "the configuration path cannot be read: stat ") {
		t.Errorf("problem %q", got)
	}
	move(away, b.dir)
	b.want("with it again", "a a.test", "b b.test")
	b.wantStale("with it again")
	move(b.dir, away)
	b.write("a.yaml", entry("a", "new.test", "80"))
	b.src.Refresh()
	b.want("with another in its place", "a new.test")
	b.wantStale("with another in its place")
}

func TestDirectoryThatCannotBeRead(t *testing.T) {
	b := newBench(t, "a.yaml", entry("a", "a.test", "80"), "deep/b.yaml", entry("b", "b.test", "80"))
	deep := filepath.Join(b.dir, "deep")
	withoutPower(t)
	if err := os.Chmod(deep, 0); err != nil {
		t.Fatal(err)
	}
	b.src.Refresh()
	b.want("while it cannot be read", "a a.test", "b b.test")
	b.wantStale("while it cannot be read", "b.yaml")
	if got := b.problems("deep"); !strings.Contains(got, "permission denied") {
		t.Errorf("problem of the directory %q", got)
	}
	if err := os.Chmod(deep, 0o755); err != nil { // as it was
		t.Fatal(err)
	}
	b.src.Refresh()
	b.want("when it can be read again", "a a.test", "b b.test")
	b.wantStale("when it can be read again")
}

// withoutPower takes root's right to read everything from the test's thread, which
// ends with the test.
func withoutPower(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	none := [2]unix.CapUserData{}
	if err := unix.Capset(&head, &none[0]); err != nil {
		t.Fatal(err)
	}
}

func TestUnreadableThings(t *testing.T) {
	b := newBench(t, "a.yaml", entry("a", "a.test", "80"))
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(b.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("loop.yaml", "loop.yaml")
	link("nowhere.yaml", "dangling.yaml")
	for _, name := range []string{"x", "y", "z"} { // ways through them: 3 to the power of any depth
		link(b.dir, name)
	}
	if err := syscall.Mkfifo(filepath.Join(b.dir, "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	link("/dev/zero", "zero.yaml")
	b.write("binary.yaml", "\x00\xff\xfe\x01")
	b.src.Refresh()
	b.want("beside links in circles, a pipe and a device", "a a.test")
	for name, want := range map[string]string{
		"pipe.yaml": "pipe.yaml:1: cannot be read: is not a regular file", "zero.yaml": "zero.yaml:1: cannot be read: is not a regular file",
		"binary.yaml": "binary.yaml:1: YAML syntax: control characters are not allowed",
	} {
		if got := b.problems(name); got != want {
			t.Errorf("%s: problem %q, want %q", name, got, want)
		}
	}
	until := b.run()
	b.write("a.yaml", entry("a", "b.test", "80"))
	until("a change beside them", has("a b.test"))
}

func TestManyProblems(t *testing.T) {
	const n = 3000
	var log bytes.Buffer
	dir := t.TempDir()
	text := strings.Repeat("---\n"+"kind: Unknown\napiVersion: a/v1\nmetadata: {name: a}\n", n) + "---\n" + entry("bad", "bad.test", "0")
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	src := file.New(config.NewStore(), file.Options{Paths: []string{dir}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err := src.Load(); err != nil {
		t.Fatal(err)
	}
	problems := src.Status()[0].Problems
	if len(problems) != 1001 || problems[0].Severity != config.Error || !strings.Contains(problems[1000].Message, "has 3001 problems, 1000 are shown") {
		t.Errorf("%d problems, first %v, last %v", len(problems), problems[0], problems[len(problems)-1])
	}
	if lines := strings.Count(log.String(), "\n"); lines != 101 {
		t.Errorf("%d lines in the log, want 101", lines)
	}
}

// run starts the watch and returns a function that waits until cond holds.
func (b *bench) run() (until func(what string, cond func(*config.Set) bool)) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	changed, stop := b.store.Watch()
	go func() { ended <- b.src.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("Run: %v", err)
		}
	})
	return func(what string, cond func(*config.Set) bool) {
		b.Helper()
		limit := time.After(30 * time.Second)
		for !cond(b.store.Current()) {
			select {
			case <-changed:
			case <-limit:
				b.Fatalf("%s: never came into force; in force: %v", what, inForce(b.store.Current()))
			}
		}
	}
}

func has(entry string) func(*config.Set) bool {
	return func(s *config.Set) bool { return slices.Contains(inForce(s), entry) }
}

func TestWatch(t *testing.T) {
	b := newBench(t, "a.yaml", entry("a", "0.test", "80"))
	until := b.run()

	b.write("a.yaml", entry("a", "1.test", "80"))
	until("a file written in place", has("a 1.test"))

	b.write("a.tmp", entry("a", "2.test", "80"))
	if err := os.Rename(filepath.Join(b.dir, "a.tmp"), filepath.Join(b.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	until("a file replaced by rename", has("a 2.test"))

	b.write("deep/er/b.yaml", entry("b", "b.test", "80"))
	until("a file in a new directory", has("b b.test"))

	b.write("deep/er/b.yaml", entry("b", "b2.test", "80"))
	until("a change in the new directory", has("b b2.test"))

	if err := os.RemoveAll(filepath.Join(b.dir, "deep")); err != nil {
		t.Fatal(err)
	}
	until("a removed directory", func(s *config.Set) bool { return !has("b b2.test")(s) })
}

// A ConfigMap mount: files are links into ..data, which is a link to a dated
// directory and is swapped by rename.
func TestWatchConfigMapMount(t *testing.T) {
	b := newBench(t)
	publish := func(version, host string) {
		b.write("..v"+version+"/a.yaml", entry("a", host, "80"))
		if err := os.Symlink("..v"+version, filepath.Join(b.dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(b.dir, "..data_tmp"), filepath.Join(b.dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	publish("1", "one.test")
	if err := os.Symlink("..data/a.yaml", filepath.Join(b.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	until := b.run()
	until("the mount", has("a one.test"))
	publish("2", "two.test")
	until("the swapped mount", has("a two.test"))
}

func TestWatchSingleFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mesh.yaml")
	b := &bench{T: t, dir: dir, store: config.NewStore()}
	b.write("mesh.yaml", entry("a", "0.test", "80"))
	b.src = file.New(b.store, file.Options{Paths: []string{path}, Log: slog.New(slog.DiscardHandler)})
	if err := b.src.Load(); err != nil {
		t.Fatal(err)
	}
	until := b.run()
	b.write("new", entry("a", "1.test", "80"))
	if err := os.Rename(filepath.Join(dir, "new"), path); err != nil {
		t.Fatal(err)
	}
	until("a named file replaced by rename", has("a 1.test"))
}

func TestWatchWorkingDirectory(t *testing.T) {
	b := &bench{T: t, dir: t.TempDir(), store: config.NewStore()}
	b.write("a.yaml", entry("a", "0.test", "80"))
	t.Chdir(b.dir)
	b.src = file.New(b.store, file.Options{Paths: []string{"."}, Log: slog.New(slog.DiscardHandler)})
	if err := b.src.Load(); err != nil {
		t.Fatal(err)
	}
	until := b.run()
	for i := range 5 {
		host := string(rune('1'+i)) + ".test"
		b.write("a.yaml", entry("a", host, "80"))
		until("a change of equal length", has("a "+host))
	}
}

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mesh.yaml")
	ctx, cancel := context.WithCancel(context.Background())
	changed, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		file.Follow(ctx, path, slog.New(slog.DiscardHandler), func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	<-changed // the first look, at nothing
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"a file that comes", func() { must(os.WriteFile(path, []byte("a: 1"), 0o600)) }},
		{"a file written in place", func() { must(os.WriteFile(path, []byte("a: 2"), 0o600)) }},
		{"a file replaced by rename", func() {
			must(os.WriteFile(path+".new", []byte("a: 3"), 0o600))
			must(os.Rename(path+".new", path))
		}},
		{"a file that goes", func() { must(os.Remove(path)) }},
		{"a link", func() {
			must(os.Mkdir(filepath.Join(dir, "..one"), 0o700))
			must(os.WriteFile(filepath.Join(dir, "..one", "mesh.yaml"), []byte("a: 4"), 0o600))
			must(os.Symlink("..one/mesh.yaml", path))
		}},
		{"the file that the link leads to", func() { must(os.WriteFile(filepath.Join(dir, "..one", "mesh.yaml"), []byte("a: 5"), 0o600)) }},
	} {
		step.do()
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			t.Fatalf("%s is not noticed", step.name)
		}
	}
}
