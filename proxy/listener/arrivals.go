package listener

import (
	"sync"
	"time"
)

// arrivals are the connections of a listener that nobody serves yet: their listener
// filters run, or their handshake. Nothing was asked on them.
type arrivals struct {
	mu    sync.Mutex
	conns map[*conn]struct{}
}

// arrivalTime is how long a listener that has stopped waits for a client to introduce
// itself.
const arrivalTime = time.Second

func (a *arrivals) add(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conns == nil {
		a.conns = map[*conn]struct{}{}
	}
	a.conns[c] = struct{}{}
}

// remove is called when c is served, and once more at its end.
func (a *arrivals) remove(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, c)
}

// cut ends the connections that have not arrived after a moment.
func (a *arrivals) cut(s *Set) {
	if !s.pause(arrivalTime) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		c.cut()
	}
}
