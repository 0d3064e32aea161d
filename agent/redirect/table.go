package redirect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A field is what a rule looks at.
type field string

const (
	iif      field = "iifname"
	oif      field = "oifname"
	fam      field = "meta nfproto"
	proto    field = "meta l4proto"
	src      field = "ip saddr"
	dst      field = "ip daddr"
	sport    field = "th sport"
	dport    field = "th dport"
	uid      field = "meta skuid"
	gid      field = "meta skgid"
	pktMark  field = "meta mark"
	connMark field = "ct mark"
	state    field = "ct state"
)

// A match is a condition on a packet: the field is one of the values, or none of them.
// Exactly one kind of value is there.
type match struct {
	field   field
	not     bool
	numbers []uint32       // ports, ids, marks, protocols, families, state bits
	names   []string       // interfaces
	prefix  []netip.Prefix // one
}

// An action is what happens to a packet that a rule matches.
type action struct {
	verb   verb
	number uint32 // port, mark, zone
	chain  string // of jump
}

type verb string

const (
	goBack     verb = "return" // to the chain that jumped here, or out of the rules
	accept     verb = "accept"
	drop       verb = "drop"
	jump       verb = "goto"
	redirectTo verb = "redirect to"
	tproxyTo   verb = "tproxy to"
	setMark    verb = "meta mark set" // goes on with the next rule
	setConn    verb = "ct mark set"   // likewise
	setZone    verb = "ct zone set"   // likewise
)

// A rule applies when all its matches do.
type rule struct {
	when []match
	then []action
}

// A chain is a list of rules, of which the first that decides counts.
type chain struct {
	name     string
	kind     string // nat, filter, route; "" for one that others go to
	hook     string // prerouting, output
	priority int
	rules    []rule
}

const (
	raw      = -300
	mangle   = -150
	dstnat   = -100
	loopback = "lo"

	// Marks in TPROXY mode: of what the proxy sends with a client's address (the proxy sets it), of
	// what it sends to its own pod, and of answers that go back to the proxy.
	clientMark, ownMark, answerMark = 1337, 1338, 1339
	answerTable                     = 133

	proxyZone, programZone = 1, 2
)

func is(f field, numbers ...uint32) match    { return match{field: f, numbers: numbers} }
func isNot(f field, numbers ...uint32) match { return match{field: f, not: true, numbers: numbers} }
func on(f field, name string) match          { return match{field: f, names: []string{name}} }
func in(f field, p netip.Prefix) match       { return match{field: f, prefix: []netip.Prefix{p}} }
func notIn(f field, p netip.Prefix) match {
	return match{field: f, not: true, prefix: []netip.Prefix{p}}
}

func tcp() match { return is(proto, unix.IPPROTO_TCP) }
func udp() match { return is(proto, unix.IPPROTO_UDP) }

func ports(list []uint16) []uint32 {
	var all []uint32
	for _, p := range list {
		all = append(all, uint32(p))
	}
	return all
}

// then makes a rule.
func then(do action, when ...match) rule { return rule{when: when, then: []action{do}} }

func leave() action { return action{verb: goBack} }

func to(port uint32) action { return action{verb: redirectTo, number: port} }

// A family is one of the two, with the addresses that mean the same in both.
type family struct {
	number   uint32
	loopback netip.Prefix
	inbound  netip.Prefix // from which the proxy sends inbound traffic on
}

func (r Rules) families() []family {
	local := r.Loopback
	if !local.IsValid() {
		local = netip.MustParsePrefix("127.0.0.1/32")
	}
	all := []family{{unix.NFPROTO_IPV4, local.Masked(), netip.MustParsePrefix("127.0.0.6/32")}}
	if r.IPv6 {
		all = append(all, family{unix.NFPROTO_IPV6, netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("::6/128")})
	}
	return all
}

func (r Rules) capturesDNS() bool { return r.DNS.All || len(r.DNS.Servers) > 0 }

