package store

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A write puts or deletes one key, when the key has the revision that is expected.
type write struct {
	key    string
	value  []byte // nil for a deletion
	expect uint64 // revision of the item, 0 when there is to be none
	ttl    uint64 // seconds from now; 0 for ever
	keep   bool   // the item's time to live stays as it is
	done   chan outcome
}

type outcome struct {
	rev uint64
	err error
}

// errConflict says that the key has another revision than expected.
var errConflict = errors.New("the object has changed")

const (
	syncDelay    = 100 * time.Millisecond
	retryDelay   = 10 * time.Second // of expiry and rewriting, when the disk is full
	maxBatch     = 256
	minFile      = 4 << 20
	maxBatchSize = 4 << 20
)

// A writer is the only one to change the state and the file of a store.
type writer struct {
	store *Store
	file  *logFile // nil: memory only
	buf   []byte

	dirty     bool // the file is to be flushed when syncTimer fires
	syncTimer *time.Timer
	flushing  bool       // a flush runs in the background
	flushed   chan error // its end

	// The items that end by themselves, and when the first of them does.
	ending      map[string]time.Time
	expiryTimer *time.Timer
	expiry      time.Time

	refuses  bool      // the last write failed
	distrust bool      // a flush failed: what is in the file is not known
	nextTry  time.Time // of making the file smaller
}

func newWriter(s *Store, file *logFile) *writer {
	w := &writer{
		store: s, file: file,
		syncTimer: stoppedTimer(), flushed: make(chan error, 1),
		ending: map[string]time.Time{}, expiryTimer: stoppedTimer(),
	}
	s.state.items.Ascend(func(it *item) bool {
		w.noteExpiry(it.key, it)
		return true
	})
	return w
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// run serves writes until the store closes, and returns what went wrong with the last flush.
func (w *writer) run() error {
	defer w.syncTimer.Stop()
	defer w.expiryTimer.Stop()
	for {
		select {
		case first := <-w.store.writes:
			w.commit(w.gather(first))
			w.shrink()
		case <-w.expiryTimer.C:
			w.expire(time.Now())
		case <-w.syncTimer.C:
			w.flush()
		case err := <-w.flushed:
			w.flushEnded(err)
		case <-w.store.closing:
			return w.end()
		}
	}
}

// gather takes the writes that wait, too: they share a system call.
func (w *writer) gather(first *write) []*write {
	batch := []*write{first}
	for size := len(first.value); len(batch) < maxBatch && size < maxBatchSize; {
		select {
		case next := <-w.store.writes:
			batch = append(batch, next)
			size += len(next.value)
		default:
			return batch
		}
	}
	return batch
}

// commit does all writes of a batch that nothing speaks against, and answers each.
func (w *writer) commit(batch []*write) {
	var events []event
	var accepted []*write
	changed := map[string]*item{}
	state := w.store.state
	grown := state.bytes
	w.buf = w.buf[:0]
	for _, x := range batch {
		prev, isChanged := changed[x.key]
		if !isChanged {
			prev = state.get(x.key)
		}
		e, err := w.check(x, prev, &grown)
		if err != nil {
			x.answer(outcome{err: err})
			continue
		}
		e.rev = state.rev + uint64(len(events)) + 1
		w.buf = appendRecord(w.buf, e.stamp(x.key))
		changed[x.key] = e.item
		events = append(events, e)
		accepted = append(accepted, x)
	}
	err := w.append()
	if err == nil {
		w.store.publish(events)
	}
	for i, x := range accepted {
		if err == nil {
			w.noteExpiry(x.key, events[i].item)
		}
		x.answer(outcome{rev: events[i].rev, err: err})
	}
}

// check says what a write does to its key, or why it is refused.
func (w *writer) check(x *write, prev *item, total *int64) (event, error) {
	e := event{prev: prev}
	if prev == nil && x.expect != 0 || prev != nil && x.expect != prev.rev {
		return e, errConflict
	}
	grown := *total
	if prev != nil {
		grown -= prev.size()
	}
	if x.value != nil {
		e.item = &item{key: x.key, value: x.value, ttl: x.ttl}
		switch {
		case x.keep && prev != nil:
			e.item.ttl, e.item.expires = prev.ttl, prev.expires
		case x.ttl > 0:
			e.item.expires = time.Now().Add(seconds(x.ttl))
		}
		grown += e.item.size()
		if limit := w.store.options.MaxBytes; grown > limit && grown > *total {
			return e, status(http.StatusInsufficientStorage, fmt.Sprintf(
				"the objects would take %d bytes of memory, more than the %d that are allowed: delete some", grown, limit))
		}
	}
	*total = grown
	return e, nil
}

// stamp gives the item of an event its revision and returns its record.
func (e event) stamp(key string) record {
	if e.item == nil {
		return record{kind: recordDelete, item: item{rev: e.rev, key: key}}
	}
	e.item.rev = e.rev
	return record{kind: recordPut, item: *e.item}
}

func (x *write) answer(o outcome) {
	if x.done != nil {
		x.done <- o
	}
}

// append brings the records of a batch into the file.
func (w *writer) append() error {
	if w.file == nil || len(w.buf) == 0 {
		return nil
	}
	if w.distrust {
		if err := w.rewrite(); err != nil {
			return w.refusal(err)
		}
	}
	if err := w.file.append(w.buf); err != nil {
		return w.refusal(err)
	}
	if w.refuses {
		w.refuses = false
		w.store.options.Log.Info("objects can be written again", "dir", w.store.options.Dir)
	}
	if cap(w.buf) > maxBatchSize {
		w.buf = nil
	}
	if !w.dirty {
		w.dirty = true
		w.syncTimer.Reset(syncDelay)
	}
	return nil
}

// refusal is what clients are told when the file cannot be written.
func (w *writer) refusal(err error) error {
	dir := w.store.options.Dir
	if !w.refuses { // clients try again many times
		w.refuses = true
		w.store.options.Log.Error("objects cannot be written", "dir", dir, "error", err)
	}
	if noSpace(err) {
		return status(http.StatusInsufficientStorage, fmt.Sprintf("no space left for objects: free space in %s", dir))
	}
	return status(http.StatusInternalServerError, fmt.Sprintf("objects cannot be written to %s: %v", dir, err))
}

func status(code int32, message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: metav1.StatusReasonInternalError, Message: message,
	}}
}

