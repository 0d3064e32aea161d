package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
)

// A meshCase is a test that runs inside.
type meshCase struct {
	name string
	run  func(*testing.T)
}

func cases() []meshCase {
	return []meshCase{
		{"pods reach each other and themselves", testPods},
		{"Services by address", testServices},
		{"Services of UDP and of a client's choice", testServicesMore},
		{"whatever the machine's settings", testSettings},
		{"the way out by the relay", testRelay},
		{"Services with backends outside", testServicesOutside},
		{"the way out by IPv6", testIPv6Out},
		{"the way out by descriptor", testDoor},
		{"the Kubernetes API", testAPI},
		{"published ports", testPublished},
		{"names", testNames},
		{"names outside", testNamesOutside},
		{"redirection", testRedirection},
		{"twelve pods", testTwelve},
		{"pods that come and go", testChurn},
	}
}

func testPods(t *testing.T) {
	m := newMesh(t)
	a, b := newPod(t, m), newPod(t, m)
	listenIn(t, b, ":80")
	reached(t, a, b.Address().String()+":80", "[::]:80 "+a.Address().String())
	reached(t, b, b.Address().String()+":80", "[::]:80 "+b.Address().String())
	reached(t, b, "localhost:80", "[::]:80 127.0.0.1")
	reached(t, m, b.Address().String()+":80", "[::]:80 "+meshAddress)
	if m.six {
		reached(t, a, netip.AddrPortFrom(b.Address6(), 80).String(), "[::]:80 "+a.Address6().String())
	}
	if _, err := greeting(t, a, b.Address().String()+":81"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("closed port: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := greeting(t, a, b.Address().String()+":80"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("pod that is gone: %v", err)
	}
	c := newPod(t, m)
	if c.Address() == b.Address() {
		t.Errorf("%s is given out again at once", c.Address())
	}
}

func testServices(t *testing.T) {
	m := newMesh(t)
	a, b, c := newPod(t, m), newPod(t, m), newPod(t, m)
	for _, p := range []*pod{a, b, c} {
		listenIn(t, p, p.Address().String()+":8080")
	}
	service := func(backends ...*pod) Service {
		s := Service{Namespace: "default", Name: "web", Addresses: []netip.Addr{netip.MustParseAddr("10.96.7.7")}, Ports: []Port{{Port: 80}}}
		for _, p := range backends {
			s.Ports[0].Backends = append(s.Ports[0].Backends, netip.AddrPortFrom(p.Address(), 8080))
		}
		return s
	}
	served := func(from dialer) map[string]bool {
		all := map[string]bool{}
		for range 40 {
			got, err := greeting(t, from, "10.96.7.7:80")
			if err != nil {
				t.Fatal(err)
			}
			all[strings.Fields(got)[0]] = true
		}
		return all
	}
	if err := m.SetServices([]Service{service(b, c)}); err != nil {
		t.Fatal(err)
	}
	if got := served(a); len(got) != 2 {
		t.Errorf("two backends: %v", got)
	}
	if got := served(m); len(got) != 2 {
		t.Errorf("two backends, from the mesh: %v", got)
	}
	if err := m.SetServices([]Service{service(a)}); err != nil {
		t.Fatal(err)
	}
	reached(t, a, "10.96.7.7:80", a.Address().String()+":8080 "+meshAddress) // itself
	if err := m.SetServices([]Service{service()}); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"10.96.7.7:80", "10.96.200.200:80"} {
		for _, from := range []dialer{a, m} {
			if _, err := greeting(t, from, address); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s without a backend: %v", address, err)
			}
		}
	}
	began := time.Now()
	var many []Service
	for i := range 500 {
		s := Service{Namespace: "many", Name: fmt.Sprint("s", i), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 100 + byte(i/250), byte(i % 250)})}, Ports: []Port{{Port: 80}, {Port: 443}}}
		for j := range 10 {
			for k := range s.Ports {
				s.Ports[k].Backends = append(s.Ports[k].Backends, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), byte(j)}), 80))
			}
		}
		many = append(many, s)
	}
	if err := m.SetServices(append(many, service(b))); err != nil {
		t.Fatal(err)
	}
	t.Logf("10000 endpoints: %s", time.Since(began))
	began = time.Now()
	if err := m.SetServices(append(many, service(c))); err != nil {
		t.Fatal(err)
	}
	t.Logf("one of them changed: %s", time.Since(began))
	reached(t, a, "10.96.7.7:80", c.Address().String()+":8080 "+a.Address().String())
}

