package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/tools/cache"
)

var everything = storage.ListOptions{Predicate: storage.Everything, Recursive: true}

// create and update write a pod through the kind and return it.
func create(t testing.TB, k *kind, namespace, name string) *example.Pod {
	t.Helper()
	out := &example.Pod{}
	pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := k.Create(context.Background(), podKey(namespace, name), pod, out, 0); err != nil {
		t.Fatal(err)
	}
	return out
}

func label(k *kind, namespace, name, value string) error {
	return k.GuaranteedUpdate(context.Background(), podKey(namespace, name), &example.Pod{}, false, nil, relabel(value), nil)
}

func relabel(value string) storage.UpdateFunc {
	return storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
		obj.(*example.Pod).Labels = map[string]string{"n": value}
		return obj, nil
	})
}

func remove(k *kind, namespace, name string) error {
	return k.Delete(context.Background(), podKey(namespace, name), &example.Pod{}, nil,
		storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{})
}

func podKey(namespace, name string) string { return "/pods/" + namespace + "/" + name }

func watchPods(t *testing.T, k *kind, key string, opts storage.ListOptions) watch.Interface {
	t.Helper()
	w, err := k.Watch(t.Context(), key, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// told is an event in short: type, name, revision and label of the object, or reason and code of
// an error.
func told(e watch.Event) string {
	switch obj := e.Object.(type) {
	case *example.Pod:
		line := fmt.Sprintf("%s %s@%s %s", e.Type, obj.Name, obj.ResourceVersion, obj.Labels["n"])
		if obj.Annotations[metav1.InitialEventsAnnotationKey] == "true" {
			line += "initial events end"
		}
		return strings.TrimSpace(line)
	case *metav1.Status:
		return fmt.Sprintf("%s %s %d %s", e.Type, obj.Reason, obj.Code, obj.Message)
	}
	return fmt.Sprint(e)
}

// A watch that does not read never holds up a write, and is told when it has missed some.
func TestSlowWatch(t *testing.T) {
	k := pods(t, open(t, Options{Window: 16}))
	w := watchPods(t, k, "/pods/a", everything)
	const writes = 1000
	for i := range writes {
		create(t, k, "a", strconv.Itoa(i))
	}
	last, next := watch.Event{}, 0
	for e := range w.ResultChan() {
		last = e
		if e.Type == watch.Added {
			if name := e.Object.(*example.Pod).Name; name != strconv.Itoa(next) {
				t.Fatalf("%s follows %d", name, next-1)
			}
			next++
		}
	}
	if got := told(last); !strings.HasPrefix(got, "ERROR Expired 410 too old resource version: ") || next == writes {
		t.Errorf("after %d events: %s", next, got)
	}
}

// A watch may fall as far behind as the window is long, and no write further.
func TestWatchAtTheEdgeOfTheWindow(t *testing.T) {
	const window = 16
	for missed, want := range map[int]string{window: "", window + 1: "too old resource version: 1 (2)"} {
		k := pods(t, open(t, Options{Window: window}))
		w := &watcher{kind: k, span: span{"/pods/", true}, wake: make(chan struct{}, 1), result: make(chan watch.Event)}
		w.ctx, w.cancel = context.WithCancel(t.Context())
		if _, err := w.begin(firstRevision, everything); err != nil {
			t.Fatal(err)
		}
		for i := range missed {
			create(t, k, "a", strconv.Itoa(i))
		}
		turn := w.take()
		if want == "" && len(turn.events) != missed || want != "" && (turn.err == nil || turn.err.Error() != want) {
			t.Errorf("%d writes behind: %d events, %v; want %q", missed, len(turn.events), turn.err, want)
		}
		k.store.leave(w)
	}
}

// A watch that has nothing to read is not slow, however much is written elsewhere.
func TestIdleWatch(t *testing.T) {
	k := pods(t, open(t, Options{Window: 16}))
	w := watchPods(t, k, "/pods/a", everything)
	for i := range 100 {
		create(t, k, "b", strconv.Itoa(i))
	}
	pod := create(t, k, "a", "x")
	if got, want := told(<-w.ResultChan()), "ADDED x@"+pod.ResourceVersion; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWatchFromBeforeTheWindow(t *testing.T) {
	k := pods(t, open(t, Options{Window: 16}))
	var revs []string
	for i := range 20 {
		revs = append(revs, create(t, k, "a", strconv.Itoa(i)).ResourceVersion)
	}
	opts := everything
	opts.ResourceVersion = revs[2]
	if got, want := told(<-watchPods(t, k, "/pods", opts).ResultChan()), "ERROR Expired 410 too old resource version: 4 (5)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	opts.ResourceVersion = revs[3]
	if got, want := told(<-watchPods(t, k, "/pods", opts).ResultChan()), "ADDED 4@6"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// An object that comes to match a selector is added for a watch with it, one that ceases to is
// deleted.
func TestWatchWithASelector(t *testing.T) {
	k := pods(t, open(t, Options{}))
	opts := everything
	opts.Predicate = storage.SelectionPredicate{
		Label: labels.SelectorFromSet(labels.Set{"n": "1"}), Field: fields.Everything(),
		GetAttrs: func(obj runtime.Object) (labels.Set, fields.Set, error) {
			return obj.(*example.Pod).Labels, nil, nil
		},
	}
	create(t, k, "a", "x")
	opts.SendInitialEvents = new(bool)
	w := watchPods(t, k, "/pods/a", opts)
	for _, value := range []string{"1", "1", "2", "1"} { // the second changes nothing
		if err := label(k, "a", "x", value); err != nil {
			t.Fatal(err)
		}
	}
	if err := remove(k, "a", "x"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ADDED x@3 1", "DELETED x@4 1", "ADDED x@5 1", "DELETED x@6 1"} {
		if got := told(<-w.ResultChan()); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A watch that allows it is told the revision every minute, and shortly before its end.
func TestBookmarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := pods(t, open(t, Options{}))
		create(t, k, "a", "x")
		opts := everything
		opts.Predicate.AllowWatchBookmarks = true
		yes := true
		opts.SendInitialEvents = &yes
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
		defer cancel()
		start := time.Now()
		w, err := k.Watch(ctx, "/pods/a", opts)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for e := range w.ResultChan() {
			got = append(got, fmt.Sprint(time.Since(start), " ", told(e)))
			if e.Type == watch.Bookmark {
				create(t, k, "b", fmt.Sprint(len(got)))
			}
		}
		want := "[0s ADDED x@2 0s BOOKMARK @2 initial events end 1m0s BOOKMARK @3 2m0s BOOKMARK @4 2m28s BOOKMARK @5]"
		if fmt.Sprint(got) != want {
			t.Errorf("%v\nwant %s", got, want)
		}
	})
}

// RequestWatchProgress reaches the watches that asked for progress, at once.
func TestWatchProgress(t *testing.T) {
	k := pods(t, open(t, Options{}))
	opts := everything
	opts.ProgressNotify = true
	w := watchPods(t, k, "/pods/a", opts)
	pod := create(t, k, "b", "x")
	if err := k.RequestWatchProgress(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := told(<-w.ResultChan()), "BOOKMARK @"+pod.ResourceVersion; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// An object with a time to live is deleted when that is over: with a revision, and an event.
func TestTimeToLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := pods(t, open(t, Options{}))
		w := watchPods(t, k, "/pods/a", everything)
		start := time.Now()
		for i, ttl := range []uint64{3600, 60, 0, 3600} {
			name := strconv.Itoa(i)
			if err := k.Create(t.Context(), podKey("a", name), &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}}, nil, ttl); err != nil {
				t.Fatal(err)
			}
		}
		if err := label(k, "a", "0", "kept"); err != nil { // leaves the time as it is
			t.Fatal(err)
		}
		if err := remove(k, "a", "3"); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"0s ADDED 0@2", "0s ADDED 1@3", "0s ADDED 2@4", "0s ADDED 3@5", "0s MODIFIED 0@6 kept", "0s DELETED 3@7",
			"1m0s DELETED 1@8", "1h0m0s DELETED 0@9 kept",
		}
		for _, line := range want {
			e := <-w.ResultChan()
			if got := fmt.Sprint(time.Since(start), " ", told(e)); got != line {
				t.Errorf("%s, want %s", got, line)
			}
		}
		if it, _ := k.store.get("/pods/a/2"); it == nil {
			t.Error("an object without a time to live is gone")
		}
	})
}

