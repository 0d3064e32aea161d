package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/value"
)

// A kind is the storage.Interface of one kind of objects.
type kind struct {
	store          *Store
	name           string
	codec          runtime.Codec
	transformer    value.Transformer
	versioner      storage.APIObjectVersioner
	prefix         string // of all kinds
	resourcePrefix string // of the keys that callers use
	newFunc        func() runtime.Object
	sized          atomic.Bool // Stats tell sizes
}

var _ storage.Interface = (*kind)(nil)

// An existing is an object as a write finds it: what there is now. A suggestion of the caller
// (cachedExistingObject) is never used instead, since nothing is nearer than memory.
type existing struct {
	object runtime.Object
	data   []byte // its encoding; nil when there is no object, or it cannot be read
	rev    uint64 // 0 when there is none
	stale  bool   // the encoding is to be replaced, though the object is the same
}

func (k *kind) Versioner() storage.Versioner { return k.versioner }

// key is the key in the store of a caller's key.
func (k *kind) key(key string, recursive bool) (string, error) {
	key, err := storage.PrepareKey(k.resourcePrefix, key, recursive)
	if err != nil {
		return "", err
	}
	if len(k.prefix)+len(key) > maxKey {
		return "", apierrors.NewBadRequest(fmt.Sprintf("the key is longer than %d bytes", maxKey))
	}
	return k.prefix + key, nil
}

func (k *kind) Get(ctx context.Context, key string, opts storage.GetOptions, out runtime.Object) error {
	key, err := k.key(key, false)
	if err != nil {
		return err
	}
	it, current := k.store.get(key)
	if err := k.notOlderThan(opts.ResourceVersion, current); err != nil {
		return err
	}
	if it == nil {
		if opts.IgnoreNotFound {
			return runtime.SetZeroValue(out)
		}
		return storage.NewKeyNotFoundError(key, 0)
	}
	data, _, err := k.read(ctx, it)
	if err != nil {
		return err
	}
	return k.decode(key, data, out, it.rev)
}

// notOlderThan refuses a request for a revision that is yet to come.
func (k *kind) notOlderThan(resourceVersion string, current uint64) error {
	if resourceVersion == "" {
		return nil
	}
	wanted, err := k.versioner.ParseResourceVersion(resourceVersion)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", err))
	}
	if wanted > current {
		return storage.NewTooLargeResourceVersionError(wanted, current, 0)
	}
	return nil
}

func (k *kind) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	key, err := k.key(key, false)
	if err != nil {
		return err
	}
	if rev, err := k.versioner.ObjectResourceVersion(obj); err == nil && rev != 0 {
		return storage.ErrResourceVersionSetOnCreate
	}
	data, err := k.encode(obj)
	if err != nil {
		return err
	}
	w := &write{key: key, ttl: ttl}
	if w.value, err = k.toStorage(ctx, key, data); err != nil {
		return err
	}
	rev, err := k.store.commit(ctx, w)
	switch {
	case errors.Is(err, errConflict):
		return storage.NewKeyExistsError(key, 0)
	case err != nil || out == nil:
		return err
	}
	return k.decode(key, data, out, rev)
}

func (k *kind) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, _ runtime.Object, opts storage.DeleteOptions,
) error {
	key, err := k.key(key, false)
	if err != nil {
		return err
	}
	for {
		now, err := k.existing(ctx, key, out, opts.IgnoreStoreReadError)
		if err != nil {
			return err
		}
		if now.rev == 0 {
			return storage.NewKeyNotFoundError(key, 0)
		}
		if now.object != nil {
			if err := preconditions.Check(key, now.object); err != nil {
				return err
			}
		}
		if err := validate(ctx, now.object); err != nil {
			return err
		}
		rev, err := k.store.commit(ctx, &write{key: key, expect: now.rev})
		switch {
		case errors.Is(err, errConflict):
			continue
		case err != nil || now.data == nil:
			return err
		}
		return k.decode(key, now.data, out, rev)
	}
}

func (k *kind) GuaranteedUpdate(ctx context.Context, key string, out runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, update storage.UpdateFunc, _ runtime.Object,
) error {
	key, err := k.key(key, false)
	if err != nil {
		return err
	}
	for {
		now, err := k.existing(ctx, key, out, false)
		if err != nil {
			return err
		}
		if now.rev == 0 && !ignoreNotFound {
			return storage.NewKeyNotFoundError(key, 0)
		}
		if err := preconditions.Check(key, now.object); err != nil {
			return err
		}
		data, rev, err := k.update(ctx, key, now, update)
		switch {
		case errors.Is(err, errConflict):
			continue
		case err != nil:
			return err
		}
		return k.decode(key, data, out, rev)
	}
}

