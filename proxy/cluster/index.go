package cluster

import (
	"hash/maphash"
	"maps"
	"sync/atomic"
)

// An index finds live clusters by name without a lock. It is cut in shards, each
// copied when it changes, so that neither a lookup allocates nor a thousand additions
// copy a thousand entries each.
type index struct {
	shards [64]atomic.Pointer[map[string]*Cluster]
	seed   maphash.Seed
	n      int
}

func (x *index) shard(name string) *atomic.Pointer[map[string]*Cluster] {
	return &x.shards[maphash.String(x.seed, name)%uint64(len(x.shards))]
}

func (x *index) get(name string) *Cluster {
	if m := x.shard(name).Load(); m != nil {
		return (*m)[name]
	}
	return nil
}

// put replaces the cluster of that name, nil removes it. Callers take turns.
func (x *index) put(name string, c *Cluster) (old *Cluster) {
	s := x.shard(name)
	m := map[string]*Cluster{}
	if p := s.Load(); p != nil {
		maps.Copy(m, *p)
	}
	old = m[name]
	if c == nil {
		delete(m, name)
	} else {
		m[name] = c
	}
	if old == nil && c != nil {
		x.n++
	} else if old != nil && c == nil {
		x.n--
	}
	s.Store(&m)
	return old
}

func (x *index) len() int { return x.n }

func (x *index) all() []*Cluster {
	var list []*Cluster
	for i := range x.shards {
		if m := x.shards[i].Load(); m != nil {
			for _, c := range *m {
				list = append(list, c)
			}
		}
	}
	return list
}
