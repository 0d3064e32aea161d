package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/util/flowcontrol"
)

const (
	watchBuffer = 100 // decoded events that wait for the client
	watchTurn   = 100 // events that are taken from the window at a time
	// A watch that ends at a known time is told the revision shortly before, so that its client's
	// next one begins there.
	bookmarkAhead = 2 * time.Second
)

// A watcher is one watch: a watch.Interface, and the place in the window up to which it has read.
type watcher struct {
	kind      *kind
	span      span
	predicate storage.SelectionPredicate
	bookmarks bool // are sent from time to time
	progress  bool // and when RequestWatchProgress is called

	ctx    context.Context // of the request: a watch lives as long
	cancel context.CancelFunc
	result chan watch.Event
	wake   chan struct{} // holds one: there is something to take

	// Guarded by the store's lock. What tell and ask set, only the watch's own goroutine takes
	// back, for which reading the lock is enough.
	after   uint64 // events of later revisions are sent
	pending uint64 // revision of the first event that is not taken; 0 when there is none
	asked   bool   // a bookmark is to be sent now
}

// Watch sends what happens under a key after a revision, and before that, when it is 0 or
// SendInitialEvents asks for them, the objects that are there.
func (k *kind) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	key, err := k.key(key, opts.Recursive)
	if err != nil {
		return nil, err
	}
	from, err := k.versioner.ParseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	if opts.ProgressNotify && k.newFunc == nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("a watch of %s cannot tell its progress: the kind has no empty object", k.name))
	}
	w := &watcher{
		kind: k, span: span{key, opts.Recursive}, predicate: opts.Predicate,
		bookmarks: k.newFunc != nil && (opts.Predicate.AllowWatchBookmarks || opts.ProgressNotify),
		progress:  opts.ProgressNotify,
		result:    make(chan watch.Event, watchBuffer),
		wake:      make(chan struct{}, 1),
	}
	w.ctx, w.cancel = context.WithCancel(ctx)
	b, err := w.begin(from, opts)
	if err != nil {
		w.cancel()
		return nil, err
	}
	go w.run(b)
	flowcontrol.WatchInitialized(ctx)
	return w, nil
}

// A beginning is what a watch sends first.
type beginning struct {
	items    []*item
	rev      uint64
	bookmark bool  // marks their end
	err      error // ends the watch
}

// begin finds the place where a watch begins and enters it among those that are told of writes, in
// one step, so that it misses nothing.
func (w *watcher) begin(from uint64, opts storage.ListOptions) (beginning, error) {
	s := w.kind.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return beginning{}, errClosed()
	}
	var b beginning
	b.rev = s.state.rev
	w.after = s.state.rev
	initial := from == 0
	if opts.SendInitialEvents != nil {
		initial = *opts.SendInitialEvents
	}
	switch {
	case initial && from > b.rev:
		b.err = storage.NewTooLargeResourceVersionError(from, b.rev, 1)
	case initial:
		b.items = s.state.list(w.span, "", b.rev)
		b.bookmark = opts.SendInitialEvents != nil && opts.Predicate.AllowWatchBookmarks && w.bookmarks
	case from == 0:
	default:
		w.after = from
		if from < b.rev {
			w.pending = from + 1
		}
	}
	s.running.Add(1)
	s.watchers[w] = struct{}{}
	return b, nil
}

func tooOld(rev, start uint64) error {
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", rev, start))
}

// Stop ends the watch. Its channel is closed soon after, by the watch itself.
func (w *watcher) Stop() { w.cancel() }

// ResultChan is where the events come.
func (w *watcher) ResultChan() <-chan watch.Event { return w.result }

// tell says that there was a write. The caller has the store's lock.
func (w *watcher) tell(e event) {
	if w.pending == 0 && e.rev > w.after && w.span.has(e.key()) {
		w.pending = e.rev
		w.poke()
	}
}

