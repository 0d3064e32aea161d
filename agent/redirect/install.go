package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	tableName = "lateen-redirect"

	ctInvalid, ctEstablished, ctRelated = 1, 2, 4 // bits of ct state

	register = 1 // of 16 bytes, for whatever is looked at
)

// Install makes the rules those of a network namespace, in place of what Install set
// there before, in one step. The caller needs CAP_NET_ADMIN over the namespace.
func Install(ns *os.File, r Rules) error {
	if r.Mode == TProxy {
		if err := answerRoute(ns, r.IPv6); err != nil {
			return err
		}
	}
	c, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := &transaction{conn: c, table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}}
	c.AddTable(t.table)
	c.DelTable(t.table)
	if chains := r.chains(); chains != nil {
		if err := t.add(chains); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// answerRoute sends answers of the application that bear answerMark back to the proxy.
func answerRoute(ns *os.File, six bool) error {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName(loopback)
	if err != nil {
		return fmt.Errorf("interface lo: %w", err)
	}
	everywhere := map[int]netip.Prefix{unix.AF_INET: netip.MustParsePrefix("0.0.0.0/0")}
	if six {
		everywhere[unix.AF_INET6] = netip.MustParsePrefix("::/0")
	}
	for family, p := range everywhere {
		to := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(0, p.Addr().BitLen())}
		route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: to, Type: unix.RTN_LOCAL, Table: answerTable, Family: family}
		if family == unix.AF_INET {
			route.Scope = netlink.SCOPE_HOST
		}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("route %s of table %d: %w", p, answerTable, err)
		}
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Table, rule.Priority = family, answerMark, answerTable, answerTable
		if err := h.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("rule for mark %d: %w", answerMark, err)
		}
	}
	return nil
}

// A transaction collects the messages that make one table.
type transaction struct {
	conn  *nftables.Conn
	table *nftables.Table
	sets  uint32
}

func (t *transaction) add(chains []chain) error {
	t.conn.AddTable(t.table)
	made := map[string]*nftables.Chain{}
	for _, c := range chains {
		made[c.name] = t.conn.AddChain(t.chain(c))
	}
	for _, c := range chains {
		for _, r := range c.rules {
			exprs, err := t.exprs(r)
			if err != nil {
				return fmt.Errorf("rule %q: %w", r, err)
			}
			t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: made[c.name], Exprs: exprs})
		}
	}
	return nil
}

func (t *transaction) chain(c chain) *nftables.Chain {
	out := &nftables.Chain{Table: t.table, Name: c.name}
	if c.hook == "" {
		return out
	}
	out.Hooknum, out.Priority, out.Type = nftables.ChainHookPrerouting, new(nftables.ChainPriority(c.priority)), nftables.ChainType(c.kind)
	if c.hook == "output" {
		out.Hooknum = nftables.ChainHookOutput
	}
	return out
}

func (t *transaction) exprs(r rule) ([]expr.Any, error) {
	var all []expr.Any
	for _, m := range r.when {
		e, err := t.match(m)
		if err != nil {
			return nil, err
		}
		all = append(all, e...)
	}
	family := byte(unix.NFPROTO_IPV4)
	for _, m := range r.when {
		if m.field == fam {
			family = byte(m.numbers[0])
		}
	}
	for _, a := range r.then {
		all = append(all, a.exprs(family)...)
	}
	return all, nil
}

