package analyze

import (
	"strings"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// visibleHost is the service that proxies of a namespace reach by a host as objects of that
// namespace write it, nil if there is none.
func (m *Mesh) visibleHost(namespace, host string) *registry.Service {
	return m.reach(namespace, m.snapshot.FQDN(host, namespace))
}

// reach is the service that proxies of a namespace reach by a name in full. A service with
// a wildcard has every name that it covers; so has one that a wildcard covers.
func (m *Mesh) reach(namespace, name string) *registry.Service {
	scope := m.scopes[namespace]
	if scope == nil {
		// The namespace's Sidecars choose for each workload; what they could choose is the question.
		scope = m.snapshot.Scope(&mesh.Proxy{Type: mesh.Router, Namespace: namespace})
		m.scopes[namespace] = scope
	}
	if s := scope.Service(name); s != nil {
		return s
	}
	for _, s := range scope.Services() {
		if config.HostWithin(name, s.Host) || strings.HasPrefix(name, "*") && config.HostWithin(s.Host, name) {
			return s
		}
	}
	return nil
}
