package store

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/example"
)

// Writes to a file, one after the other and together: those that wait share a system call.
func BenchmarkCreate(b *testing.B) {
	create := func(b *testing.B, k *kind, n int) {
		name := fmt.Sprint(n)
		pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, Labels: map[string]string{"app": "reviews"}}}
		if err := k.Create(b.Context(), podKey("a", name), pod, &example.Pod{}, 0); err != nil {
			b.Error(err)
		}
	}
	b.Run("alone", func(b *testing.B) {
		k := pods(b, open(b, Options{Dir: b.TempDir()}))
		for n := 0; b.Loop(); n++ {
			create(b, k, n)
		}
	})
	b.Run("with 10 watches", func(b *testing.B) {
		k := pods(b, open(b, Options{Dir: b.TempDir()}))
		for range 10 {
			w, err := k.Watch(b.Context(), "/pods", everything)
			if err != nil {
				b.Fatal(err)
			}
			go func() {
				for range w.ResultChan() { // until the store closes
				}
			}()
		}
		for n := 0; b.Loop(); n++ {
			create(b, k, n)
		}
	})
	b.Run("raw, 64 together", func(b *testing.B) {
		s := open(b, Options{Dir: b.TempDir()})
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			key := fmt.Sprint("/pods/", time.Now().UnixNano())
			var rev uint64
			for pb.Next() {
				var err error
				if rev, err = s.commit(b.Context(), &write{key: key, value: []byte("value"), expect: rev}); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkList(b *testing.B) {
	k := pods(b, open(b, Options{}))
	for n := range 2000 {
		create(b, k, fmt.Sprint("n", n%10), fmt.Sprint(n))
	}
	for _, test := range []struct {
		name, key string
		limit     int64
	}{
		{"2000", "/pods", 0}, {"200 of 2000", "/pods/n3", 0}, {"a page of 100", "/pods", 100},
	} {
		b.Run(test.name, func(b *testing.B) {
			opts := everything
			opts.Predicate.Limit = test.limit
			for b.Loop() {
				if err := k.GetList(b.Context(), test.key, opts, &example.PodList{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Open reads what a mesh of some size leaves: 5,000 objects of 2 KiB, each written twice.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s, _, err := Open(Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	value := string(make([]byte, 2<<10))
	for n := range 10_000 {
		set(b, s, fmt.Sprint("/pods/", n%5000), fmt.Sprint(n, value))
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, _, err := Open(Options{Dir: dir})
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
