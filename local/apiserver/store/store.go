// Package store keeps the objects of the local Kubernetes API: an in-memory
// storage.Interface over a write-ahead file.
package store

import (
	"errors"
	"log/slog"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"
)

// Options say where objects are kept and how many.
type Options struct {
	Dir      string       // directory of the state, made when missing; "" keeps objects in memory only
	Window   int          // events kept for watches and lists of an earlier revision; 0 means 4096
	MaxBytes int64        // keys and values of all objects together; 0 means 256 MiB
	Log      *slog.Logger // where trouble with the file is told; nil drops it
}

// A Problem is damage that Open found in the file and mended.
type Problem struct {
	File   string // the file that was damaged
	Moved  string // where its bytes were put aside; "" when only a torn end was cut off
	Offset int64  // where the first damage begins
	Lost   int64  // bytes that could not be read
	Kept   int    // objects that are there now
	Cause  string // what was found
}

// A Store keeps the objects of all kinds.
type Store struct{}

// Open reads the state of a directory.
func Open(Options) (*Store, []Problem, error) { return &Store{}, nil, nil }

// Close writes what is not yet on the disk, ends all watches and frees the directory.
func (s *Store) Close() error { return nil }

// Decorate is the generic.StorageDecorator of this store: it returns the storage of one kind.
func (s *Store) Decorate(config *storagebackend.ConfigForResource, resourcePrefix string,
	_ func(runtime.Object) (string, error), newFunc, newListFunc func() runtime.Object,
	_ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	return nil, nil, errors.New("store: under construction")
}

// RESTOptions are what a registry needs to keep a kind here: resource names the kind, codec encodes
// and decodes its objects.
func (s *Store) RESTOptions(resource schema.GroupResource, codec runtime.Codec) generic.RESTOptions {
	return generic.RESTOptions{}
}

var _ generic.StorageDecorator = (*Store)(nil).Decorate
