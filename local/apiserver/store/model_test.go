package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"
	"pgregory.net/rapid"
)

// A model is what a store is to be to its users: what there was at each revision.
type model struct {
	t      *testing.T
	dir    string
	kind   *kind
	window int

	rev     uint64
	history map[uint64]map[string]string // revision: name: "revision label"
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := &model{t: t, dir: t.TempDir(), window: rapid.IntRange(1, 40).Draw(r, "window"), rev: firstRevision}
		m.history = map[uint64]map[string]string{m.rev: {}}
		m.reopen(r)
		defer func() { m.kind.store.Close() }()
		r.Repeat(map[string]func(*rapid.T){
			"create": m.create,
			"update": m.update,
			"delete": m.delete,
			"list":   m.list,
			"pages":  m.pages,
			"watch":  m.watch,
			"reopen": m.reopen,
			"":       m.get,
		})
	})
}

var podNames = rapid.SampledFrom([]string{"a", "b", "b-c", "bc", "c"})

func (m *model) now() map[string]string { return m.history[m.rev] }

// wrote notes what a write left under a name: nothing, when it is a deletion.
func (m *model) wrote(r *rapid.T, name string, pod *example.Pod, deleted bool) {
	m.rev++
	if pod.ResourceVersion != strconv.FormatUint(m.rev, 10) {
		r.Fatalf("%s has revision %s, want %d", name, pod.ResourceVersion, m.rev)
	}
	next := maps.Clone(m.history[m.rev-1])
	if deleted {
		delete(next, name)
	} else {
		next[name] = short(pod)
	}
	m.history[m.rev] = next
}

func short(pod *example.Pod) string { return pod.ResourceVersion + " " + pod.Labels["n"] }

func (m *model) create(r *rapid.T) {
	name, out := podNames.Draw(r, "name"), &example.Pod{}
	pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}}
	err := m.kind.Create(context.Background(), podKey("a", name), pod, out, 0)
	if _, exists := m.now()[name]; exists {
		if !storage.IsExist(err) {
			r.Fatalf("creating %s again: %v", name, err)
		}
		return
	}
	if err != nil {
		r.Fatal(err)
	}
	m.wrote(r, name, out, false)
}

func (m *model) update(r *rapid.T) {
	name, value, out := podNames.Draw(r, "name"), rapid.SampledFrom([]string{"x", "y"}).Draw(r, "value"), &example.Pod{}
	err := m.kind.GuaranteedUpdate(context.Background(), podKey("a", name), out, false, nil, relabel(value), nil)
	before, exists := m.now()[name]
	switch {
	case !exists:
		if !storage.IsNotFound(err) {
			r.Fatalf("updating %s, which is not there: %v", name, err)
		}
	case err != nil:
		r.Fatal(err)
	case strings.HasSuffix(before, " "+value):
		if short(out) != before {
			r.Fatalf("an update that changes nothing makes %q of %q", short(out), before)
		}
	default:
		m.wrote(r, name, out, false)
	}
}

func (m *model) delete(r *rapid.T) {
	name, out := podNames.Draw(r, "name"), &example.Pod{}
	err := m.kind.Delete(context.Background(), podKey("a", name), out, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{})
	if _, exists := m.now()[name]; !exists {
		if !storage.IsNotFound(err) {
			r.Fatalf("deleting %s, which is not there: %v", name, err)
		}
		return
	}
	if err != nil {
		r.Fatal(err)
	}
	m.wrote(r, name, out, true)
}

func (m *model) get(r *rapid.T) {
	for name, want := range m.now() {
		pod := &example.Pod{}
		if err := m.kind.Get(context.Background(), podKey("a", name), storage.GetOptions{}, pod); err != nil || short(pod) != want {
			r.Fatalf("%s is %q, want %q: %v", name, short(pod), want, err)
		}
	}
}

// draw takes any revision, also one that the window no longer covers.
func (m *model) draw(r *rapid.T) uint64 {
	return rapid.Uint64Range(firstRevision, m.rev).Draw(r, "revision")
}

// covered is true when the window covers a revision: it holds as many of the last writes as it may.
func (m *model) covered(r *rapid.T, rev uint64) bool {
	start := m.kind.store.compacted()
	if m.rev-start != min(m.rev-firstRevision, uint64(m.window)) {
		r.Fatalf("the window of %d begins after %d, and the revision is %d", m.window, start, m.rev)
	}
	return rev >= start
}

