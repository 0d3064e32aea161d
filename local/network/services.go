package network

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// What one transaction takes: the socket's buffer, which a user cannot make larger, bounds it.
	maxElements   = 2000
	elementsAtime = 400 // of one message: the length of an attribute has 16 bits
	maxChanges    = 20  // ports of Services; each answer takes its part of the buffer too
)

// A portKey is one port of a Service address.
type portKey struct {
	address  netip.Addr
	protocol byte
	port     uint16
}

// A livePort is what the rules say of it now.
type livePort struct {
	serial   int // of its chain and map
	backends []netip.AddrPort
	clientIP bool
	leaves   bool // some backend is not in the mesh: the relay connects to them all
}

// setServices changes what differs from the rules that are there. Should that fail the
// rules are made anew.
func (r *rules) setServices(all []Service) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := r.wanted(all)
	err := r.apply(wanted)
	if err == nil {
		return nil
	}
	if again := r.rebuild(wanted); again != nil {
		return fmt.Errorf("rules of Services: %w", errors.Join(err, again))
	}
	return nil
}

func (r *rules) rebuild(wanted map[portKey]livePort) error {
	if err := r.reset(); err != nil {
		return err
	}
	t, err := newTransaction()
	if err != nil {
		return err
	}
	for a := range r.pods {
		if err := t.SetAddElements(named(r.self), []nftables.SetElement{{Key: append(a.AsSlice(), a.AsSlice()...)}}); err != nil {
			return err
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return r.apply(wanted)
}

// wanted are the ports that have backends. The addresses of DNS and API are the mesh's own.
// Backends outside are for TCP only: no rule can send both ways of a datagram there.
func (r *rules) wanted(all []Service) map[portKey]livePort {
	wanted := map[portKey]livePort{}
	for _, s := range all {
		for _, a := range s.Addresses {
			if !a.Is4() || a == r.plan.dns || a == r.plan.api && r.api {
				continue
			}
			for _, p := range s.Ports {
				backends := slices.DeleteFunc(slices.Clone(p.Backends), func(b netip.AddrPort) bool { return !b.Addr().Is4() })
				if p.number() == unix.IPPROTO_UDP {
					backends = slices.DeleteFunc(backends, r.outside)
				}
				if len(backends) > 0 {
					slices.SortFunc(backends, netip.AddrPort.Compare)
					wanted[portKey{a, p.number(), p.Port}] = livePort{backends: backends, clientIP: s.ClientIP, leaves: slices.ContainsFunc(backends, r.outside)}
				}
			}
		}
	}
	return wanted
}

// outside reports whether a backend is not in the mesh: this machine's loopback, or any address
// that an EndpointSlice names.
func (r *rules) outside(backend netip.AddrPort) bool {
	return !r.plan.pods.Contains(backend.Addr()) || backend.Addr() == r.plan.machine
}

// relayed is the backend of a port that the relay serves, for a client. False: no such port.
func (r *rules) relayed(to netip.AddrPort, client netip.Addr) (netip.AddrPort, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.live[portKey{to.Addr(), unix.IPPROTO_TCP, to.Port()}]
	if !l.leaves {
		return netip.AddrPort{}, false
	}
	n := rand.Uint32()
	if l.clientIP {
		n = crc32.ChecksumIEEE(client.AsSlice())
	}
	return l.backends[int(n%uint32(len(l.backends)))], true
}

// number is the protocol's in an IP header.
func (p Port) number() byte {
	if strings.EqualFold(p.Protocol, "udp") {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// An update is the changes of Services on their way, a bounded number in each transaction.
type update struct {
	*rules
	t       *transaction
	changes map[portKey]*livePort // of this transaction; nil: gone
}

// apply makes the rules say what is wanted.
func (r *rules) apply(wanted map[portKey]livePort) error {
	t, err := newTransaction()
	if err != nil {
		return err
	}
	u := &update{r, t, map[portKey]*livePort{}}
	for key, now := range r.live {
		next, stays := wanted[key]
		if stays && slices.Equal(now.backends, next.backends) && now.clientIP == next.clientIP {
			continue
		}
		if err := u.change(key, &now, next, stays); err != nil {
			return err
		}
	}
	for key, next := range wanted {
		if _, known := r.live[key]; known {
			continue
		}
		if err := u.change(key, nil, next, true); err != nil {
			return err
		}
	}
	return u.flush()
}

// change replaces what there is now of a port (nil: nothing) by what is next, if it stays.
func (u *update) change(key portKey, now *livePort, next livePort, stays bool) error {
	u.changes[key] = nil
	if now != nil {
		if err := u.drop(key, *now); err != nil {
			return err
		}
	}
	if stays {
		if err := u.add(key, &next); err != nil {
			return err
		}
		u.changes[key] = &next
	}
	if u.t.elements >= maxElements || len(u.changes) >= maxChanges {
		return u.flush()
	}
	return nil
}

func (u *update) flush() error {
	if len(u.changes) == 0 {
		return nil
	}
	if err := u.t.Flush(); err != nil {
		return err
	}
	u.note(u.changes)
	clear(u.changes)
	var err error
	u.t, err = newTransaction()
	return err
}

// note remembers what a transaction did, and forgets UDP flows to backends that are gone:
// unlike connections they do not end by themselves.
func (r *rules) note(changes map[portKey]*livePort) {
	for key, next := range changes {
		before := r.live[key]
		if next == nil {
			delete(r.live, key)
		} else {
			r.live[key] = *next
		}
		if key.protocol == unix.IPPROTO_UDP && len(before.backends) > 0 {
			filter := &netlink.ConntrackFilter{}
			_ = filter.AddIP(netlink.ConntrackOrigDstIP, key.address.AsSlice())
			_ = filter.AddProtocol(unix.IPPROTO_UDP)
			_ = filter.AddPort(netlink.ConntrackOrigDstPort, key.port)
			_, _ = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filter) // else they end after 30 s of silence
		}
	}
}

func (u *update) add(key portKey, next *livePort) error {
	u.serial++
	next.serial = u.serial
	if next.leaves {
		chain := u.t.chain(u.table, next.chainName())
		u.t.rule(chain, toRelay())
		return u.lead(key, chain)
	}
	numbered, err := u.number(next)
	if err != nil {
		return err
	}
	chain := u.t.chain(u.table, next.chainName())
	u.t.rule(chain, next.choose(), []expr.Any{
		&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: numbered.Name, SetID: numbered.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg0, RegProtoMin: reg0 + 1},
	})
	return u.lead(key, chain)
}

// lead sends what goes to a port to its chain.
func (u *update) lead(key portKey, chain *nftables.Chain) error {
	return u.t.SetAddElements(named(u.vmap), []nftables.SetElement{{Key: key.bytes(), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain.Name}}})
}

// number makes the map of backends by number. One that is too large for a transaction
// with other things gets its own ones before: nothing refers to it yet.
func (u *update) number(l *livePort) (*nftables.Set, error) {
	backends, err := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	if err != nil {
		return nil, err
	}
	numbered := &nftables.Set{Table: u.table, Name: l.mapName(), KeyType: nftables.TypeInteger, IsMap: true, DataType: backends}
	t := u.t
	large := len(l.backends) > maxElements
	if large {
		if t, err = newTransaction(); err != nil {
			return nil, err
		}
	}
	t.set(numbered)
	var elements []nftables.SetElement
	for i, b := range l.backends {
		elements = append(elements, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(uint32(i)), Val: value(b)})
	}
	for some := range slices.Chunk(elements, elementsAtime) {
		if err := t.SetAddElements(numbered, some); err != nil {
			return nil, err
		}
		t.elements += len(some)
		if !large || t.elements < maxElements {
			continue
		}
		if err := t.Flush(); err != nil {
			return nil, err
		}
		t.elements, numbered = 0, named(numbered)
	}
	if large {
		return named(numbered), t.Flush()
	}
	return numbered, nil
}

