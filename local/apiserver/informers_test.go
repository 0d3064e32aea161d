package main_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

var (
	sails      = schema.GroupVersionResource{Group: "rigging.example.test", Version: "v1", Resource: "sails"}
	configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
)

// TestInformers runs client-go's three kinds of informers while several clients
// write, and compares what they have in the end with what is there.
func TestInformers(t *testing.T) {
	s := start(t, os.Geteuid(), "--crds", "testdata/definition.yaml")
	s.must("", "wait", "--for=condition=established", "crd/sails.rigging.example.test", "--timeout=60s")
	config := s.config()
	typedClient := s.client()
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	typed := informers.NewSharedInformerFactory(typedClient, 0)
	byMetadata := metadatainformer.NewSharedInformerFactory(metadataClient, 0)
	custom := dynamicinformer.NewDynamicSharedInformerFactory(dynamicClient, 0)
	all := map[string]cache.SharedIndexInformer{
		"typed":    typed.Core().V1().ConfigMaps().Informer(),
		"metadata": byMetadata.ForResource(configMaps).Informer(),
		"dynamic":  custom.ForResource(sails).Informer(),
	}
	for _, factory := range []interface {
		Start(<-chan struct{})
		Shutdown()
	}{typed, byMetadata, custom} {
		factory.Start(ctx.Done())
		defer factory.Shutdown()
	}
	defer cancel() // before the factories wait for their informers
	for name, informer := range all {
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			t.Fatal(name, "never in sync")
		}
	}
	const writers, objects = 4, 25
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range objects {
				name := fmt.Sprintf("o-%d-%d", w, i)
				churnConfigMap(t, ctx, s, name, i)
				churnSail(t, ctx, dynamicClient, name, i)
			}
		})
	}
	writing.Wait()
	for name, informer := range all {
		eventually(t, name+" informer has the last state", func() bool {
			left := 0
			for _, object := range informer.GetStore().List() {
				m := object.(metav1.Object)
				if !strings.HasPrefix(m.GetName(), "o-") {
					continue
				}
				left++
				if m.GetLabels()["round"] != "2" {
					return false
				}
			}
			return left == writers*objects/5*4
		})
	}
}

// churnConfigMap creates, changes twice, and deletes each fifth.
func churnConfigMap(t *testing.T, ctx context.Context, s *server, name string, i int) {
	client := s.client().CoreV1().ConfigMaps("default")
	if _, err := client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	for round := range 3 {
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"round":"%d"}}}`, round)
		if _, err := client.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
	}
	if i%5 == 0 {
		if err := client.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
}

func churnSail(t *testing.T, ctx context.Context, dynamicClient dynamic.Interface, name string, i int) {
	client := dynamicClient.Resource(sails).Namespace("default")
	sail := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "rigging.example.test/v1", "kind": "Sail", "metadata": map[string]any{"name": name}, "spec": map[string]any{"area": int64(i + 1)},
	}}
	if _, err := client.Create(ctx, sail, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	for round := range 3 {
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"round":"%d"}}}`, round)
		if _, err := client.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
	}
	if i%5 == 0 {
		if err := client.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// TestInformerSurvivesRestart: a watch ends with the server, and the informer comes
// back with what changed.
func TestInformerSurvivesRestart(t *testing.T) {
	port := freePort(t)
	s := start(t, os.Geteuid())
	s.args = []string{"--listen", port}
	s.restart()
	ctx, cancel := context.WithCancel(t.Context())
	factory := informers.NewSharedInformerFactory(s.client(), 0)
	store := factory.Core().V1().ConfigMaps().Informer().GetStore()
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	defer cancel()
	has := func(name string) func() bool {
		return func() bool { _, ok, _ := store.GetByKey("default/" + name); return ok }
	}
	s.must("", "create", "configmap", "before")
	eventually(t, "the first object is seen", has("before"))
	s.restart()
	s.must("", "create", "configmap", "after")
	eventually(t, "the object after the restart is seen", has("after"))
	if !has("before")() {
		t.Error("the object from before the restart is lost")
	}
}
