// Package redirect sends a pod's traffic to its sidecar: it reads what annotations say,
// and sets the nftables rules that mean it in the pod's network namespace.
//
//	Sidecar().Annotated(annotations) ─► Rules ─► Install: one transaction, table inet lateen-redirect
//
// The rules mean what the original's iptables rules mean:
//
//   - TCP that comes into the pod goes to port 15006, TCP that leaves it to 15001; DNS, if it is
//     captured, to 15053 of loopback.
//   - The proxy itself is exempt. It is known by uid, gid or the mark of its packets
//     (SO_MARK): a user who has no right to other uids uses the mark.
//   - What the proxy sends to an address of its own pod goes to 15006 too: the pod calls its own
//     Service. What it sends from 127.0.0.6 does not: that is inbound traffic on its last step.
//   - Ports, ranges and interfaces are left out or, alone, let in as the annotations say.
//
// With TPROXY the source address of inbound connections is kept. The proxy then needs
// transparent sockets, and marks with 1337 those that it opens with a client's address. Should it
// be known by that same mark only, calls of the pod's own Service go straight to the application.
//
// One thing is simpler than in the original: all uids, gids and the mark of Rules are the same
// proxy, where the original looks for calls of the own Service under the first uid only, and with
// TPROXY counts on a proxy that runs as root and is known by its gid.
package redirect

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

const (
	// ProxyID is the uid, gid and mark of a sidecar.
	ProxyID = 1337

	outboundPort = 15001
	inboundPort  = 15006
	tunnelPort   = 15008
	dnsPort      = 15053
)

// A Mode is how inbound connections come to the sidecar.
type Mode string

// The modes.
const (
	Redirect Mode = "REDIRECT" // translated: the application sees the pod's own address
	TProxy   Mode = "TPROXY"   // as they are: the application sees the client's
	None     Mode = "NONE"     // no rules at all
)

// Ports are those of a list, or all.
type Ports struct {
	All  bool
	List []uint16
}

// Ranges are those of a list, or all addresses.
type Ranges struct {
	All  bool
	List []netip.Prefix
}

// Rules are what happens to a pod's traffic. The zero Rules redirect nothing.
type Rules struct {
	Mode Mode // "" is REDIRECT

	Inbound        Ports    // that go to the sidecar
	ExcludeInbound []uint16 // of all that do

	Outbound        Ranges // that go to the sidecar
	ExcludeOutbound []netip.Prefix
	// OutboundPorts go to the sidecar wherever they are, unless the range is excluded.
	OutboundPorts        []uint16
	ExcludeOutboundPorts []uint16

	// VirtualInterfaces are those of virtual machines in the pod: what comes from them is
	// outbound traffic.
	VirtualInterfaces []string
	ExcludeInterfaces []string

	UIDs, GIDs []uint32 // of the proxy
	Mark       uint32   // of the proxy's packets; 0: none

	// Groups are the gids whose traffic goes to the sidecar. Nil: all.
	Groups        []uint32
	ExcludeGroups []uint32

	DNS DNS
	// Loopback is the range that programs of the pod reach among themselves. Zero: 127.0.0.1/32.
	Loopback netip.Prefix
	// IPv6 makes the rules for IPv6 too, which otherwise is not redirected.
	IPv6 bool
	// DropInvalid drops packets that belong to no connection.
	DropInvalid bool
}

// DNS says which questions go to the sidecar.
type DNS struct {
	All     bool         // whoever they are for
	Servers []netip.Addr // for these only
}

// Sidecar are the rules of a pod without annotations: everything goes to the sidecar but
// the ports of the sidecar itself.
func Sidecar() Rules {
	return Rules{
		Mode:    Redirect,
		Inbound: Ports{All: true}, ExcludeInbound: []uint16{15020, 15021, 15090},
		Outbound: Ranges{All: true},
		UIDs:     []uint32{ProxyID}, GIDs: []uint32{ProxyID},
	}
}

// annotation is one that changes rules.
type annotation struct {
	name string
	read func(r *Rules, value string) error
}

const (
	traffic    = "traffic.sidecar.istio.io/"
	proxyYAML  = "proxy.istio.io/config"
	statusPort = "status.sidecar.istio.io/port"
)

// annotations are all that count, in the order in which they are read.
func annotations() []annotation {
	return []annotation{
		{proxyYAML, (*Rules).readProxyConfig},
		{"sidecar.istio.io/interceptionMode", (*Rules).readMode},
		{traffic + "includeInboundPorts", func(r *Rules, v string) (err error) { r.Inbound, err = parsePorts(v); return err }},
		{traffic + "excludeInboundPorts", addPorts(func(r *Rules) *[]uint16 { return &r.ExcludeInbound })},
		{statusPort, readStatusPort},
		{traffic + "includeOutboundIPRanges", func(r *Rules, v string) (err error) { r.Outbound, err = parseRanges(v); return err }},
		{traffic + "excludeOutboundIPRanges", readExcludedRanges},
		{traffic + "includeOutboundPorts", addPorts(func(r *Rules) *[]uint16 { return &r.OutboundPorts })},
		{traffic + "excludeOutboundPorts", addPorts(func(r *Rules) *[]uint16 { return &r.ExcludeOutboundPorts })},
		{traffic + "excludeInterfaces", addNames(func(r *Rules) *[]string { return &r.ExcludeInterfaces })},
		{traffic + "kubevirtInterfaces", addNames(func(r *Rules) *[]string { return &r.VirtualInterfaces })},
		{"istio.io/reroute-virtual-interfaces", addNames(func(r *Rules) *[]string { return &r.VirtualInterfaces })},
	}
}

