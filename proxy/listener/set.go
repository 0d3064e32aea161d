package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A Logger records finished connections.
type Logger interface {
	LogTCP(*streaminfo.Info)
	Close()
}

// Options are what a Set needs of the proxy around it. All but the limits are required.
type Options struct {
	// Network are the L4 filters that exist, in the order of the table.
	Network []network.Factory
	// Source finds who serves resources of a type: filters; nil: nobody.
	Source func(typeURL string) func(*corepb.ConfigSource) (*xds.Client, error)
	// Transport compiles a transport socket; nil is a plain one. scope is the listener's.
	Transport func(cfg *corepb.TransportSocket, scope *stats.Scope) (transport.ServerSocket, error)
	// AccessLog compiles access_log.
	AccessLog func([]*accesslogpb.AccessLog) ([]Logger, error)
	Stats     *stats.Store
	Log       *slog.Logger
	// DrainTime is how long connections of a removed listener or chain may go on.
	DrainTime time.Duration
	// ConnectionLimit is the runtime's limit of connections of a listener, 0 none; nil: none.
	ConnectionLimit func(name string) int64
	// GlobalLimit bounds the connections of all listeners together, 0: no bound.
	GlobalLimit int64
	// Publish returns the socket on which the machine around this pod listens for a port of
	// the pod, nil when the port is not published: listeners on wildcard addresses accept
	// from it too. It blocks until ctx ends at most. nil: there is no such machine.
	Publish func(ctx context.Context, port uint16) (net.Listener, error)
	// Failing reports that the proxy fails its health checks: connections end after the
	// answer that they are at. nil: never.
	Failing func() bool
	// ValidateOnly opens no sockets.
	ValidateOnly bool
}

// A Set is all listeners of a proxy. Decode and Apply are called from one goroutine at
// a time; the rest may be called from any.
type Set struct {
	opts  Options
	stats *setStats
	ctx   context.Context // ends all connections

	saidRefused, unsaid atomic.Int64 // when a refused handshake was last written down, in ns, and how many were not

	stop context.CancelFunc

	mu       sync.Mutex
	active   map[string]*listener
	warming  map[string]*Config
	blocked  map[string]*Config // whose address another listener has
	draining int
	started  bool // workers run: warm listeners accept
	stopped  bool // no listener accepts any more
	changed  chan struct{}
	calm     chan struct{} // closed when nothing warms; nil: nothing does

	byAddress atomic.Pointer[map[netip.AddrPort]*listener] // for hand-off
	total     atomic.Int64                                 // connections
	held      atomic.Int64                                 // who accepts and what was accepted, as long as its goroutine runs
	ids       atomic.Uint64                                // connection ids
	wg        sync.WaitGroup
}

// NewSet returns a set without listeners. Nothing accepts before Start.
func NewSet(o Options) *Set {
	ctx, stop := context.WithCancel(context.Background())
	s := &Set{
		opts: o, stats: newSetStats(o.Stats), ctx: ctx, stop: stop,
		active: map[string]*listener{}, warming: map[string]*Config{}, blocked: map[string]*Config{}, changed: make(chan struct{}),
	}
	s.byAddress.Store(&map[netip.AddrPort]*listener{})
	return s
}

func (s *Set) failing() bool { return s.opts.Failing != nil && s.opts.Failing() }

// Decode compiles a Listener and binds those of its addresses that are not bound yet.
// The error refuses the resource, for now (xds.Again) if its address may be free later.
// What it returns goes to Apply, or to Discard.
func (s *Set) Decode(l *listenerpb.Listener) (*Config, error) {
	c, err := s.compile(l)
	if err == nil && !s.opts.ValidateOnly {
		if err = s.bind(c); err != nil {
			c.close()
		}
		if curable(err) {
			err = xds.Again(err)
		}
	}
	if err != nil {
		s.stats.createFailure.Inc()
		return nil, err
	}
	return c, nil
}

// Discard gives back a Config that will not be applied.
func (s *Set) Discard(c *Config) { c.retire() }

