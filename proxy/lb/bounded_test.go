package lb

import (
	"testing"

	"pgregory.net/rapid"
)

// The numbers are those that the makers of the functions publish.
func TestKnownValues(t *testing.T) {
	t.Run("MT19937", func(t *testing.T) {
		r := newTwister(5489)
		if got := r.uint32(); got != 3499211612 {
			t.Errorf("the first number is %d", got)
		}
		for range 9998 {
			r.uint32()
		}
		if got := r.uint32(); got != 4123659995 {
			t.Errorf("the 10000th number is %d", got)
		}
	})
	t.Run("MurmurHash2", func(t *testing.T) {
		for text, want := range map[string]uint64{"": 6142509188972423790, "hello": 2762169579135187400} {
			if got := murmur2([]byte(text)); got != want {
				t.Errorf("%q hashes to %d, want %d", text, got, want)
			}
		}
	})
}

func TestBelow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, k := newTwister(rapid.Uint32().Draw(t, "seed")), rapid.Uint32Range(1, 1000).Draw(t, "k")
		for range 20 {
			if n := r.below(k); n >= k {
				t.Fatalf("%d is not below %d", n, k)
			}
		}
	})
}

func TestBoundedLoad(t *testing.T) {
	for _, kind := range []Kind{RingHash, Maglev} {
		t.Run(kind.String()+" passes over who has too much", func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				list := hosts(1, 1, 1, 1)
				factor := rapid.Uint32Range(101, 300).Draw(t, "factor")
				b := New(Policy{Kind: kind, HashBalance: factor, Table: 4099}, Set{Endpoints: list})
				x := &Context{HasHash: true, Hash: rapid.Uint64().Draw(t, "hash")}
				requests := rapid.IntRange(4, 200).Draw(t, "requests")
				for range requests {
					b.Pick(x).Active.Add(1)
				}
				for _, e := range list {
					// Its part of the slots, rounded up, and the one that filled the last of them.
					if most := int64(requests+1)*int64(factor)/400 + 3; e.Active.Load() > most {
						t.Fatalf("%s has %d of %d requests at %d %%", e.Address, e.Active.Load(), requests, factor)
					}
				}
			})
		})
		t.Run(kind.String()+" changes nothing for who has little", func(t *testing.T) {
			list := hosts(1, 2, 3)
			with, without := New(Policy{Kind: kind, HashBalance: 150}, Set{Endpoints: list}), New(Policy{Kind: kind}, Set{Endpoints: list})
			for i := range uint64(500) {
				x := &Context{HasHash: true, Hash: i * 0x9E3779B97F4A7C15}
				if with.Pick(x) != without.Pick(x) {
					t.Fatalf("hash %d goes elsewhere though nobody is busy", x.Hash)
				}
			}
		})
	}
}
