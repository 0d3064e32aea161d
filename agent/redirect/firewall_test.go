package redirect

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/test/material"
)

// A packet is what a rule can see.
type packet struct {
	six             bool
	hook            string // prerouting, output
	iif, oif        string
	proto           uint32
	src, dst        netip.Addr
	sport, dport    uint32
	uid, gid        uint32
	mark, connMark  uint32
	state           uint32
	zone            uint32
	decision, route string // of nat, of the rest
}

func (p packet) String() string {
	return fmt.Sprintf("%s iif=%s oif=%s proto=%d %s:%d→%s:%d uid=%d gid=%d mark=%d connmark=%d state=%d",
		p.hook, p.iif, p.oif, p.proto, p.src, p.sport, p.dst, p.dport, p.uid, p.gid, p.mark, p.connMark, p.state)
}

// meaning is what becomes of a packet, in words that both kinds of rules share.
func (p packet) meaning() string {
	mark := p.mark
	if mark == answerMark { // the original uses one mark for both
		mark = clientMark
	}
	return fmt.Sprintf("nat=%s route=%s mark=%d connmark=%d zone=%d", p.decision, p.route, mark, p.connMark, p.zone)
}

// TestMeaning compares our rules with the original's, packet by packet.
func TestMeaning(t *testing.T) {
	dir := material.Path(t, "data", "firewall")
	var file struct {
		Cases []struct {
			Name     string         `json:"name"`
			Set      map[string]any `json:"set"`
			Expected string         `json:"expected"`
		} `json:"cases"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "cases.yaml"))
	if err != nil {
		t.Skipf("shared acceptance material not present: %v", err)
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, c.Expected))
			if err != nil {
				t.Fatal(err)
			}
			rules := fromFlags(t, c.Set)
			four, six := parseIPTables(t, string(text))
			chains := rules.chains()
			slices.SortStableFunc(chains, func(a, b chain) int { return a.priority - b.priority })
			decided := map[string]int{}
			all := packets(rules)
			for _, p := range all {
				original := four
				if p.six {
					original = six
				}
				want, got := original.run(t, p).meaning(), run(t, chains, p).meaning()
				if got != want {
					t.Fatalf("%s:\n ours %s\n original %s\nrules:\n%s", p, got, want, rules)
				}
				decided[got]++
			}
			t.Logf("%d packets, %d outcomes", len(all), len(decided))
			if len(decided) < 2 {
				t.Error("nothing was decided")
			}
		})
	}
}

// group is the number that tests give a group.
func group(name string) uint32 {
	n, err := strconv.ParseUint(name, 10, 32)
	if err == nil {
		return uint32(n)
	}
	return map[string]uint32{"java": 3001, "ftp": 3002}[name]
}

// fromFlags makes Rules of the original's settings.
func fromFlags(t *testing.T, set map[string]any) Rules {
	t.Helper()
	text := func(key, base string) string {
		if v, given := set[key]; given {
			return fmt.Sprint(v)
		}
		return base
	}
	numbers := func(list string) (all []uint32) {
		for word := range parts(list) {
			all = append(all, group(word))
		}
		return all
	}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	r := Rules{
		Mode: Mode(text("--istio-inbound-interception-mode", "REDIRECT")),
		UIDs: numbers(text("--proxy-uid", "1337")), GIDs: numbers(text("--proxy-gid", "1337")),
		IPv6: set["EnableIPv6"] == true, DropInvalid: set["--drop-invalid"] == true,
		VirtualInterfaces: slices.Collect(parts(text("--kube-virt-interfaces", ""))),
		ExcludeInterfaces: slices.Collect(parts(text("--istio-exclude-interfaces", ""))),
		Groups:            numbers(strings.TrimPrefix(text("OwnerGroupsInclude", "*"), "*")),
		ExcludeGroups:     numbers(text("OwnerGroupsExclude", "")),
		Loopback:          netip.MustParsePrefix(text("HostIPv4LoopbackCidr", "127.0.0.1/32")),
	}
	var err error
	r.Inbound, err = parsePorts(text("--istio-inbound-ports", ""))
	must(err)
	excluded, err := parsePorts(text("--istio-local-exclude-ports", ""))
	must(err)
	r.ExcludeInbound = excluded.List
	out, err := parsePorts(text("--istio-outbound-ports", ""))
	must(err)
	r.OutboundPorts = out.List
	r.Outbound, err = parseRanges(text("--istio-service-cidr", ""))
	must(err)
	not, err := parseRanges(text("--istio-service-exclude-cidr", ""))
	must(err)
	r.ExcludeOutbound = not.List
	if set["--redirect-dns"] == true {
		for _, key := range []string{"DNSServersV4", "DNSServersV6"} {
			servers, _ := set[key].([]any)
			for _, s := range servers {
				r.DNS.Servers = append(r.DNS.Servers, netip.MustParseAddr(fmt.Sprint(s)))
			}
		}
	}
	return r
}

// packets are the matrix: directions, owners, interfaces, ports and addresses that some
// rule could look at.
func packets(r Rules) []packet {
	var all []packet
	for _, six := range []bool{false, true} {
		if six && !r.IPv6 {
			continue
		}
		at := map[bool][]string{
			false: {"127.0.0.1", "127.0.0.6", "127.0.0.53", "127.1.2.3", "10.244.0.5", "10.1.1.1", "1.1.3.4", "9.9.3.4", "93.184.216.34"},
			true:  {"::1", "::6", "::127.0.0.53", "fd00::5", "2001:db8::7", "2606::9"},
		}[six]
		for _, proto := range []uint32{6, 17, 1} {
			dports := []uint32{53, 80}
			if proto == 6 {
				dports = append(dports, 4000, 5000, 6000, 15006, 15008, 31000, 32000)
			}
			for _, dport := range dports {
				for _, dst := range at {
					base := packet{six: six, proto: proto, sport: 40000, dport: dport, src: netip.MustParseAddr(at[len(at)/2]), dst: netip.MustParseAddr(dst), state: 8}
					all = append(all, outgoing(r, base, at)...)
					all = append(all, incoming(base, at)...)
				}
			}
		}
	}
	return all
}

func outgoing(r Rules, base packet, at []string) []packet {
	var all []packet
	proxy := [2]uint32{r.UIDs[0], r.GIDs[0]}
	if r.Mode == TProxy { // there it has to be root
		proxy[0] = 0
	}
	owners := [][2]uint32{{1000, 1000}, proxy, {1000, 202}, {1000, 888}, {1000, 3001}, {1000, 3002}}
	for _, oif := range []string{"eth0", "lo", "not-istio-nic"} {
		for _, owner := range owners {
			if r.Mode == TProxy && owner == proxy && base.dport == 53 {
				continue // goes to 15006 only because it is no name server's
			}
			p := base
			p.hook, p.oif, p.uid, p.gid = "output", oif, owner[0], owner[1]
			all = append(all, p)
			p.src = netip.MustParseAddr(at[1]) // inbound traffic on its last step
			all = append(all, p)
			p.src, p.mark = base.src, clientMark
			all = append(all, p)
			p.mark, p.connMark, p.state = 0, clientMark, ctEstablished
			all = append(all, p)
		}
		if oif != "lo" && len(r.UIDs) > 1 { // on lo the original knows the first uid only
			p := base
			p.hook, p.oif, p.uid, p.gid = "output", oif, r.UIDs[1], r.GIDs[1]
			all = append(all, p)
		}
		answer := base
		answer.hook, answer.oif, answer.uid, answer.gid = "output", oif, proxy[0], proxy[1]
		answer.sport, answer.dport = dnsPort, 40000
		all = append(all, answer)
	}
	return all
}

func incoming(base packet, at []string) []packet {
	var all []packet
	for _, iif := range []string{"eth0", "eth1", "eth2", "lo", "not-istio-nic"} {
		for _, mark := range []uint32{0, clientMark, ownMark} {
			for _, state := range []uint32{8, ctEstablished, ctRelated, ctInvalid} {
				p := base
				p.hook, p.iif, p.mark, p.state = "prerouting", iif, mark, state
				all = append(all, p)
				p.src = netip.MustParseAddr(at[1])
				all = append(all, p)
				p.src, p.sport = netip.MustParseAddr(at[2]), 53 // an answer of a name server
				all = append(all, p)
			}
		}
	}
	return all
}

// run is the decision of our rules, in the order of their priorities.
func run(t *testing.T, chains []chain, p packet) packet {
	for _, c := range chains {
		if c.hook == p.hook {
			p = c.run(t, chains, p)
			if p.route == "drop" {
				return p
			}
		}
	}
	return p
}

func (c chain) run(t *testing.T, all []chain, p packet) packet {
	for _, r := range c.rules {
		if slices.ContainsFunc(r.when, func(m match) bool { return !m.holds(t, p) }) {
			continue
		}
		for _, a := range r.then {
			switch a.verb {
			case goBack:
				return p
			case accept:
				return p
			case drop:
				p.route = "drop"
				return p
			case jump:
				next := all[slices.IndexFunc(all, func(c chain) bool { return c.name == a.chain })]
				return next.run(t, all, p)
			case redirectTo:
				p.decision = strconv.Itoa(int(a.number))
				return p
			case tproxyTo:
				p.route = "tproxy " + strconv.Itoa(int(a.number))
			case setMark:
				p.mark = a.number
			case setConn:
				p.connMark = a.number
			case setZone:
				if p.zone == 0 { // the first counts
					p.zone = a.number
				}
			default:
				t.Fatalf("action %s", a)
			}
		}
	}
	return p
}

func (m match) holds(t *testing.T, p packet) bool {
	var number uint32
	switch m.field {
	case iif, oif:
		name := map[field]string{iif: p.iif, oif: p.oif}[m.field]
		return slices.Contains(m.names, name) != m.not
	case src, dst:
		a := map[field]netip.Addr{src: p.src, dst: p.dst}[m.field]
		return a.Is4() == m.prefix[0].Addr().Is4() && m.prefix[0].Contains(a) != m.not
	case fam:
		number = map[bool]uint32{false: 2, true: 10}[p.six]
	case proto:
		number = p.proto
	case sport:
		number = p.sport
	case dport:
		number = p.dport
	case uid:
		number = p.uid
	case gid:
		number = p.gid
	case pktMark:
		number = p.mark
	case connMark:
		number = p.connMark
	case state:
		return p.state&m.numbers[0] != 0
	default:
		t.Fatalf("field %s", m.field)
	}
	return slices.Contains(m.numbers, number) != m.not
}
