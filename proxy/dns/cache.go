package dns

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrFull says that a Cache has no room for another name (max_hosts).
var ErrFull = errors.New("too many names")

// ErrBusy says that too many wait for names to be resolved (max_pending_requests).
var ErrBusy = errors.New("too many wait for names")

// CacheOptions are the settings of a Cache.
type CacheOptions struct {
	Resolver *Resolver // required
	Family   Family
	// Refresh is how long an answer without TTL holds, 60 s by default, MinRefresh how long
	// any holds at least, 5 s by default.
	Refresh, MinRefresh time.Duration
	// FailBase and FailMax are the back-off after failures; 0: Refresh.
	FailBase, FailMax time.Duration
	// ForgetFailures drops a name that was never resolved at once, so that the next request
	// asks again (disable_dns_refresh_on_failure).
	ForgetFailures bool
	// TTL is how long a name that nobody asks for is kept, 5 min by default.
	TTL time.Duration
	// MaxHosts bounds the names, 1024 by default; MaxPending those who wait, 1024 by default.
	MaxHosts, MaxPending int
	// Timeout bounds a lookup, 5 s by default.
	Timeout time.Duration
	// Count is told of events by the names of Envoy's stats (host_added, dns_query_failure,
	// …); nil: nobody is.
	Count func(event string)
}

// A Cache keeps names resolved that requests ask for: each is looked up when it is first
// asked for, and again when its time to live is over, until nobody has asked for it for a
// while. A lookup that fails leaves the last answer in place. It is safe for concurrent
// use; Close ends its timers.
type Cache struct {
	opts CacheOptions
	ctx  context.Context
	stop context.CancelFunc

	pending atomic.Int64
	mu      sync.Mutex
	names   map[string]*cachedName
}

// cachedName is one name of a Cache.
type cachedName struct {
	cache *Cache
	name  string
	first chan struct{} // closed when the first lookup is over
	used  atomic.Int64  // when it was last asked for, ns since 1970
	found atomic.Pointer[[]netip.Addr]

	// Of the lookup that is under way, or under the cache's mu:
	err      error
	failures int
	timer    *time.Timer
}

// NewCache returns an empty cache.
func NewCache(o CacheOptions) *Cache {
	o.Refresh, o.MinRefresh = or(o.Refresh, time.Minute), or(o.MinRefresh, 5*time.Second)
	o.TTL, o.Timeout = or(o.TTL, 5*time.Minute), or(o.Timeout, 5*time.Second)
	o.MaxHosts, o.MaxPending = or(o.MaxHosts, 1024), or(o.MaxPending, 1024)
	if o.Count == nil {
		o.Count = func(string) {}
	}
	c := &Cache{opts: o, names: map[string]*cachedName{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Resolve returns the addresses of a name, in the order in which they are to be tried. It
// blocks while the name is looked up for the first time, until done. The slice is shared.
func (c *Cache) Resolve(done <-chan struct{}, name string) ([]netip.Addr, error) {
	n, err := c.name(name)
	if err != nil {
		return nil, err
	}
	select {
	case <-n.first:
	default:
		if err := c.wait(n, done); err != nil {
			return nil, err
		}
	}
	if found := n.found.Load(); found != nil {
		return *found, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return nil, n.err
}

func (c *Cache) wait(n *cachedName, done <-chan struct{}) error {
	if c.pending.Add(1) > int64(c.opts.MaxPending) {
		c.pending.Add(-1)
		c.opts.Count("dns_rq_pending_overflow")
		return ErrBusy
	}
	defer c.pending.Add(-1)
	select {
	case <-n.first:
		return nil
	case <-done:
		return context.Canceled
	case <-c.ctx.Done():
		return context.Canceled
	}
}

// Known returns the addresses of a name that was resolved before, nil for another one.
func (c *Cache) Known(name string) []netip.Addr {
	c.mu.Lock()
	n := c.names[name]
	c.mu.Unlock()
	if n == nil {
		return nil
	}
	n.used.Store(time.Now().UnixNano())
	if found := n.found.Load(); found != nil {
		return *found
	}
	return nil
}

// Len is how many names there are.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.names)
}

// name is the entry of a name; a new one is looked up.
func (c *Cache) name(name string) (*cachedName, error) {
	now := time.Now().UnixNano()
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.names[name]; n != nil {
		n.used.Store(now)
		return n, nil
	}
	if c.ctx.Err() != nil {
		return nil, c.ctx.Err()
	}
	if len(c.names) >= c.opts.MaxHosts {
		c.opts.Count("host_overflow")
		return nil, ErrFull
	}
	n := &cachedName{cache: c, name: name, first: make(chan struct{})}
	n.used.Store(now)
	c.names[name] = n
	c.opts.Count("host_added")
	go n.lookup()
	return n, nil
}

// lookup asks once and arms the next time.
func (n *cachedName) lookup() {
	c := n.cache
	c.opts.Count("dns_query_attempt")
	ctx, cancel := context.WithTimeout(c.ctx, c.opts.Timeout)
	a, err := c.opts.Resolver.Lookup(ctx, n.name, c.opts.Family)
	late := ctx.Err() != nil
	cancel()
	if c.ctx.Err() != nil {
		return
	}
	n.count(a, err, late)
	c.mu.Lock()
	defer c.mu.Unlock()
	n.err = err
	if err == nil {
		n.failures = 0
		n.found.Store(&a.Addresses)
	} else {
		n.failures++
	}
	select {
	case <-n.first:
	default:
		close(n.first)
	}
	if err != nil && n.found.Load() == nil && c.opts.ForgetFailures {
		c.remove(n)
		return
	}
	n.timer = time.AfterFunc(n.next(a, err), n.again)
}

// count tells of the outcome of a lookup, before its answer is in force.
func (n *cachedName) count(a Answer, err error, late bool) {
	count := n.cache.opts.Count
	if late {
		count("dns_query_timeout")
	}
	if err != nil {
		count("dns_query_failure")
		return
	}
	count("dns_query_success")
	if old := n.found.Load(); old == nil || !slices.Equal(*old, a.Addresses) {
		count("host_address_changed")
	}
}

// next is when to ask again.
func (n *cachedName) next(a Answer, err error) time.Duration {
	o := &n.cache.opts
	if err == nil {
		return max(or(a.TTL, o.Refresh), o.MinRefresh)
	}
	if o.FailBase == 0 {
		return o.Refresh
	}
	return backOff(o.FailBase, o.FailMax, n.failures-1)
}

// backOff is a random time below base·2ⁿ, at most limit.
func backOff(base, limit time.Duration, n int) time.Duration {
	top := min(max(limit, base), base<<min(max(n, 0), 20))
	return rand.N(max(top, time.Millisecond)) + time.Millisecond
}

// again asks again, unless nobody has asked for the name for long.
func (n *cachedName) again() {
	c := n.cache
	if time.Now().UnixNano()-n.used.Load() > int64(c.opts.TTL) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.remove(n)
		return
	}
	n.lookup()
}

// remove forgets a name. The caller holds mu.
func (c *Cache) remove(n *cachedName) {
	if c.names[n.name] == n {
		delete(c.names, n.name)
		c.opts.Count("host_removed")
	}
}

// Close forgets all names; who waits is told.
func (c *Cache) Close() {
	c.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.names {
		if n.timer != nil {
			n.timer.Stop()
		}
	}
}
