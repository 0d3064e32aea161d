package listener

import (
	"context"
	"time"
)

// drainLocked stops accepting on l and lets its connections finish within the drain
// time. s.mu is held.
func (s *Set) drainLocked(l *listener) {
	s.stats.stopped.Inc()
	l.closeSockets()
	c := l.current.Load()
	if c == nil {
		return
	}
	groups := l.groups
	l.groups = map[string]*group{}
	s.draining++
	s.wg.Go(func() {
		for _, g := range groups {
			g.startDrain()
		}
		l.arriving.cut(s)
		s.waitDrained(groups)
		c.retire()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.draining--
		s.account()
	})
}

// drainGroups drains chains that a new configuration does not have any more.
func (s *Set) drainGroups(groups map[string]*group) {
	s.stats.chainsDraining.Add(int64(len(groups)))
	s.wg.Go(func() {
		for _, g := range groups {
			g.startDrain()
		}
		s.waitDrained(groups)
		s.stats.chainsDraining.Add(-int64(len(groups)))
	})
}

// waitDrained returns when the connections of groups are gone; at the end of the drain
// time it ends them.
func (s *Set) waitDrained(groups map[string]*group) {
	timer := time.NewTimer(s.opts.DrainTime)
	defer timer.Stop()
	for _, g := range groups {
		select {
		case <-g.empty():
			continue
		case <-timer.C:
		case <-s.ctx.Done():
		}
		for _, g := range groups {
			g.end()
		}
		return
	}
}

// Drain tells connections to finish: all, or only those of inbound listeners. With
// stop the listeners accept no more; without, connections that come later are served
// as ever until somebody stops them: told to finish at once, a client would find its
// connection closed under its first request.
func (s *Set) Drain(inboundOnly, stop bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stop && !inboundOnly {
		s.stopped = true
	}
	for _, l := range s.active {
		c := l.current.Load()
		if c == nil || inboundOnly && c.direction != "INBOUND" {
			continue
		}
		if stop && len(l.sockets) > 0 {
			s.stats.stopped.Inc()
			l.closeSockets()
			s.wg.Go(func() { l.arriving.cut(s) })
		}
		for _, g := range l.groups {
			g.startDrain()
		}
		if !stop {
			l.renewGroups(c)
		}
	}
}

// renewGroups gives connections to come a place of their own beside those that drain.
func (l *listener) renewGroups(c *Config) {
	for _, ch := range c.all() {
		g := newGroup(l.set)
		g.latest.Store(ch)
		l.groups[ch.key] = g
		ch.group.Store(g)
	}
}

// WaitIdle returns when nobody accepts any more and no connection is left, also none that
// was accepted a moment ago, or with ctx's error.
func (s *Set) WaitIdle(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond) // the end of a process is no hot path
	defer tick.Stop()
	for s.held.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Close stops accepting and ends all connections; it returns when their goroutines
// are gone.
func (s *Set) Close() {
	s.mu.Lock()
	s.stopped = true
	for _, l := range s.active {
		l.closeSockets()
		for _, g := range l.groups {
			g.startDrain()
		}
	}
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.active {
		if c := l.current.Load(); c != nil {
			c.retire()
		}
	}
	for _, waiting := range []map[string]*Config{s.warming, s.blocked} {
		for _, c := range waiting {
			c.retire()
		}
	}
}

// Connections is the number of open connections.
func (s *Set) Connections() int64 { return s.total.Load() }
