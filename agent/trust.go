package agent

import (
	"context"
	"time"

	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	meshpb "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/agent/identity"
	"github.com/lateen-mesh/lateen/wellknown"
)

// proofPatience is after what time the control plane is told why there is no proof yet.
const proofPatience = 30 * time.Second

// trustNews is what the control plane says of the roots of the mesh, and wants an answer to.
type trustNews struct {
	m      *meshpb.ProxyConfig
	answer func(error)
}

// trustSays takes what the control plane says; the newest counts.
func (a *agent) trustSays(m *meshpb.ProxyConfig, answer func(error)) {
	select {
	case <-a.trusts: // an answer to the next one is an answer to this one
	default:
	}
	a.trusts <- trustNews{m, answer}
}

func (a *agent) startTrust(ctx context.Context) error {
	a.tasks.Go(func() { a.followTrust(ctx) })
	return nil
}

// followTrust has the workload believe the roots of the mesh, and tells the control plane when the
// proxy does: it takes no root away before that.
func (a *agent) followTrust(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case n := <-a.trusts:
			for again := true; again; {
				n, again = a.prove(ctx, n)
			}
		case <-ctx.Done():
		}
	}
}

// prove answers news when the proxy has what they say; newer ones that come meanwhile are
// returned. What the proxy refuses, and what takes too long, is told once; it may become better.
func (a *agent) prove(ctx context.Context, n trustNews) (newer trustNews, again bool) {
	trust, err := identity.NewTrust(n.m.GetCaCertificatesPem(), n.m.GetProxyMetadata()[wellknown.SignerKey])
	if err != nil {
		n.answer(err)
		return trustNews{}, false
	}
	if a.identity != nil {
		a.identity.Trust(trust)
	}
	if a.secrets == nil { // others give the proxy its certificates, or nobody
		n.answer(nil)
		return trustNews{}, false
	}
	check := func(s *tlspb.Secret) error {
		if c := s.GetTlsCertificate(); c != nil {
			return trust.CheckChain(c.GetCertificateChain().GetInlineBytes())
		}
		return trust.CheckRoots(s.GetValidationContext().GetTrustedCa().GetInlineBytes())
	}
	late := time.NewTimer(proofPatience)
	defer late.Stop()
	for said := false; ; {
		moved, refused, why := a.secrets.Taken(check)
		if why == nil {
			n.answer(nil)
			return trustNews{}, false
		}
		if refused && !said {
			said = true
			n.answer(why)
		}
		select {
		case <-moved:
		case <-late.C:
			if !said {
				said = true
				n.answer(why)
			}
		case newer := <-a.trusts:
			return newer, true
		case <-ctx.Done():
			return trustNews{}, false
		}
	}
}
