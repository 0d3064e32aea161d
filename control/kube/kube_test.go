package kube

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/kube/kubetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(builtAt())
		os.Exit(code)
	}))
}

// A log is what was logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A running source, with its store.
type running struct {
	*Source
	t     testing.TB
	store *config.Store
	log   *log
	end   func()
}

func run(t testing.TB, o Options) *running {
	t.Helper()
	return runWith(t, o, func(*Source) {})
}

// runWith changes the source before it runs.
func runWith(t testing.TB, o Options, change func(*Source)) *running {
	t.Helper()
	r := &running{t: t, store: config.NewStore(), log: &log{}}
	o.Log = slog.New(slog.NewTextHandler(r.log, nil))
	var err error
	if r.Source, err = New(r.store, o); err != nil {
		t.Fatal(err)
	}
	r.grace = 50 * time.Millisecond
	change(r.Source)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = r.Run(ctx) }()
	r.end = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(r.end)
	return r
}

// of runs a source on a small API and waits for its first state.
func of(t testing.TB, a *kubetest.API) *running {
	t.Helper()
	r := run(t, Options{Connection: Connection{Socket: a.Socket}})
	r.waitSynced()
	return r
}

const patient = 20 * time.Second

func (r *running) waitSynced() {
	r.t.Helper()
	select {
	case <-r.Synced():
	case <-time.After(patient):
		r.t.Fatalf("not synced; status %+v; log:\n%s", r.Status(), r.log)
	}
}

// until waits for a state of the store.
func (r *running) until(what string, holds func(*config.Set) bool) {
	r.t.Helper()
	changed, stop := r.store.Watch()
	defer stop()
	late := time.After(patient)
	for !holds(r.store.Current()) {
		select {
		case <-changed:
		case <-late:
			r.t.Fatalf("never: %s; objects %v; log:\n%s", what, keys(r.store.Current()), r.log)
		}
	}
}

// eventually waits for what only asking can tell.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func keys(set *config.Set) []string {
	var all []string
	for _, o := range set.All() {
		all = append(all, o.Key.String())
	}
	return all
}