func (w *watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// A turn is what a watch has to do next.
type turn struct {
	events []event
	rev    uint64 // nothing up to here is left to be sent, when there are no events
	asked  bool
	err    error
}

func (w *watcher) take() turn {
	s := w.kind.store
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := turn{rev: s.state.rev, asked: w.asked}
	from := w.pending
	w.pending, w.asked = 0, false
	switch {
	case from == 0:
		return t
	case from <= s.state.window.start:
		t.err = tooOld(from-1, s.state.window.start)
		return t
	}
	for rev := from; rev <= s.state.rev; rev++ {
		e := s.state.window.at(rev)
		if !w.span.has(e.key()) {
			continue
		}
		if len(t.events) == watchTurn {
			w.pending = rev
			break
		}
		t.events = append(t.events, e)
	}
	return t
}

// run sends until the request ends, the store closes or the watch is too slow.
func (w *watcher) run(b beginning) {
	defer w.kind.store.leave(w)
	if b.err != nil {
		w.fail(b.err)
		return
	}
	for i, it := range b.items {
		if !w.deliver(event{rev: it.rev, item: it}) {
			return
		}
		b.items[i] = nil // a later write may replace it while this client is slow
	}
	if b.bookmark && !w.sendBookmark(b.rev, true) {
		return
	}
	w.follow()
}

// follow sends what happens from now on.
func (w *watcher) follow() {
	timer := stoppedTimer()
	defer timer.Stop()
	if w.bookmarks {
		timer.Reset(w.untilBookmark())
	}
	due := false
	for {
		t := w.take()
		if t.err != nil {
			w.fail(t.err)
			return
		}
		for _, e := range t.events {
			if !w.deliver(e) {
				return
			}
		}
		due = due || t.asked
		if len(t.events) > 0 {
			continue
		}
		if due && !w.sendBookmark(t.rev, false) {
			return
		}
		due = false
		select {
		case <-w.wake:
		case <-timer.C:
			due = true
			timer.Reset(w.untilBookmark())
		case <-w.ctx.Done():
			return
		}
	}
}

func (w *watcher) untilBookmark() time.Duration {
	every := w.kind.store.bookmarkEvery
	if deadline, ok := w.ctx.Deadline(); ok {
		if left := time.Until(deadline) - bookmarkAhead; left > 0 {
			return min(every, left)
		}
	}
	return every
}

// deliver sends an event, when it concerns the client. It is false when the watch is over.
func (w *watcher) deliver(e event) bool {
	sent, err := w.translate(e)
	if err != nil {
		w.fail(err)
		return false
	}
	return sent == nil || w.send(*sent)
}

// translate makes of a write what it is to a client that sees only what its predicate matches.
func (w *watcher) translate(e event) (*watch.Event, error) {
	var now, before runtime.Object
	var err error
	all := w.predicate.Empty()
	if e.item != nil {
		if now, err = w.object(e.item, e.rev); err != nil {
			return nil, err
		}
	}
	if e.prev != nil && (e.item == nil || !all) {
		// A deleted object has the revision of its deletion.
		if before, err = w.object(e.prev, e.rev); err != nil {
			return nil, unreadable(e, err)
		}
	}
	is := now != nil && (all || w.matches(now))
	was := e.prev != nil && (all || w.matches(before))
	switch {
	case is && was:
		return &watch.Event{Type: watch.Modified, Object: now}, nil
	case is:
		return &watch.Event{Type: watch.Added, Object: now}, nil
	case was:
		return &watch.Event{Type: watch.Deleted, Object: before}, nil
	}
	return nil, nil
}

func (w *watcher) matches(obj runtime.Object) bool {
	matched, err := w.predicate.Matches(obj)
	return err == nil && matched
}

func (w *watcher) object(it *item, rev uint64) (runtime.Object, error) {
	data, _, err := w.kind.read(w.ctx, it)
	if err != nil {
		return nil, err
	}
	obj, err := runtime.Decode(w.kind.codec, data)
	if err != nil {
		return nil, storage.NewCorruptObjError(it.key, err)
	}
	return obj, w.kind.versioner.UpdateObject(obj, rev)
}

// unreadable is what clients understand to mean that an object is gone of which nothing more can
// be said.
func unreadable(e event, err error) error {
	if e.item != nil {
		return err
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonStoreReadError,
		Message: fmt.Sprintf("saw a DELETED event, but object data is corrupt: %v", err),
	}}
}

func (w *watcher) sendBookmark(rev uint64, initialEnd bool) bool {
	obj := w.kind.newFunc()
	err := w.kind.versioner.UpdateObject(obj, rev)
	if err == nil && initialEnd {
		err = storage.AnnotateInitialEventsEndBookmark(obj)
	}
	if err != nil {
		w.fail(err)
		return false
	}
	return w.send(watch.Event{Type: watch.Bookmark, Object: obj})
}

func (w *watcher) send(e watch.Event) bool {
	if w.ctx.Err() != nil {
		return false
	}
	select {
	case w.result <- e:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// fail sends the error that ends the watch.
func (w *watcher) fail(err error) {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	w.send(watch.Event{Type: watch.Error, Object: &status})
}

// leave ends a watch that has nothing more to send.
func (s *Store) leave(w *watcher) {
	s.mu.Lock()
	delete(s.watchers, w)
	s.mu.Unlock()
	w.cancel()
	close(w.result)
	s.running.Done()
}

// RequestWatchProgress has the watches of this kind that were opened with ProgressNotify send a
// bookmark.
func (k *kind) RequestWatchProgress(context.Context) error {
	k.store.mu.Lock()
	defer k.store.mu.Unlock()
	for w := range k.store.watchers {
		if w.kind == k && w.progress {
			w.asked = true
			w.poke()
		}
	}
	return nil
}
