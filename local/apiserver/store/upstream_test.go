package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
)

// Kubernetes' own tests of a storage.Interface: all that there are, each on a store with a file.
// Where a test can be run in several ways, it is run as for the storage over etcd, but for
// bookmarks, which this store sends to everybody who allows them, as a watch cache does.
func TestUpstream(t *testing.T) {
	type run = func(context.Context, *testing.T, *kind)
	for name, test := range map[string]run{
		"Create": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestCreate(ctx, t, k, checkStored(k))
		},
		"CreateWithTTL":                              plain(storagetesting.RunTestCreateWithTTL),
		"CreateWithKeyExist":                         plain(storagetesting.RunTestCreateWithKeyExist),
		"Get":                                        plain(storagetesting.RunTestGet),
		"UnconditionalDelete":                        plain(storagetesting.RunTestUnconditionalDelete),
		"ConditionalDelete":                          plain(storagetesting.RunTestConditionalDelete),
		"DeleteWithSuggestion":                       plain(storagetesting.RunTestDeleteWithSuggestion),
		"DeleteWithSuggestionAndConflict":            plain(storagetesting.RunTestDeleteWithSuggestionAndConflict),
		"DeleteWithConflict":                         plain(storagetesting.RunTestDeleteWithConflict),
		"DeleteWithSuggestionOfDeletedObject":        plain(storagetesting.RunTestDeleteWithSuggestionOfDeletedObject),
		"ValidateDeletionWithSuggestion":             plain(storagetesting.RunTestValidateDeletionWithSuggestion),
		"ValidateDeletionWithOnlySuggestionValid":    plain(storagetesting.RunTestValidateDeletionWithOnlySuggestionValid),
		"PreconditionalDeleteWithSuggestion":         plain(storagetesting.RunTestPreconditionalDeleteWithSuggestion),
		"PreconditionalDeleteWithOnlySuggestionPass": plain(storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass),
		"KeySchema":                                  plain(storagetesting.RunTestKeySchema),
		"GuaranteedUpdate": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestGuaranteedUpdate(ctx, t, prefixed{k}, checkStored(k))
		},
		"GuaranteedUpdateWithTTL": plain(storagetesting.RunTestGuaranteedUpdateWithTTL),
		"GuaranteedUpdateChecksStoredData": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestGuaranteedUpdateChecksStoredData(ctx, t, prefixed{k})
		},
		"GuaranteedUpdateWithConflict":              plain(storagetesting.RunTestGuaranteedUpdateWithConflict),
		"GuaranteedUpdateWithSuggestionAndConflict": plain(storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict),
		"TransformationFailure": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestTransformationFailure(ctx, t, prefixed{k})
		},

		// The recorder counts requests to etcd that a watch cache makes: there is neither.
		"List": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestList(ctx, t, k, compaction(k), false, nil)
		},
		"ConsistentList": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestConsistentList(ctx, t, k, raiseRevision(k), false, true, false)
		},
		"CompactRevision": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestCompactRevision(ctx, t, k, raiseRevision(k), compaction(k))
		},
		"GetListNonRecursive": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestGetListNonRecursive(ctx, t, raiseRevision(k), k)
		},
		"GetListRecursivePrefix": plain(storagetesting.RunTestGetListRecursivePrefix),
		"ListContinuation": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestListContinuation(ctx, t, k, checkReads(k))
		},
		"ListPaginationRareObject": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestListPaginationRareObject(ctx, t, k, checkReads(k))
		},
		"ListContinuationWithFilter": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestListContinuationWithFilter(ctx, t, k, checkReads(k))
		},
		"ListInconsistentContinuation": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestListInconsistentContinuation(ctx, t, k, compaction(k))
		},
		"ListResourceVersionMatch": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestListResourceVersionMatch(ctx, t, prefixed{k})
		},
		"ListPaging":          plain(storagetesting.RunTestListPaging),
		"NamespaceScopedList": plain(storagetesting.RunTestNamespaceScopedList),
		"Stats without sizes": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestStats(ctx, t, k, k.codec, k.transformer, false)
		},
		"Stats with sizes": func(ctx context.Context, t *testing.T, k *kind) {
			if err := k.EnableResourceSizeEstimation(func(context.Context) ([]string, error) { return nil, nil }); err != nil {
				t.Fatal(err)
			}
			storagetesting.RunTestStats(ctx, t, k, k.codec, k.transformer, true)
		},

		"Watch":                plain(storagetesting.RunTestWatch),
		"ClusterScopedWatch":   plain(storagetesting.RunTestClusterScopedWatch),
		"NamespaceScopedWatch": plain(storagetesting.RunTestNamespaceScopedWatch),
		"DeleteTriggerWatch":   plain(storagetesting.RunTestDeleteTriggerWatch),
		"WatchFromZero": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestWatchFromZero(ctx, t, k, compaction(k))
		},
		"WatchFromNonZero":     plain(storagetesting.RunTestWatchFromNonZero),
		"DelayedWatchDelivery": plain(storagetesting.RunTestDelayedWatchDelivery),
		"WatchError": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestWatchError(ctx, t, prefixed{k})
		},
		"WatchWithUnsafeDelete": func(ctx context.Context, t *testing.T, k *kind) {
			featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.AllowUnsafeMalformedObjectDeletion, true)
			storagetesting.RunTestWatchWithUnsafeDelete(ctx, t, corrupted{k})
		},
		"WatchContextCancel":               plain(storagetesting.RunTestWatchContextCancel),
		"WatcherTimeout":                   plain(storagetesting.RunTestWatcherTimeout),
		"WatchDeleteEventObjectHaveLatest": plain(storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV),
		"WatchInitializationSignal":        plain(storagetesting.RunTestWatchInitializationSignal),
		"ProgressNotify": func(ctx context.Context, t *testing.T, k *kind) {
			k.store.bookmarkEvery = time.Second
			storagetesting.RunOptionalTestProgressNotify(ctx, t, k, raiseRevision(k))
		},
		"WatchDispatchBookmarkEvents": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, k, true)
		},
		"WatchBookmarksWithCorrectRV":      plain(storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion),
		"SendInitialEventsBackwardCompat":  plain(storagetesting.RunSendInitialEventsBackwardCompatibility),
		"WatchSemantics":                   plain(storagetesting.RunWatchSemantics),
		"WatchSemanticInitialEventsExtend": plain(storagetesting.RunWatchSemanticInitialEventsExtended),
		"WatchListMatchSingle":             plain(storagetesting.RunWatchListMatchSingle),
		"WatchErrorIsBlockingFurtherEvents": func(ctx context.Context, t *testing.T, k *kind) {
			storagetesting.RunWatchErrorIsBlockingFurtherEvents(ctx, t, prefixed{k})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Options{Dir: t.TempDir()})
			test(t.Context(), t, pods(t, s))
		})
	}
}

