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
	Resource   string
	Error      string // the proxy's text, as it came
	Generation uint64
}

// A ConnStatus is what the server knows of one stream.
type ConnStatus struct {
	ID        string // "name.namespace-7": the proxy and the stream's number
	Proxy     *mesh.Proxy
	Address   string // the peer's
	Connected time.Time
	// Applied is the newest generation that the proxy has acknowledged in every
	// type it subscribes to; 0 before the first.
	Applied uint64
	Watches []WatchStatus // in the order of delivery
}

// A WatchStatus is what the server knows of one type on one stream.
type WatchStatus struct {
	Type     Type
	Wildcard bool
	Names    []string // subscribed by name, sorted
	Nonce    string   // of the last response
	Acked    string   // nonce of the last response that was acknowledged
	Applied  uint64   // generation the proxy acknowledged
	Refused  []Refusal
}

func (w *watch) status() WatchStatus {
	s := WatchStatus{
		Type: w.Type, Wildcard: w.wildcard, Names: w.byName(),
		Nonce: w.nonce, Acked: w.acked, Applied: w.has(),
	}
	for _, n := range slices.Sorted(maps.Keys(w.refused)) {
		s.Refused = append(s.Refused, w.refused[n])
	}
	return s
}

// has is the generation that the proxy has: one before that of what it has not answered yet,
// or has asked for and not got.
func (w *watch) has() uint64 {
	switch {
	case len(w.flight) > 0 && w.flight[0].generation <= w.applied:
		return w.flight[0].generation - min(w.flight[0].generation, 1)
	case len(w.asked) > 0:
		return w.applied - min(w.applied, 1)
	}
	return w.applied
}

func (c *conn) status() ConnStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ConnStatus{ID: c.id, Proxy: c.proxy, Address: c.address, Connected: c.since}
	for i, w := range c.ordered() {
		ws := w.status()
		s.Watches = append(s.Watches, ws)
		if i == 0 || ws.Applied < s.Applied {
			s.Applied = ws.Applied
		}
	}
	return s
}
