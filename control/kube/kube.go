// Package kube feeds a config.Store from a Kubernetes API. It is the only user of a
// Kubernetes client on the control side.
//
// A Source follows every kind of config.Kinds: those of Kubernetes itself from the start,
// custom ones in the newest version that the API serves, from when their
// CustomResourceDefinition is there until it is gone. Each object is judged as one of a
// file is, but for fields that this version does not know, and only what the mesh reads
// of it is kept: no managed fields, no status of Pods but their addresses and readiness,
// no content of Secrets and ConfigMaps but certificates and the mesh's own settings.
//
//	API ─► one Reflector a kind ─► shelf: what is known of each object ─► Store, one generation a batch
//
// What the API holds at first is one generation, made when every kind has been read, and
// Synced tells when. Later changes that come within a moment are one generation, those
// that change nothing the mesh reads are none.
//
// Faults stay where they are. An object that cannot be used leaves its last good state in
// force, and Status says why. While the API is away the last state stays in force; when
// it is back, what differs is one change. With a state directory that also holds over a
// restart: when the API cannot be read within a few seconds of the start, the state of
// the last run serves.
package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/lateen-mesh/lateen/control/config"
)

// A Connection says which Kubernetes API is meant and how fast it may be asked. Without
// Kubeconfig and Socket it is that of the cluster which this process runs in.
type Connection struct {
	Kubeconfig string  // path of a kubeconfig file; its current context counts
	Socket     string  // path of a unix socket where the API is served in plain text
	QPS        float32 // requests per second; 0 is 80
	Burst      int     // requests at once; 0 is 160
}

// String names the API for people.
func (c Connection) String() string {
	return cmp.Or(c.Kubeconfig, c.Socket, "the cluster that this process runs in")
}

func (c Connection) config() (*rest.Config, error) {
	r, err := c.address()
	if err != nil {
		return nil, err
	}
	r.QPS, r.Burst = cmp.Or(c.QPS, 80), cmp.Or(c.Burst, 160)
	r.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(r.QPS, r.Burst) // one for all kinds
	r.UserAgent = "lateen/istiod"
	r.WarningHandler = rest.NoWarnings{} // of versions that will go: chosen with care in custom.go
	return r, nil
}

func (c Connection) address() (*rest.Config, error) {
	switch {
	case c.Kubeconfig != "" && c.Socket != "":
		return nil, errors.New("a kubeconfig and a socket are given: only one can be meant")
	case c.Socket != "":
		var d net.Dialer
		return &rest.Config{Host: "http://localhost", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", c.Socket)
		}}, nil
	case c.Kubeconfig != "":
		return clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	}
	return rest.InClusterConfig()
}

// Options say what a Source reads.
type Options struct {
	Connection Connection
	// RootNamespace is where the ConfigMap "istio" is; "" is config.DefaultRootNamespace.
	RootNamespace string
	// State is a directory in which the last state is kept for the next start, in a file of
	// mode 0600: it holds Secrets. "" keeps nothing.
	State string
	// WriteStatus has the status of custom objects say what keeps them out of force.
	WriteStatus bool
	// Event is told of each object that was added, updated or deleted ("add", "update", "delete")
	// since the last look; custom is whether the kind is a custom one. It must not block. nil:
	// nobody counts.
	Event func(kind config.Kind, custom bool, event string)
	// Log gets one line per problem when it appears; nil is slog.Default.
	Log *slog.Logger
}

// A Status is what a Source says about itself.
type Status struct {
	Server  string
	Synced  bool   // all was read from the API since the start
	Saved   bool   // what is in force is what the last run left
	Objects int    // in force
	Stale   int    // of these in an older state, since the present one is broken
	Trouble string // why the API cannot be read now, "" if it can

	Problems []config.Problem // errors and warnings of objects, by kind, namespace, name
}

// A Source keeps the objects of a Kubernetes API in a Store, of which it is the only
// writer. Its methods may be called from any goroutine.
type Source struct {
	store   *config.Store
	options Options
	log     *slog.Logger
	client  *client
	state   stateFile
	synced  chan struct{}
	wake    chan struct{} // something is pending
	dirty   chan struct{} // the saved state is out of date
	telling chan struct{} // something is untold

	grace, settling time.Duration // the constants, but in tests

	mu       sync.Mutex
	shelves  map[config.Kind]*shelf
	custom   bool // it is known which custom kinds there are
	pending  map[config.Key]*config.Config
	saved    []*config.Config // of the last run, until synced
	isSynced bool
	isSaved  bool
	troubles map[string]error
	logged   time.Time // when troubles were
	untold   map[config.Key]statement
}

// New returns a Source that feeds store. It fails when the connection cannot be used as
// it is given; whether anybody answers shows when it runs.
func New(store *config.Store, o Options) (*Source, error) {
	o.RootNamespace = cmp.Or(o.RootNamespace, config.DefaultRootNamespace)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	c, err := o.Connection.config()
	if err != nil {
		return nil, fmt.Errorf("connection to Kubernetes: %w", err)
	}
	s := &Source{
		store: store, options: o, log: o.Log, synced: make(chan struct{}), wake: make(chan struct{}, 1), grace: grace, settling: settling, dirty: make(chan struct{}, 1),
		shelves: map[config.Kind]*shelf{}, pending: map[config.Key]*config.Config{}, troubles: map[string]error{},
		telling: make(chan struct{}, 1), untold: map[config.Key]statement{},
	}
	if s.client, err = newClient(c); err != nil {
		return nil, fmt.Errorf("connection to Kubernetes: %w", err)
	}
	for _, r := range config.Resources() {
		s.shelves[r.Kind] = &shelf{source: s, kind: r.Kind, isCustom: r.Custom, objects: map[config.Key]*entry{}}
	}
	s.state = stateFile{directory: o.State, server: c.Host + o.Connection.Socket}
	return s, s.load()
}

