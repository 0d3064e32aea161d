package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/ca"
	"github.com/lateen-mesh/lateen/control/kube/kubetest"
	"github.com/lateen-mesh/lateen/wellknown"
)

// step asks for a step of a rotation.
func (p *plane) step(after ca.Phase) (int, string) {
	p.t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", p.page)
	}}
	r, err := (&http.Client{Transport: tr}).Post("http://control/debug/ca?after="+string(after), "", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// rotation waits until the page of the rotation is as it should be.
func (p *plane) rotation(as func(control.Rotation) bool) (r control.Rotation) {
	p.t.Helper()
	wait(p.t, func() bool {
		code, body := p.get("/debug/ca")
		r = control.Rotation{}
		return code == http.StatusOK && json.Unmarshal([]byte(body), &r) == nil && r.Authority != nil && as(r)
	})
	return r
}

// An agent asks for the roots of the mesh, and proves what it is told to.
type trustingAgent struct {
	*proxy
	last *discoverypb.DeltaDiscoveryResponse
}

func (p *plane) agent() *trustingAgent {
	p.t.Helper()
	return &trustingAgent{proxy: p.connectAs("sidecar~10.0.0.1~web-1.web~web.svc.cluster.local", wellknown.ProxyConfigType, map[string]any{"PILOT_SAN": []any{"istiod"}})}
}

// hears waits for so many roots of the authority, and those of others.
func (a *trustingAgent) hears(own, others int) *meshconfig.ProxyConfig {
	a.t.Helper()
	for {
		m, err := a.stream.Recv()
		if err != nil {
			a.t.Fatal(err)
		}
		a.last = m
		if len(m.GetResources()) == 0 { // there was no authority yet
			a.says("")
			continue
		}
		c := &meshconfig.ProxyConfig{}
		if err := m.GetResources()[0].GetResource().UnmarshalTo(c); err != nil {
			a.t.Fatal(err)
		}
		if all := c.GetCaCertificatesPem(); len(all) == 1+others && strings.Count(all[0], "BEGIN") == own {
			return c
		}
		a.says("")
	}
}

// says is the agent's answer to what it was told last: "" is that the proxy has it.
func (a *trustingAgent) says(why string) {
	a.t.Helper()
	m := &discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.ProxyConfigType, ResponseNonce: a.last.GetNonce()}
	if why != "" {
		m.ErrorDetail = &statuspb.Status{Code: 9, Message: why}
	}
	if err := a.stream.Send(m); err != nil {
		a.t.Fatal(err)
	}
}

func proof(missing string) func(control.Rotation) bool {
	return func(r control.Rotation) bool {
		return r.Told && len(r.Proofs) == 1 && r.Proofs[0].ID == "web-1.web" && strings.Contains(r.Proofs[0].Missing, missing) && (missing != "") == (r.Proofs[0].Missing != "")
	}
}

