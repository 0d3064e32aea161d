package lb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hosts makes endpoints of the given weights, at priority 0.
func hosts(weights ...uint32) []*endpoint.Endpoint {
	var list []*endpoint.Endpoint
	for i, w := range weights {
		e := &endpoint.Endpoint{Address: fmt.Sprintf("10.0.0.%d:80", i+1)}
		e.Weight.Store(w)
		list = append(list, e)
	}
	return list
}

func at(priority uint32, flags uint32, n int) []*endpoint.Endpoint {
	list := hosts(make([]uint32, n)...)
	for _, e := range list {
		e.Weight.Store(1)
		e.Priority.Store(priority)
		e.Address = fmt.Sprintf("p%d-%d-%s", priority, flags, e.Address)
		e.Unhealthy.Store(flags)
	}
	return list
}

func join(groups ...[]*endpoint.Endpoint) []*endpoint.Endpoint {
	var all []*endpoint.Endpoint
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

func spread(b Balancer, n int) map[*endpoint.Endpoint]int {
	got := map[*endpoint.Endpoint]int{}
	x := &Context{Random: rand.New(rand.NewPCG(1, 2)).Uint64}
	for range n {
		got[b.Pick(x)]++
	}
	return got
}

func TestRoundRobin(t *testing.T) {
	t.Run("WI-029 ROUND_ROBIN takes each in turn", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			list := hosts(make([]uint32, rapid.IntRange(1, 20).Draw(t, "n"))...)
			for _, e := range list {
				e.Weight.Store(3)
			}
			rounds := rapid.IntRange(1, 5).Draw(t, "rounds")
			for e, n := range spread(New(Policy{Kind: RoundRobin}, Set{Endpoints: list}), rounds*len(list)) {
				if n != rounds {
					t.Fatalf("%s was taken %d times in %d rounds", e.Address, n, rounds)
				}
			}
		})
	})
	t.Run("weights", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			weights := rapid.SliceOfN(rapid.Uint32Range(1, 100), 2, 10).Draw(t, "weights")
			list := hosts(weights...)
			var sum uint32
			for _, w := range weights {
				sum += w
			}
			const cycles = 5
			got := spread(New(Policy{Kind: RoundRobin}, Set{Endpoints: list}), cycles*int(sum))
			for i, e := range list {
				if want := cycles * int(weights[i]); math.Abs(float64(got[e]-want)) > 2 {
					t.Fatalf("weight %d of %v was taken %d times, want about %d", weights[i], weights, got[e], want)
				}
			}
		})
	})
}

func TestLeastRequest(t *testing.T) {
	t.Run("DR-004 LEAST_REQUEST never takes the busier of two", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			list := hosts(1, 1)
			busy := rapid.Int64Range(1, 100).Draw(t, "busy")
			list[0].Active.Store(busy)
			got := spread(New(Policy{Kind: LeastRequest, Choices: 50}, Set{Endpoints: list}), 100)
			if got[list[0]] > 0 {
				t.Fatalf("the busy one was taken %d times", got[list[0]])
			}
		})
	})
	t.Run("power of two choices", func(t *testing.T) {
		list := hosts(1, 1, 1, 1)
		list[0].Active.Store(10)
		got := spread(New(Policy{Kind: LeastRequest}, Set{Endpoints: list}), 16000)
		// It is taken only when both choices are it: one time in sixteen.
		if n := got[list[0]]; n < 800 || n > 1200 {
			t.Errorf("the busy one was taken %d times of 16000, want about 1000", n)
		}
	})
	t.Run("unequal weights shrink with the load", func(t *testing.T) {
		list := hosts(4, 1)
		list[0].Active.Store(7) // 4/8 against 1/1
		got := spread(New(Policy{Kind: LeastRequest}, Set{Endpoints: list}), 3000)
		if n := got[list[0]]; n < 950 || n > 1050 {
			t.Errorf("taken %d times of 3000, want about 1000", n)
		}
	})
}

func TestRandom(t *testing.T) {
	t.Run("DR-004 RANDOM knows no weights", func(t *testing.T) {
		list := hosts(100, 1)
		got := spread(New(Policy{Kind: Random}, Set{Endpoints: list}), 10000)
		if n := got[list[1]]; n < 4500 || n > 5500 {
			t.Errorf("taken %d times of 10000", n)
		}
	})
}

