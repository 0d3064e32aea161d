package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A mesh is the configuration under measurement: many services in one file, and some services,
// a VirtualService and a DestinationRule in files of their own, which change.
type mesh struct {
	dir string
	*settings
}

// A kind is one sort of change. The n-th one puts a text into what proxies are sent by which
// it is known without decoding.
type kind struct {
	name   string
	marker func(n int) string
	write  func(n int, marker string) error
}

func (m *mesh) kinds() []kind {
	return []kind{
		{"one endpoint", func(n int) string { return fmt.Sprintf("10.254.%d.%d", n/250, n%250+1) }, func(_ int, marker string) error { return m.service(0, marker) }},
		{"one header of a VirtualService", func(n int) string { return fmt.Sprintf("marker-of-route-%04d", n) }, func(_ int, marker string) error { return m.route(marker) }},
		{"one DestinationRule for every cluster", func(n int) string { return fmt.Sprintf("marker-of-rule-%04d", n) }, func(_ int, marker string) error { return m.rule(marker) }},
	}
}

// write writes the mesh before any change.
func (m *mesh) write() error {
	var b strings.Builder
	for i := m.apart(); i < m.services; i++ {
		m.entry(&b, i, "")
	}
	if err := m.put("services.yaml", b.String()); err != nil {
		return err
	}
	for i := range m.apart() {
		if err := m.service(i, "10.254.0.1"); err != nil {
			return err
		}
	}
	if err := m.route("marker-of-route-0000"); err != nil {
		return err
	}
	return m.rule("marker-of-rule-0000")
}

// entry is the ServiceEntry of a service; last is the address of its last endpoint.
func (m *mesh) entry(b *strings.Builder, i int, last string) {
	fmt.Fprintf(b, `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s%[1]d, namespace: bench}
spec:
  hosts: [s%[1]d.bench.test]
  addresses: [10.%[2]d.%[3]d.1]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
`, i, 10+i/250, i%250)
	for e := range m.endpoints {
		address := fmt.Sprintf("10.%d.%d.%d", 100+i/250, i%250, e+1)
		if e == m.endpoints-1 && last != "" {
			address = last
		}
		fmt.Fprintf(b, "  - {address: %s}\n", address)
	}
}

// apart is how many services have files of their own.
func (m *mesh) apart() int { return min(m.services, churnRate) }

// service writes one of them.
func (m *mesh) service(i int, last string) error {
	var b strings.Builder
	m.entry(&b, i, last)
	return m.put(fmt.Sprintf("service-%d.yaml", i), b.String())
}

func (m *mesh) route(value string) error {
	return m.put("route.yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s0, namespace: bench}
spec:
  hosts: [s0.bench.test]
  http:
  - headers: {request: {set: {x-marker: %s}}}
    route: [{destination: {host: s0.bench.test}}]
`, value))
}

// rule is told in the metadata of every cluster, by its name.
func (m *mesh) rule(name string) error {
	return m.put("rule.yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %s, namespace: bench}
spec:
  host: "*.bench.test"
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1000}}}
`, name))
}

// put replaces a file at once.
func (m *mesh) put(name, text string) error {
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil { //nolint:gosec // configuration of a benchmark
		return err
	}
	return os.Rename(path+".new", path)
}