// load takes what the last run left as what is known.
func (s *Source) load() error {
	objects, err := s.state.read()
	if err != nil {
		s.log.Warn("saved state is not used", "error", err)
		return nil
	}
	for _, o := range objects {
		if shelf := s.shelves[o.config.Kind]; shelf != nil {
			shelf.objects[o.config.Key] = &entry{uid: o.uid, good: o.config}
			s.pending[o.config.Key] = o.config
			s.saved = append(s.saved, o.config)
		}
	}
	return s.state.open()
}

// Synced is closed when the Store has a whole state for the first time, that of the API
// or, while the API is away, that of the last run.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// How changes are gathered, and how long the state of the last run is held back.
const (
	gather = 20 * time.Millisecond
	grace  = 3 * time.Second
)

// Run follows the API until ctx ends, which is no error.
func (s *Source) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(quietly(ctx, s.log))
	defer cancel()
	var running sync.WaitGroup
	for _, r := range builtin(s.options.RootNamespace) {
		s.assign(r)
		running.Go(func() { s.follow(ctx, r) })
	}
	running.Go(func() { s.followCustom(ctx) })
	running.Go(func() { s.save(ctx) })
	running.Go(func() { s.tellAll(ctx) })
	s.apply(ctx)
	running.Wait()
	utilnet.CloseIdleConnectionsFor(s.client.http.Transport)
	return nil
}

// apply moves the Store as changes come.
func (s *Source) apply(ctx context.Context) {
	held := time.NewTimer(s.grace)
	defer held.Stop()
	started := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-held.C:
			s.serveSaved()
			continue
		case <-s.wake:
		}
		if !s.isUrgent() && !sleep(ctx, gather) {
			return
		}
		upserts, deletes, first, ok := s.take()
		if !ok {
			continue
		}
		set := s.store.Apply(upserts, deletes)
		signal(s.dirty)
		if first {
			s.log.Info("Kubernetes API read", "server", s.options.Connection, "objects", set.Len(), "took", time.Since(started).Round(time.Millisecond))
			s.announceSynced()
		}
	}
}

// isUrgent reports whether a change does not wait for others: a Pod that ends is to get no
// request any more.
func (s *Source) isUrgent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.pending {
		if o == nil {
			continue
		}
		if pod, ok := o.Spec.(*corev1.Pod); ok && pod.DeletionTimestamp != nil {
			return true
		}
	}
	return false
}

// take gives the changes that are due; there are none before everything has been listed.
func (s *Source) take() (upserts []*config.Config, deletes []config.Key, first, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isSynced && len(s.missing()) > 0 {
		return nil, nil, false, false
	}
	for key, o := range s.pending {
		if o != nil {
			upserts = append(upserts, o)
		} else {
			deletes = append(deletes, key)
		}
	}
	first = !s.isSynced
	s.pending, s.saved, s.isSynced, s.isSaved = map[config.Key]*config.Config{}, nil, true, false
	return upserts, deletes, first, true
}

// missing are the kinds that have not been listed yet; s.mu is held.
func (s *Source) missing() []string {
	var kinds []string
	if !s.custom {
		kinds = append(kinds, "CustomResourceDefinition")
	}
	for _, k := range config.Kinds() {
		if !s.shelves[k].listed {
			kinds = append(kinds, string(k))
		}
	}
	return kinds
}

// serveSaved puts the state of the last run in force when the API is not to be had.
func (s *Source) serveSaved() {
	s.mu.Lock()
	saved, missing, waiting := s.saved, s.missing(), !s.isSynced
	if waiting && len(saved) > 0 {
		s.isSaved = true
	}
	s.mu.Unlock()
	switch {
	case !waiting:
	case len(saved) == 0:
		s.log.Warn("waiting for the Kubernetes API", "server", s.options.Connection, "missing", strings.Join(missing, ","), "error", s.Status().Trouble)
	default:
		s.log.Warn("the Kubernetes API is not to be had: the state of the last run is in force", "server", s.options.Connection,
			"objects", len(saved), "error", s.Status().Trouble)
		s.store.Apply(saved, nil)
		s.announceSynced()
	}
}

func (s *Source) announceSynced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.synced:
	default:
		close(s.synced)
	}
}

// maxProblems bounds what Status tells.
const maxProblems = 1000

// Status describes the source now.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Server: s.options.Connection.String(), Synced: s.isSynced, Saved: s.isSaved, Objects: s.store.Current().Len()}
	for _, name := range slices.Sorted(maps.Keys(s.troubles)) {
		st.Trouble = fmt.Sprintf("%s: %v", name, s.troubles[name])
		break
	}
	for _, shelf := range s.shelves {
		for _, e := range shelf.objects {
			if e.stale {
				st.Stale++
			}
			st.Problems = append(st.Problems, e.problems...)
		}
	}
	slices.SortStableFunc(st.Problems, func(a, b config.Problem) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Object.String(), b.Object.String()), cmp.Compare(a.Field, b.Field))
	})
	st.Problems = st.Problems[:min(len(st.Problems), maxProblems)]
	return st
}

// signal leaves a message unless one is there already.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sleep waits; false when the context ends.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A client makes requests to one API over one set of connections.
type client struct {
	config *rest.Config
	http   *http.Client
}

func newClient(c *rest.Config) (*client, error) {
	h, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, err
	}
	return &client{config: c, http: h}, nil
}