// Shares of priorities by their health, as documented of Envoy (over-provisioning 140 %).
func TestPriorities(t *testing.T) {
	const down, degraded = endpoint.FailedEDSHealth, endpoint.Degraded
	for _, c := range []struct {
		name  string
		set   []*endpoint.Endpoint
		panic uint32
		want  map[string]int // prefix of the address → percent
	}{
		{"all healthy", join(at(0, 0, 4), at(1, 0, 4)), 50, map[string]int{"p0-0": 100}},
		{"72 % still suffice", join(at(0, 0, 72), at(0, down, 28), at(1, 0, 1)), 50, map[string]int{"p0-0": 100}},
		{"half of the first: 70 to 30", join(at(0, 0, 5), at(0, down, 5), at(1, 0, 5)), 50, map[string]int{"p0-0": 70, "p1-0": 30}},
		{"a quarter: 35 to 65", join(at(0, 0, 1), at(0, down, 3), at(1, 0, 5)), 50, map[string]int{"p0-0": 35, "p1-0": 65}},
		{"DR-015 none of the first: all to the second", join(at(0, down, 5), at(1, 0, 5)), 50, map[string]int{"p1-0": 100}},
		{"degraded after healthy", join(at(0, 0, 1), at(0, degraded, 3)), 50, map[string]int{"p0-0": 35, "p0-8": 65}},
		{"panic below the threshold", join(at(0, 0, 1), at(0, down, 3)), 50, map[string]int{"p0-0": 25, "p0-1": 75}},
		{"DR-041 no panic at threshold 0", join(at(0, 0, 1), at(0, down, 3)), 0, map[string]int{"p0-0": 100}},
		{"panic of all priorities by size", join(at(0, down, 1), at(1, down, 3)), 50, map[string]int{"p0-1": 25, "p1-1": 75}},
		{"WI-008 nothing healthy and no panic", at(0, down, 3), 0, map[string]int{"none": 100}},
		{"no endpoints", nil, 50, map[string]int{"none": 100}},
		{"a priority that is left out", at(2, 0, 1), 50, map[string]int{"p2-0": 100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 100_000
			got := map[string]int{}
			for e, k := range spread(New(Policy{Kind: RoundRobin}, Set{Endpoints: c.set, PanicThreshold: c.panic}), n) {
				key := "none"
				if e != nil {
					key = fmt.Sprintf("p%d-%d", e.Priority.Load(), e.Unhealthy.Load())
				}
				got[key] += k
			}
			for key, percent := range c.want {
				if math.Abs(float64(got[key])-float64(percent)*n/100) > n/100 {
					t.Errorf("%s has %d of %d, want %d %% (all: %v)", key, got[key], n, percent, got)
				}
				delete(got, key)
			}
			if len(got) > 0 {
				t.Errorf("also chosen: %v", got)
			}
		})
	}
}

func TestLocalities(t *testing.T) {
	a, b := at(0, 0, 4), at(0, 0, 2)
	for _, e := range a {
		e.Locality.Zone = "a"
	}
	for _, e := range b {
		e.Locality.Zone = "b"
	}
	set := Set{Endpoints: join(a, b), LocalityWeights: map[LocalityKey]uint32{
		{Locality: endpoint.Locality{Zone: "a"}}: 1, {Locality: endpoint.Locality{Zone: "b"}}: 3}}
	share := func() float64 {
		var inB int
		for e, n := range spread(New(Policy{Kind: RoundRobin, Locality: ByWeight}, set), 10000) {
			if e.Locality.Zone == "b" {
				inB += n
			}
		}
		return float64(inB) / 100
	}
	t.Run("DR-014 by weight", func(t *testing.T) {
		if got := share(); math.Abs(got-75) > 1 {
			t.Errorf("%.1f %% in b, want 75 %%", got)
		}
	})
	t.Run("less where endpoints fail", func(t *testing.T) {
		b[0].Unhealthy.Store(endpoint.FailedOutlier) // half: 0.7 × 3 against 1
		if got := share(); math.Abs(got-100*2.1/3.1) > 1 {
			t.Errorf("%.1f %% in b, want %.1f %%", got, 100*2.1/3.1)
		}
	})
}

