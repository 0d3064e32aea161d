package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// offline are names without a server.
func offline(all []Service) *names {
	m := &mesh{plan: addressPlan(), aliases: newAliases(addressPlan()), ctx: context.Background()}
	n := &names{mesh: m, cache: newAnswers()}
	n.set(all)
	return n
}

func FuzzQuestion(f *testing.F) {
	for _, name := range []string{"web.default.svc.cluster.local.", "db.default.svc.cluster.local.", "7.0.244.10.in-addr.arpa.", "alias.other.svc.cluster.local.", "x.test."} {
		for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeSRV, dnsmessage.TypePTR, dnsmessage.TypeALL} {
			m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
			var h dnsmessage.ResourceHeader
			_ = h.SetEDNS0(1232, dnsmessage.RCodeSuccess, false)
			m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
			raw, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	n := offline(services())
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := parseQuestion(raw)
		if err != nil {
			return
		}
		reply := n.answer(t.Context(), "udp", q)
		if reply == nil {
			t.Fatalf("no answer to %v", q.q)
		}
		short := fit(reply, q)
		if len(short) > q.udp {
			t.Errorf("%d bytes for %d", len(short), q.udp)
		}
		var m dnsmessage.Message
		if err := m.Unpack(short); err != nil {
			t.Errorf("answer to %v: %v", q.q, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	b := dnsmessage.Message{Header: dnsmessage.Header{Response: true}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{{Header: header(dnsmessage.MustNewName("a.test.")), Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}},
			{Header: header(dnsmessage.MustNewName("a.test.")), Body: &dnsmessage.AAAAResource{AAAA: netip.IPv6Loopback().As16()}}}}
	raw, err := b.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		_ = freshFor(raw)
		out, err := withAliases(raw, newAliases(addressPlan()))
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(out) != nil {
			return
		}
		for _, r := range m.Answers {
			if a, ok := r.Body.(*dnsmessage.AResource); ok && netip.AddrFrom4(a.A).IsLoopback() {
				t.Errorf("a pod would be told %v", a.A)
			}
		}
	})
}

func TestNamesThatAreAddresses(t *testing.T) {
	for name, want := range map[string]string{
		"1-2-3-4.default.pod.cluster.local": "1.2.3.4", "fd00--1.default.pod.cluster.local": "fd00::1",
		"1-2-3-4.pod.cluster.local": "", "1-2-3.default.pod.cluster.local": "", "1-2-3-4.a.b.pod.cluster.local": "", "x.default.pod.cluster.local": "",
	} {
		if a, ok := podName(name); ok != (want != "") || ok && a.String() != want {
			t.Errorf("%s: %s, %v", name, a, ok)
		}
	}
	six := "5.0.0.0.4.f.a.0." + strings.Repeat("0.", 16) + "0.1.0.0.0.0.d.f.ip6.arpa"
	for name, want := range map[string]string{
		"4.3.2.1.in-addr.arpa": "1.2.3.4", six: "fd00:10::af4:5", "3.2.1.in-addr.arpa": "", "x.3.2.1.in-addr.arpa": "", "1.ip6.arpa": "", "in-addr.arpa": "",
	} {
		a, ok := pointer(name)
		if ok != (want != "") || ok && want != "fd00:10::af4:5" && a.String() != want {
			t.Errorf("%s: %s, %v", name, a, ok)
		}
		if ok && a.Is6() && a.AsSlice()[15] != 5 {
			t.Errorf("%s: %s", name, a)
		}
	}
}

func TestAnswersAreRememberedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		raw, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		q, err := parseQuestion(raw)
		if err != nil {
			t.Fatal(err)
		}
		m.Response = true
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 3}, Body: &dnsmessage.AResource{}}}
		reply, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		a := newAnswers()
		a.keep(q, reply)
		other := q
		other.head.ID = 2
		if got := a.find(other); len(got) < 2 || got[1] != 2 {
			t.Errorf("under another number: %v", got)
		}
		time.Sleep(3 * time.Second)
		if got := a.find(q); got != nil {
			t.Error("older than its records allow")
		}
		for i := range 2 * maxAnswers {
			other.name = fmt.Sprint(i)
			a.keep(other, reply)
		}
		if len(a.by) > maxAnswers {
			t.Errorf("%d answers are kept", len(a.by))
		}
	})
}

func TestAddresses(t *testing.T) {
	p := addressPlan()
	all := newPool(p)
	first, err := all.take()
	if err != nil || first.String() != "10.244.0.3" {
		t.Fatal(first, err)
	}
	all.free(first)
	seen := map[netip.Addr]bool{first: true}
	for range 65535 - 3 - 1 {
		a, err := all.take()
		if err != nil || seen[a] || !p.pods.Contains(a) {
			t.Fatalf("%s after %d, %v", a, len(seen), err)
		}
		seen[a] = true
	}
	if a, err := all.take(); err != nil || a != first {
		t.Errorf("the freed one comes last: %s, %v", a, err)
	}
	if a, err := all.take(); err == nil {
		t.Errorf("one too many: %s", a)
	}
	names := newAliases(p)
	for i := range 65534 {
		if _, ok := names.alias(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})); !ok {
			t.Fatalf("alias %d", i)
		}
	}
	if a, ok := names.alias(netip.MustParseAddr("127.9.9.9")); ok {
		t.Errorf("one too many: %s", a)
	}
	if got := names.real(netip.MustParseAddr("198.19.0.1")); got.String() != "127.1.0.0" {
		t.Errorf("behind 198.19.0.1: %s", got)
	}
}
