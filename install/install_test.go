package install_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lateen-mesh/lateen/install"
)

// local is one machine.
func local() *install.Local { return &install.Local{Sockets: "/run/mesh", Control: "/run/control"} }

func render(t *testing.T, in install.Input) (*install.Installation, []*unstructured.Unstructured) {
	t.Helper()
	i, err := install.New(in)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := i.Objects()
	if err != nil {
		t.Fatal(err)
	}
	return i, objects
}

// list is the objects as "Kind name".
func list(objects []*unstructured.Unstructured) string {
	var b strings.Builder
	for _, o := range objects {
		b.WriteString(o.GetKind() + " " + o.GetName() + "\n")
	}
	return b.String()
}

func find(t *testing.T, objects []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	t.Helper()
	for _, o := range objects {
		if o.GetKind() == kind && o.GetName() == name {
			return o
		}
	}
	t.Fatalf("no %s %s in\n%s", kind, name, list(objects))
	return nil
}

func TestOneMachine(t *testing.T) {
	_, objects := render(t, install.Input{Local: local()})
	t.Run("IN-012 IN-013 IN-014 IN-015 IN-016 IN-018 both gateways are there, and nothing that scales", func(t *testing.T) {
		want := `Namespace istio-system
ServiceAccount istio-reader-service-account
ServiceAccount istiod
ServiceAccount istio-ingressgateway-service-account
ServiceAccount istio-egressgateway-service-account
ClusterRole istio-reader-clusterrole-istio-system
ClusterRole istiod-clusterrole-istio-system
ClusterRoleBinding istio-reader-clusterrole-istio-system
ClusterRoleBinding istiod-clusterrole-istio-system
Role istiod
Role istio-ingressgateway-sds
Role istio-egressgateway-sds
RoleBinding istiod
RoleBinding istio-ingressgateway-sds
RoleBinding istio-egressgateway-sds
ConfigMap istio
ConfigMap istio-sidecar-injector
Service istiod
Service istio-ingressgateway
Service istio-egressgateway
Deployment istiod
Deployment istio-ingressgateway
Deployment istio-egressgateway
MutatingWebhookConfiguration istio-sidecar-injector
`
		if got := list(objects); got != want {
			t.Errorf("got\n%s", got)
		}
	})
	t.Run("a ConfigMap whose lines can be grepped and replaced", func(t *testing.T) {
		mesh, _, _ := unstructured.NestedString(find(t, objects, "ConfigMap", "istio").Object, "data", "mesh")
		if !strings.Contains(mesh, "\noutboundTrafficPolicy:\n  mode: ALLOW_ANY\n") || strings.HasSuffix(mesh, "\n") {
			t.Errorf("mesh:\n%s", mesh)
		}
	})
}