func TestRotation(t *testing.T) {
	parent, state := t, t.TempDir()
	kept := secure(func(o *control.Options) { o.State = state })
	p := start(t, nil, kept)
	a := p.agent()
	first := a.hears(1, 0).GetProxyMetadata()[wellknown.SignerKey]
	a.says("")
	p.rotation(proof(""))
	second := ""
	for _, tt := range []struct {
		after, now ca.Phase
		roots      int
	}{{ca.Settled, ca.Trusting, 2}, {ca.Trusting, ca.Signing, 2}, {ca.Signing, ca.Settled, 1}} {
		t.Run("SX-004 the step after "+string(tt.after)+" needs a proof of every proxy, and outlives a restart", func(t *testing.T) {
			if code, text := p.step(tt.after); code != http.StatusOK {
				t.Fatalf("%d %s", code, text)
			}
			told := a.hears(tt.roots, 0)
			r := p.rotation(proof("has not said yet"))
			if r.Authority.Phase != tt.now {
				t.Errorf("%+v", r.Authority)
			}
			if tt.after == ca.Settled {
				second = r.Authority.Roots[1].Fingerprint
			}
			want := second
			if tt.now == ca.Trusting {
				want = first
			}
			if got := told.GetProxyMetadata()[wellknown.SignerKey]; got != want {
				t.Errorf("%s signs, want %s", got, want)
			}
			if tt.now != ca.Settled {
				if code, text := p.step(tt.now); code != http.StatusConflict || !strings.Contains(text, "no proof of web-1.web") {
					t.Errorf("without proof: %d %s", code, text)
				}
			}
			a.says("the proxy refuses ROOTCA")
			p.rotation(proof("the proxy refuses ROOTCA"))
			if code, _ := p.step(tt.after); code != http.StatusConflict {
				t.Errorf("a step that was taken is taken again: %d", code)
			}
			p.stop()
			p = start(parent, nil, kept)
			a = p.agent()
			if again := a.hears(tt.roots, 0); again.GetProxyMetadata()[wellknown.SignerKey] != want {
				t.Error("after a restart another root signs")
			}
			a.says("")
			if r := p.rotation(proof("")); r.Authority.Phase != tt.now {
				t.Errorf("after a restart: %+v", r.Authority)
			}
		})
	}
}

// A proxy of which nothing is known is named: its pod runs, and it is not connected.
func TestRotationOnKubernetes(t *testing.T) {
	api := kubetest.New(t).Start()
	api.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n---\n" + `
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: web, labels: {security.istio.io/tlsMode: istio}}
spec: {containers: [{name: c, image: x}]}
status: {phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: "True"}]}
`)
	p := startOn(t, api, nil, secure(nil))
	r := p.rotation(func(r control.Rotation) bool { return r.Told && len(r.Namespaces) == 0 })
	if fmt.Sprint(r.Pods, r.Proofs) != "[web-1.web] []" {
		t.Errorf("%+v", r)
	}
	a := p.agent()
	a.hears(1, 0)
	a.says("")
	p.rotation(proof(""))
	other := startOn(t, api, nil, secure(nil))
	other.rotation(func(r control.Rotation) bool { return r.Told })
	if code, text := p.step(ca.Settled); code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	if secret := api.Get("Secret", "istio-system/istio-ca-secret"); !strings.Contains(secret, ca.NextKeyFile) || !strings.Contains(secret, "istio.io/ca-root") {
		t.Error("SX-004 the Secret does not have the next root, or is of another type")
	}
	a.hears(2, 0)
	a.says("")
	p.rotation(proof(""))
	if code, text := other.step(ca.Settled); code != http.StatusConflict || !strings.Contains(text, `is in phase "trusting"`) {
		t.Errorf("the same step, of another control plane: %d %s", code, text)
	}
}

func TestRootsOfTheMeshConfig(t *testing.T) {
	files, err := ca.NewRoot(ca.RootOptions{TrustDomain: "other", Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	entry := func(text string) string {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		return "- pem: " + string(quoted) + "\n"
	}
	root := entry(string(files[ca.RootFile]))
	p := start(t, map[string]string{"mesh.yaml": "caCertificates:\n" + root}, secure(nil))
	a := p.agent()
	told := a.hears(1, 1)
	a.says("")
	t.Run("MC-022 agents are told the roots of meshConfig.caCertificates beside the mesh's own", func(t *testing.T) {
		if got := told.GetCaCertificatesPem()[1]; got != string(files[ca.RootFile]) {
			t.Errorf("root %s", got)
		}
		p.write("mesh.yaml", "caCertificates:\n"+entry(string(files[ca.KeyFile]))+root+root)
		a.hears(1, 2)
		a.says("")
	})
	t.Run("MC-022 a root that is none is named, and no secret is told", func(t *testing.T) {
		found := p.server.Status().Problems
		if len(found) != 1 || found[0].Field != "caCertificates[0].pem" || !strings.Contains(found[0].Message, `a PEM block "PRIVATE KEY"`) {
			t.Errorf("%v", found)
		}
	})
}
