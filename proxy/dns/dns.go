// Package dns resolves host names for DNS clusters, with times to live.
//
// A Resolver asks the servers of resolv.conf (or of the configuration) by UDP and,
// when an answer was cut, by TCP; names in the hosts file and literals win. Answers are
// kept for their TTL in a bounded cache, failures are not kept: a cluster holds on to
// its last good endpoints by itself. Not here: DNSSEC, service discovery by SRV, and a
// server (that is the agent's).
package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Family says which addresses are wanted (dns_lookup_family).
type Family uint8

// The lookup families.
const (
	Auto        Family = iota // IPv6, and IPv4 if there is none
	V4Only                    // IPv4
	V6Only                    // IPv6
	V4Preferred               // IPv4, and IPv6 if there is none
	All                       // both
)

// ErrNotFound says that the name does not exist or has no such address; every other
// error is a failure to find out.
var ErrNotFound = errors.New("no such host")

// An Answer is what a name resolved to.
type Answer struct {
	Addresses []netip.Addr // in the order of the server; never empty, shared: do not change
	// TTL is how long the answer holds, from now; 0 where nothing says so (hosts file).
	TTL time.Duration
}

// Options are the settings of a Resolver; the zero value is the system's.
type Options struct {
	// Servers are "ip:port"; empty: nameserver lines of ResolvConf.
	Servers []string
	// ResolvConf and Hosts are files, /etc/resolv.conf and /etc/hosts if empty.
	ResolvConf, Hosts string
	// NoSearch resolves names as they are (no_default_search_domain).
	NoSearch bool
	// TCP asks by TCP at once (use_tcp_for_dns_lookups).
	TCP bool
	// Timeout is that of one question to one server, 2 s by default; Tries is how
	// often the servers are asked in turn, 3 by default.
	Timeout time.Duration
	Tries   int
	// Control prepares each socket before it is bound, as net.Dialer's; nil: nothing to do.
	Control func(network, address string, c syscall.RawConn) error
}

// maxCached bounds the names that are remembered.
const maxCached = 4096

// A Resolver answers lookups. It is safe for concurrent use.
type Resolver struct {
	opts  Options
	conf  confFile
	hosts hostsFile

	mu    sync.Mutex
	cache map[key]cached
}

type key struct {
	name string
	v6   bool
}

type cached struct {
	addrs   []netip.Addr
	expires time.Time
}

// New returns a Resolver. The files are read when they are needed and again when they
// have changed.
func New(o Options) *Resolver {
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	if o.Hosts == "" {
		o.Hosts = "/etc/hosts"
	}
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Second
	}
	if o.Tries <= 0 {
		o.Tries = 3
	}
	return &Resolver{opts: o, conf: confFile{path: o.ResolvConf}, hosts: hostsFile{path: o.Hosts}, cache: map[key]cached{}}
}

// Lookup resolves name. The error wraps ErrNotFound when the answer is that there is none.
func (r *Resolver) Lookup(ctx context.Context, name string, f Family) (Answer, error) {
	if ip, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return Answer{Addresses: []netip.Addr{ip}}, nil
	}
	if len(name) == 0 || len(name) > 254 {
		return Answer{}, fmt.Errorf("%q: not a host name", name)
	}
	name = strings.ToLower(name)
	if a, ok := r.local(strings.TrimSuffix(name, "."), f); ok {
		return a, nil
	}
	switch f {
	case V4Only:
		return r.one(ctx, name, false)
	case V6Only:
		return r.one(ctx, name, true)
	case V4Preferred:
		return r.either(ctx, name, false)
	case All:
		return r.both(ctx, name)
	}
	return r.either(ctx, name, true)
}

