// Package listener accepts connections and finds out who serves them: it runs the
// listener filters (TLS and HTTP inspection, original destination, PROXY protocol),
// chooses the filter chain in Envoy's order, sets up the transport socket and hands
// the connection to the chain's network filters.
//
// A Set owns all listeners. A Listener resource is decoded into a Config, with its
// sockets bound, and applied; it serves once everything that it needs is there. What
// makes a listener the same listener is its address: a new Config of that address
// takes the place of the old one for connections to come, and those that exist keep
// the chain they have. They end only when their chain or listener is gone for good,
// and then they are told first (network.Conn.Draining) and cut after the drain time.
//
// Every connection has a goroutine of its own, from accept to close. Listener filters
// only peek, so a connection that no chain wants is reset with its bytes unread, as
// Envoy does, and a plain stream can be spliced.
package listener

import (
	"cmp"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A listener is one place where connections come in, whatever Config it has.
type listener struct {
	set     *Set
	current atomic.Pointer[Config]
	sockets []*socket         // guarded by set.mu
	groups  map[string]*group // by chain key, guarded by set.mu
	active  atomic.Int64      // connections, for the limit

	arriving arrivals
}

func newListener(s *Set) *listener { return &listener{set: s, groups: map[string]*group{}} }

// A group is what the connections of one chain share across configurations.
type group struct {
	set    *Set
	latest atomic.Pointer[chain]
	drain  chan struct{} // closed when its connections should finish
	turn   atomic.Uint64 // of reviews

	reviews reviews

	mu sync.Mutex
	draining,
	ended bool
	members map[*conn]struct{}
	idle    chan struct{} // closed when the last member leaves; nil while nobody waits
}

func newGroup(s *Set) *group {
	return &group{set: s, drain: make(chan struct{}), members: map[*conn]struct{}{}}
}

func (g *group) startDrain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.draining {
		g.draining = true
		g.latest.Store(nil)
		close(g.drain)
	}
}

// end cuts the remaining connections, and those that still arrive.
func (g *group) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	for c := range g.members {
		c.cut()
	}
}

// empty returns a channel that is closed when the group has no members.
func (g *group) empty() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.idle == nil {
		g.idle = make(chan struct{})
		if len(g.members) == 0 {
			close(g.idle)
		}
	}
	return g.idle
}

func (g *group) join(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members[c] = struct{}{}
	if g.ended {
		c.cut()
	}
}

func (g *group) leave(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.members, c)
	if len(g.members) == 0 && g.idle != nil {
		select {
		case <-g.idle:
		default:
			close(g.idle)
		}
	}
}

// stale reports that connections of the chain ch would get another configuration now.
func (g *group) stale(ch *chain) bool {
	latest := g.latest.Load()
	return latest != nil && latest.sum != ch.sum
}

// adopt puts c in force: its chains continue the groups of equal chains, its sockets
// are those that the listener has, as far as addresses and options are the same.
// set.mu is held.
func (l *listener) adopt(c *Config) {
	groups := map[string]*group{}
	for _, ch := range c.all() {
		g := l.groups[ch.key]
		if g == nil {
			g = newGroup(l.set)
		}
		delete(l.groups, ch.key)
		groups[ch.key] = g
		ch.group.Store(g)
		if old := g.latest.Swap(ch); old != nil && old.sum != ch.sum {
			g.changed()
		}
	}
	gone := l.groups
	l.groups = groups
	l.adoptSockets(c)
	l.current.Store(c)
	if len(gone) > 0 {
		l.set.drainGroups(gone)
	}
}

func (l *listener) adoptSockets(c *Config) {
	var keep []*socket
	if c.bindPort && !l.set.opts.ValidateOnly {
		for _, a := range c.addresses {
			sock := take(&c.bound, a, c.optionsOf(a))
			if sock == nil {
				sock = take(&l.sockets, a, c.optionsOf(a))
			}
			if sock == nil { // its holder when it was decoded was another listener
				var err error
				if sock, err = bind(a, c.optionsOf(a)); err != nil {
					l.set.stats.createFailure.Inc()
					l.set.opts.Log.Error("listener lost its address", "listener", c.name, "error", err)
					continue
				}
			}
			keep = append(keep, sock)
		}
	}
	l.closeSockets()
	l.sockets = keep
}

// take removes the socket of address a from list and returns it, nil when there is none.
func take(list *[]*socket, a address, o bindOptions) *socket {
	for i, s := range *list {
		if s.asked == a && s.options.equal(o) {
			*list = append((*list)[:i:i], (*list)[i+1:]...)
			return s
		}
	}
	return nil
}

func (l *listener) closeSockets() {
	for _, s := range l.sockets {
		for _, raw := range s.pending() {
			l.begin(raw)
		}
		s.close()
	}
	l.sockets = nil
}

// accept takes connections until the socket is closed, or, when it is not ours alone,
// listens no more. Whoever starts it has counted it in the set's held.
func (l *listener) accept(ln net.Listener) {
	defer l.set.held.Add(-1)
	var said time.Time
	for {
		raw, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EINVAL) {
			return
		}
		if err != nil { // out of descriptors, or a client that gave up
			if time.Since(said) > acceptQuiet {
				said = time.Now()
				l.set.opts.Log.Warn("accept failed", "address", ln.Addr().String(), "error", err)
			}
			if !l.set.pause(acceptPause) {
				return
			}
			continue
		}
		l.keepAlive(raw)
		l.begin(raw)
	}
}

// keepAlive has the kernel probe the connection as configured.
func (l *listener) keepAlive(raw net.Conn) {
	t, ok := raw.(*net.TCPConn)
	if c := l.current.Load(); ok && c != nil && c.options.keepAlive.on {
		k := c.options.keepAlive
		cfg := net.KeepAliveConfig{Enable: true, Idle: orSystem(k.idle), Interval: orSystem(k.interval), Count: cmp.Or(k.probes, -1)}
		_ = t.SetKeepAliveConfig(cfg) // fails on a connection that has ended
	}
}

// orSystem is a time in net's form, in which a negative one leaves the system's.
func orSystem(seconds int) time.Duration {
	if seconds == 0 {
		return -1
	}
	return time.Duration(seconds) * time.Second
}

// begin serves a connection. From here on it counts for WaitIdle.
func (l *listener) begin(raw net.Conn) {
	l.set.held.Add(1)
	l.set.wg.Go(func() {
		defer l.set.held.Add(-1)
		l.serve(raw)
	})
}

// pause waits; false when the set closes.
func (s *Set) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

const (
	// acceptPause keeps a failing accept from spinning.
	acceptPause = 20 * time.Millisecond
	// acceptQuiet keeps it from filling the log.
	acceptQuiet = 10 * time.Second
)

// config takes hold of the configuration in force, nil when the listener is closed.
func (l *listener) config() *Config {
	for {
		c := l.current.Load()
		if c == nil || c.acquire() {
			return c
		}
		if l.current.Load() == c {
			return nil
		}
	}
}
