package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
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
