package control

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ingress"
)

// ingresses is what a Server knows of Kubernetes' Ingresses.
type ingresses struct {
	translation ingress.Translation       // the builder's
	unmet       atomic.Pointer[[]Problem] // what they ask for and do not get
	look        chan struct{}             // wakes tellAddresses
}

// ofIngresses returns the set with what its Ingresses stand for, and takes down what of them
// cannot be.
func (s *Server) ofIngresses(set *config.Set, mc *meshconfig.MeshConfig) *config.Set {
	joined, problems := s.ingresses.translation.Join(set, mc, cmp.Or(s.o.Domain, "cluster.local"))
	unmet := make([]Problem, len(problems))
	for i, p := range problems {
		unmet[i] = problem(p)
	}
	s.ingresses.unmet.Store(&unmet)
	return joined
}

// lookAtAddresses makes tellAddresses look at the newest snapshot.
func (s *Server) lookAtAddresses() {
	select {
	case s.ingresses.look <- struct{}{}:
	default:
	}
}

// writeAgain is when what could not be written is tried again.
const writeAgain = 5 * time.Second

// tellAddresses has the Ingresses of the API say where they are reached. Every control plane
// of a mesh would write the same, so that none need be the one that writes.
func (s *Server) tellAddresses(ctx context.Context) error {
	for pause := never; sleep(ctx, pause, s.ingresses.look); {
		pause = never
		if err := s.writeAddresses(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("where Ingresses are reached cannot be written", "error", err)
			pause = writeAgain
		}
	}
	return nil
}

func (s *Server) writeAddresses(ctx context.Context) error {
	snap := s.snapshot.Load()
	if snap == nil {
		return nil
	}
	at := ingress.Addresses(snap.Config, snap.MeshConfig, s.o.RootNamespace)
	for _, key := range ingress.Wrong(snap.Config, snap.MeshConfig, at) {
		if s.apiStore.Current().Get(key.Kind, key.Namespace, key.Name) == nil {
			continue // it is of a file, or gone
		}
		if err := s.api.Balance(ctx, key, at); err != nil {
			return err
		}
	}
	return nil
}