// match loads a field and compares it.
func (t *transaction) match(m match) ([]expr.Any, error) {
	op := expr.CmpOpEq
	if m.not {
		op = expr.CmpOpNeq
	}
	switch m.field {
	case src, dst:
		return addressIn(m.field, m.prefix[0], op), nil
	case state:
		return []expr.Any{
			m.field.load(),
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(m.numbers[0]), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
		}, nil
	case iif, oif:
		return []expr.Any{m.field.load(), &expr.Cmp{Op: op, Register: register, Data: append([]byte(m.names[0]), 0)}}, nil
	}
	if len(m.numbers) == 1 {
		return []expr.Any{m.field.load(), &expr.Cmp{Op: op, Register: register, Data: m.field.bytes(m.numbers[0])}}, nil
	}
	t.sets++
	set := &nftables.Set{ID: t.sets, Name: "__set%d", Table: t.table, Anonymous: true, Constant: true, KeyType: m.field.datatype()}
	var elements []nftables.SetElement
	for _, n := range m.numbers {
		elements = append(elements, nftables.SetElement{Key: m.field.bytes(n)})
	}
	if err := t.conn.AddSet(set, elements); err != nil {
		return nil, err
	}
	return []expr.Any{m.field.load(), &expr.Lookup{SourceRegister: register, SetName: set.Name, SetID: set.ID, Invert: m.not}}, nil
}

// addressIn compares an address, of packets of the range's family only.
func addressIn(f field, p netip.Prefix, op expr.CmpOp) []expr.Any {
	number, offset, length := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if p.Addr().Is6() {
		number, offset, length = unix.NFPROTO_IPV6, 8, 16
	}
	if f == dst {
		offset += length
	}
	all := []expr.Any{
		fam.load(), &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{number}},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
	}
	if p.Bits() < p.Addr().BitLen() {
		all = append(all, &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: length,
			Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()), Xor: make([]byte, length)})
	}
	return append(all, &expr.Cmp{Op: op, Register: register, Data: p.Masked().Addr().AsSlice()})
}

// load puts a field into the register.
func (f field) load() expr.Any {
	key := expr.MetaKeyMARK
	switch f {
	case connMark:
		return &expr.Ct{Register: register, Key: expr.CtKeyMARK}
	case state:
		return &expr.Ct{Register: register, Key: expr.CtKeySTATE}
	case sport:
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}
	case dport:
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	case iif:
		key = expr.MetaKeyIIFNAME
	case oif:
		key = expr.MetaKeyOIFNAME
	case fam:
		key = expr.MetaKeyNFPROTO
	case proto:
		key = expr.MetaKeyL4PROTO
	case uid:
		key = expr.MetaKeySKUID
	case gid:
		key = expr.MetaKeySKGID
	}
	return &expr.Meta{Key: key, Register: register}
}

// bytes are a number as the field has it in the register.
func (f field) bytes(n uint32) []byte {
	switch f {
	case sport, dport:
		return binary.BigEndian.AppendUint16(nil, uint16(n)) // ports are checked on entry
	case fam, proto:
		return []byte{byte(n)}
	}
	return binaryutil.NativeEndian.PutUint32(n)
}

func (f field) datatype() nftables.SetDatatype {
	switch f {
	case sport, dport:
		return nftables.TypeInetService
	case uid:
		return nftables.TypeUID
	case gid:
		return nftables.TypeGID
	}
	return nftables.TypeMark
}

// exprs are an action, for packets of a family where that matters.
func (a action) exprs(family byte) []expr.Any {
	switch a.verb {
	case accept:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	case drop:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	case jump:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: a.chain}}
	case redirectTo:
		return []expr.Any{&expr.Immediate{Register: register, Data: dport.bytes(a.number)}, &expr.Redir{RegisterProtoMin: register}}
	case tproxyTo:
		return []expr.Any{&expr.Immediate{Register: register, Data: dport.bytes(a.number)},
			&expr.TProxy{Family: family, TableFamily: byte(nftables.TableFamilyINet), RegPort: register}}
	case setMark:
		return []expr.Any{&expr.Immediate{Register: register, Data: pktMark.bytes(a.number)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register}}
	case setConn:
		return []expr.Any{&expr.Immediate{Register: register, Data: pktMark.bytes(a.number)},
			&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: register}}
	case setZone:
		return []expr.Any{&expr.Immediate{Register: register, Data: binaryutil.NativeEndian.PutUint16(uint16(a.number))},
			&expr.Ct{Key: expr.CtKeyZONE, SourceRegister: true, Register: register}}
	}
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
}
