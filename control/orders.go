package control

import (
	"context"
	"sync"
)

// orders are things that the builder is to take into a Snapshot without debounce. Each has a
// number; the Snapshot that knows of it is recorded, so that those who gave it can wait.
type orders struct {
	given chan struct{} // a signal for the builder

	mu         sync.Mutex
	number     uint64        // of the last order
	built      uint64        // of the last order that is in the Snapshot
	generation uint64        // of that Snapshot
	moved      chan struct{} // closed when built has grown
}

func newOrders() *orders {
	return &orders{given: make(chan struct{}, 1), moved: make(chan struct{})}
}

// give numbers an order and wakes the builder.
func (o *orders) give() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.number++
	select {
	case o.given <- struct{}{}:
	default:
	}
	return o.number
}

// last is the number of the newest order: what was done before it was given is there to read.
func (o *orders) last() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.number
}

// unknown reports whether no Snapshot knows the order of a number.
func (o *orders) unknown(number uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return number > o.built
}

// served records that the Snapshot of a generation, which proxies have been told of, knows
// the orders up to a number.
func (o *orders) served(number, generation uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if number > o.built {
		o.built, o.generation = number, generation
		close(o.moved)
		o.moved = make(chan struct{})
	}
}

// await returns the generation of a Snapshot that knows an order.
func (o *orders) await(ctx context.Context, number uint64) (generation uint64, err error) {
	for {
		o.mu.Lock()
		built, generation, moved := o.built, o.generation, o.moved
		o.mu.Unlock()
		if built >= number {
			return generation, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