func (s *Set) bind(c *Config) error {
	if !c.bindPort {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range c.addresses {
		if s.holder(c, a) != nil {
			continue
		}
		sock, err := bind(a, c.optionsOf(a))
		if err != nil {
			return err
		}
		c.bound = append(c.bound, sock)
	}
	return nil
}

// holder finds the open socket that serves an address of c: of the same name, or of
// another listener, whose place c may be about to take.
func (s *Set) holder(c *Config, a address) *socket {
	for name, l := range s.active {
		for _, sock := range l.sockets {
			same := sock.asked == a && (a.path != "" || a.ip.Port() != 0 || name == c.name)
			if same && sock.options.equal(c.optionsOf(a)) {
				return sock
			}
		}
	}
	return nil
}

// Apply puts a change in force: each updated listener as soon as it is warm, in the
// place of the one with its name, or with its address if that one is removed in the
// same change. Removed listeners drain. Errors name listeners whose address another one
// has: they are in force when that one is gone. The others are in force now.
func (s *Set) Apply(updated []*Config, removed []string) error {
	var errs []error
	s.mu.Lock()
	gone := map[string]*listener{}
	for _, name := range removed {
		forget(s.warming, name)
		forget(s.blocked, name)
		if l := s.active[name]; l != nil {
			gone[name] = l
		}
	}
	for _, c := range updated {
		forget(s.blocked, c.name)
	}
	updated = append(s.unblock(gone), updated...)
	for _, c := range updated {
		if err := s.conflict(c, gone); err != nil {
			errs = append(errs, err)
			s.stats.createFailure.Inc()
			s.blocked[c.name] = c
			continue
		}
		s.inherit(c, gone)
		forget(s.warming, c.name)
		s.warming[c.name] = c
	}
	for name, l := range gone {
		delete(s.active, name)
		s.stats.removed.Inc()
		s.drainLocked(l)
	}
	s.account()
	s.mu.Unlock()
	for _, c := range updated {
		s.whenWarm(c)
	}
	return errors.Join(errs...)
}

// forget gives up a configuration that did not come into force, if there is one.
func forget(m map[string]*Config, name string) {
	if c := m[name]; c != nil {
		delete(m, name)
		c.retire()
	}
}

// unblock takes the configurations whose address is free now.
func (s *Set) unblock(gone map[string]*listener) (free []*Config) {
	for _, name := range slices.Sorted(maps.Keys(s.blocked)) {
		if c := s.blocked[name]; s.conflict(c, gone) == nil {
			delete(s.blocked, name)
			free = append(free, c)
		}
	}
	return free
}

// conflict: two listeners cannot have one address.
func (s *Set) conflict(c *Config, gone map[string]*listener) error {
	check := func(name string, other *Config) error {
		if name == c.name || gone[name] != nil || other.bindPort != c.bindPort {
			return nil
		}
		for _, a := range other.addresses {
			for _, own := range c.addresses {
				if a == own && (a.path != "" || a.ip.Port() != 0) {
					return fmt.Errorf("error adding listener: '%s' has duplicate address '%s' as existing listener '%s'", c.name, own, name)
				}
			}
		}
		return nil
	}
	for name, l := range s.active {
		if err := check(name, l.current.Load()); err != nil {
			return err
		}
	}
	for name, w := range s.warming {
		if err := check(name, w); err != nil {
			return err
		}
	}
	return nil
}

// inherit gives a new listener the place of a removed one with its address: identity
// is the address, so renaming closes nothing.
func (s *Set) inherit(c *Config, gone map[string]*listener) {
	if s.active[c.name] != nil {
		return
	}
	for name, l := range gone {
		if l.current.Load().addresses[0] == c.addresses[0] {
			delete(gone, name)
			delete(s.active, name)
			s.active[c.name] = l
			return
		}
	}
}

// Settled returns a channel that is closed when no listener warms.
func (s *Set) Settled() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calm != nil {
		return s.calm
	}
	none := make(chan struct{})
	close(none)
	return none
}

