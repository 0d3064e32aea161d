package lb

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// labelled makes an endpoint for each of the labels.
func labelled(labels ...map[string]any) []*endpoint.Endpoint {
	list := hosts(make([]uint32, len(labels))...)
	for i, e := range list {
		e.Weight.Store(1)
		e.Metadata.Store(map[string]map[string]any{"envoy.lb": labels[i]})
	}
	return list
}

func TestSubsets(t *testing.T) {
	type labels = map[string]any
	list := labelled(labels{"v": "1", "s": "p"}, labels{"v": "2", "s": "p"}, labels{"v": "3", "s": []any{"d", "e"}}, labels{"n": 1.5})
	v, vs := Selector{Keys: []string{"v"}}, Selector{Keys: []string{"s", "v"}}
	fewer := Selector{Keys: []string{"s", "v"}, Fallback: KeysSubset, FallbackKeys: []string{"v"}}
	for _, c := range []struct {
		name   string
		config Subsets
		match  labels
		want   []int // who may be chosen, none for nobody
	}{
		{"one key", Subsets{Selectors: []Selector{v}}, labels{"v": "2"}, []int{1}},
		{"two keys", Subsets{Selectors: []Selector{v, vs}}, labels{"v": "1", "s": "p"}, []int{0}},
		{"numbers", Subsets{Selectors: []Selector{{Keys: []string{"n"}}}}, labels{"n": 1.5}, []int{3}},
		{"a number is no text", Subsets{Selectors: []Selector{{Keys: []string{"n"}}}}, labels{"n": "1.5"}, nil},
		{"no criteria", Subsets{Selectors: []Selector{v}}, nil, nil},
		{"any endpoint", Subsets{Selectors: []Selector{v}, Fallback: AnyEndpoint}, labels{"v": "9"}, []int{0, 1, 2, 3}},
		{"the default subset", Subsets{Selectors: []Selector{v}, Fallback: DefaultSubset, Default: labels{"s": "p"}}, labels{"v": "9"}, []int{0, 1}},
		{"an empty default subset is all", Subsets{Selectors: []Selector{v}, Fallback: DefaultSubset}, labels{"v": "9"}, []int{0, 1, 2, 3}},
		{"panic", Subsets{Selectors: []Selector{v}, Fallback: DefaultSubset, Default: labels{"s": "x"}, PanicAny: true}, nil, []int{0, 1, 2, 3}},
		{"fewer keys", Subsets{Selectors: []Selector{fewer, v}}, labels{"v": "3", "s": "p"}, []int{2}},
		{"an element of a list", Subsets{Selectors: []Selector{vs}, ListAsAny: true}, labels{"v": "3", "s": "e"}, []int{2}},
		{"a list is a value", Subsets{Selectors: []Selector{vs}}, labels{"v": "3", "s": []any{"d", "e"}}, []int{2}},
		{"redundant keys", Subsets{Selectors: []Selector{v}, Redundant: true}, labels{"v": "1", "x": "y"}, []int{0}},
		{"redundant keys are too many", Subsets{Selectors: []Selector{v}}, labels{"v": "1", "x": "y"}, nil},
		{"alternatives", Subsets{Selectors: []Selector{v}, FallbackList: true},
			labels{"v": "9", fallbackKey: []any{labels{"v": "8"}, labels{"v": "3"}}}, []int{2}},
		{"one for each value", Subsets{Selectors: []Selector{{Keys: []string{"s"}, Single: true}}}, labels{"s": "p"}, []int{0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := NewSubsets(Policy{Kind: RoundRobin}, &c.config, Set{Endpoints: list})
			var got []int
			for range 50 {
				if e := b.Pick(&Context{Match: c.match}); e != nil {
					if i := slices.Index(list, e); !slices.Contains(got, i) {
						got = append(got, i)
					}
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("chosen are %v, want %v", got, c.want)
			}
		})
	}
	t.Run("whoever is chosen has what was asked for", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			value := rapid.SampledFrom([]string{"1", "2", "3"})
			var all []map[string]any
			for range rapid.IntRange(1, 12).Draw(t, "n") {
				all = append(all, labels{"v": value.Draw(t, "v"), "s": value.Draw(t, "s")})
			}
			asked := labels{"v": value.Draw(t, "asked v"), "s": value.Draw(t, "asked s")}
			there := slices.ContainsFunc(all, func(l map[string]any) bool { return l["v"] == asked["v"] && l["s"] == asked["s"] })
			b := NewSubsets(Policy{Kind: LeastRequest}, &Subsets{Selectors: []Selector{vs}}, Set{Endpoints: labelled(all...)})
			e := b.Pick(&Context{Match: asked})
			if there != (e != nil) {
				t.Fatalf("chosen: %v, is there: %v", e, there)
			}
			if e != nil && (e.Metadata.Load()["envoy.lb"]["v"] != asked["v"] || e.Metadata.Load()["envoy.lb"]["s"] != asked["s"]) {
				t.Fatalf("%v has not %v", e.Metadata.Load(), asked)
			}
		})
	})
}

func TestSubsetStats(t *testing.T) {
	store := stats.NewStore()
	s := NewStats(store.Scope("cluster.c."))
	config := &Subsets{Selectors: []Selector{{Keys: []string{"v"}}}}
	match := map[string]any{"v": "1"}
	for _, list := range [][]*endpoint.Endpoint{
		labelled(map[string]any{"v": "1"}, map[string]any{"v": "2"}), labelled(map[string]any{"v": "1"}),
	} {
		NewSubsets(Policy{}, config, Set{Endpoints: list, Stats: s}).Pick(&Context{Match: match})
	}
	if s.subsetsActive.Value() != 1 || s.subsetsCreated.Value() != 2 || s.subsetsRemoved.Value() != 1 || s.subsetsSelected.Value() != 2 {
		t.Errorf("active %d, created %d, removed %d, selected %d; want 1, 2, 1, 2",
			s.subsetsActive.Value(), s.subsetsCreated.Value(), s.subsetsRemoved.Value(), s.subsetsSelected.Value())
	}
}

func TestSubsetPickAllocatesNothing(t *testing.T) {
	list := labelled(map[string]any{"v": "1"}, map[string]any{"v": "1"})
	b := NewSubsets(Policy{}, &Subsets{Selectors: []Selector{{Keys: []string{"v"}}}}, Set{Endpoints: list})
	x := &Context{Match: map[string]any{"v": "1"}}
	if n := testing.AllocsPerRun(100, func() { b.Pick(x) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
