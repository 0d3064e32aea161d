package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func addrs(all ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func ports80(backends ...string) []Port {
	p := Port{Name: "http", Port: 80}
	for _, b := range backends {
		p.Backends = append(p.Backends, netip.MustParseAddrPort(b))
	}
	return []Port{p}
}

func services() []Service {
	return []Service{
		{Namespace: "default", Name: "web", Addresses: addrs("10.96.1.1"), Ports: ports80("10.244.0.9:8080")},
		{Namespace: "default", Name: "db", Ports: ports80("10.244.0.7:5432", "10.244.0.8:5432"), Hosts: map[string][]netip.Addr{"db-0": addrs("10.244.0.7")}},
		{Namespace: "default", Name: "set", Endpoints: addrs("10.244.0.11")},
		{Namespace: "other", Name: "alias", ExternalName: "web.default.svc.cluster.local"},
		{Namespace: "other", Name: "away", ExternalName: "outside.test"},
		{Namespace: "other", Name: "circle", ExternalName: "circle.other.svc.cluster.local"},
	}
}

// shown is an answer in short: code, then records as TYPE VALUE, sorted.
func shown(m dnsmessage.Message) string {
	var all []string
	for _, r := range m.Answers {
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			all = append(all, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			all = append(all, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.CNAMEResource:
			all = append(all, "="+b.CNAME.String())
		case *dnsmessage.PTRResource:
			all = append(all, b.PTR.String())
		case *dnsmessage.SRVResource:
			all = append(all, fmt.Sprintf("%s:%d", b.Target, b.Port))
		}
	}
	slices.Sort(all)
	code := map[dnsmessage.RCode]string{dnsmessage.RCodeSuccess: "ok", dnsmessage.RCodeNameError: "none", dnsmessage.RCodeServerFailure: "failed"}[m.RCode]
	for _, r := range m.Authorities {
		if r.Header.Type == dnsmessage.TypeSOA {
			code += " soa"
		}
	}
	return strings.TrimSpace(code + " " + strings.Join(all, " "))
}

func testNames(t *testing.T) {
	m := newMesh(t)
	p := newPod(t, m)
	if err := m.SetServices(services()); err != nil {
		t.Fatal(err)
	}
	const a, aaaa, srv, ptr, cname = dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeSRV, dnsmessage.TypePTR, dnsmessage.TypeCNAME
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want string
	}{
		{"web.default.svc.cluster.local.", a, "ok 10.96.1.1"},
		{"WEB.Default.svc.Cluster.local.", a, "ok 10.96.1.1"},
		{"web.default.svc.cluster.local.", aaaa, "ok soa"},
		{"_http._tcp.web.default.svc.cluster.local.", srv, "ok web.default.svc.cluster.local.:80"},
		{"web.default.svc.cluster.local.", srv, "ok web.default.svc.cluster.local.:80"},
		{"_http._udp.web.default.svc.cluster.local.", srv, "none soa"},
		{"1.1.96.10.in-addr.arpa.", ptr, "ok web.default.svc.cluster.local."},
		{"db.default.svc.cluster.local.", a, "ok 10.244.0.7 10.244.0.8"},
		{"db-0.db.default.svc.cluster.local.", a, "ok 10.244.0.7"},
		{"10-244-0-8.db.default.svc.cluster.local.", a, "ok 10.244.0.8"},
		{"_http._tcp.db.default.svc.cluster.local.", srv, "ok 10-244-0-8.db.default.svc.cluster.local.:5432 db-0.db.default.svc.cluster.local.:5432"},
		{"7.0.244.10.in-addr.arpa.", ptr, "ok db-0.db.default.svc.cluster.local."},
		{"set.default.svc.cluster.local.", a, "ok 10.244.0.11"},
		{"alias.other.svc.cluster.local.", a, "ok 10.96.1.1 =web.default.svc.cluster.local."},
		{"alias.other.svc.cluster.local.", cname, "ok =web.default.svc.cluster.local."},
		{"away.other.svc.cluster.local.", a, "ok 192.0.2.0 =outside.test."},
		{"circle.other.svc.cluster.local.", a, "failed"},
		{"10-244-0-9.default.pod.cluster.local.", a, "ok 10.244.0.9"},
		{"10-244-0.default.pod.cluster.local.", a, "none soa"},
		{"nothing.default.svc.cluster.local.", a, "none soa"},
		{"web.default.svc.cluster.local.default.svc.cluster.local.", a, "none soa"},
		{"default.svc.cluster.local.", a, "ok soa"},
		{"cluster.local.", a, "ok soa"},
		{"99.0.244.10.in-addr.arpa.", ptr, "none soa"},
		{MachineName + ".", a, "ok " + machineAddress},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if got := shown(lookedUp(t, p, network, c.name, c.kind)); got != c.want {
				t.Errorf("%s %s by %s: %s, want %s", c.name, c.kind, network, got, c.want)
			}
		}
	}
}

func testNamesOutside(t *testing.T) {
	m := newMesh(t)
	p := newPod(t, m)
	for range 2 { // the second time they are remembered
		if got := shown(lookedUp(t, p, "udp", "outside.test.", dnsmessage.TypeA)); got != "ok 192.0.2.0" {
			t.Errorf("outside.test: %s", got)
		}
		if got := shown(lookedUp(t, p, "udp", "none.test.", dnsmessage.TypeA)); got != "none" {
			t.Errorf("none.test: %s", got)
		}
	}
	there := theMachine(t)
	_, port, _ := strings.Cut(there.tcp, ":")
	given := lookedUp(t, p, "udp", "given.test.", dnsmessage.TypeA)
	if got := shown(given); !strings.HasPrefix(got, "ok 198.19.") {
		t.Fatalf("a name that is given an address of loopback: %s", got)
	}
	alias := netip.AddrFrom4(given.Answers[0].Body.(*dnsmessage.AResource).A)
	reached(t, p, alias.String()+":"+port, there.tcp+" 127.0.0.1")
	if got := shown(lookedUp(t, p, "udp", "given.test.", dnsmessage.TypeAAAA)); !strings.HasPrefix(got, "ok ::ffff:198.19.") {
		t.Errorf("a name that is given ::1: %s", got)
	}
	big := lookedUp(t, p, "udp", "big.test.", dnsmessage.TypeA)
	if !big.Truncated || len(big.Answers) > 0 {
		t.Errorf("an answer too long for UDP: truncated %v, %d records", big.Truncated, len(big.Answers))
	}
}

func TestResolvConf(t *testing.T) {
	want := "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
	if got := ResolvConf("shop"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