// update writes what update makes of an object, unless that is the same.
func (k *kind) update(ctx context.Context, key string, now existing, update storage.UpdateFunc) ([]byte, uint64, error) {
	obj, ttl, err := update(now.object, storage.ResponseMeta{ResourceVersion: now.rev})
	if err != nil {
		return nil, 0, err
	}
	data, err := k.encode(obj)
	if err != nil {
		return nil, 0, err
	}
	if now.rev != 0 && !now.stale && bytes.Equal(data, now.data) {
		return data, now.rev, nil
	}
	w := &write{key: key, expect: now.rev, keep: ttl == nil}
	if ttl != nil {
		w.ttl = *ttl
	}
	if w.value, err = k.toStorage(ctx, key, data); err != nil {
		return nil, 0, err
	}
	rev, err := k.store.commit(ctx, w)
	return data, rev, err
}

// existing returns what is stored under a key: an object like the one given, the zero one when
// there is none. With unread, one that cannot be read is no error, but has no object.
func (k *kind) existing(ctx context.Context, key string, like runtime.Object, unread bool) (existing, error) {
	it, _ := k.store.get(key)
	if it != nil && unread {
		return existing{rev: it.rev}, nil
	}
	v, err := conversion.EnforcePtr(like)
	if err != nil {
		return existing{}, fmt.Errorf("the object to set is no pointer: %w", err)
	}
	now := existing{}
	if u, ok := like.(runtime.Unstructured); ok {
		now.object = u.NewEmptyInstance()
	} else {
		now.object = reflect.New(v.Type()).Interface().(runtime.Object)
	}
	if it == nil {
		return now, runtime.SetZeroValue(now.object)
	}
	now.rev = it.rev
	if now.data, now.stale, err = k.read(ctx, it); err != nil {
		return existing{}, err
	}
	return now, k.decode(key, now.data, now.object, it.rev)
}

// encode makes the bytes of an object, without what the store itself adds.
func (k *kind) encode(obj runtime.Object) ([]byte, error) {
	if err := k.versioner.PrepareObjectForStorage(obj); err != nil {
		return nil, fmt.Errorf("preparing a %s to be stored: %w", k.name, err)
	}
	return runtime.Encode(k.codec, obj)
}

func (k *kind) toStorage(ctx context.Context, key string, data []byte) ([]byte, error) {
	stored, err := k.transformer.TransformToStorage(ctx, data, value.DefaultContext(key))
	if err != nil {
		return nil, storage.NewInternalError(err)
	}
	if len(stored) > maxValue {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
			"the %s has %d bytes, more than the %d that can be stored", k.name, len(stored), maxValue))
	}
	return stored, nil
}

// read returns the encoding of an object from what is stored.
func (k *kind) read(ctx context.Context, it *item) (data []byte, stale bool, err error) {
	data, stale, err = k.transformer.TransformFromStorage(ctx, it.value, value.DefaultContext(it.key))
	if err != nil {
		return nil, false, storage.NewInternalError(fmt.Errorf("reading %s: %w", it.key, err))
	}
	return data, stale, nil
}

// decode sets an object from its encoding.
func (k *kind) decode(key string, data []byte, out runtime.Object, rev uint64) error {
	if _, err := conversion.EnforcePtr(out); err != nil {
		return fmt.Errorf("the object to set is no pointer: %w", err)
	}
	if _, _, err := k.codec.Decode(data, nil, out); err != nil {
		return storage.NewCorruptObjError(key, err)
	}
	return k.versioner.UpdateObject(out, rev)
}

// Stats counts the objects, and measures them when EnableResourceSizeEstimation was called.
func (k *kind) Stats(context.Context) (storage.Stats, error) {
	key, err := k.key(k.resourcePrefix, true)
	if err != nil {
		return storage.Stats{}, err
	}
	k.store.mu.RLock()
	items := k.store.state.list(span{key, true}, "", k.store.state.rev)
	k.store.mu.RUnlock()
	stats := storage.Stats{ObjectCount: int64(len(items))}
	if k.sized.Load() && len(items) > 0 {
		for _, it := range items {
			stats.EstimatedAverageObjectSizeBytes += int64(len(it.value))
		}
		stats.EstimatedAverageObjectSizeBytes /= stats.ObjectCount
	}
	return stats, nil
}

// EnableResourceSizeEstimation has Stats tell sizes. The store knows its keys and asks for none.
func (k *kind) EnableResourceSizeEstimation(keys storage.KeysFunc) error {
	if keys == nil {
		return errors.New("no function that tells the keys")
	}
	if k.sized.Swap(true) {
		return errors.New("sizes are told already")
	}
	return nil
}

// ReadinessCheck fails after Close.
func (k *kind) ReadinessCheck() error {
	select {
	case <-k.store.closing:
		return storage.ErrStorageNotReady
	default:
		return nil
	}
}

func (k *kind) GetCurrentResourceVersion(context.Context) (uint64, error) {
	return k.store.revision(), nil
}

// CompactRevision is the one that the window begins after, 0 when it reaches back to the beginning.
func (k *kind) CompactRevision() int64 {
	if start := k.store.compacted(); start > firstRevision {
		return int64(start)
	}
	return 0
}
