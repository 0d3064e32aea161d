package relay

import (
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/wellknown"
)

// trusted is the answer to a response with the roots of the mesh.
type trusted struct {
	epoch int // of the link that it came by
	k     *kind
	m     *discoverypb.DeltaDiscoveryResponse
	err   error
}

// takeTrust hands the roots of the mesh out; the response is answered when somebody says that
// the proxy has them. Roots that are withdrawn change nothing: nobody could be verified then.
func (r *Relay) takeTrust(k *kind, m *discoverypb.DeltaDiscoveryResponse) {
	t := trusted{epoch: r.epoch, k: k, m: m}
	if len(m.GetResources()) == 0 {
		r.answerTrust(t)
		return
	}
	roots := &meshconfig.ProxyConfig{}
	if t.err = m.GetResources()[0].GetResource().UnmarshalTo(roots); t.err != nil {
		r.answerTrust(t)
		return
	}
	r.o.Trust(roots, func(err error) {
		t := t
		t.err = err
		select {
		case r.trusts <- t:
		case <-r.ended:
		}
	})
}

// answerTrust tells the control plane, unless that is connected anew: it has sent the roots again
// then.
func (r *Relay) answerTrust(t trusted) {
	if !r.connected() || t.epoch != r.epoch {
		return
	}
	answer := &discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.ProxyConfigType, ResponseNonce: t.m.GetNonce()}
	if t.err != nil {
		answer.ErrorDetail = &statuspb.Status{Code: int32(codes.FailedPrecondition), Message: t.err.Error()}
		r.log.Warn("the roots of the mesh are not in force here", "error", t.err)
	} else {
		t.k.accept(t.m)
	}
	r.request(answer)
}
