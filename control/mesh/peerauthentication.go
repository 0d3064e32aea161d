package mesh

import (
	"slices"

	security "istio.io/api/security/v1beta1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/registry"
)

// A TLSMode is whether a port of a workload takes mutual TLS of the mesh.
type TLSMode uint8

// The modes, with the names of PeerAuthentication.
const (
	Permissive TLSMode = iota // mutual TLS and plain connections: where nothing is said
	Strict                    // mutual TLS only
	Disable                   // plain connections only
)

// modeOf is what a setting says, inherited where it says nothing.
func modeOf(m *security.PeerAuthentication_MutualTLS, inherited TLSMode) TLSMode {
	switch m.GetMode() {
	case security.PeerAuthentication_MutualTLS_PERMISSIVE:
		return Permissive
	case security.PeerAuthentication_MutualTLS_STRICT:
		return Strict
	case security.PeerAuthentication_MutualTLS_DISABLE:
		return Disable
	}
	return inherited
}

// An Authentication is what PeerAuthentications say about the connections to one workload.
type Authentication struct {
	Mode  TLSMode            // of ports that are not in Ports
	Ports map[uint32]TLSMode // by the workload's own port; not to be changed
}

// At is the mode of a port of the workload.
func (a Authentication) At(port uint32) TLSMode {
	if m, ok := a.Ports[port]; ok {
		return m
	}
	return a.Mode
}

// authentications are the PeerAuthentications of one namespace.
type authentications struct {
	mode     TLSMode // of the namespace, resolved; of the root namespace: of the mesh
	selected []workloadAuthentication
}

// A workloadAuthentication is for the workloads of its namespace that have the labels.
type workloadAuthentication struct {
	labels map[string]string
	Authentication
}

// Authentication returns what holds for a workload: for each setting the object with the
// narrowest scope that says it (port, labels, namespace, mesh), of several with one scope
// the oldest.
func (s *Snapshot) Authentication(namespace string, labels map[string]string) Authentication {
	of := s.index.peers[namespace]
	if of == nil {
		return Authentication{Mode: s.NamespaceTLSMode(namespace)}
	}
	for _, w := range of.selected {
		if Selects(w.labels, labels) {
			return w.Authentication
		}
	}
	return Authentication{Mode: of.mode}
}

// NamespaceTLSMode is the mode of a namespace's workloads that nothing more particular is
// said of.
func (s *Snapshot) NamespaceTLSMode(namespace string) TLSMode {
	for _, ns := range []string{namespace, s.RootNamespace()} {
		if of := s.index.peers[ns]; of != nil {
			return of.mode
		}
	}
	return Permissive
}

// TakesTLS reports whether an endpoint takes mutual TLS of the mesh: its workload has a
// proxy, and no PeerAuthentication turns it off.
func (s *Snapshot) TakesTLS(e *registry.Endpoint) bool {
	return e.TLSMode == "istio" && (len(s.index.peers) == 0 || s.Authentication(e.Namespace, e.Labels).At(e.Port) != Disable)
}

// ClosedGateway reports whether the servers without TLS of a gateway take mutual TLS of the
// mesh only: it is an egress gateway (label istio: egressgateway), whose clients are of the mesh,
// and a PeerAuthentication of its own namespace says STRICT. One of the whole mesh is for
// workloads: gateways do not follow it, so that it does not close the mesh to the outside.
func (s *Snapshot) ClosedGateway(namespace string, labels map[string]string) bool {
	return s.Identities && labels["istio"] == "egressgateway" && namespace != s.RootNamespace() && s.index.peers[namespace] != nil &&
		s.Authentication(namespace, labels).Mode == Strict
}

func (s *Snapshot) indexPeerAuthentications() {
	all := s.Config.List(config.PeerAuthentication)
	if old := s.index.old; old != nil && slices.Equal(old.Config.List(config.PeerAuthentication), all) {
		s.index.peers = old.index.peers
		return
	}
	s.index.peers = map[string]*authentications{}
	byNamespace := map[string][]*security.PeerAuthentication{}
	for _, c := range all { // oldest first
		byNamespace[c.Namespace] = append(byNamespace[c.Namespace], c.Spec.(*security.PeerAuthentication))
	}
	root := s.RootNamespace()
	mesh := authenticationsOf(byNamespace[root], Permissive)
	for ns, list := range byNamespace {
		s.index.peers[ns] = authenticationsOf(list, mesh.mode)
	}
}

// authenticationsOf resolves the objects of a namespace, oldest first.
func authenticationsOf(list []*security.PeerAuthentication, inherited TLSMode) *authentications {
	of := &authentications{mode: inherited}
	general := slices.IndexFunc(list, func(a *security.PeerAuthentication) bool { return len(a.GetSelector().GetMatchLabels()) == 0 })
	if general >= 0 {
		of.mode = modeOf(list[general].Mtls, inherited)
	}
	for _, a := range list {
		labels := a.GetSelector().GetMatchLabels()
		if len(labels) == 0 {
			continue
		}
		w := workloadAuthentication{labels: labels, Authentication: Authentication{Mode: modeOf(a.Mtls, of.mode)}}
		if len(a.PortLevelMtls) > 0 {
			w.Ports = make(map[uint32]TLSMode, len(a.PortLevelMtls))
			for port, m := range a.PortLevelMtls {
				w.Ports[port] = modeOf(m, w.Mode)
			}
		}
		of.selected = append(of.selected, w)
	}
	return of
}
