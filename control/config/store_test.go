package config_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	networking "istio.io/api/networking/v1alpha3"
	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/control/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func gateway(ns, name string, age int) *config.Config {
	o := &config.Config{Key: config.Key{Kind: config.Gateway, Namespace: ns, Name: name}, Spec: &networking.Gateway{}}
	if age > 0 {
		o.CreationTime = time.Unix(int64(1000-age), 0)
	}
	return o
}

func names(list []*config.Config) []string {
	var all []string
	for _, o := range list {
		all = append(all, o.Namespace+"/"+o.Name)
	}
	return all
}

func TestConflictOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []*config.Config
		want []string
	}{
		{"VS-004 the older first, ties by name then namespace",
			[]*config.Config{gateway("a", "z", 5), gateway("b", "y", 1), gateway("b", "x", 1), gateway("a", "x", 1)}, []string{"a/z", "a/x", "b/x", "b/y"}},
		{"without times by name, then namespace",
			[]*config.Config{gateway("b", "x", 0), gateway("a", "y", 0), gateway("a", "x", 0)}, []string{"a/x", "b/x", "a/y"}},
		{"of one key the first", []*config.Config{gateway("a", "x", 1), gateway("a", "x", 2)}, []string{"a/x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := names(config.NewSet(1, c.in).List(config.Gateway)); !slices.Equal(got, c.want) {
				t.Errorf("order %v, want %v", got, c.want)
			}
		})
	}
}

func TestApplyIsOneGeneration(t *testing.T) {
	s := config.NewStore()
	a, b := gateway("n", "a", 0), gateway("n", "b", 0)
	before := s.Current()
	after := s.Apply([]*config.Config{a, b}, nil)
	if before.Len() != 0 || after.Len() != 2 || after.Generation() != 1 || s.Current() != after {
		t.Errorf("before %d objects, after %d at generation %d", before.Len(), after.Len(), after.Generation())
	}
	if s.Apply([]*config.Config{a}, []config.Key{{Kind: config.Sidecar, Name: "none"}}) != after {
		t.Error("a group that changes nothing makes a generation")
	}
	replaced := gateway("n", "a", 7)
	last := s.Apply([]*config.Config{replaced}, []config.Key{b.Key})
	if last.Generation() != 2 || last.Get(config.Gateway, "n", "a") != replaced || last.Get(config.Gateway, "n", "b") != nil {
		t.Errorf("generation %d has %v", last.Generation(), names(last.All()))
	}
	if after.Get(config.Gateway, "n", "a") != a || after.Len() != 2 {
		t.Error("an earlier set has changed")
	}
}

func TestListsOfOtherKindsAreShared(t *testing.T) {
	s := config.NewStore()
	first := s.Apply([]*config.Config{gateway("n", "a", 0)}, nil)
	second := s.Apply([]*config.Config{{Key: config.Key{Kind: config.Sidecar, Namespace: "n", Name: "s"}, Spec: &networking.Sidecar{}}}, nil)
	if &first.List(config.Gateway)[0] != &second.List(config.Gateway)[0] {
		t.Error("a change of Sidecars made a new list of Gateways")
	}
}

func TestWatchMergesSignals(t *testing.T) {
	s := config.NewStore()
	changed, stop := s.Watch()
	for i := range 10 {
		s.Apply([]*config.Config{gateway("n", "a", i+1)}, nil)
	}
	<-changed
	if got := s.Current().Generation(); got != 10 {
		t.Errorf("generation %d at the signal, want 10", got)
	}
	select {
	case <-changed:
		t.Error("a second signal for what the first one told")
	default:
	}
	stop()
	s.Apply([]*config.Config{gateway("n", "b", 0)}, nil)
	select {
	case <-changed:
		t.Error("a signal after stop")
	default:
	}
}

// Readers never see half a transaction.
func TestReadersSeeWholeTransactions(t *testing.T) {
	s := config.NewStore()
	s.Apply([]*config.Config{gateway("n", "a", 0), gateway("n", "b", 0)}, nil)
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				set := s.Current()
				a, b := set.Get(config.Gateway, "n", "a"), set.Get(config.Gateway, "n", "b")
				if !a.CreationTime.Equal(b.CreationTime) || len(set.List(config.Gateway)) != 2 {
					t.Errorf("a of %v beside b of %v", a.CreationTime, b.CreationTime)
					return
				}
			}
		})
	}
	for i := range 500 {
		s.Apply([]*config.Config{gateway("n", "a", i+1), gateway("n", "b", i+1)}, nil)
	}
	close(done)
	readers.Wait()
}

// A store is what a plain map would be.
func TestStoreAgainstAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, model := config.NewStore(), map[config.Key]*config.Config{}
		for range rapid.IntRange(1, 8).Draw(t, "transactions") {
			var upserts []*config.Config
			var deletes []config.Key
			for _, n := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 3).Draw(t, "deletes") {
				deletes = append(deletes, config.Key{Kind: config.Gateway, Namespace: "n", Name: n})
			}
			for _, n := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 3).Draw(t, "upserts") {
				upserts = append(upserts, gateway("n", n, rapid.IntRange(0, 3).Draw(t, "age")))
			}
			for _, k := range deletes {
				delete(model, k)
			}
			for _, o := range upserts {
				model[o.Key] = o
			}
			set := s.Apply(upserts, deletes)
			if set.Len() != len(model) || len(set.List(config.Gateway)) != len(model) {
				t.Fatalf("%d objects, want %d", set.Len(), len(model))
			}
			for k, o := range model {
				if set.Get(k.Kind, k.Namespace, k.Name) != o {
					t.Fatalf("%v is not the one applied", k)
				}
			}
		}
	})
}