// whenWarm activates c at once or when its routes and secrets are there.
func (s *Set) whenWarm(c *Config) {
	waits := c.ready()
	pending := false
	for _, w := range waits {
		select {
		case <-w:
		default:
			pending = true
		}
	}
	if !pending {
		s.activate(c)
		return
	}
	s.wg.Go(func() {
		for _, w := range waits {
			select {
			case <-w:
			case <-s.ctx.Done():
				return
			}
		}
		s.activate(c)
	})
}

// activate makes c what its listener serves by.
func (s *Set) activate(c *Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.warming[c.name] != c { // replaced or removed while it warmed
		return
	}
	delete(s.warming, c.name)
	l := s.active[c.name]
	if l == nil {
		l = newListener(s)
		s.active[c.name] = l
		s.stats.added.Inc()
	} else {
		s.stats.modified.Inc()
	}
	old := l.current.Load()
	l.adopt(c)
	if old != nil {
		s.stats.inPlaceUpdated.Inc()
		old.retire()
	}
	if s.started && !s.stopped {
		s.listen(l)
	}
	s.account()
}

// listen makes the sockets of l that do not yet accept do so.
func (s *Set) listen(l *listener) {
	for _, sock := range l.sockets {
		if sock.ln != nil {
			continue
		}
		if err := sock.listen(); err != nil {
			s.stats.createFailure.Inc()
			s.opts.Log.Error("listener cannot listen", "listener", l.current.Load().name, "error", err)
			continue
		}
		s.stats.createSuccess.Inc()
		s.held.Add(1)
		s.wg.Go(func() { l.accept(sock.ln) })
		if s.opts.Publish != nil && sock.wildcard() {
			s.wg.Go(func() { s.publish(l, sock) })
		}
	}
}

// account refreshes what is derived from the set: gauges, the hand-off index and
// whoever waits for a change. s.mu is held.
func (s *Set) account() {
	s.stats.active.Set(int64(len(s.active)))
	s.stats.warming.Set(int64(len(s.warming)))
	if warms := len(s.warming) > 0; warms && s.calm == nil {
		s.calm = make(chan struct{})
	} else if !warms && s.calm != nil {
		close(s.calm)
		s.calm = nil
	}
	s.stats.draining.Set(int64(s.draining))
	index := map[netip.AddrPort]*listener{}
	for _, l := range s.active {
		c := l.current.Load()
		if c == nil {
			continue
		}
		for _, a := range c.addresses {
			if a.path == "" {
				index[a.ip] = l
			}
		}
	}
	s.byAddress.Store(&index)
	close(s.changed)
	s.changed = make(chan struct{})
}

// restored finds the listener for a connection's original destination.
func (s *Set) restored(to netip.AddrPort) *listener {
	return lookup(*s.byAddress.Load(), to, func(l *listener) bool {
		c := l.current.Load()
		return c != nil && c.options.v4compat
	})
}

// lookup finds who has an address: exactly it, else the wildcard of its family with its
// port, for IPv4 also the wildcard of both (ipv4_compat, which both tells).
func lookup[L any](index map[netip.AddrPort]*L, to netip.AddrPort, both func(*L) bool) *L {
	if l := index[to]; l != nil {
		return l
	}
	six := index[netip.AddrPortFrom(netip.IPv6Unspecified(), to.Port())]
	if to.Addr().Is6() {
		return six
	}
	if l := index[netip.AddrPortFrom(netip.IPv4Unspecified(), to.Port())]; l != nil || six == nil {
		return l
	}
	if !both(six) {
		return nil
	}
	return six
}

// Start lets listeners accept: those that are warm now, the others when they are.
func (s *Set) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = true
	s.stats.workersStarted.Set(1)
	for _, l := range s.active {
		s.listen(l)
	}
}

// WaitWarm returns when no listener is warming, or with ctx's error.
func (s *Set) WaitWarm(ctx context.Context) error {
	for {
		s.mu.Lock()
		n, changed := len(s.warming), s.changed
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