func plain[T any](run func(context.Context, *testing.T, T)) func(context.Context, *testing.T, *kind) {
	return func(ctx context.Context, t *testing.T, k *kind) { run(ctx, t, any(k).(T)) }
}

// open is Open of a sound directory; the store is closed at the end of the test.
func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, problems, err := Open(o)
	if err != nil || len(problems) > 0 {
		t.Fatalf("Open: %v %v", problems, err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// pods is the storage of the kind that Kubernetes' tests use, whose values begin with a prefix.
func pods(t testing.TB, s *Store) *kind {
	t.Helper()
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	if err := errors.Join(example.AddToScheme(scheme), examplev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	config := storagebackend.Config{
		Codec:       apitesting.TestCodec(serializer.NewCodecFactory(scheme), examplev1.SchemeGroupVersion),
		Transformer: storagetesting.NewPrefixTransformer([]byte("test!"), false),
	}
	k, _, err := s.Decorate(config.ForResource(schema.GroupResource{Resource: "pods"}), "/pods/", nil,
		func() runtime.Object { return &example.Pod{} }, func() runtime.Object { return &example.PodList{} }, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k.(*kind)
}

// checkStored looks at what is stored under a key: a pod without what the store adds.
func checkStored(k *kind) storagetesting.KeyValidation {
	return func(ctx context.Context, t *testing.T, key string) {
		it, _ := k.store.get(key)
		if it == nil {
			t.Fatalf("nothing is stored under %s", key)
		}
		data, _, err := k.read(ctx, it)
		if err != nil {
			t.Fatal(err)
		}
		obj, err := runtime.Decode(k.codec, data)
		if err != nil {
			t.Fatal(err)
		}
		if pod := obj.(*example.Pod); pod.ResourceVersion != "" {
			t.Errorf("stored with resource version %q", pod.ResourceVersion)
		}
	}
}

// checkReads wants each object of a list to be read once. The page size is that of requests to
// etcd.
func checkReads(k *kind) storagetesting.CallsValidation {
	transformer := k.transformer.(*storagetesting.PrefixTransformer)
	return func(t *testing.T, _, processed uint64) {
		if reads := transformer.GetReadsAndReset(); reads != processed {
			t.Errorf("%d objects were read, want %d", reads, processed)
		}
	}
}

// raiseRevision writes a key of another kind.
func raiseRevision(k *kind) storagetesting.IncreaseRVFunc {
	return func(ctx context.Context, t *testing.T) int64 {
		t.Helper()
		w := &write{key: "/other", value: []byte("x")}
		if it, _ := k.store.get(w.key); it != nil {
			w.expect = it.rev
		}
		rev, err := k.store.commit(ctx, w)
		if err != nil {
			t.Fatal(err)
		}
		return int64(rev)
	}
}

// compaction shortens the window, and raises the revision, as etcd's clients do to agree on it.
func compaction(k *kind) storagetesting.Compaction {
	return func(ctx context.Context, t *testing.T, resourceVersion string) {
		rev, err := k.versioner.ParseResourceVersion(resourceVersion)
		if err != nil {
			t.Fatal(err)
		}
		raiseRevision(k)(ctx, t)
		k.store.mu.Lock()
		k.store.state.window.compact(rev)
		k.store.mu.Unlock()
	}
}

// prefixed lets a test change how values are read.
type prefixed struct{ *kind }

func (p prefixed) UpdatePrefixTransformer(modify storagetesting.PrefixTransformerModifier) func() {
	original := p.transformer.(*storagetesting.PrefixTransformer)
	changed := *original
	p.transformer = modify(&changed)
	return func() { p.transformer = original }
}

// corrupted lets a test make all values unreadable.
type corrupted struct{ *kind }

func (c corrupted) CorruptTransformer() func() {
	original := c.transformer
	c.transformer = unreadableValues{original}
	return func() { c.transformer = original }
}

type unreadableValues struct{ value.Transformer }

func (unreadableValues) TransformFromStorage(context.Context, []byte, value.Context) ([]byte, bool, error) {
	return nil, true, fmt.Errorf("bits flipped")
}