// publish makes writes visible and tells the watches.
func (s *Store) publish(events []event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		s.state.apply(e)
		for w := range s.watchers {
			w.tell(e)
		}
	}
}

// flush has the file written to the disk in the background.
func (w *writer) flush() {
	if w.flushing {
		w.syncTimer.Reset(syncDelay)
		return
	}
	w.dirty, w.flushing = false, true
	file := w.file.file
	go func() { w.flushed <- file.Sync() }()
}

// flushEnded takes note of a flush that failed: the kernel may have dropped what it could not
// write, so that only a new file is sure to hold everything.
func (w *writer) flushEnded(err error) {
	w.flushing = false
	if err == nil {
		return
	}
	w.store.options.Log.Error("the file of objects cannot be flushed: it is written anew", "dir", w.store.options.Dir, "error", err)
	w.distrust = true
	if err := w.rewrite(); err != nil {
		w.store.options.Log.Error("the file of objects cannot be written anew", "error", err)
	}
}

// rewrite replaces the file by a snapshot, which is on the disk then.
func (w *writer) rewrite() error {
	w.awaitFlush()
	err := w.file.rewrite(w.store.state)
	if err == nil {
		w.distrust, w.dirty = false, false
		w.syncTimer.Stop()
	}
	return err
}

func (w *writer) awaitFlush() {
	if w.flushing {
		w.distrust = <-w.flushed != nil || w.distrust
		w.flushing = false
	}
}

// shrink replaces a file that is mostly history.
func (w *writer) shrink() {
	if w.file == nil || w.file.size < max(minFile, 2*w.store.state.bytes) || time.Now().Before(w.nextTry) {
		return
	}
	if err := w.rewrite(); err != nil {
		w.nextTry = time.Now().Add(retryDelay)
		w.store.options.Log.Warn("the file of objects stays large", "dir", w.store.options.Dir, "error", err)
	}
}

// end leaves the file flushed and closed.
func (w *writer) end() error {
	if w.file == nil {
		return nil
	}
	w.awaitFlush()
	var err error
	if w.distrust {
		err = w.rewrite()
	}
	return errors.Join(err, w.file.file.Sync(), w.file.file.Close())
}

// noteExpiry remembers when a key's item ends.
func (w *writer) noteExpiry(key string, it *item) {
	if it == nil || it.ttl == 0 {
		delete(w.ending, key)
		return
	}
	w.ending[key] = it.expires
	if w.expiry.IsZero() || it.expires.Before(w.expiry) {
		w.wakeAt(it.expires)
	}
}

func (w *writer) wakeAt(t time.Time) {
	w.expiry = t
	w.expiryTimer.Reset(max(time.Until(t), 0))
}

// expire deletes what has ended, and looks again when the next does, but at most once a second:
// many items that end one after the other go together.
func (w *writer) expire(now time.Time) {
	var batch []*write
	next := time.Time{}
	for key, at := range w.ending {
		switch {
		case !at.After(now) && len(batch) < maxBatch:
			batch = append(batch, &write{key: key, expect: w.store.state.get(key).rev})
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	w.commit(batch)
	if len(batch) > 0 && w.store.state.get(batch[0].key) != nil {
		w.wakeAt(now.Add(retryDelay)) // refused: the disk is full
		return
	}
	w.expiry = time.Time{}
	if !next.IsZero() {
		w.wakeAt(laterOf(next, now.Add(time.Second)))
	}
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
