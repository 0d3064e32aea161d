package ads

import (
	"maps"
	"slices"
	"time"

	"github.com/lateen-mesh/lateen/control/mesh"
)

// A Refusal is a version of a resource that a proxy refused (NACK) and that is
// still the one the mesh wants.
type Refusal struct {
	Type       string // URL
	Resource   string
	Version    string
	Error      string // the proxy's text, as it came
	Generation uint64
	Time       time.Time
}

// A ConnStatus is what the server knows of one stream.
type ConnStatus struct {
	ID        string // "name.namespace-7": the proxy and the stream's number
	Proxy     *mesh.Proxy
	Address   string // the peer's
	Connected time.Time
	Delta     bool
	// Applied is the newest generation that the proxy has acknowledged in every
	// type it subscribes to; 0 before the first.
	Applied uint64
	Watches []WatchStatus // in the order of delivery
}

// Refused lists the stream's refusals.
func (c ConnStatus) Refused() []Refusal {
	var all []Refusal
	for _, w := range c.Watches {
		all = append(all, w.Refused...)
	}
	return all
}

// A WatchStatus is what the server knows of one type on one stream.
type WatchStatus struct {
	Type      Type
	Wildcard  bool
	Names     []string // subscribed by name, sorted
	Resources int      // that the proxy was told of
	Nonce     string   // of the last response
	Acked     string   // nonce of the last response that was acknowledged
	SentAt    time.Time
	AckedAt   time.Time
	Evaluated uint64 // generation the watch was last compared with
	Applied   uint64 // generation the proxy acknowledged
	Pending   int    // responses without an answer
	Refused   []Refusal
}

func (w *watch) status() WatchStatus {
	s := WatchStatus{
		Type: w.Type, Wildcard: w.wildcard, Names: slices.Sorted(maps.Keys(w.names)),
		Nonce: w.nonce, Acked: w.acked, SentAt: w.sentAt, AckedAt: w.ackedAt,
		Evaluated: w.evaluated, Applied: w.applied, Pending: len(w.flight),
	}
	for _, t := range w.told {
		if t.version != "" {
			s.Resources++
		}
	}
	for _, n := range slices.Sorted(maps.Keys(w.refused)) {
		s.Refused = append(s.Refused, w.refused[n])
	}
	return s
}

func (c *conn) status() ConnStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ConnStatus{ID: c.id, Proxy: c.proxy, Address: c.address, Connected: c.since, Delta: c.delta}
	for i, w := range c.ordered() {
		ws := w.status()
		s.Watches = append(s.Watches, ws)
		if i == 0 || ws.Applied < s.Applied {
			s.Applied = ws.Applied
		}
	}
	return s
}
