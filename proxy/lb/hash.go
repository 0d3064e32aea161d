package lb

import (
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// ring is consistent hashing on a circle, with Envoy's hashes: XXH64 of "address_n".
type ring struct {
	points []point
}

type point struct {
	hash uint64
	e    *endpoint.Endpoint
}

func newRing(p Policy, hosts []*endpoint.Endpoint) picker {
	minRing, maxRing := p.MinRing, p.MaxRing
	if minRing == 0 {
		minRing = 1024
	}
	if maxRing == 0 {
		maxRing = 8 << 20
	}
	weights, least, _ := normalized(hosts)
	scale := math.Min(math.Ceil(least*float64(minRing))/least, float64(maxRing))
	r := &ring{points: make([]point, 0, int(math.Ceil(scale)))}
	var current, target float64
	for i, e := range hosts {
		key := append([]byte(p.hashKey(e)), '_')
		target += scale * weights[i]
		for n := uint64(0); current < target; n++ {
			r.points = append(r.points, point{xxhash.Sum64(strconv.AppendUint(key, n, 10)), e})
			current++
		}
	}
	sort.Slice(r.points, func(i, j int) bool { return r.points[i].hash < r.points[j].hash })
	return r
}

// pick goes on along the ring when an attempt is repeated.
func (r *ring) pick(x *Context, attempt int) *endpoint.Endpoint {
	h := x.Hash
	if !x.HasHash {
		h = x.random()
	}
	lo, hi := 0, len(r.points)
	for lo < hi {
		if mid := (lo + hi) / 2; r.points[mid].hash < h {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return r.points[(lo+attempt)%len(r.points)].e
}

// maglev is consistent hashing by a table that the endpoints fill in turn.
type maglev struct {
	hosts []*endpoint.Endpoint
	table []uint32
}

// permutation is the order in which one endpoint asks for places of the table.
type permutation struct {
	offset, skip, next uint64
	weight, target     float64
}

func newMaglev(p Policy, hosts []*endpoint.Endpoint) picker {
	size := p.Table
	if size == 0 {
		size = 65537
	}
	// In the order of their keys, whatever the order in which they came: the order decides
	// who gets a place that two want.
	hosts = slices.Clone(hosts)
	slices.SortStableFunc(hosts, func(a, b *endpoint.Endpoint) int { return strings.Compare(p.hashKey(a), p.hashKey(b)) })
	weights, _, most := normalized(hosts)
	perms := make([]permutation, len(hosts))
	for i, e := range hosts {
		key := p.hashKey(e)
		second := xxhash.NewWithSeed(1)
		_, _ = second.WriteString(key) // a hash never fails
		perms[i] = permutation{offset: xxhash.Sum64String(key) % size, skip: second.Sum64()%(size-1) + 1, weight: weights[i]}
	}
	m := &maglev{hosts: hosts, table: make([]uint32, size)}
	for i := range m.table {
		m.table[i] = math.MaxUint32
	}
	m.fill(perms, most)
	return m
}

// fill gives places turn by turn; lighter endpoints miss turns.
func (m *maglev) fill(perms []permutation, most float64) {
	size := uint64(len(m.table))
	for turn, filled := float64(1), uint64(0); ; turn++ {
		for i := range perms {
			p := &perms[i]
			if turn*p.weight < p.target {
				continue
			}
			p.target += most
			place := (p.offset + p.skip*p.next) % size
			for m.table[place] != math.MaxUint32 {
				p.next++
				place = (p.offset + p.skip*p.next) % size
			}
			m.table[place] = uint32(i)
			p.next++
			if filled++; filled == size {
				return
			}
		}
	}
}

func (m *maglev) pick(x *Context, attempt int) *endpoint.Endpoint {
	h := x.Hash
	if !x.HasHash {
		h = x.random()
	}
	if attempt > 0 { // elsewhere, the same elsewhere each time
		h ^= ^uint64(attempt - 1)
	}
	return m.hosts[m.table[h%uint64(len(m.table))]]
}

func (p Policy) hashKey(e *endpoint.Endpoint) string {
	if p.HashHostname && e.Hostname != "" {
		return e.Hostname
	}
	return e.Address
}

// normalized are the weights as parts of their sum, with the least and the greatest.
func normalized(hosts []*endpoint.Endpoint) (weights []float64, least, most float64) {
	var sum float64
	for _, e := range hosts {
		sum += float64(e.Weight)
	}
	least = 1
	for _, e := range hosts {
		w := float64(e.Weight) / sum
		weights = append(weights, w)
		least, most = min(least, w), max(most, w)
	}
	return weights, least, most
}