// chains are the rules as they are installed, none for mode NONE.
func (r Rules) chains() []chain {
	if r.Mode == None {
		return nil
	}
	all := []chain{
		{name: "inbound", kind: "nat", hook: "prerouting", priority: dstnat, rules: r.inbound()},
		{name: "outbound", kind: "nat", hook: "output", priority: dstnat, rules: r.outbound()},
		{name: "proxy", rules: r.proxy()},
	}
	if r.capturesDNS() {
		all = append(all,
			chain{name: "dns-zones-in", kind: "filter", hook: "prerouting", priority: raw, rules: r.zonesIn()},
			chain{name: "dns-zones-out", kind: "filter", hook: "output", priority: raw, rules: r.zonesOut()},
		)
	}
	if r.DropInvalid {
		invalid := rule{when: []match{is(state, ctInvalid)}, then: []action{{verb: drop}}}
		all = append(all, chain{name: "invalid", kind: "filter", hook: "prerouting", priority: mangle - 1, rules: []rule{invalid}})
	}
	if r.Mode == TProxy {
		all = append(all,
			chain{name: "transparent-in", kind: "filter", hook: "prerouting", priority: mangle, rules: r.transparentIn()},
			chain{name: "transparent-out", kind: "route", hook: "output", priority: mangle, rules: r.transparentOut()},
		)
	}
	if r.IPv6 {
		return all
	}
	for i := range all {
		if all[i].hook != "" {
			all[i].rules = slices.Insert(all[i].rules, 0, then(leave(), isNot(fam, unix.NFPROTO_IPV4)))
		}
	}
	return all
}

func excluded(f field, interfaces []string) []rule {
	var all []rule
	for _, name := range interfaces {
		all = append(all, then(leave(), on(f, name)))
	}
	return all
}

// inbound is TCP that comes into the pod.
func (r Rules) inbound() []rule {
	var all []rule
	for _, name := range slices.Backward(r.VirtualInterfaces) {
		if r.Outbound.All {
			all = append(all, then(to(outboundPort), on(iif, name), tcp()))
		}
		for _, p := range r.ranges(r.Outbound.List) {
			all = append(all, then(to(outboundPort), on(iif, name), in(dst, p), tcp()))
		}
	}
	all = append(all, excluded(iif, r.VirtualInterfaces)...)
	all = append(all, excluded(iif, r.ExcludeInterfaces)...)
	if r.Mode == TProxy {
		return all
	}
	all = append(all, then(leave(), tcp(), is(dport, tunnelPort)))
	switch {
	case r.Inbound.All:
		if len(r.ExcludeInbound) > 0 {
			all = append(all, then(leave(), tcp(), is(dport, ports(r.ExcludeInbound)...)))
		}
		all = append(all, then(to(inboundPort), tcp()))
	case len(r.Inbound.List) > 0:
		all = append(all, then(to(inboundPort), tcp(), is(dport, ports(r.Inbound.List)...)))
	}
	return all
}

// owners match what the proxy sends.
func (r Rules) owners() []match {
	var all []match
	if len(r.UIDs) > 0 {
		all = append(all, is(uid, r.UIDs...))
	}
	if len(r.GIDs) > 0 {
		all = append(all, is(gid, r.GIDs...))
	}
	if r.Mark != 0 {
		all = append(all, is(pktMark, r.Mark))
	}
	return all
}

