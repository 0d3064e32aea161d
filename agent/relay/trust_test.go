package relay

import (
	"errors"
	"testing"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/wellknown"
)

// The control plane is answered when the proxy has the roots, not when they have come here.
func TestTrust(t *testing.T) {
	c := newControl(t, ours)
	f := newFiles(t)
	type news struct {
		m      *meshconfig.ProxyConfig
		answer func(error)
	}
	came := make(chan news, 10)
	start(t, f, c.dial, func(o *Options) {
		o.Trust = func(m *meshconfig.ProxyConfig, answer func(error)) { came <- news{m, answer} }
	})
	connect(t, f).subscribe(wellknown.ClusterType)
	next := func() *discoverypb.DeltaDiscoveryRequest {
		for {
			if m := <-c.requests; m.GetTypeUrl() == wellknown.ProxyConfigType {
				return m
			}
		}
	}
	if m := next(); len(m.GetResourceNamesSubscribe()) != 0 || m.GetResponseNonce() != "" {
		t.Errorf("MC-022 subscription %v", m)
	}
	body, err := anypb.New(&meshconfig.ProxyConfig{CaCertificatesPem: []string{"root"}, ProxyMetadata: map[string]string{wellknown.SignerKey: "abc"}})
	if err != nil {
		t.Fatal(err)
	}
	send := func(nonce string, resources ...*discoverypb.Resource) {
		c.sends <- &discoverypb.DeltaDiscoveryResponse{TypeUrl: wellknown.ProxyConfigType, Nonce: nonce, Resources: resources}
	}
	send("1", &discoverypb.Resource{Name: "trust", Version: "v", Resource: body})
	n := <-came
	if n.m.GetCaCertificatesPem()[0] != "root" || n.m.GetProxyMetadata()[wellknown.SignerKey] != "abc" {
		t.Errorf("roots %v", n.m)
	}
	n.answer(errors.New("the proxy refuses ROOTCA"))
	if m := next(); m.GetResponseNonce() != "1" || m.GetErrorDetail().GetMessage() != "the proxy refuses ROOTCA" {
		t.Errorf("answer %v", m)
	}
	n.answer(nil)
	if m := next(); m.GetResponseNonce() != "1" || m.GetErrorDetail() != nil {
		t.Errorf("answer %v", m)
	}
	t.Run("what is withdrawn, and what cannot be read, is answered here", func(t *testing.T) {
		send("2")
		if m := next(); m.GetResponseNonce() != "2" || m.GetErrorDetail() != nil {
			t.Errorf("answer %v", m)
		}
		send("3", &discoverypb.Resource{Name: "trust", Resource: &anypb.Any{TypeUrl: wellknown.ClusterType}})
		if m := next(); m.GetResponseNonce() != "3" || m.GetErrorDetail() == nil {
			t.Errorf("answer %v", m)
		}
	})
	t.Run("a link that is new subscribes with what the proxy has", func(t *testing.T) {
		c.ends <- struct{}{}
		if m := next(); m.GetInitialResourceVersions()["trust"] != "v" {
			t.Errorf("subscription %v", m)
		}
		n.answer(nil) // of the link before: nobody is told
		send("1", &discoverypb.Resource{Name: "trust", Version: "w", Resource: body})
		(<-came).answer(nil)
		if m := next(); m.GetResponseNonce() != "1" {
			t.Errorf("answer %v", m)
		}
	})
}