func TestCloseEndsWatches(t *testing.T) {
	k := pods(t, open(t, Options{}))
	w := watchPods(t, k, "/pods/a", everything)
	if err := k.ReadinessCheck(); err != nil {
		t.Error(err)
	}
	if err := k.store.Close(); err != nil {
		t.Fatal(err)
	}
	if e, more := <-w.ResultChan(); more {
		t.Errorf("%s", told(e))
	}
	if _, err := k.Watch(t.Context(), "/pods/a", everything); statusCode(err) != 503 {
		t.Errorf("a watch after Close: %v", err)
	}
	if k.ReadinessCheck() == nil {
		t.Error("ready after Close")
	}
}

// client-go's informers stay true to a store, though its window is so short that they fall out of
// it now and then and list again.
func TestInformers(t *testing.T) {
	k := pods(t, open(t, Options{Dir: t.TempDir(), Window: 16}))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var informers []cache.SharedIndexInformer
	for range 4 {
		informer := cache.NewSharedIndexInformer(listWatch(k), &example.Pod{}, 0, cache.Indexers{})
		informers = append(informers, informer)
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for n := range 300 {
				name := fmt.Sprintf("%d-%d", i, n%10)
				switch {
				case n < 10:
					create(t, k, "a", name)
				case n%7 == 0:
					if err := remove(k, "a", name); err != nil {
						t.Error(err)
					}
					create(t, k, "a", name)
				default:
					if err := label(k, "a", name, strconv.Itoa(n)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	end := create(t, k, "a", "end")
	for _, informer := range informers {
		// An informer hands on what its reflector saw, the last write last.
		seen := make(chan struct{})
		var once sync.Once
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
			if obj.(*example.Pod).Name == end.Name {
				once.Do(func() { close(seen) })
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		<-seen
		list := &example.PodList{}
		if err := k.GetList(ctx, "/pods", everything, list); err != nil {
			t.Fatal(err)
		}
		if have := informer.GetStore().List(); len(have) != len(list.Items) {
			t.Errorf("%d pods, want %d", len(have), len(list.Items))
		}
		for _, pod := range list.Items {
			obj, _, err := informer.GetStore().GetByKey("a/" + pod.Name)
			if err != nil || obj == nil || obj.(*example.Pod).ResourceVersion != pod.ResourceVersion {
				t.Errorf("%s is %v, want revision %s", pod.Name, obj, pod.ResourceVersion)
			}
		}
	}
}

// listWatch is what the API server makes of a client's requests.
func listWatch(k *kind) *cache.ListWatch {
	options := func(o metav1.ListOptions) storage.ListOptions {
		opts := everything
		opts.ResourceVersion, opts.ResourceVersionMatch = o.ResourceVersion, o.ResourceVersionMatch
		opts.Predicate.Limit, opts.Predicate.Continue = o.Limit, o.Continue
		opts.Predicate.AllowWatchBookmarks, opts.SendInitialEvents = o.AllowWatchBookmarks, o.SendInitialEvents
		return opts
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &example.PodList{}
			return list, k.GetList(ctx, "/pods", options(o), list)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return k.Watch(ctx, "/pods", options(o))
		},
	}
}