func entryYAML(name, host string) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s, namespace: web}
spec: {hosts: [%s], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
`, name, host)
}

func hosts(set *config.Set) []string {
	var all []string
	for _, o := range set.List(config.ServiceEntry) {
		all = append(all, o.Spec.(*networking.ServiceEntry).Hosts...)
	}
	slices.Sort(all)
	return all
}

func TestFirstListIsOneGeneration(t *testing.T) {
	t.Run("EN-023 all that the API holds is there at once, and at no time less", func(t *testing.T) {
		a := kubetest.New(t)
		var want []string
		for i := range 50 {
			host := fmt.Sprintf("h%02d.example.com", i)
			a.Apply(entryYAML(fmt.Sprint("e", i), host))
			want = append(want, host)
		}
		a.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: web, labels: {istio-injection: enabled}}\n")
		r := of(t, a.Start())
		set := r.store.Current()
		if diff := cmp.Diff(want, hosts(set)); diff != "" || set.Generation() != 1 || set.Get(config.Namespace, "", "web") == nil {
			t.Errorf("generation %d, hosts %s", set.Generation(), diff)
		}
		if st := r.Status(); !st.Synced || st.Saved || st.Objects != 51 || st.Trouble != "" || len(st.Problems) != 0 {
			t.Errorf("status %+v", st)
		}
	})
}

func TestChanges(t *testing.T) {
	a := kubetest.New(t).Start()
	r := of(t, a)
	a.Apply(entryYAML("a", "a.example.com") + "---" + entryYAML("b", "b.example.com"))
	r.until("both are there", func(s *config.Set) bool { return slices.Equal(hosts(s), []string{"a.example.com", "b.example.com"}) })
	a.Apply(entryYAML("a", "changed.example.com"))
	r.until("a has changed", func(s *config.Set) bool {
		return slices.Equal(hosts(s), []string{"b.example.com", "changed.example.com"})
	})
	a.Delete("ServiceEntry", "web/b")
	r.until("b is gone", func(s *config.Set) bool { return slices.Equal(hosts(s), []string{"changed.example.com"}) })

	before := r.store.Current()
	a.Apply(strings.Replace(entryYAML("a", "changed.example.com"), "metadata: {", "metadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: x}, ", 1))
	a.Apply(entryYAML("c", "c.example.com"))
	r.until("c is there", func(s *config.Set) bool { return len(hosts(s)) == 2 })
	if before.Get(config.ServiceEntry, "web", "a") != r.store.Current().Get(config.ServiceEntry, "web", "a") {
		t.Error("a change of what the mesh does not read has changed the object")
	}
}

// TestABrokenPolicyGuards: what was never good is closed, what was good stays as it was (PO-016).
func TestABrokenPolicyGuards(t *testing.T) {
	a := kubetest.New(t).Start()
	policy := func(port string) string {
		return "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: web}\nspec: {action: DENY, rules: [{to: [{operation: {ports: [" + port + "]}}]}]}\n"
	}
	guarded := func(s *config.Set) bool {
		o := s.Get(config.AuthorizationPolicy, "web", "p")
		return o != nil && o.Guard
	}
	a.Apply(policy("http"))
	r := of(t, a)
	if st := r.Status(); !guarded(r.store.Current()) || st.Stale != 0 || len(st.Problems) != 2 || !strings.Contains(st.Problems[1].Message, "was never in force") {
		t.Errorf("status %+v", st)
	}
	if !strings.Contains(r.log.String(), "was never in force") {
		t.Errorf("the log does not say so:\n%s", r.log)
	}
	a.Apply(policy(`"80"`))
	r.until("it is mended", func(s *config.Set) bool { return !guarded(s) })
	a.Apply(policy("http"))
	eventually(t, "it is seen to be broken", func() bool { return r.Status().Stale == 1 })
	if guarded(r.store.Current()) {
		t.Error("its last good state is not in force")
	}
}

func TestABadObjectHarmsItselfOnly(t *testing.T) {
	a := kubetest.New(t).Start()
	a.Apply(entryYAML("good", "good.example.com") + "---" + entryYAML("born-bad", "bad/host") + "---" + entryYAML("later-bad", "later.example.com"))
	r := of(t, a)
	if got := hosts(r.store.Current()); !slices.Equal(got, []string{"good.example.com", "later.example.com"}) {
		t.Fatalf("hosts %v", got)
	}
	a.Apply(strings.Replace(entryYAML("later-bad", "later.example.com"), "number: 80", "number: 80000", 1))
	eventually(t, "the second is seen to be broken", func() bool { return len(r.Status().Problems) == 2 })
	if got := hosts(r.store.Current()); !slices.Equal(got, []string{"good.example.com", "later.example.com"}) {
		t.Errorf("its last good state is not in force: %v", got)
	}
	st := r.Status()
	if st.Stale != 1 || st.Objects != 2 {
		t.Errorf("status %+v", st)
	}
	want := `ServiceEntry web/later-bad: ports[0].number: must be 1–65535, got 80000`
	if got := st.Problems[1].Error(); got != want {
		t.Errorf("problem %q, want %q", got, want)
	}
	if strings.Count(r.log.String(), "later-bad") != 1 {
		t.Errorf("the problem is not logged once:\n%s", r.log)
	}
	a.Apply(entryYAML("later-bad", "mended.example.com"))
	r.until("it is mended", func(s *config.Set) bool { return slices.Contains(hosts(s), "mended.example.com") })
	if st := r.Status(); st.Stale != 0 || len(st.Problems) != 1 {
		t.Errorf("status %+v", st)
	}
	a.Delete("ServiceEntry", "web/later-bad")
	a.Apply(entryYAML("later-bad", "bad/again"))
	r.until("another object of the name has no part in the state of the first", func(s *config.Set) bool { return len(hosts(s)) == 1 })
}

func TestManyBadObjects(t *testing.T) {
	a := kubetest.New(t)
	for i := range 150 {
		a.Apply(entryYAML(fmt.Sprint("bad", i), "bad/host"))
	}
	r := of(t, a.Start())
	if n := strings.Count(r.log.String(), "hosts[0]"); n != maxTold {
		t.Errorf("%d problems are logged, want %d", n, maxTold)
	}
	if st := r.Status(); len(st.Problems) != 150 || !strings.Contains(r.log.String(), "objects=150") {
		t.Errorf("%d problems in the status; log\n%s", len(st.Problems), r.log)
	}
}

func TestFieldsOfAnotherVersionAreIgnored(t *testing.T) {
	a := kubetest.New(t).Start()
	a.Apply(strings.Replace(entryYAML("new", "new.example.com"), "spec: {", "spec: {fieldOfTomorrow: {a: [1]}, ", 1))
	r := of(t, a)
	if st := r.Status(); st.Objects != 1 || len(st.Problems) != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestTheAPIGoesAndComesBack(t *testing.T) {
	a := kubetest.New(t).Start()
	a.Apply(entryYAML("a", "a.example.com") + "---" + entryYAML("b", "b.example.com"))
	r := of(t, a)
	before := r.store.Current()
	for _, expired := range []bool{false, true} {
		a.Stop()
		eventually(t, "trouble is noticed", func() bool { return r.Status().Trouble != "" })
		if r.store.Current() != before {
			t.Fatal("what is in force has changed while the API was away")
		}
		name := fmt.Sprintf("while-away-%t", expired)
		a.Apply(entryYAML(name, name+".example.com"))
		a.Delete("ServiceEntry", "web/"+map[bool]string{false: "a", true: "b"}[expired])
		if expired {
			a.Forget()
		}
		a.Start()
		changed, stop := r.store.Watch()
		r.until("what happened meanwhile is known", func(s *config.Set) bool {
			return slices.Contains(hosts(s), name+".example.com") && len(hosts(s)) == 2
		})
		<-changed
		stop()
		if got, want := r.store.Current().Generation(), before.Generation()+1; got != want {
			t.Errorf("generation %d, want %d: it is one change", got, want)
		}
		eventually(t, "trouble is over", func() bool { return r.Status().Trouble == "" })
		before = r.store.Current()
	}
	if n := strings.Count(r.log.String(), "is read again"); n != 2 {
		t.Errorf("%d lines say that the API is read again:\n%s", n, r.log)
	}
	if strings.Contains(r.log.String(), "level=DEBUG") || strings.Count(r.log.String(), "\n") > 10 {
		t.Errorf("the machinery of clients speaks for itself:\n%s", r.log)
	}
}

func TestKindsThatAreDefinedLater(t *testing.T) {
	a := kubetest.New(t).Start()
	a.Undefine("serviceentries")
	r := of(t, a)
	a.Define("serviceentries")
	a.Apply(entryYAML("late", "late.example.com"))
	r.until("its objects are read", func(s *config.Set) bool { return len(hosts(s)) == 1 })
	a.Undefine("serviceentries")
	r.until("its objects are gone", func(s *config.Set) bool { return len(hosts(s)) == 0 })
	a.Define("serviceentries")
	a.Apply(entryYAML("again", "again.example.com"))
	r.until("it is back", func(s *config.Set) bool { return len(hosts(s)) == 1 })
}

func TestNothingIsServedBeforeAllIsRead(t *testing.T) {
	a := kubetest.New(t)
	a.Refuse("Secret", true)
	a.Apply(entryYAML("a", "a.example.com"))
	r := run(t, Options{Connection: Connection{Socket: a.Socket}})
	eventually(t, "it says that it waits", func() bool { return strings.Contains(r.log.String(), "waiting for the Kubernetes API") })
	a.Start()
	eventually(t, "it says what is missing", func() bool { return strings.HasPrefix(r.Status().Trouble, "Secret: ") })
	select {
	case <-r.Synced():
		t.Fatal("synced without Secrets")
	default:
	}
	if r.store.Current().Len() != 0 {
		t.Error("a part of the state is in the store")
	}
	a.Refuse("Secret", false)
	r.waitSynced()
}

func TestStateOfTheLastRun(t *testing.T) {
	a := kubetest.New(t).Start()
	state := t.TempDir()
	o := Options{Connection: Connection{Socket: a.Socket}, State: state}
	a.Apply(entryYAML("a", "a.example.com") + "---" + entryYAML("b", "b.example.com"))
	a.Apply("apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: web}\ndata: {tls.crt: aGVsbG8=, other: c2VjcmV0}\n")
	first := run(t, o)
	first.waitSynced()
	a.Apply(strings.Replace(entryYAML("b", "b.example.com"), "number: 80", "number: 0", 1))
	eventually(t, "b is broken", func() bool { return first.Status().Stale == 1 })
	a.Stop()
	first.end()
	file := filepath.Join(state, stateName)
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("state file %v, %v", fi, err)
	}

	t.Run("serves while the API is away, and until all is read", func(t *testing.T) {
		r := run(t, o)
		r.waitSynced()
		if got := hosts(r.store.Current()); !slices.Equal(got, []string{"a.example.com", "b.example.com"}) {
			t.Errorf("hosts %v", got)
		}
		if st := r.Status(); !st.Saved || st.Synced {
			t.Errorf("status %+v", st)
		}
		generation := r.store.Current().Generation()
		a.Delete("ServiceEntry", "web/a")
		a.Start()
		r.until("what was deleted meanwhile is gone, what is broken stays as it was", func(s *config.Set) bool {
			return slices.Equal(hosts(s), []string{"b.example.com"})
		})
		if got := r.store.Current().Generation(); got != generation+1 {
			t.Errorf("generation %d, want %d", got, generation+1)
		}
		if st := r.Status(); st.Saved || !st.Synced || st.Stale != 1 {
			t.Errorf("status %+v", st)
		}
		a.Stop()
	})
	t.Run("stays of a kind that is defined and not served, until it is", func(t *testing.T) {
		a.Serve("serviceentries", false)
		a.Start()
		r := runWith(t, o, func(s *Source) { s.settling = 300 * time.Millisecond })
		eventually(t, "the API is read", func() bool { return r.Status().Synced })
		if got := hosts(r.store.Current()); !slices.Equal(got, []string{"b.example.com"}) {
			t.Errorf("hosts %v", got)
		}
		a.Serve("serviceentries", true)
		a.Apply(entryYAML("b", "served.example.com"))
		r.until("it is read", func(s *config.Set) bool { return slices.Equal(hosts(s), []string{"served.example.com"}) })
		a.Stop()
	})
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(whole, []byte("c2VjcmV0")) {
		t.Error("content of a Secret that the mesh does not read is in the file")
	}
	t.Run("is not used when it is not whole", func(t *testing.T) {
		for cut := 0; cut < len(whole); cut += 1 + len(whole)/97 {
			if objects, err := first.state.decode(bytes.NewReader(whole[:cut])); err == nil {
				t.Errorf("the first %d of %d bytes give %d objects", cut, len(whole), len(objects))
			}
		}
		broken := bytes.Replace(whole, []byte("served.example.com"), []byte("broken.example.com"), 1)
		if _, err := first.state.decode(bytes.NewReader(broken)); err == nil {
			t.Error("a file that was changed is used")
		}
	})
	t.Run("is not used for another API", func(t *testing.T) {
		other := stateFile{directory: state, server: "elsewhere"}
		if _, err := other.read(); err == nil {
			t.Error("it is")
		}
	})
}

// Whatever happens to objects and to the API, in the end the store has what the API has.
func TestChurn(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	a := kubetest.New(t).Start()
	r := of(t, a)
	there, kindThere, up, restarts := map[string]string{}, true, true, 0
	agree := func() {
		t.Helper()
		want := slices.Sorted(maps.Values(there))
		r.until(fmt.Sprintf("the store has %v (seed %d)", want, seed), func(s *config.Set) bool { return slices.Equal(hosts(s), want) })
	}
	for i := range 300 {
		if i%30 == 29 && up {
			agree()
		}
		name := fmt.Sprint("e", random.IntN(20))
		switch n := random.IntN(100); {
		case n < 50 && kindThere:
			there[name] = fmt.Sprintf("h%d.example.com", random.IntN(1000))
			a.Apply(entryYAML(name, there[name]))
		case n < 85 && there[name] != "":
			a.Delete("ServiceEntry", "web/"+name)
			delete(there, name)
		case n < 88:
			a.Forget()
		case n < 91 && kindThere:
			a.Undefine("serviceentries")
			clear(there)
			kindThere = false
		case n < 94 && !kindThere:
			a.Define("serviceentries")
			kindThere = true
		case n < 97 && up && restarts < 3:
			a.Stop()
			up = false
			restarts++
		case !up:
			a.Start()
			up = true
		}
	}
	if !up {
		a.Start()
	}
	agree()
}
