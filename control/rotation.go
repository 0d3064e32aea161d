package control

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/ca"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A Rotation is how far the authority and the proxies of one control plane are while one root
// takes another's place. With several control planes each tells of its own proxies.
type Rotation struct {
	Authority *ca.State `json:"authority"` // nil while it is not ready
	// Told is whether agents are told what the authority works with; what Proofs say is of that.
	Told   bool    `json:"told"`
	Proofs []Proof `json:"proofs"` // of proxies with an agent that are connected here
	// Pods have a sidecar and are ready, wherever it is connected: "name.namespace".
	Pods []string `json:"pods,omitempty"`
	// Namespaces do not have the roots yet that new pods mount.
	Namespaces []string `json:"namespaces,omitempty"`
}

// A Proof is whether a proxy trusts the roots of the mesh and has a certificate of the one that
// signs, as its agent says.
type Proof struct {
	ID      string `json:"id"`      // "name.namespace"
	Missing string `json:"missing"` // why there is none, "" where there is
}

// Done reports whether all that count here have proved it.
func (r Rotation) Done() bool {
	return r.Told && len(r.Namespaces) == 0 && !slices.ContainsFunc(r.Proofs, func(p Proof) bool { return p.Missing != "" })
}

// rotation is the Rotation as of the status of all streams.
func (s *Server) rotation(conns []ads.ConnStatus) Rotation {
	r := Rotation{Authority: s.authority.State(), Proofs: []Proof{}}
	snap := s.snapshot.Load()
	if snap == nil || r.Authority == nil {
		return r
	}
	roots, signer := s.authority.Trust()
	r.Told = snap.Trust.Signer == signer && len(snap.Trust.Roots) > 0 && snap.Trust.Roots[0] == string(roots)
	for _, c := range conns {
		if !c.Proxy.IsGRPC() && c.Proxy.HasAgent() {
			r.Proofs = append(r.Proofs, Proof{c.Proxy.Name + "." + c.Proxy.Namespace, missing(c, snap.Trust.Since)})
		}
	}
	if s.authority.roots != nil {
		r.Namespaces = slices.DeleteFunc(s.authority.roots.Behind(), func(name string) bool {
			o := snap.Config.Get(config.Namespace, "", name)
			return o == nil || o.Spec.(*corev1.Namespace).DeletionTimestamp != nil // nothing is made in one that ends
		})
	}
	r.Pods = s.authority.meshedPods(snap)
	return r
}

// missing is why a proxy has not proved that it trusts what is trusted since a generation.
func missing(c ads.ConnStatus, since uint64) string {
	for _, w := range c.Watches {
		switch {
		case w.Type.URL != wellknown.ProxyConfigType:
			continue
		case len(w.Refused) > 0:
			return w.Refused[0].Error
		case w.Nonce != w.Acked || w.Applied < since:
			return "its agent has not said yet that it has taken them"
		}
		return ""
	}
	return "its agent does not ask for the roots of the mesh"
}

// meshedKey is the label of pods whose sidecar speaks mutual TLS: "istio".
const meshedKey = "security.istio.io/tlsMode"

// maxGateways bounds the gateways that are remembered.
const maxGateways = 1000

// met remembers a gateway: no label of its pod says that it is one.
func (a *authority) met(p *mesh.Proxy) {
	if a == nil || p.Type != mesh.Router || !p.HasAgent() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.gateways) < maxGateways {
		a.gateways[p.Name+"."+p.Namespace] = true
	}
}

// meshedPods are ready, and have a sidecar or a gateway that was connected here.
func (a *authority) meshedPods(snap *mesh.Snapshot) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	gone := maps.Clone(a.gateways)
	var all []string
	for _, o := range snap.Config.List(config.Pod) {
		pod, ok := o.Spec.(*corev1.Pod)
		id := o.Name + "." + o.Namespace
		delete(gone, id)
		if ok && pod.DeletionTimestamp == nil && (o.Labels[meshedKey] == "istio" || a.gateways[id]) && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			all = append(all, id)
		}
	}
	for id := range gone {
		delete(a.gateways, id)
	}
	return all
}

// provenHere is whether all proxies that are connected here have proved that they trust what is
// trusted now.
func (s *Server) provenHere() bool { return s.rotation(s.ads.Conns()).Done() }

// rotationPage is the Rotation, once it is done or ?timeout= is over. A POST with ?after=PHASE
// takes the step that follows first, which needs the proofs of that phase; any other has what is
// stored read at once.
func (s *Server) rotationPage(r *http.Request) (any, error) {
	if s.authority == nil {
		return nil, pageError{http.StatusNotFound, "this control plane issues no certificates"}
	}
	if r.Method == http.MethodPost {
		take := s.authority.Read
		if after := r.FormValue("after"); after != "" {
			take = func(ctx context.Context) error { return s.rotate(ctx, ca.Phase(after)) }
		}
		if err := take(r.Context()); err != nil {
			return nil, pageError{http.StatusConflict, err.Error()}
		}
	}
	timeout, err := time.ParseDuration(cmp.Or(r.FormValue("timeout"), "0s"))
	if err != nil {
		return nil, pageError{http.StatusBadRequest, "timeout: " + err.Error()}
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(timeout, waitTime))
	defer cancel()
	var now Rotation
	err = s.ads.Until(ctx, func(conns []ads.ConnStatus) bool {
		now = s.rotation(conns)
		return now.Done()
	})
	if err != nil && r.Context().Err() != nil {
		return nil, err
	}
	return now, nil
}

// rotate takes a step. None is taken without the proofs of the phase before: what proxies do
// not trust yet must not sign, and what they still need must not go.
func (s *Server) rotate(ctx context.Context, after ca.Phase) error {
	if now := s.rotation(s.ads.Conns()); after != ca.Settled && !now.Done() {
		var late []string
		for _, p := range now.Proofs {
			if p.Missing != "" {
				late = append(late, p.ID)
			}
		}
		if len(late) == 0 {
			return errors.New("not everybody has been told of the phase before")
		}
		return errors.New("there is no proof of " + strings.Join(late[:min(len(late), maxObjects)], ", "))
	}
	return s.authority.Rotate(ctx, after)
}
