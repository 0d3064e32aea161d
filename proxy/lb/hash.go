package lb

import (
	"iter"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// A hashPicker chooses by a hash.
type hashPicker interface {
	picker
	at(hash uint64, attempt int) *endpoint.Endpoint
}

// share is an endpoint with its part of all weights.
type share struct {
	e      *endpoint.Endpoint
	weight float64
}

// hashing is the consistent hashing over hosts, with Envoy's choices for Envoy's hashes.
func (b *balancer) hashing(hosts []*endpoint.Endpoint) picker {
	var shares []share
	if b.policy.Locality == ByWeight && len(b.set.LocalityWeights) > 0 {
		shares = localityShares(hosts, b.set.LocalityWeights)
	} else {
		shares = hostShares(hosts, 1)
	}
	if len(shares) == 0 {
		return nil
	}
	var h hashPicker
	if b.policy.Kind == Maglev {
		m := newMaglev(b.policy, shares)
		b.set.Stats.tableSize("maglev_lb.", "entries", m.hosts())
		h = m
	} else {
		r := newRing(b.policy, shares)
		b.set.Stats.tableSize("ring_hash_lb.", "hashes", r.hosts())
		h = r
	}
	if b.policy.HashBalance > 0 {
		h = newBounded(h, shares, b.policy.HashBalance, b.set.Active)
	}
	return h
}

// hostShares cuts a whole among hosts by their weights.
func hostShares(hosts []*endpoint.Endpoint, whole float64) (list []share) {
	var sum uint64
	for _, e := range hosts {
		w := e.Weight.Load()
		list = append(list, share{e, float64(w)})
		sum += uint64(w)
	}
	for i := range list {
		list[i].weight = list[i].weight * whole / float64(sum)
	}
	return list
}

// localityShares cuts by the weights of localities first.
func localityShares(hosts []*endpoint.Endpoint, weights map[LocalityKey]uint32) (list []share) {
	order, groups := byKey(hosts)
	of := func(key LocalityKey) uint32 {
		if w, known := weights[key]; known {
			return w
		}
		return 1 // its endpoints have just been given another priority
	}
	var sum uint64
	for _, key := range order {
		sum += uint64(of(key))
	}
	for _, key := range order {
		if w := of(key); w > 0 {
			list = append(list, hostShares(groups[key], float64(w)/float64(sum))...)
		}
	}
	return list
}

func extremes(list []share) (least, most float64) {
	least = 1
	for _, s := range list {
		least, most = min(least, s.weight), max(most, s.weight)
	}
	return least, most
}

// ring is consistent hashing on a circle: hashes of "address_n".
type ring struct {
	points []point
}

type point struct {
	hash uint64
	e    *endpoint.Endpoint
}

func newRing(p Policy, list []share) *ring {
	minRing, maxRing := p.MinRing, p.MaxRing
	if minRing == 0 {
		minRing = 1024
	}
	if maxRing == 0 {
		maxRing = 8 << 20
	}
	hash := xxhash.Sum64
	if p.Murmur {
		hash = murmur2
	}
	least, _ := extremes(list)
	scale := math.Min(math.Ceil(least*float64(minRing))/least, float64(maxRing))
	r := &ring{points: make([]point, 0, int(math.Ceil(scale)))}
	var current, target float64
	for _, s := range list {
		key := append([]byte(p.hashKey(s.e)), '_')
		target += scale * s.weight
		for n := uint64(0); current < target; n++ {
			r.points = append(r.points, point{hash(strconv.AppendUint(key, n, 10)), s.e})
			current++
		}
	}
	sort.Slice(r.points, func(i, j int) bool { return r.points[i].hash < r.points[j].hash })
	return r
}

func (r *ring) pick(x *Context, attempt int) *endpoint.Endpoint { return r.at(x.key(), attempt) }

// at goes on along the ring when an attempt is repeated.
func (r *ring) at(h uint64, attempt int) *endpoint.Endpoint {
	i := sort.Search(len(r.points), func(i int) bool { return r.points[i].hash >= h })
	if i == len(r.points) {
		i = 0
	}
	return r.points[(i+attempt)%len(r.points)].e
}

// hosts yields the endpoint of each point.
func (r *ring) hosts() iter.Seq[*endpoint.Endpoint] {
	return func(yield func(*endpoint.Endpoint) bool) {
		for i := range r.points {
			if !yield(r.points[i].e) {
				return
			}
		}
	}
}

// hosts yields the endpoint of each place.
func (m *maglev) hosts() iter.Seq[*endpoint.Endpoint] {
	return func(yield func(*endpoint.Endpoint) bool) {
		for _, i := range m.table {
			if !yield(m.list[i].e) {
				return
			}
		}
	}
}

// key is the hash of a request, a random one where it has none.
func (x *Context) key() uint64 {
	if x.HasHash {
		return x.Hash
	}
	return x.random()
}

// maglev is consistent hashing by a table that the endpoints fill in turn.
type maglev struct {
	list  []share
	table []uint32
}

// permutation is the order in which one endpoint asks for places of the table.
type permutation struct {
	offset, skip, next uint64
	weight, target     float64
}

func newMaglev(p Policy, list []share) *maglev {
	size := p.Table
	if size == 0 {
		size = 65537
	}
	// In the order of their keys, whatever the order in which they came: the order decides
	// who gets a place that two want.
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b share) int { return strings.Compare(p.hashKey(a.e), p.hashKey(b.e)) })
	_, most := extremes(list)
	perms := make([]permutation, len(list))
	for i, s := range list {
		key := p.hashKey(s.e)
		second := xxhash.NewWithSeed(1)
		_, _ = second.WriteString(key) // a hash never fails
		perms[i] = permutation{offset: xxhash.Sum64String(key) % size, skip: second.Sum64()%(size-1) + 1, weight: s.weight}
	}
	m := &maglev{list: list, table: make([]uint32, size)}
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

func (m *maglev) pick(x *Context, attempt int) *endpoint.Endpoint { return m.at(x.key(), attempt) }

func (m *maglev) at(h uint64, attempt int) *endpoint.Endpoint {
	if attempt > 0 { // elsewhere, the same elsewhere each time
		h ^= ^uint64(attempt - 1)
	}
	return m.list[m.table[h%uint64(len(m.table))]].e
}

// hashKey is what stands for an endpoint in hashes: what its metadata say (envoy.lb,
// hash_key), its name or its address.
func (p Policy) hashKey(e *endpoint.Endpoint) string {
	if key, _ := e.Metadata.Load()["envoy.lb"]["hash_key"].(string); key != "" {
		return key
	}
	if p.HashHostname && e.Hostname != "" {
		return e.Hostname
	}
	return e.Address
}
