package hcm

import (
	"sync"
	"time"
)

// drainPause is how long a connection must have been silent to be ended when its
// listener drains. Clients in the middle of their requests learn by the head of their
// next answer that the connection ends, and lose none.
const drainPause = 100 * time.Millisecond

// drains wakes idle connections when their listener drains: one goroutine for each
// draining signal, not for each connection.
type drains struct {
	mu     sync.Mutex
	groups map[<-chan struct{}]*drainGroup
}

// A drainer is a connection that can be asked to end when it is idle.
type drainer interface{ drain() }

type drainGroup struct {
	conns map[drainer]struct{}
	empty chan struct{} // closed when the last connection has left
}

// join adds a connection; the returned function removes it.
func (d *drains) join(c drainer, signal <-chan struct{}) (leave func()) {
	if signal == nil {
		return func() {}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.groups[signal]
	if g == nil {
		g = &drainGroup{conns: map[drainer]struct{}{}, empty: make(chan struct{})}
		if d.groups == nil {
			d.groups = map[<-chan struct{}]*drainGroup{}
		}
		d.groups[signal] = g
		go d.await(signal, g)
	}
	g.conns[c] = struct{}{}
	return func() { d.leave(signal, g, c) }
}

func (d *drains) leave(signal <-chan struct{}, g *drainGroup, c drainer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(g.conns, c)
	if len(g.conns) == 0 {
		delete(d.groups, signal)
		close(g.empty)
	}
}

// await kicks the connections of a group once they drain, and again those that were
// still in their handshake or busy.
func (d *drains) await(signal <-chan struct{}, g *drainGroup) {
	select {
	case <-g.empty:
		return
	case <-signal:
	}
	tick := time.NewTicker(drainPause)
	defer tick.Stop()
	for {
		select {
		case <-g.empty:
			return
		case <-tick.C:
		}
		d.kick(g)
	}
}

func (d *drains) kick(g *drainGroup) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range g.conns {
		c.drain()
	}
}
