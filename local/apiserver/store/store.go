// Package store keeps the objects of the local Kubernetes API: k8s.io/apiserver's storage.Interface
// in memory, over one file that survives crashes.
//
// # In memory
//
// A Store holds the encoded bytes of objects, never objects: every reader decodes its own copy,
// with the codec of the kind that it reads through. All kinds share one revision, which each write
// raises by one, a deletion too. The last writes stay in a window (Options.Window of them, and no
// more than 32 MiB of replaced values). Watches and lists of an earlier revision read there; what
// begins before the window is answered with 410 Expired, as etcd answers after a compaction.
//
// A watch has a place in the window, not a queue: a write tells it that there is something and goes
// on, however slow the watch is. One that falls out of the window ends with 410 Expired, and
// its client lists again.
//
// # On the disk
//
// One goroutine, the writer, takes all writes that wait, appends their records to objects.log with
// one system call, makes them visible and answers them. So what anybody has seen is in the file,
// and a killed process loses nothing. The file is flushed to the disk in the background, 100 ms
// after a write at the latest: a power cut can take the writes of that time, always the last ones,
// so that the state is one that was there. Flushing before each answer would cost every write
// of a pod's start some milliseconds, and everything that could remember a lost write runs on
// the machine that lost its power.
//
// The file is replaced by a snapshot when it is more than twice as large as the objects in it and
// 4 MiB. Each record has a checksum; see Problem for what Open does with damage. When the disk is
// full, writes are refused with status 507, reads go on, and writes succeed again when there is
// space. A lock file keeps a second server off the directory. All files have mode 0600.
package store

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/client-go/tools/cache"
)

// Options say where objects are kept and how many.
type Options struct {
	Dir      string       // directory of the state, made when missing; "" keeps objects in memory only
	Window   int          // writes kept for watches and lists of an earlier revision; 0 means 4096
	MaxBytes int64        // keys and values of all objects together; 0 means 256 MiB
	Log      *slog.Logger // told about trouble with the file; nil drops it
}

func (o Options) withDefaults() Options {
	if o.Window <= 0 {
		o.Window = 4096
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// A Store keeps the objects of all kinds. All methods may be called concurrently.
type Store struct {
	options       Options
	bookmarkEvery time.Duration

	mu       sync.RWMutex // guards the next three; only the writer changes state
	state    *state
	watchers map[*watcher]struct{}
	closed   bool

	writes  chan *write // to the writer, which answers each
	closing chan struct{}
	running sync.WaitGroup // writer and watches
	lock    *os.File
	result  error // of the writer's end
}

// Open reads the state of a directory and returns its store, with what was wrong with the file.
// It fails when another store has the directory open, when the file is of a newer format, and
// when damage cannot be mended for want of space or permission.
func Open(o Options) (*Store, []Problem, error) {
	o = o.withDefaults()
	s := &Store{
		options:       o,
		bookmarkEvery: time.Minute,
		state:         newState(o.Window),
		watchers:      map[*watcher]struct{}{},
		writes:        make(chan *write),
		closing:       make(chan struct{}),
	}
	var file *logFile
	var problems []Problem
	if o.Dir != "" {
		var err error
		if file, problems, err = s.openDir(); err != nil {
			return nil, problems, fmt.Errorf("opening the objects in %s: %w", o.Dir, err)
		}
	}
	w := newWriter(s, file)
	s.running.Go(func() { s.result = w.run() })
	return s, problems, nil
}

func (s *Store) openDir() (*logFile, []Problem, error) {
	if err := os.MkdirAll(s.options.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	lock, err := lockDir(s.options.Dir)
	if err != nil {
		return nil, nil, err
	}
	file, problems, err := load(s.options.Dir, s.state)
	if err != nil {
		lock.Close()
		return nil, problems, err
	}
	s.lock = lock
	return file, problems, nil
}

// Close refuses further writes, ends all watches, flushes the file to the disk and frees the
// directory. Reads go on. Its error is that of the flush.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	for w := range s.watchers {
		w.cancel()
	}
	s.mu.Unlock()

	s.running.Wait()
	if s.lock != nil {
		s.lock.Close()
	}
	return s.result
}

func errClosed() error {
	return apierrors.NewServiceUnavailable("the object store is closed")
}

// Decorate is the generic.StorageDecorator of this store: it returns the storage of one kind. Of
// the configuration it takes prefix, codec and transformer.
func (s *Store) Decorate(config *storagebackend.ConfigForResource, resourcePrefix string,
	_ func(runtime.Object) (string, error), newFunc, newListFunc func() runtime.Object,
	_ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	if strings.Trim(resourcePrefix, "/") == "" || resourcePrefix[0] != '/' {
		return nil, nil, fmt.Errorf("storage of %s: prefix %q: it begins with / and names the kind", config.GroupResource, resourcePrefix)
	}
	k := &kind{
		store:          s,
		name:           config.GroupResource.String(),
		codec:          config.Codec,
		transformer:    config.Transformer,
		prefix:         strings.TrimSuffix(path.Join("/", config.Prefix), "/"),
		resourcePrefix: resourcePrefix,
		newFunc:        newFunc,
	}
	if k.transformer == nil {
		k.transformer = identity.NewEncryptCheckTransformer()
	}
	return k, func() {}, nil
}

// RESTOptions are what a registry needs to keep a kind in this store: resource names the kind,
// codec encodes and decodes its objects.
func (s *Store) RESTOptions(resource schema.GroupResource, codec runtime.Codec) generic.RESTOptions {
	group := resource.Group
	if group == "" {
		group = "core"
	}
	return generic.RESTOptions{
		StorageConfig:           storagebackend.NewDefaultConfig("/registry", codec).ForResource(resource),
		Decorator:               s.Decorate,
		EnableGarbageCollection: true,
		DeleteCollectionWorkers: 1,
		ResourcePrefix:          group + "/" + resource.Resource,
	}
}

// get returns the item of a key, nil when there is none, and the revision of the answer.
func (s *Store) get(key string) (*item, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.get(key), s.state.rev
}

func (s *Store) revision() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.rev
}

// compacted is the revision whose successors the window holds.
func (s *Store) compacted() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.window.start
}

// commit has the writer do a write and returns its revision. A write that has reached the writer
// is not given up when the context ends: it takes no time.
func (s *Store) commit(ctx context.Context, w *write) (uint64, error) {
	w.done = make(chan outcome, 1)
	select {
	case s.writes <- w:
	case <-ctx.Done():
		return 0, storage.NewTimeoutError(w.key, "the request ended before it was written")
	case <-s.closing:
		return 0, errClosed()
	}
	o := <-w.done
	return o.rev, o.err
}
