package mesh

import (
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/registry"
)

const peers = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system, creationTimestamp: "2024-01-02T00:00:00Z"}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: younger, namespace: istio-system, creationTimestamp: "2024-01-03T00:00:00Z"}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: own, namespace: istio-system}
spec:
  selector: {matchLabels: {app: a}}
  mtls: {mode: PERMISSIVE}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: unset, namespace: inherits}
spec: {}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: plain, creationTimestamp: "2024-01-01T00:00:00Z"}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: another, namespace: plain, creationTimestamp: "2024-01-02T00:00:00Z"}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: a, namespace: plain, creationTimestamp: "2024-01-05T00:00:00Z"}
spec:
  selector: {matchLabels: {app: a}}
  mtls: {mode: UNSET}
  portLevelMtls: {80: {mode: STRICT}, 81: {mode: UNSET}, 82: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: a-younger, namespace: plain, creationTimestamp: "2024-01-06T00:00:00Z"}
spec:
  selector: {matchLabels: {app: a, version: v2}}
  mtls: {mode: STRICT}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: b, namespace: selected}
spec:
  selector: {matchLabels: {app: b}}
  mtls: {mode: DISABLE}
`

func TestAuthentication(t *testing.T) {
	s := snapshot(t, peers)
	a, a2, b := map[string]string{"app": "a"}, map[string]string{"app": "a", "version": "v2"}, map[string]string{"app": "b"}
	for _, tc := range []struct {
		name, namespace string
		labels          map[string]string
		port            uint32
		want            TLSMode
	}{
		{"PO-002 the mesh's holds where a namespace has none", "elsewhere", a, 80, Strict},
		{"PO-002 the mesh's is the oldest of the root namespace", "istio-system", b, 80, Strict},
		{"PO-002 UNSET inherits the mesh's", "inherits", a, 80, Strict},
		{"PO-002 a namespace's goes before the mesh's, the oldest of it", "plain", b, 80, Disable},
		{"PO-001 a selector in the root namespace is for that namespace", "istio-system", a, 80, Permissive},
		{"PO-001 a workload's goes before the namespace's", "selected", b, 80, Disable},
		{"PO-001 other workloads of the namespace have the mesh's", "selected", a, 80, Strict},
		{"PO-001 of two for a workload the older", "plain", a2, 83, Disable},
		{"PO-003 a port's goes before the workload's", "plain", a, 80, Strict},
		{"PO-003 UNSET of a port inherits the workload's, which inherits the namespace's", "plain", a, 81, Disable},
		{"PO-003 each port has its own", "plain", a, 82, Permissive},
		{"PO-003 other ports have the workload's", "plain", a, 83, Disable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := s.Authentication(tc.namespace, tc.labels).At(tc.port); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
	if got := s.NamespaceTLSMode("plain"); got != Disable {
		t.Errorf("the namespace has %v", got)
	}
	if got := snapshot(t, "").Authentication("any", a).At(1); got != Permissive {
		t.Errorf("PO-002 without any object: %v", got)
	}
}

func TestTakesTLS(t *testing.T) {
	s := snapshot(t, peers)
	for _, tc := range []struct {
		name string
		e    registry.Endpoint
		want bool
	}{
		{"AN-050 a workload with a proxy", registry.Endpoint{Namespace: "elsewhere", TLSMode: "istio"}, true},
		{"AN-050 a workload without", registry.Endpoint{Namespace: "elsewhere", TLSMode: "disabled"}, false},
		{"PO-002 a namespace without mutual TLS", registry.Endpoint{Namespace: "plain", TLSMode: "istio"}, false},
		{"PO-003 a port with it", registry.Endpoint{Namespace: "plain", Labels: map[string]string{"app": "a"}, Port: 80, TLSMode: "istio"}, true},
	} {
		if got := s.TakesTLS(&tc.e); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// A snapshot after another follows objects that change, and takes the rest from it.
func TestAuthenticationByDifference(t *testing.T) {
	set := func(text string) *config.Set {
		objects, problems := config.DecodeYAML("test.yaml", []byte(text))
		if config.HasErrors(problems) {
			t.Fatal(problems)
		}
		return config.NewSet(1, objects)
	}
	first := Build(set(peers), Options{})
	same := Next(first, first.Config, Options{})
	if got := same.NamespaceTLSMode("plain"); got != Disable {
		t.Errorf("PO-002 taken over: %v", got)
	}
	less := Next(same, set(strings.ReplaceAll(peers, "{mode: DISABLE}", "{mode: STRICT}")), Options{})
	if got := less.NamespaceTLSMode("plain"); got != Strict {
		t.Errorf("PO-002 changed: %v", got)
	}
	if got := Next(less, set(""), Options{}).NamespaceTLSMode("plain"); got != Permissive {
		t.Errorf("PO-002 gone: %v", got)
	}
}