// outbound is what leaves a program of the pod.
func (r Rules) outbound() []rule {
	all := excluded(oif, r.ExcludeInterfaces)
	if len(r.ExcludeOutboundPorts) > 0 {
		all = append(all, then(leave(), tcp(), is(dport, ports(r.ExcludeOutboundPorts)...)))
	}
	for _, f := range r.families() {
		all = append(all, then(leave(), on(oif, loopback), in(src, f.inbound)))
	}
	for _, owner := range r.owners() {
		all = append(all, then(action{verb: jump, chain: "proxy"}, owner))
	}
	if !r.capturesLoopback() {
		within := []match{on(oif, loopback)}
		if r.capturesDNS() {
			within = append(within, tcp(), isNot(dport, 53))
		}
		all = append(all, then(leave(), within...))
	}
	if len(r.Groups) > 0 {
		all = append(all, then(leave(), isNot(gid, r.Groups...)))
	}
	if len(r.ExcludeGroups) > 0 {
		all = append(all, then(leave(), is(gid, r.ExcludeGroups...)))
	}
	all = append(all, r.dns()...)
	for _, f := range r.families() {
		all = append(all, then(leave(), in(dst, f.loopback)))
	}
	for _, p := range r.ranges(r.ExcludeOutbound) {
		all = append(all, then(leave(), in(dst, p)))
	}
	if len(r.OutboundPorts) > 0 {
		all = append(all, then(to(outboundPort), tcp(), is(dport, ports(r.OutboundPorts)...)))
	}
	for _, p := range r.ranges(r.Outbound.List) {
		all = append(all, then(to(outboundPort), in(dst, p), tcp()))
	}
	if r.Outbound.All {
		all = append(all, then(to(outboundPort), tcp()))
	}
	return all
}

// capturesLoopback reports that a range of loopback is to be captured.
func (r Rules) capturesLoopback() bool {
	return slices.ContainsFunc(r.Outbound.List, func(p netip.Prefix) bool { return p.Addr().IsLoopback() })
}

// ranges are those of the families that the rules are for.
func (r Rules) ranges(all []netip.Prefix) []netip.Prefix {
	if r.IPv6 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { return !p.Addr().Is4() })
}

// proxy is what the proxy sends: nothing is redirected but what goes to its own pod, for
// which TPROXY has its own way.
func (r Rules) proxy() []rule {
	if r.Mode == TProxy {
		return nil
	}
	except := []uint32{tunnelPort}
	if r.capturesDNS() {
		except = append(except, 53)
	}
	var all []rule
	for _, f := range r.families() {
		all = append(all, then(to(inboundPort), on(oif, loopback), is(fam, f.number), notIn(dst, f.loopback), tcp(), isNot(dport, except...)))
	}
	return all
}

