package install_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

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
ClusterRole istiod-clusterrole-istio-system
ClusterRole istio-reader-clusterrole-istio-system
ClusterRoleBinding istiod-clusterrole-istio-system
ClusterRoleBinding istio-reader-clusterrole-istio-system
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
ValidatingWebhookConfiguration istio-validator-istio-system
ValidatingWebhookConfiguration istiod-default-validator
`
		if got := list(objects); got != want {
			t.Errorf("got\n%s", got)
		}
	})
	t.Run("OP-008 a ConfigMap whose lines can be grepped and replaced", func(t *testing.T) {
		text, err := yaml.Marshal(find(t, objects, "ConfigMap", "istio").Object)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "\n  mesh: |-\n") || !strings.Contains(string(text), "\n    outboundTrafficPolicy:\n      mode: ALLOW_ANY\n") {
			t.Errorf("got\n%s", text)
		}
	})
	t.Run("istiod has the machine's directories", func(t *testing.T) {
		d := find(t, objects, "Deployment", "istiod").Object
		for path, want := range map[string]any{
			"spec.template.spec.volumes.[name:sockets].hostPath.path":                                 "/run/mesh",
			"spec.template.spec.volumes.[name:control].hostPath.path":                                 "/run/control",
			"spec.template.spec.containers[0].volumeMounts.[name:sockets].mountPath":                  "/var/run/lateen",
			"spec.template.spec.containers[0].args.[--grpcAddr=:15010,unix:/var/run/lateen/xds.sock]": "--grpcAddr=:15010,unix:/var/run/lateen/xds.sock",
			"spec.strategy.type": "Recreate",
		} {
			if got := install.At(t, d, path); got != want {
				t.Errorf("%s: %v, want %v", path, got, want)
			}
		}
	})
	t.Run("the Service shows the ports of the machine", func(t *testing.T) {
		l := local()
		l.HTTPPort, l.HTTPSPort = 8080, 8443
		_, objects := render(t, install.Input{Local: l})
		service := find(t, objects, "Service", "istio-ingressgateway").Object
		for path, want := range map[string]any{
			"spec.ports.[name:http2].port": int64(8080), "spec.ports.[name:http2].targetPort": int64(80),
			"spec.ports.[name:https].port": int64(8443), "spec.ports.[name:status-port].port": int64(15021),
			// Gateways say 80 or 8080 and mean the same.
			"spec.ports.[name:http2-alt].port": int64(80), "spec.ports.[name:http2-alt].targetPort": int64(80),
			"spec.ports.[name:https-alt].port": int64(443), "spec.ports.[name:https-alt].targetPort": int64(443),
		} {
			if got := install.At(t, service, path); got != want {
				t.Errorf("%s: %v, want %v", path, got, want)
			}
		}
		gateway := find(t, objects, "Deployment", "istio-ingressgateway").Object
		if got := install.At(t, gateway, "spec.template.spec.containers[0].ports.[containerPort:443].hostPort"); got != int64(443) {
			t.Errorf("hostPort %v", got)
		}
	})
}