func (m *model) list(r *rapid.T) {
	rev := m.draw(r)
	list := &example.PodList{}
	opts := everything
	opts.ResourceVersion, opts.ResourceVersionMatch = strconv.FormatUint(rev, 10), metav1.ResourceVersionMatchExact
	err := m.kind.GetList(context.Background(), "/pods/a", opts, list)
	if !m.covered(r, rev) {
		if statusCode(err) != 410 {
			r.Fatalf("a list at %d, before the window: %v", rev, err)
		}
		return
	}
	if err != nil || list.ResourceVersion != opts.ResourceVersion {
		r.Fatalf("a list at %d is of %s: %v", rev, list.ResourceVersion, err)
	}
	m.compare(r, list.Items, rev)
}

func (m *model) compare(r *rapid.T, pods []example.Pod, rev uint64) {
	got := map[string]string{}
	for _, pod := range pods {
		got[pod.Name] = short(&pod)
	}
	sorted := slices.IsSortedFunc(pods, func(a, b example.Pod) int { return strings.Compare(a.Name, b.Name) })
	if !maps.Equal(got, m.history[rev]) || !sorted || len(got) != len(pods) {
		r.Fatalf("at %d there are %v, want %v", rev, pods, m.history[rev])
	}
}

// pages of a list show one revision, whatever is written in between, as long as the window covers
// it.
func (m *model) pages(r *rapid.T) {
	first := m.rev
	opts := everything
	opts.Predicate.Limit = rapid.Int64Range(1, 3).Draw(r, "limit")
	var pods []example.Pod
	for {
		list := &example.PodList{}
		err := m.kind.GetList(context.Background(), "/pods/a", opts, list)
		if err != nil {
			if statusCode(err) != 410 || m.covered(r, first) {
				r.Fatalf("the page after %d pods: %v", len(pods), err)
			}
			return
		}
		pods = append(pods, list.Items...)
		if list.Continue == "" {
			break
		}
		if left := int64(len(m.history[first]) - len(pods)); list.RemainingItemCount == nil || *list.RemainingItemCount != left {
			r.Fatalf("%v are left, want %d", list.RemainingItemCount, left)
		}
		opts.Predicate.Continue = list.Continue
		rapid.SampledFrom([]func(*rapid.T){m.create, m.update, m.delete, m.get}).Draw(r, "meanwhile")(r)
	}
	m.compare(r, pods, first)
}

// watch from a revision tells exactly what leads from there to the present.
func (m *model) watch(r *rapid.T) {
	from := m.draw(r)
	opts := everything
	opts.ResourceVersion = strconv.FormatUint(from, 10)
	w, err := m.kind.Watch(context.Background(), "/pods/a", opts)
	if err != nil {
		r.Fatal(err)
	}
	defer w.Stop()
	if !m.covered(r, from) {
		if got := told(<-w.ResultChan()); !strings.HasPrefix(got, "ERROR Expired 410") {
			r.Fatalf("a watch from %d, before the window: %s", from, got)
		}
		return
	}
	for rev := from + 1; rev <= m.rev; rev++ {
		if got, want := told(<-w.ResultChan()), m.change(rev); got != want {
			r.Fatalf("a watch from %d: %s, want %s", from, got, want)
		}
	}
}

// change is what a watch tells of a revision.
func (m *model) change(rev uint64) string {
	before, after := m.history[rev-1], m.history[rev]
	for name, is := range after {
		was, existed := before[name]
		verb := "ADDED"
		if existed {
			verb = "MODIFIED"
		}
		if was != is {
			revision, value, _ := strings.Cut(is, " ")
			return strings.TrimSpace(fmt.Sprintf("%s %s@%s %s", verb, name, revision, value))
		}
	}
	for name, was := range before {
		if _, exists := after[name]; !exists {
			_, value, _ := strings.Cut(was, " ")
			return strings.TrimSpace(fmt.Sprintf("DELETED %s@%d %s", name, rev, value))
		}
	}
	return "nothing"
}

// reopen restarts the store over its file, or opens it first.
func (m *model) reopen(r *rapid.T) {
	if m.kind != nil {
		if err := m.kind.store.Close(); err != nil {
			r.Fatal(err)
		}
	}
	s, problems, err := Open(Options{Dir: m.dir, Window: m.window})
	if err != nil || len(problems) > 0 || s.revision() != m.rev {
		r.Fatalf("%v %v", problems, err)
	}
	m.kind = pods(m.t, s)
	m.get(r)
}
