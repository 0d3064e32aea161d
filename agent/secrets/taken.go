package secrets

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Names of the workload's own secrets.
const (
	ownCertificate = "default"
	ownRoots       = "ROOTCA"
)

// A view is what the proxy has by one stream. Server.mu guards it.
type view struct {
	names   []string
	sent    map[string]*tlspb.Secret // by the last response
	nonce   string                   // of it
	took    map[string]*tlspb.Secret // that the proxy has accepted
	refused error                    // why not what was sent last
}

// Taken is why the proxy does not have the workload's secrets as check wants each of them, nil
// where it has; refused is that the proxy did not accept one. moved is closed when either may have
// changed. Where the proxy does not ask for them there is nothing to want.
func (s *Server) Taken(check func(*tlspb.Secret) error) (moved <-chan struct{}, refused bool, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := range s.views {
		for _, name := range []string{ownRoots, ownCertificate} {
			if !slices.Contains(v.names, name) {
				continue
			}
			if v.refused != nil {
				return s.moved, true, fmt.Errorf("the proxy refuses %s: %w", name, v.refused)
			}
			err := fmt.Errorf("the proxy waits for %s", name)
			if took := v.took[name]; took != nil {
				err = check(took)
			}
			if err != nil {
				return s.moved, false, err
			}
		}
	}
	return s.moved, false, nil
}

// change changes a view, and tells those who look at it.
func (s *Server) change(how func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how()
	close(s.moved)
	s.moved = make(chan struct{})
}

// join begins a view; it ends with the stream.
func (s *Server) join() (v *view, leave func()) {
	v = &view{took: map[string]*tlspb.Secret{}}
	s.change(func() { s.views[v] = true })
	return v, func() { s.change(func() { delete(s.views, v) }) }
}

// asked takes a request: what is wanted, and what the proxy says of the last response.
func (s *Server) asked(v *view, m *discoverypb.DiscoveryRequest) {
	s.change(func() {
		v.names = m.GetResourceNames()
		if m.GetResponseNonce() == "" || m.GetResponseNonce() != v.nonce {
			return
		}
		v.refused = nil
		if e := m.GetErrorDetail(); e != nil {
			v.refused = errors.New(e.GetMessage())
			return
		}
		maps.Copy(v.took, v.sent)
	})
}
