package network

import (
	"errors"
	"net/netip"
	"sync"
)

const (
	meshAddress    = "10.244.0.1"
	machineAddress = "10.244.0.2"
	dnsAddress     = "10.96.0.10"
	apiAddress     = "10.96.0.1"
	apiPort        = 443
	// MachineName is what pods call the machine they run on.
	MachineName = "host.lateen.internal"
)

// A plan is who has which address.
type plan struct {
	pods, services, aliases netip.Prefix
	mesh, machine, dns, api netip.Addr
	pods6                   netip.Prefix
	mesh6                   netip.Addr
}

func addressPlan() plan {
	return plan{
		pods: netip.MustParsePrefix("10.244.0.0/16"), services: netip.MustParsePrefix("10.96.0.0/16"), aliases: netip.MustParsePrefix("198.19.0.0/16"),
		mesh: netip.MustParseAddr(meshAddress), machine: netip.MustParseAddr(machineAddress),
		dns: netip.MustParseAddr(dnsAddress), api: netip.MustParseAddr(apiAddress),
		pods6: netip.MustParsePrefix("fd00:10:244::/64"), mesh6: netip.MustParseAddr("fd00:10:244::1"),
	}
}

// six is the IPv6 address of a pod: its IPv4 address in the last bits.
func (p plan) six(a netip.Addr) netip.Addr {
	b, four := p.pods6.Addr().As16(), a.As4()
	copy(b[12:], four[:])
	return netip.AddrFrom16(b)
}

// inside are the ranges that pods reach without the relay: those of pods and Services,
// without this machine, which only looks like a pod.
func (p plan) inside() []netip.Prefix {
	return append(without(p.pods, p.machine), p.services, p.pods6)
}

// without are the prefixes that cover all of a range but one address.
func without(p netip.Prefix, hole netip.Addr) []netip.Prefix {
	var all []netip.Prefix
	for bits := p.Bits() + 1; bits <= hole.BitLen(); bits++ {
		b := hole.AsSlice()
		b[(bits-1)/8] ^= 0x80 >> ((bits - 1) % 8)
		sibling, _ := netip.AddrFromSlice(b)
		all = append(all, netip.PrefixFrom(sibling, bits).Masked())
	}
	return all
}

// A pool gives out addresses, each again as late as possible.
type pool struct {
	mu    sync.Mutex
	all   netip.Prefix
	first netip.Addr // those before are never given out
	last  netip.Addr
	taken map[netip.Addr]bool
}

func newPool(p plan) *pool {
	return &pool{all: p.pods, first: p.machine.Next(), last: p.machine, taken: map[netip.Addr]bool{}}
}

var errNoAddress = errors.New("no pod address is free")

func (p *pool) take() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	size := 1<<(p.all.Addr().BitLen()-p.all.Bits()) - 4 // the first three and broadcast
	if len(p.taken) >= size {
		return netip.Addr{}, errNoAddress
	}
	for {
		p.last = p.last.Next()
		if !p.all.Contains(p.last.Next()) { // broadcast
			p.last = p.first
		}
		if !p.taken[p.last] {
			p.taken[p.last] = true
			return p.last, nil
		}
	}
}

func (p *pool) free(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, a)
}

// aliases stand for addresses of 127.0.0.0/8 of this machine in pods, whose loopback is
// their own. ::1 has the alias of 127.0.0.1's turn like any other.
type aliases struct {
	mu   sync.Mutex
	all  netip.Prefix
	next netip.Addr
	of   map[netip.Addr]netip.Addr // alias by loopback address
	to   map[netip.Addr]netip.Addr
}

func newAliases(p plan) *aliases {
	return &aliases{all: p.aliases, next: p.aliases.Addr().Next(), of: map[netip.Addr]netip.Addr{}, to: map[netip.Addr]netip.Addr{}}
}

// alias returns what pods are told instead of a loopback address; false when there
// are too many.
func (a *aliases) alias(loopback netip.Addr) (netip.Addr, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.of[loopback]; ok {
		return known, true
	}
	if !a.all.Contains(a.next.Next()) {
		return netip.Addr{}, false
	}
	alias := a.next
	a.next = a.next.Next()
	a.of[loopback], a.to[alias] = alias, loopback
	return alias, true
}

// real is the address behind an alias, or the address itself.
func (a *aliases) real(addr netip.Addr) netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	if loopback, ok := a.to[addr]; ok {
		return loopback
	}
	return addr
}
