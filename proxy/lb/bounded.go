package lb

import (
	"encoding/binary"
	"math"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// bounded is consistent hashing with bounded loads: an endpoint that has more than its
// part of the requests in flight is passed over, for others in an order that the hash
// decides.
type bounded struct {
	hashPicker
	list    []share
	weights map[*endpoint.Endpoint]float64
	factor  uint64 // percent
	active  func() int64
}

func newBounded(h hashPicker, list []share, factor uint32, active func() int64) *bounded {
	b := &bounded{hashPicker: h, list: list, weights: make(map[*endpoint.Endpoint]float64, len(list)), factor: uint64(factor), active: active}
	for _, s := range list {
		b.weights[s.e] = s.weight
	}
	if active == nil {
		b.active = b.sum
	}
	return b
}

func (b *bounded) sum() (n int64) {
	for _, s := range b.list {
		n += s.e.Active.Load()
	}
	return n
}

func (b *bounded) pick(x *Context, attempt int) *endpoint.Endpoint { return b.at(x.key(), attempt) }

func (b *bounded) at(hash uint64, attempt int) *endpoint.Endpoint {
	e := b.hashPicker.at(hash, attempt)
	slots := (uint64(max(b.active(), 0)+1)*b.factor + 99) / 100
	load := overload(e, b.weights[e], slots)
	if load <= 1 {
		return e
	}
	return b.elsewhere(e, load, hash, slots)
}

// overload is the requests of an endpoint as a multiple of its slots.
func overload(e *endpoint.Endpoint, weight float64, slots uint64) float64 {
	own := max(1, uint32(math.Ceil(float64(slots)*weight)))
	return float64(max(e.Active.Load(), 0)) / float64(own)
}

// elsewhere goes through the other endpoints in an order seeded by the hash and takes
// the first that is not overloaded, else the one that is so least.
func (b *bounded) elsewhere(first *endpoint.Endpoint, load float64, hash uint64, slots uint64) *endpoint.Endpoint {
	order := make([]uint32, len(b.list))
	for i := range order {
		order[i] = uint32(i)
	}
	random, best := newTwister(uint32(hash)), first
	for i := range order {
		j := i + int(random.below(uint32(len(order)-i)))
		order[i], order[j] = order[j], order[i]
		s := b.list[order[i]]
		if s.e == first {
			continue
		}
		switch n := overload(s.e, s.weight, slots); {
		case n <= 1:
			return s.e
		case n < load:
			best, load = s.e, n
		}
	}
	return best
}

// twister is the generator MT19937, whose sequence is the same everywhere.
type twister struct {
	state [624]uint32
	next  int
}

func newTwister(seed uint32) *twister {
	t := &twister{next: 624}
	t.state[0] = seed
	for i := 1; i < len(t.state); i++ {
		t.state[i] = 1812433253*(t.state[i-1]^t.state[i-1]>>30) + uint32(i)
	}
	return t
}

func (t *twister) uint32() uint32 {
	if t.next == len(t.state) {
		t.turn()
	}
	y := t.state[t.next]
	t.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

func (t *twister) turn() {
	n := len(t.state)
	for i := range t.state {
		y := t.state[i]&(1<<31) | t.state[(i+1)%n]&(1<<31-1)
		v := t.state[(i+397)%n] ^ y>>1
		if y&1 != 0 {
			v ^= 0x9908b0df
		}
		t.state[i] = v
	}
	t.next = 0
}

// below is uniform in [0,k).
func (t *twister) below(k uint32) uint32 {
	size := uint32(1 << 32 / uint64(k))
	if k == 1 {
		return 0 * t.uint32()
	}
	for {
		if x := t.uint32() / size; x < k {
			return x
		}
	}
}

// murmur2 is the 64 bit MurmurHash2 with the seed of libstdc++'s std::hash.
func murmur2(b []byte) uint64 {
	const m, seed = 0xc6a4a7935bd1e995, 0xc70f6907
	h := seed ^ uint64(len(b))*m
	for ; len(b) >= 8; b = b[8:] {
		k := binary.LittleEndian.Uint64(b) * m
		h = (h ^ (k^k>>47)*m) * m
	}
	if len(b) > 0 {
		var tail uint64
		for i, c := range b {
			tail |= uint64(c) << (8 * i)
		}
		h = (h ^ tail) * m
	}
	h = (h ^ h>>47) * m
	return h ^ h>>47
}
