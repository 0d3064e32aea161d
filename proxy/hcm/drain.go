package hcm

import "sync"

// drains wakes idle connections when their listener drains: one goroutine for each
// draining signal, not for each connection.
type drains struct {
	mu     sync.Mutex
	groups map[<-chan struct{}]*drainGroup
}

type drainGroup struct {
	conns map[*conn]struct{}
	empty chan struct{} // closed when the last connection has left
}

// join adds a connection; the returned function removes it.
func (d *drains) join(c *conn) (leave func()) {
	signal := c.nc.Draining
	if signal == nil {
		return func() {}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.groups[signal]
	if g == nil {
		g = &drainGroup{conns: map[*conn]struct{}{}, empty: make(chan struct{})}
		if d.groups == nil {
			d.groups = map[<-chan struct{}]*drainGroup{}
		}
		d.groups[signal] = g
		go d.await(signal, g)
	}
	g.conns[c] = struct{}{}
	return func() { d.leave(signal, g, c) }
}

func (d *drains) leave(signal <-chan struct{}, g *drainGroup, c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(g.conns, c)
	if len(g.conns) == 0 {
		delete(d.groups, signal)
		close(g.empty)
	}
}

// await kicks the connections of a group once they drain.
func (d *drains) await(signal <-chan struct{}, g *drainGroup) {
	select {
	case <-g.empty:
		return
	case <-signal:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range g.conns {
		c.watch.kick(wakeDrain)
	}
}
