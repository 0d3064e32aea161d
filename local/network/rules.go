package network

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	tableName  = "lateen"
	leaveTCP   = 15100 // the relay: connections that leave the mesh
	leaveUDP   = 15101 // datagrams that leave it
	leaveMark  = 1
	leaveTable = 100 // route table of what has the mark
	ownTable   = 101 // of what the mesh itself sends, where the main table has no route
	afterMain  = 40000
	afterDNAT  = -90
	reg0       = 8 // the first of the registers of four bytes: NFT_REG32_00
)

// rules are the nftables of the mesh's namespace: what Service addresses mean, and what
// is handed to the relay. Safe for concurrent use.
type rules struct {
	plan plan
	api  bool
	udp  bool // datagrams leave the mesh

	mu     sync.Mutex
	table  *nftables.Table
	vmap   *nftables.Set       // address, protocol, port → chain of that port of a Service
	self   *nftables.Set       // pairs of a pod's address with itself
	pods   map[netip.Addr]bool // in self
	live   map[portKey]livePort
	serial int
}

// newRules makes the table; without the part for datagrams where the kernel has no TPROXY.
func newRules(p plan, api, udp bool) (*rules, error) {
	r := &rules{plan: p, api: api, udp: udp, pods: map[netip.Addr]bool{}}
	err := r.reset()
	if udp && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT)) {
		r.udp = false
		err = r.reset()
	}
	return r, err
}

// reset makes the table anew, with nothing of Services and pods in it.
func (r *rules) reset() error {
	r.live = map[portKey]livePort{}
	t, err := newTransaction()
	if err != nil {
		return err
	}
	r.table = &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	t.AddTable(r.table)
	t.DelTable(r.table)
	t.AddTable(r.table)
	addresses, err := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr)
	if err != nil {
		return err
	}
	key, err := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	if err != nil {
		return err
	}
	r.self = &nftables.Set{Table: r.table, Name: "self", KeyType: addresses, Concatenation: true}
	r.vmap = &nftables.Set{Table: r.table, Name: "services", KeyType: key, Concatenation: true, IsMap: true, DataType: nftables.TypeVerdict}
	t.set(r.self)
	t.set(r.vmap)
	if r.udp {
		r.datagrams(t)
	}
	r.services(t)
	r.guard(t)
	r.hairpin(t)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// datagrams hands UDP that leaves the mesh to the relay as it is. It comes before the
// translation of Service addresses.
func (r *rules) datagrams(t *transaction) {
	c := t.base(r.table, "datagrams", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle)
	t.rule(c, notUDP(), verdict(expr.VerdictReturn))
	t.rule(c, iifname("lo"), verdict(expr.VerdictReturn))
	leave := t.chain(r.table, "leave")
	t.rule(leave, family(unix.NFPROTO_IPV4), tproxy(unix.NFPROTO_IPV4, leaveUDP), mark(leaveMark), verdict(expr.VerdictAccept))
	t.rule(leave, family(unix.NFPROTO_IPV6), tproxy(unix.NFPROTO_IPV6, leaveUDP), mark(leaveMark), verdict(expr.VerdictAccept))
	t.rule(c, destination(host(r.plan.machine)), jump(expr.VerdictGoto, "leave"))
	for _, p := range append([]netip.Prefix{r.plan.pods, r.plan.services, r.plan.pods6}, nowhere()...) {
		t.rule(c, destination(p), verdict(expr.VerdictReturn))
	}
	t.rule(c, jump(expr.VerdictGoto, "leave"))
}

// nowhere are destinations that stay on their link.
func nowhere() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range []string{"127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "ff00::/8", "fe80::/10"} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// services translates Service addresses, for pods and for the mesh itself, and redirects
// TCP that leaves the mesh to the relay.
func (r *rules) services(t *transaction) {
	pre := t.base(r.table, "services-of-pods", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	out := t.base(r.table, "services-of-mesh", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	for _, c := range []*nftables.Chain{pre, out} {
		t.rule(c, family(unix.NFPROTO_IPV4), r.lookup())
		if r.api {
			t.rule(c, destination(host(r.plan.api)), tcp(), port(apiPort), toRelay())
		}
		t.rule(c, destination(host(r.plan.machine)), tcp(), toRelay())
		for _, p := range append([]netip.Prefix{r.plan.pods, r.plan.services, r.plan.pods6}, nowhere()...) {
			t.rule(c, destination(p), verdict(expr.VerdictReturn))
		}
		t.rule(c, tcp(), toRelay())
	}
}

// lookup goes to the chain of a Service's port: address, protocol and port in three
// registers are the key.
func (r *rules) lookup() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0 + 1},
		&expr.Payload{DestRegister: reg0 + 2, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg0, SetName: r.vmap.Name, SetID: r.vmap.ID, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true},
	}
}

