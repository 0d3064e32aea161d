package control

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

const (
	// leaveTime bounds how long a proxy that is about to end waits for the others to know.
	leaveTime = time.Second
	// forgetTime is how long a proxy that has left stays out of the mesh after its stream
	// has ended, unless it comes back before. Where a Pod ends its endpoints are gone long
	// before that.
	forgetTime = time.Minute
)

// departures are the proxies that are about to end, by node id. Each change is an order to
// the builder.
type departures struct {
	orders *orders

	mu      sync.Mutex
	leaving map[string]registry.Departure
	forget  map[string]*time.Timer
}

func newDepartures() *departures {
	return &departures{orders: newOrders(), leaving: map[string]registry.Departure{}, forget: map[string]*time.Timer{}}
}

// leave takes a proxy's workload out of the mesh, at once, and returns when the other
// proxies know it, or after leaveTime.
func (s *Server) leave(ctx context.Context, p *mesh.Proxy) {
	number := s.departures.add(p)
	context.AfterFunc(ctx, func() { s.departures.forgetLater(p.ID) })
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	started := time.Now()
	generation, err := s.departures.orders.await(ctx, number)
	if err == nil {
		err = s.ads.Await(ctx, generation, p.ID)
	}
	log := s.log.With("proxy", p.Name+"."+p.Namespace, "took", time.Since(started).Round(time.Millisecond))
	if err != nil {
		log.Warn("leaves, though not every proxy has said that it knows", "error", err)
		return
	}
	log.Info("leaves, and all proxies know")
}

// arrive takes a proxy back that had left, and one that registers itself into the mesh.
func (s *Server) arrive(p *mesh.Proxy) {
	s.departures.remove(p.ID)
	s.authority.met(p)
	s.registrations.joins(s.snapshot.Load(), p)
}

func (d *departures) add(p *mesh.Proxy) (number uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaving[p.ID] = registry.Departure{Name: p.Name, Namespace: p.Namespace, Addresses: p.Addresses}
	return d.orders.give()
}

func (d *departures) remove(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.forget[id]; t != nil {
		t.Stop()
		delete(d.forget, id)
	}
	if _, ok := d.leaving[id]; ok {
		delete(d.leaving, id)
		d.orders.give()
	}
}

// forgetLater begins to forget a proxy whose stream has ended.
func (d *departures) forgetLater(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.leaving[id]; ok && d.forget[id] == nil {
		d.forget[id] = time.AfterFunc(forgetTime, func() { d.remove(id) })
	}
}

// current are the departures in a stable order, and the number of their last change.
func (d *departures) current() ([]registry.Departure, uint64) {
	number := d.orders.last()
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []registry.Departure
	for _, id := range slices.Sorted(maps.Keys(d.leaving)) {
		list = append(list, d.leaving[id])
	}
	return list, number
}

// stop ends the timers.
func (d *departures) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.forget {
		t.Stop()
	}
}