func (r Rules) servers() []netip.Prefix {
	var all []netip.Prefix
	for _, a := range r.DNS.Servers {
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	return r.ranges(all)
}

// dns sends questions to the sidecar.
func (r Rules) dns() []rule {
	var all []rule
	for _, transport := range []match{tcp(), udp()} {
		if r.DNS.All {
			all = append(all, then(to(dnsPort), transport, is(dport, 53)))
			continue
		}
		for _, server := range r.servers() {
			all = append(all, then(to(dnsPort), in(dst, server), transport, is(dport, 53)))
		}
	}
	return all
}

// zonesOut keeps the questions of programs and those of the proxy apart for connection
// tracking: both may come from one port one after the other, and the proxy's would then
// come back to it.
func (r Rules) zonesOut() []rule {
	var all []rule
	for _, owner := range r.owners() {
		all = append(all, then(zone(proxyZone), udp(), is(dport, 53), owner))
	}
	all = append(all, then(zone(programZone), udp(), is(sport, dnsPort)))
	if r.DNS.All {
		return append(all, then(zone(programZone), udp(), is(dport, 53)))
	}
	for _, server := range r.servers() {
		all = append(all, then(zone(programZone), in(dst, server), udp(), is(dport, 53)))
	}
	return all
}

func (r Rules) zonesIn() []rule {
	if r.DNS.All {
		return []rule{then(zone(proxyZone), udp(), is(sport, 53))}
	}
	var all []rule
	for _, server := range r.servers() {
		all = append(all, then(zone(proxyZone), in(src, server), udp(), is(sport, 53)))
	}
	return all
}

func zone(n uint32) action { return action{verb: setZone, number: n} }

// transparentIn gives inbound connections to the proxy as they are.
func (r Rules) transparentIn() []rule {
	all := excluded(iif, r.ExcludeInterfaces)
	all = append(all, then(leave(), isNot(proto, unix.IPPROTO_TCP)))
	// The proxy to the application, with the client's address: answers must come back here.
	all = append(all, rule{when: []match{is(pktMark, clientMark)}, then: []action{{verb: setConn, number: clientMark}, leave()}})
	for _, f := range r.families() {
		all = append(all, then(leave(), on(iif, loopback), in(src, f.inbound)))
	}
	all = append(all, then(leave(), on(iif, loopback), isNot(pktMark, ownMark)))
	captured := []match{}
	if !r.Inbound.All {
		if len(r.Inbound.List) == 0 {
			return all
		}
		captured = append(captured, is(dport, ports(r.Inbound.List)...))
	} else if len(r.ExcludeInbound) > 0 {
		all = append(all, then(leave(), is(dport, ports(r.ExcludeInbound)...)))
	}
	all = append(all, then(action{verb: accept}, append(slices.Clone(captured), is(state, ctEstablished|ctRelated))...))
	for _, f := range r.families() {
		when := append(slices.Clone(captured), is(fam, f.number), notIn(dst, f.loopback), tcp())
		all = append(all, rule{when: when, then: []action{{verb: tproxyTo, number: inboundPort}, {verb: accept}}})
	}
	return all
}

// transparentOut marks what the proxy sends to its own pod, and answers of the application
// that would leave the pod for the client's address.
func (r Rules) transparentOut() []rule {
	all := excluded(oif, r.ExcludeInterfaces)
	all = append(all, then(leave(), isNot(proto, unix.IPPROTO_TCP)), then(leave(), on(oif, loopback), is(pktMark, clientMark)))
	for _, owner := range r.owners() {
		for _, f := range r.families() {
			mark := action{verb: setMark, number: ownMark}
			all = append(all, then(mark, on(oif, loopback), is(fam, f.number), notIn(dst, f.loopback), owner))
		}
	}
	return append(all, then(action{verb: setMark, number: answerMark}, is(connMark, clientMark)))
}

// String is the rules as `nft list` would show them, a line each.
func (r Rules) String() string {
	var b strings.Builder
	for _, c := range r.chains() {
		fmt.Fprintf(&b, "%s:", c.name)
		if c.hook != "" {
			fmt.Fprintf(&b, " %s %s %d", c.kind, c.hook, c.priority)
		}
		b.WriteByte('\n')
		for _, line := range c.rules {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	return b.String()
}

// String is the rule as nft writes it.
func (r rule) String() string {
	var words []string
	for _, m := range r.when {
		words = append(words, m.String())
	}
	for _, a := range r.then {
		words = append(words, a.String())
	}
	return strings.Join(words, " ")
}

// String is the condition as nft writes it.
func (m match) String() string {
	var values []string
	for _, n := range m.numbers {
		values = append(values, fmt.Sprint(n))
	}
	values = append(values, m.names...)
	name := string(m.field)
	for _, p := range m.prefix {
		values = append(values, p.String())
		if p.Addr().Is6() {
			name = strings.Replace(name, "ip ", "ip6 ", 1)
		}
	}
	operator := " "
	if m.not {
		operator = " != "
	}
	if len(values) == 1 {
		return name + operator + values[0]
	}
	return name + operator + "{ " + strings.Join(values, ", ") + " }"
}

// String is the action as nft writes it.
func (a action) String() string {
	switch a.verb {
	case jump:
		return string(a.verb) + " " + a.chain
	case redirectTo, tproxyTo:
		return fmt.Sprintf("%s :%d", a.verb, a.number)
	case setMark, setConn, setZone:
		return fmt.Sprintf("%s %d", a.verb, a.number)
	}
	return string(a.verb)
}