// Annotated returns the rules as the annotations of a pod change them. An error names the
// annotation and the value.
func (r Rules) Annotated(all map[string]string) (Rules, error) {
	r.ExcludeInbound = slices.Clone(r.ExcludeInbound)
	for _, a := range annotations() {
		value, given := all[a.name]
		if !given {
			continue
		}
		if err := a.read(&r, value); err != nil {
			return Rules{}, fmt.Errorf("annotation %s: %w", a.name, err)
		}
	}
	return r, nil
}

func (r *Rules) readMode(value string) error {
	switch m := Mode(value); m {
	case Redirect, TProxy, None:
		r.Mode = m
		return nil
	}
	return fmt.Errorf("%q is none of REDIRECT, TPROXY, NONE", value)
}

// readProxyConfig takes two fields of the ProxyConfig: the mode, and whether the sidecar
// answers DNS.
func (r *Rules) readProxyConfig(value string) error {
	var c struct {
		InterceptionMode string            `json:"interceptionMode"`
		ProxyMetadata    map[string]string `json:"proxyMetadata"`
	}
	if err := yaml.Unmarshal([]byte(value), &c); err != nil {
		return fmt.Errorf("no ProxyConfig: %w", err)
	}
	if capture, given := c.ProxyMetadata["ISTIO_META_DNS_CAPTURE"]; given {
		on, err := strconv.ParseBool(capture)
		if err != nil {
			return fmt.Errorf("proxyMetadata.ISTIO_META_DNS_CAPTURE: %q is neither true nor false", capture)
		}
		r.DNS.All = on
	}
	if c.InterceptionMode == "" {
		return nil
	}
	if err := r.readMode(c.InterceptionMode); err != nil {
		return fmt.Errorf("interceptionMode: %w", err)
	}
	return nil
}

// readStatusPort excludes the port on which the sidecar tells its status, 0 for none, in
// place of 15020.
func readStatusPort(r *Rules, value string) error {
	port, err := strconv.ParseUint(strings.TrimSpace(value), 10, 16)
	if err != nil {
		return fmt.Errorf("%q is no port", value)
	}
	r.ExcludeInbound = slices.DeleteFunc(r.ExcludeInbound, func(p uint16) bool { return p == 15020 })
	if port != 0 {
		r.ExcludeInbound = append(r.ExcludeInbound, uint16(port))
	}
	return nil
}

func readExcludedRanges(r *Rules, value string) error {
	all, err := parseRanges(value)
	if err == nil && all.All {
		return fmt.Errorf("%q would exclude everything: leave the includes empty instead", value)
	}
	r.ExcludeOutbound = all.List
	return err
}

func addPorts(field func(*Rules) *[]uint16) func(*Rules, string) error {
	return func(r *Rules, value string) error {
		all, err := parsePorts(value)
		if err != nil {
			return err
		}
		if all.All {
			return fmt.Errorf("%q is no list of ports", value)
		}
		to := field(r)
		for _, p := range all.List {
			if !slices.Contains(*to, p) {
				*to = append(*to, p)
			}
		}
		return nil
	}
}

func addNames(field func(*Rules) *[]string) func(*Rules, string) error {
	return func(r *Rules, value string) error {
		for name := range parts(value) {
			if len(name) > 15 || strings.ContainsAny(name, "/ \t") {
				return fmt.Errorf("%q is no name of an interface", name)
			}
			*field(r) = append(*field(r), name)
		}
		return nil
	}
}

// parts are the words of a list, without the empty ones.
func parts(list string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for word := range strings.SplitSeq(list, ",") {
			if word = strings.TrimSpace(word); word != "" && !yield(word) {
				return
			}
		}
	}
}

// parsePorts reads a list of ports; "*" are all, "" is none.
func parsePorts(list string) (Ports, error) {
	var p Ports
	for word := range parts(list) {
		if word == "*" {
			p.All = true
			continue
		}
		n, err := strconv.ParseUint(word, 10, 16)
		if err != nil || n == 0 {
			return Ports{}, fmt.Errorf("%q is no port", word)
		}
		p.List = append(p.List, uint16(n))
	}
	if p.All && len(p.List) > 0 {
		return Ports{}, fmt.Errorf("%q has * and ports", list)
	}
	return p, nil
}

// parseRanges reads a list of ranges; "*" are all addresses, "" is none.
func parseRanges(list string) (Ranges, error) {
	var r Ranges
	for word := range parts(list) {
		if word == "*" {
			r.All = true
			continue
		}
		p, err := netip.ParsePrefix(word)
		if a, single := netip.ParseAddr(word); err != nil && single == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || p.Addr().Zone() != "" {
			return Ranges{}, fmt.Errorf("%q is no range of addresses such as 10.0.0.0/8", word)
		}
		r.List = append(r.List, p.Masked())
	}
	if r.All && len(r.List) > 0 {
		return Ranges{}, fmt.Errorf("%q has * and ranges", list)
	}
	return r, nil
}