// choose puts the number of a backend into the first register: by chance, or by the
// client's address.
func (l livePort) choose() []expr.Any {
	n := uint32(len(l.backends))
	if !l.clientIP {
		return one(&expr.Numgen{Register: reg0, Modulus: n, Type: unix.NFT_NG_RANDOM})
	}
	return []expr.Any{
		&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Hash{SourceRegister: reg0, DestRegister: reg0, Length: 4, Modulus: n, Type: expr.HashTypeJenkins, Seed: 1},
	}
}

func (u *update) drop(key portKey, now livePort) error {
	element := nftables.SetElement{Key: key.bytes(), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: now.chainName()}}
	if err := u.t.SetDeleteElements(named(u.vmap), []nftables.SetElement{element}); err != nil {
		return err
	}
	chain := &nftables.Chain{Table: u.table, Name: now.chainName()}
	u.t.FlushChain(chain)
	u.t.DelChain(chain)
	if now.leaves {
		return nil
	}
	u.t.DelSet(&nftables.Set{Table: u.table, Name: now.mapName()})
	return nil
}

func (l livePort) chainName() string { return "port-" + strconv.Itoa(l.serial) }
func (l livePort) mapName() string   { return "backends-" + strconv.Itoa(l.serial) }

// bytes are the key as the registers have it: each part fills whole ones.
func (k portKey) bytes() []byte {
	b := append(k.address.AsSlice(), k.protocol, 0, 0, 0)
	return append(b, byte(k.port>>8), byte(k.port), 0, 0)
}

func value(b netip.AddrPort) []byte {
	return append(b.Addr().AsSlice(), byte(b.Port()>>8), byte(b.Port()), 0, 0)
}
