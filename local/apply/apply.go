// Package apply keeps the objects of files applied to a Kubernetes API.
//
// An Applier reads a tree of YAML files, applies each object that changed by
// server-side apply with strict field validation, and watches the tree. The files
// say what there is: an object that disappears from them is deleted, also when that
// happened while nobody watched, for what was applied is remembered in a file. What
// somebody changes through the API stays until the file changes; what is missing in the
// API at the start is applied again.
//
// Faults stay where they are. An object that the API refuses is named with file,
// line and field, and is tried again; a file that cannot be read or parsed deletes
// nothing.
package apply

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/file"
)

// FieldManager is how the API calls the owner of fields that files set.
const FieldManager = "lateen-up"

// Times between attempts at what failed.
const (
	firstRetry = 100 * time.Millisecond
	maxRetry   = 15 * time.Second
)

// Options say what is applied where.
type Options struct {
	Config *rest.Config
	Tree   file.Tree
	Stdin  []byte       // what "-" means
	Own    func() []Own // objects of the engine itself, applied before those of files; asked at each pass, nil for none
	Memory string       // file that remembers what was applied; "" forgets
	// Hold is called before workloads of files are applied, and returns when they may be: what
	// changes pods as they are made is there then. Nil: at once.
	Hold func(context.Context)
	Log  *slog.Logger
}

// An Own is an object of no file.
type Own struct {
	config.Document
	// Once says that the object is made where there is none, and left as it is where there is one.
	Once bool
}

// A Status says what an Applier has done.
type Status struct {
	Objects  int              `json:"objects"` // that the API has from files
	Files    int              `json:"files"`
	Problems []config.Problem `json:"problems,omitempty"`
}

// An Applier is made by New. Its methods are safe for concurrent use.
type Applier struct {
	o      Options
	client dynamic.Interface
	mapper *restmapper.DeferredDiscoveryRESTMapper
	first  chan struct{}      // closed after the first pass that reached the API
	asked  chan chan struct{} // passes that Again waits for

	mu      sync.Mutex
	status  Status
	applied map[identity]record // what the API has from files
	files   map[string][]byte   // last text that was read
	unsure  map[identity]bool   // applied by an earlier run, and not seen in the API since
	once    map[identity]bool   // Own.Once
	written []byte              // to Options.Memory
}

// New prepares an Applier; nothing is read or applied yet.
func New(o Options) (*Applier, error) {
	c := rest.CopyConfig(o.Config)
	c.QPS, c.WarningHandler = -1, rest.NoWarnings{}
	client, err := dynamic.NewForConfig(c)
	if err != nil {
		return nil, err
	}
	d, err := discovery.NewDiscoveryClientForConfig(c)
	if err != nil {
		return nil, err
	}
	a := &Applier{o: o, client: client, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d)),
		first: make(chan struct{}), asked: make(chan chan struct{}), files: map[string][]byte{}, unsure: map[identity]bool{}}
	a.applied, err = recall(o.Memory)
	for id := range a.applied {
		a.unsure[id] = true
	}
	return a, err
}

// Applied is closed once everything was offered to the API.
func (a *Applier) Applied() <-chan struct{} { return a.first }

// Again tries at once what was refused, as when the API has learnt new kinds, and returns
// when that is done, or the context ends.
func (a *Applier) Again(ctx context.Context) {
	done := make(chan struct{})
	select {
	case a.asked <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Status is that of the last pass.
func (a *Applier) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.status
	s.Problems = slices.Clone(s.Problems)
	return s
}

// Run applies and watches until ctx ends.
func (a *Applier) Run(ctx context.Context) {
	changed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		a.o.Tree.Watch(ctx, func([]string) {
			select {
			case changed <- struct{}{}:
			default: // one is waiting already
			}
		})
	})
	defer watching.Wait()
	retry := firstRetry
	var asked chan struct{}
	for {
		again := time.NewTimer(maxRetry)
		done := a.pass(ctx)
		if asked != nil {
			close(asked)
			asked = nil
		}
		if done {
			retry = firstRetry
		} else {
			again.Reset(retry)
			retry = min(2*retry, maxRetry)
		}
		select {
		case <-ctx.Done():
			again.Stop()
			return
		case <-changed:
			retry = firstRetry
		case asked = <-a.asked:
			retry = firstRetry
		case <-again.C:
		}
		again.Stop()
	}
}

// pass brings the API up to what the files say and reports whether nothing is left to
// try again.
func (a *Applier) pass(ctx context.Context) bool {
	want := a.read()
	work := a.compare(want)
	missing, known := a.missing(ctx, work.keep)
	failed, reached := a.offerAll(ctx, append(work.apply, missing...))
	if reached {
		failed = append(failed, a.withdraw(ctx, work.remove)...)
	}
	if ctx.Err() != nil {
		return true
	}
	a.conclude(want, failed)
	if reached {
		select {
		case <-a.first:
		default:
			close(a.first)
		}
	}
	return reached && known && len(failed) == 0
}

// conclude notes what a pass found, and logs what is new in it.
func (a *Applier) conclude(want wanted, failed []config.Problem) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := map[string]bool{}
	for _, p := range a.status.Problems {
		before[p.Error()] = true
	}
	problems := append(slices.Clone(want.problems), failed...)
	for _, p := range problems {
		if !before[p.Error()] {
			a.o.Log.Error(p.Error())
		}
	}
	a.status = Status{Files: want.files, Problems: problems}
	for _, r := range a.applied {
		if r.File != "" {
			a.status.Objects++
		}
	}
	if err := a.remember(); err != nil {
		a.o.Log.Error("what was applied cannot be written down: objects that disappear from files before the next start will stay", "error", err)
	}
}

// reset forgets what the mapper knew: kinds may have come or gone.
func (a *Applier) reset(err error) {
	if meta.IsNoMatchError(err) {
		a.mapper.Reset()
	}
}
