package lb

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

func TestAggregate(t *testing.T) {
	const down = endpoint.FailedActiveHealth
	part := func(list []*endpoint.Endpoint) Balancer {
		return New(Policy{Kind: RoundRobin}, Set{Endpoints: list, PanicThreshold: 50})
	}
	for _, c := range []struct {
		name  string
		parts []Balancer
		want  map[string]int // prefix of the address → percent
	}{
		{"the first has it all", []Balancer{part(at(0, 0, 2)), part(at(1, 0, 2))}, map[string]int{"p0-0": 100}},
		{"the first is down", []Balancer{part(at(0, down, 2)), part(at(0, 0, 1))}, map[string]int{"p0-0": 100}},
		{"the first is half down", []Balancer{part(join(at(0, 0, 1), at(0, down, 1))), part(at(1, 0, 1))}, map[string]int{"p0-0": 70, "p1-0": 30}},
		{"priorities of the first come before the second", []Balancer{part(join(at(0, down, 1), at(1, 0, 1))), part(at(2, 0, 1))}, map[string]int{"p1-0": 100}},
		{"a part without endpoints", []Balancer{part(nil), part(at(0, 0, 1))}, map[string]int{"p0-0": 100}},
		{"nobody", []Balancer{part(nil)}, map[string]int{"none": 100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 20000
			got := map[string]int{}
			for e, k := range spread(NewAggregate(50, c.parts), n) {
				key := "none"
				if e != nil {
					key = e.Address[:4]
				}
				got[key] += k
			}
			for key, percent := range c.want {
				if math.Abs(float64(got[key])-float64(percent)*n/100) > n/50 {
					t.Errorf("%s has %d of %d, want %d %% (%v)", key, got[key], n, percent, got)
				}
			}
		})
	}
	t.Run("a retry leaves out the priority that failed", func(t *testing.T) {
		b := NewAggregate(50, []Balancer{part(at(0, 0, 1)), part(at(0, 0, 1))})
		x := &Context{}
		first := b.Pick(x)
		x.Without = 1 << x.Priority
		if second := b.Pick(x); second == first || second == nil {
			t.Errorf("the same endpoint, or none: %v", second)
		}
	})
}

// In slow start an endpoint gets a part of its weight that grows with its age.
func TestSlowStart(t *testing.T) {
	for _, kind := range []Kind{RoundRobin, LeastRequest} {
		t.Run("DR-018 "+kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				list := hosts(1, 1)
				time.Sleep(time.Hour)
				list[1].HealthySince.Store(time.Now().UnixNano())
				b := New(Policy{Kind: kind, SlowStart: SlowStart{Window: 100 * time.Second, Aggression: 1, Least: 0.1}}, Set{Endpoints: list})
				share := func() float64 { return 100 * float64(spread(b, 2000)[list[1]]) / 2000 }
				for _, c := range []struct {
					wait time.Duration
					want float64
				}{{0, 100 * 0.1 / 1.1}, {50 * time.Second, 100 * 0.5 / 1.5}, {60 * time.Second, 50}} {
					time.Sleep(c.wait)
					if got := share(); math.Abs(got-c.want) > 2 {
						t.Errorf("after %v more it has %.1f %%, want %.1f %%", c.wait, got, c.want)
					}
				}
			})
		})
	}
	t.Run("aggression", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := new(endpoint.Endpoint)
			e.Weight.Store(1)
			e.HealthySince.Store(time.Now().UnixNano())
			s := SlowStart{Window: 100 * time.Second, Aggression: 2, Least: 0.1}
			time.Sleep(25 * time.Second)
			if got := s.apply(8, e); math.Abs(got-4) > 0.01 { // 8 · √0.25
				t.Errorf("weight %v, want 4", got)
			}
		})
	})
}

func TestFullScan(t *testing.T) {
	list := hosts(1, 1, 1, 1)
	list[0].Active.Store(3)
	list[2].Active.Store(1)
	got := spread(New(Policy{Kind: LeastRequest, FullScan: true}, Set{Endpoints: list}), 1000)
	if got[list[0]] > 0 || got[list[2]] > 0 || got[list[1]] < 400 || got[list[3]] < 400 {
		t.Errorf("the two that are idle share: %v", got)
	}
}