// guard refuses what still goes to the Service range after the translation: addresses
// without a Service and Services without a backend.
func (r *rules) guard(t *transaction) {
	for name, hook := range map[string]*nftables.ChainHook{"guard-of-pods": nftables.ChainHookPrerouting, "guard-of-mesh": nftables.ChainHookOutput} {
		c := t.base(r.table, name, nftables.ChainTypeFilter, hook, nftables.ChainPriorityRef(afterDNAT))
		t.rule(c, destination(host(r.plan.dns)), verdict(expr.VerdictReturn))
		t.rule(c, destination(r.plan.services), tcp(), one(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}))
		t.rule(c, destination(r.plan.services), one(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}))
	}
}

// hairpin lets a pod reach itself by a Service: it would not take a packet that comes
// from outside with its own address.
func (r *rules) hairpin(t *transaction) {
	c := t.base(r.table, "hairpin", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	t.rule(c, family(unix.NFPROTO_IPV4), []expr.Any{
		&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 8}, // source and destination
		&expr.Lookup{SourceRegister: reg0, SetName: r.self.Name, SetID: r.self.ID},
		&expr.Immediate{Register: reg0, Data: r.plan.mesh.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg0},
	})
}

func (r *rules) addPod(a netip.Addr) error    { return r.pair(a, true) }
func (r *rules) removePod(a netip.Addr) error { return r.pair(a, false) }

// pair adds or removes a pod's address with itself.
func (r *rules) pair(a netip.Addr, add bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods[a] == add {
		return nil
	}
	t, err := newTransaction()
	if err != nil {
		return err
	}
	element := []nftables.SetElement{{Key: append(a.AsSlice(), a.AsSlice()...)}}
	change := t.SetDeleteElements
	if add {
		change = t.SetAddElements
	}
	if err := change(named(r.self), element); err != nil {
		return err
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	if r.pods[a] = add; !add {
		delete(r.pods, a)
	}
	return nil
}

// named is a set of an earlier transaction: ids count within one only.
func named(s *nftables.Set) *nftables.Set {
	c := *s
	c.ID = 0
	return &c
}

// remove deletes the table.
func (r *rules) remove() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := newTransaction()
	if err != nil {
		return err
	}
	t.AddTable(r.table)
	t.DelTable(r.table)
	return t.Flush()
}

// A transaction is one atomic change of the rules of this namespace.
type transaction struct {
	*nftables.Conn
	sets     uint32
	elements int
}

func newTransaction() (*transaction, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return &transaction{Conn: c}, nil
}

// set adds an empty named set.
func (t *transaction) set(s *nftables.Set) {
	t.sets++
	s.ID = t.sets // the library's own count is shared by all transactions of the process
	_ = t.AddSet(s, nil)
}

func (t *transaction) base(table *nftables.Table, name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return t.AddChain(&nftables.Chain{Table: table, Name: name, Type: kind, Hooknum: hook, Priority: priority})
}

func (t *transaction) chain(table *nftables.Table, name string) *nftables.Chain {
	return t.AddChain(&nftables.Chain{Table: table, Name: name})
}

func (t *transaction) rule(c *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	t.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: all})
}

func one(e expr.Any) []expr.Any { return []expr.Any{e} }

func verdict(kind expr.VerdictKind) []expr.Any { return one(&expr.Verdict{Kind: kind}) }

func jump(kind expr.VerdictKind, chain string) []expr.Any {
	return one(&expr.Verdict{Kind: kind, Chain: chain})
}

func meta(key expr.MetaKey, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg0}, &expr.Cmp{Op: op, Register: reg0, Data: data}}
}

func family(f byte) []expr.Any { return meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{f}) }

func tcp() []expr.Any    { return meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{unix.IPPROTO_TCP}) }
func notUDP() []expr.Any { return meta(expr.MetaKeyL4PROTO, expr.CmpOpNeq, []byte{unix.IPPROTO_UDP}) }

func iifname(name string) []expr.Any {
	return meta(expr.MetaKeyIIFNAME, expr.CmpOpEq, append([]byte(name), 0))
}

func mark(n uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg0, Data: binaryutil.NativeEndian.PutUint32(n)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg0},
	}
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// destination matches a range of either family.
func destination(p netip.Prefix) []expr.Any {
	f, offset, length := byte(unix.NFPROTO_IPV4), uint32(16), uint32(4)
	if p.Addr().Is6() {
		f, offset, length = unix.NFPROTO_IPV6, 24, 16
	}
	all := append(family(f), &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length})
	if p.Bits() < p.Addr().BitLen() {
		all = append(all, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: ipnet(p).Mask, Xor: make([]byte, length)})
	}
	return append(all, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()})
}

// port matches the destination port of TCP or UDP.
func port(n uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binaryutil.BigEndian.PutUint16(n)},
	}
}

// toRelay sends TCP to the relay that leaves the mesh.
func toRelay() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg0, Data: binaryutil.BigEndian.PutUint16(leaveTCP)},
		&expr.Redir{RegisterProtoMin: reg0},
	}
}

func tproxy(f byte, to uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg0, Data: binaryutil.BigEndian.PutUint16(to)},
		&expr.TProxy{Family: f, TableFamily: byte(nftables.TableFamilyINet), RegPort: reg0},
	}
}
