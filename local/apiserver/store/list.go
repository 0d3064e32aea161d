package store

import (
	"context"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// GetList sets a list to the objects under a key. All come from one revision: the current one, the
// one that is asked for, or that of the first page.
func (k *kind) GetList(ctx context.Context, key string, opts storage.ListOptions, out runtime.Object) error {
	key, err := k.key(key, opts.Recursive)
	if err != nil {
		return err
	}
	itemsPtr, err := meta.GetItemsPtr(out)
	if err != nil {
		return err
	}
	list, err := conversion.EnforcePtr(itemsPtr)
	if err != nil || list.Kind() != reflect.Slice {
		return fmt.Errorf("a list of %s whose items are no slice: %w", k.name, err)
	}
	items, rev, err := k.page(key, opts)
	if err != nil {
		return err
	}
	taken, err := k.fill(ctx, list, items, newElement(out, list), opts)
	if err != nil {
		return err
	}
	last, more := "", taken < len(items)
	if more {
		last = items[taken-1].key
	}
	token, remaining, err := storage.PrepareContinueToken(last, key, int64(rev), int64(len(items)), more, opts)
	if err != nil {
		return err
	}
	if err := k.versioner.UpdateList(out, rev, token, remaining); err != nil {
		return err
	}
	opts.Predicate.SetShardInfoOnList(out)
	return nil
}

// page returns the items that a list is made of, from where it goes on, and their revision.
func (k *kind) page(key string, opts storage.ListOptions) ([]*item, uint64, error) {
	asked, from, err := storage.ValidateListOptions(key, k.versioner, opts)
	if err != nil {
		return nil, 0, err
	}
	s := k.store
	s.mu.RLock()
	defer s.mu.RUnlock()
	current := s.state.rev
	rev := current
	if asked != 0 {
		rev = uint64(asked)
	}
	switch {
	case rev > current:
		return nil, 0, storage.NewTooLargeResourceVersionError(rev, current, 0)
	case rev < s.state.window.start:
		return nil, 0, expiredList(from, key)
	}
	if err := k.notOlderThan(opts.ResourceVersion, current); err != nil {
		return nil, 0, err
	}
	return s.state.list(span{key, opts.Recursive}, from, rev), rev, nil
}

// expiredList is the answer to a list of a revision that the window no longer covers. A later page
// comes with a token that goes on at the current revision: clients decide whether that will do.
func expiredList(from, prefix string) error {
	if from == "" {
		return apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	}
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result: " +
		"start a new list, or use the continue token of this response, which goes on with the objects as they are now.")
	if token, tokenErr := storage.EncodeContinue(from, prefix, -1); tokenErr == nil {
		err.ErrStatus.ListMeta.Continue = token
	}
	return err
}

// fill appends the objects of items that the predicate matches to a list, up to its limit, and
// returns how many items it went through.
func (k *kind) fill(ctx context.Context, list reflect.Value, items []*item, element func() runtime.Object, opts storage.ListOptions) (int, error) {
	limit := len(items)
	if opts.Predicate.Limit > 0 {
		limit = int(min(opts.Predicate.Limit, int64(limit)))
	}
	room := limit
	if !opts.Predicate.Empty() {
		room = min(limit, 64)
	}
	list.Set(reflect.MakeSlice(list.Type(), 0, room))
	for i, it := range items {
		if list.Len() >= limit {
			return i, nil
		}
		if ctx.Err() != nil {
			return 0, storage.NewTimeoutError(it.key, "the request ended before its list was complete")
		}
		data, _, err := k.read(ctx, it)
		if err != nil {
			return 0, err
		}
		obj, _, err := k.codec.Decode(data, nil, element())
		if err != nil {
			return 0, storage.NewCorruptObjError(it.key, err)
		}
		if err := k.versioner.UpdateObject(obj, it.rev); err != nil {
			return 0, err
		}
		if matched, err := opts.Predicate.Matches(obj); err == nil && matched {
			list.Set(reflect.Append(list, reflect.ValueOf(obj).Elem()))
		}
	}
	return len(items), nil
}

// newElement makes empty elements of a list. Those of an unstructured one are of its version.
func newElement(list runtime.Object, items reflect.Value) func() runtime.Object {
	if u, ok := list.(*unstructured.UnstructuredList); ok && u.GetAPIVersion() != "" {
		return func() runtime.Object {
			return &unstructured.Unstructured{Object: map[string]any{"apiVersion": u.GetAPIVersion()}}
		}
	}
	element := items.Type().Elem()
	return func() runtime.Object { return reflect.New(element).Interface().(runtime.Object) }
}