func testServicesMore(t *testing.T) {
	m := newMesh(t)
	a, b, c := newPod(t, m), newPod(t, m), newPod(t, m)
	for _, p := range []*pod{b, c} {
		packetsIn(t, p, ":53", func([]byte, net.Addr) []byte { return []byte(p.Address().String()) })
		listenIn(t, p, p.Address().String()+":80")
	}
	service := func(backends ...*pod) []Service {
		s := Service{Namespace: "default", Name: "names", Addresses: []netip.Addr{netip.MustParseAddr("10.96.7.8")}, ClientIP: true,
			Ports: []Port{{Protocol: "UDP", Port: 53}, {Port: 80}}}
		for _, p := range backends {
			s.Ports[0].Backends = append(s.Ports[0].Backends, netip.AddrPortFrom(p.Address(), 53))
			s.Ports[1].Backends = append(s.Ports[1].Backends, netip.AddrPortFrom(p.Address(), 80))
		}
		return []Service{s}
	}
	if err := m.SetServices(service(b)); err != nil {
		t.Fatal(err)
	}
	flow, err := a.DialContext(t.Context(), "udp", "10.96.7.8:53")
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	answered(t, flow, b.Address().String())
	if err := m.SetServices(service(c)); err != nil {
		t.Fatal(err)
	}
	answered(t, flow, c.Address().String()) // the flow is as old, the backend is not
	if err := m.SetServices(service(b, c)); err != nil {
		t.Fatal(err)
	}
	first, err := greeting(t, a, "10.96.7.8:80")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		reached(t, a, "10.96.7.8:80", first)
	}
	if err := m.SetServices(nil); err != nil {
		t.Fatal(err)
	}
	none, err := a.DialContext(t.Context(), "udp", "10.96.7.8:53")
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	_, _ = none.Write([]byte("?"))
	if _, err := none.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("UDP without a backend: %v", err)
	}
	big := Service{Namespace: "default", Name: "big", Addresses: []netip.Addr{netip.MustParseAddr("10.96.7.9")}, Ports: []Port{{Port: 80}}}
	for i := range 9000 {
		big.Ports[0].Backends = append(big.Ports[0].Backends, netip.AddrPortFrom(b.Address(), uint16(1000+i)))
	}
	if err := m.SetServices([]Service{big}); err != nil {
		t.Errorf("9000 backends: %v", err)
	}
}

// answered fails unless a datagram is answered by want.
func answered(t *testing.T, c net.Conn, want string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil || string(buf[:n]) != want {
		t.Errorf("answer %q, %v, want %q", buf[:n], err, want)
	}
}

// testSettings repeats what matters with settings that machines differ in.
func testSettings(t *testing.T) {
	for _, s := range [][]setting{
		{{"bridge/bridge-nf-call-iptables", "0"}, {"bridge/bridge-nf-call-ip6tables", "0"}},
		{{"bridge/bridge-nf-call-iptables", "1"}, {"bridge/bridge-nf-call-ip6tables", "1"}},
		{{"ipv4/conf/all/rp_filter", "1"}, {"ipv4/conf/default/rp_filter", "1"}},
	} {
		t.Run(s[0].name+"="+s[0].value, func(t *testing.T) {
			m := newMesh(t)
			if err := set(s...); err != nil {
				t.Fatal(err)
			}
			a, b := newPod(t, m), newPod(t, m)
			for _, p := range []*pod{a, b} {
				if err := within(m.home, p.ns, func() error { return set(s...) }); err != nil {
					t.Fatal(err)
				}
				listenIn(t, p, p.Address().String()+":80")
			}
			for _, p := range []*pod{a, b} {
				if err := m.SetServices([]Service{{Namespace: "default", Name: "web", Addresses: []netip.Addr{netip.MustParseAddr("10.96.7.7")},
					Ports: []Port{{Port: 80, Backends: []netip.AddrPort{netip.AddrPortFrom(p.Address(), 80)}}}}}); err != nil {
					t.Fatal(err)
				}
				from := map[bool]string{true: meshAddress, false: a.Address().String()}[p == a]
				reached(t, a, "10.96.7.7:80", p.Address().String()+":80 "+from)
			}
			leaves(t, m, a)
		})
	}
}

func testTwelve(t *testing.T) {
	m := newMesh(t)
	began := time.Now()
	for range 12 {
		newPod(t, m)
	}
	took := time.Since(began)
	t.Logf("12 pods one by one: %s", took)
	all := make(chan error)
	began = time.Now()
	for range 12 {
		go func() {
			p, err := m.AddPod(t.Context())
			if err == nil {
				err = p.Redirect(nil)
			}
			all <- err
		}()
	}
	for range 12 {
		if err := <-all; err != nil {
			t.Error(err)
		}
	}
	t.Logf("12 pods with redirection at once: %s", time.Since(began))
}

// testChurn adds and closes pods while Services change, and finds nothing left of them.
func testChurn(t *testing.T) {
	m := newMesh(t)
	descriptors := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := descriptors()
	var working sync.WaitGroup
	for worker := range 4 {
		working.Go(func() {
			for i := range 15 {
				p, err := m.AddPod(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				s := Service{Namespace: "default", Name: "web", Addresses: addrs("10.96.7.7"), Ports: []Port{{Port: 80, Backends: []netip.AddrPort{netip.AddrPortFrom(p.Address(), 80)}}}}
				err = errors.Join(p.Redirect(nil), m.SetServices([]Service{s}))
				if i%2 == worker%2 {
					_, published := m.Publish(t.Context(), uint16(19000+worker), p, 80)
					err = errors.Join(err, published)
				}
				if err := errors.Join(err, p.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	if err := m.SetServices(nil); err != nil {
		t.Fatal(err)
	}
	links, err := m.links.LinkList()
	if err != nil || len(links) != 1 {
		t.Errorf("links: %v, %v", links, err)
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	sets, err := c.GetSets(m.rules.table)
	if err != nil || len(sets) != 2 {
		t.Errorf("%d sets, %v", len(sets), err)
	}
	for _, s := range sets {
		if left, err := c.GetSetElements(s); err != nil || len(left) > 0 {
			t.Errorf("set %s: %v, %v", s.Name, left, err)
		}
	}
	if left := len(m.pool.taken) + len(m.pods) + len(m.ports.of) + len(m.rules.pods); left != 0 {
		t.Errorf("%d things of pods are left", left)
	}
	if after := descriptors(); after > before+4 { // those of the runtime
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