// local answers from the hosts file; "localhost" needs none.
func (r *Resolver) local(name string, f Family) (Answer, bool) {
	addrs := r.hosts.lookup(name)
	if len(addrs) == 0 && (name == "localhost" || strings.HasSuffix(name, ".localhost")) {
		addrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	var v4, v6 []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	switch {
	case f == V4Only:
		addrs = v4
	case f == V6Only:
		addrs = v6
	case f == V4Preferred && len(v4) > 0:
		addrs = v4
	case f == Auto && len(v6) > 0:
		addrs = v6
	}
	return Answer{Addresses: addrs}, len(addrs) > 0
}

// either takes the preferred family, the other one when there is no such address.
func (r *Resolver) either(ctx context.Context, name string, v6 bool) (Answer, error) {
	a, err := r.one(ctx, name, v6)
	if errors.Is(err, ErrNotFound) {
		return r.one(ctx, name, !v6)
	}
	return a, err
}

// both takes what there is; it fails if one family fails and the other has nothing.
func (r *Resolver) both(ctx context.Context, name string) (Answer, error) {
	four, err4 := r.one(ctx, name, false)
	six, err6 := r.one(ctx, name, true)
	switch {
	case err4 == nil && err6 == nil:
		joined := append(append([]netip.Addr(nil), four.Addresses...), six.Addresses...)
		return Answer{Addresses: joined, TTL: min(four.TTL, six.TTL)}, nil
	case err4 == nil:
		return four, nil
	case err6 == nil:
		return six, nil
	case errors.Is(err4, ErrNotFound):
		return Answer{}, err6
	}
	return Answer{}, err4
}

// one answers for one family, from the cache or the servers.
func (r *Resolver) one(ctx context.Context, name string, v6 bool) (Answer, error) {
	k := key{name, v6}
	if a, ok := r.cached(k); ok {
		return a, nil
	}
	a, err := r.search(ctx, name, v6)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", strings.TrimSuffix(name, "."), err)
	}
	r.remember(k, a)
	return a, nil
}

func (r *Resolver) cached(k key) (Answer, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.cache[k]
	left := time.Until(c.expires)
	if !ok || left <= 0 {
		return Answer{}, false
	}
	return Answer{Addresses: c.addrs, TTL: left}, true
}

func (r *Resolver) remember(k key, a Answer) {
	if a.TTL <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cache) >= maxCached {
		r.evict()
	}
	r.cache[k] = cached{addrs: a.Addresses, expires: time.Now().Add(a.TTL)}
}

// evict makes room: what has expired, or else any one.
func (r *Resolver) evict() {
	now := time.Now()
	for k, c := range r.cache {
		if now.After(c.expires) {
			delete(r.cache, k)
		}
	}
	for k := range r.cache {
		if len(r.cache) < maxCached {
			return
		}
		delete(r.cache, k)
	}
}

// search tries name below the search domains as resolv.conf's ndots says.
func (r *Resolver) search(ctx context.Context, name string, v6 bool) (Answer, error) {
	conf := r.conf.load()
	servers := r.opts.Servers
	if len(servers) == 0 {
		servers = conf.servers
	}
	if len(servers) == 0 {
		return Answer{}, errors.New("no name server is configured")
	}
	var last error
	for _, candidate := range r.candidates(name, conf) {
		a, err := r.ask(ctx, servers, candidate, v6)
		if err == nil || !errors.Is(err, ErrNotFound) {
			return a, err
		}
		last = err
	}
	return Answer{}, last
}

func (r *Resolver) candidates(name string, conf conf) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	asIs := name + "."
	if r.opts.NoSearch {
		return []string{asIs}
	}
	var list []string
	for _, domain := range conf.search {
		list = append(list, name+"."+strings.TrimSuffix(domain, ".")+".")
	}
	if strings.Count(name, ".") >= conf.ndots {
		return append([]string{asIs}, list...)
	}
	return append(list, asIs)
}

// ask asks the servers in turn until one knows.
func (r *Resolver) ask(ctx context.Context, servers []string, name string, v6 bool) (Answer, error) {
	var last error
	for range r.opts.Tries {
		for _, server := range servers {
			a, err := r.exchange(ctx, server, name, v6)
			if err == nil || errors.Is(err, ErrNotFound) {
				return a, err
			}
			last = fmt.Errorf("server %s: %w", server, err)
			if ctx.Err() != nil {
				return Answer{}, last
			}
		}
	}
	return Answer{}, last
}