func TestAvoid(t *testing.T) {
	t.Run("WI-020 a retry goes to another host while there is one", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			list := hosts(1, 1, 1)
			b := New(Policy{Kind: rapid.SampledFrom([]Kind{RoundRobin, Maglev, RingHash}).Draw(t, "kind")}, Set{Endpoints: list})
			x := &Context{HasHash: true, Hash: rapid.Uint64().Draw(t, "hash")}
			first := b.Pick(x)
			x.Avoid, x.Attempts = []*endpoint.Endpoint{first}, 200
			if second := b.Pick(x); second == first {
				t.Fatal("the same host again")
			}
		})
	})
	t.Run("but a single host is taken again", func(t *testing.T) {
		list := hosts(1)
		if e := New(Policy{}, Set{Endpoints: list}).Pick(&Context{Avoid: list, Attempts: 5}); e != list[0] {
			t.Error("no host")
		}
	})
}

func TestConsistentHash(t *testing.T) {
	for _, kind := range []Kind{RingHash, Maglev} {
		p := Policy{Kind: kind, MinRing: 4096, Table: 4099}
		t.Run("WI-029 "+kind.String()+" is stable and moves little", func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				n := rapid.IntRange(2, 12).Draw(t, "n")
				list := hosts(make([]uint32, n)...)
				for _, e := range list {
					e.Weight.Store(1)
				}
				shuffled := rapid.Permutation(list).Draw(t, "shuffled")
				before, again := New(p, Set{Endpoints: list}), New(p, Set{Endpoints: shuffled})
				gone := rapid.IntRange(0, n-1).Draw(t, "gone")
				after := New(p, Set{Endpoints: append(append([]*endpoint.Endpoint{}, list[:gone]...), list[gone+1:]...)})
				const keys = 2000
				moved := 0
				for i := range uint64(keys) {
					x := &Context{HasHash: true, Hash: i * 0x9E3779B97F4A7C15}
					e := before.Pick(x)
					if e != again.Pick(x) {
						t.Fatal("the same set in another order answers differently")
					}
					if e != list[gone] && e != after.Pick(x) {
						moved++
					}
				}
				if moved > keys/4 {
					t.Fatalf("%d of %d keys moved though their host stayed", moved, keys)
				}
			})
		})
		t.Run(kind.String()+" by weight", func(t *testing.T) {
			list := hosts(1, 3)
			b, got := New(p, Set{Endpoints: list}), 0
			for i := range uint64(20000) {
				if b.Pick(&Context{HasHash: true, Hash: i * 0x9E3779B97F4A7C15}) == list[1] {
					got++
				}
			}
			if got < 14000 || got > 16000 {
				t.Errorf("weight 3 of 4 has %d of 20000", got)
			}
		})
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, kind := range []Kind{RoundRobin, LeastRequest, Random, RingHash, Maglev} {
		for _, weights := range [][]uint32{{1, 1, 1}, {1, 2, 3}} {
			b := New(Policy{Kind: kind}, Set{Endpoints: hosts(weights...)})
			x := &Context{HasHash: true, Hash: 42}
			if n := testing.AllocsPerRun(100, func() { b.Pick(x) }); n != 0 {
				t.Errorf("%v with weights %v: %v allocations", kind, weights, n)
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, kind := range []Kind{RoundRobin, LeastRequest, Random, RingHash} {
		b.Run(kind.String(), func(b *testing.B) {
			l, x := New(Policy{Kind: kind}, Set{Endpoints: hosts(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)}), &Context{}
			for b.Loop() {
				l.Pick(x)
			}
		})
	}
}

// TestWithout: priorities can be left out, as long as others have endpoints.
func TestWithout(t *testing.T) {
	list := append(append(at(0, 0, 2), at(1, 0, 2)...), at(2, endpoint.FailedEDSHealth, 1)...)
	b := New(Policy{Kind: Random}, Set{Endpoints: list})
	for without, want := range map[uint64]uint32{0: 0, 1: 1, 2: 0, 4: 0, 6: 0, 3: 0, 7: 0} {
		for range 20 {
			if e := b.Pick(&Context{Without: without}); e == nil || e.Priority.Load() != want {
				t.Fatalf("without %b: %v, want priority %d", without, e, want)
			}
		}
	}
}
