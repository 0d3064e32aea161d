package env

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// objects are a Source of a few.
type objects struct{}

func (objects) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	if namespace != "shop" || name != "settings" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &corev1.ConfigMap{Data: map[string]string{"color": "red", "size": "8"}}, nil
}

func (objects) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	if namespace != "shop" || name != "login" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	return &corev1.Secret{Data: map[string][]byte{"user": []byte("me")}}, nil
}

const manifest = `
metadata: {name: web-1, namespace: shop, uid: u-1, labels: {app: web, tier: "2"}, annotations: {note: "a \"b\""}}
spec:
  nodeName: lateen
  serviceAccountName: seller
  initContainers: [{name: first, resources: {requests: {cpu: 100m}}}]
  containers:
  - name: web
    resources: {limits: {cpu: 1500m, memory: 64Mi}}
`

func pod(t *testing.T) Pod {
	t.Helper()
	object := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(manifest), object); err != nil {
		t.Fatal(err)
	}
	return Pod{Object: object, Addresses: []string{"10.244.0.9"}, Host: "10.244.0.1", CPUs: 4, Memory: 1 << 30}
}

func TestVariables(t *testing.T) {
	for _, c := range []struct {
		name, container string
		want            []string // after the given ones
		words           string   // of the error
	}{
		{"values", `{name: web, env: [{name: A, value: x}, {name: B, value: "$(A)-$(GIVEN)-$(NO)-$$(A)"}]}`, []string{"A=x", "B=x-g-$(NO)-$(A)"}, ""},
		{"a value replaces the image's", `{name: web, env: [{name: GIVEN, value: "$(GIVEN)2"}]}`, nil, ""},
		{"the pod's own fields", `{name: web, env: [
			{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: S, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}},
			{name: U, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}, {name: L, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}},
			{name: I, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, {name: IS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}},
			{name: H, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}},
			{name: SA, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}]}`,
			[]string{"NAME=web-1", "S=shop", "U=u-1", "L=web", "I=10.244.0.9", "IS=10.244.0.9", "H=10.244.0.1", "NODE=lateen", "SA=seller"}, ""},
		{"resources", `{name: web, env: [
			{name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: "1"}}}, {name: MILLI, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}},
			{name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: "0"}}}, {name: MI, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}},
			{name: OTHER, valueFrom: {resourceFieldRef: {containerName: first, resource: requests.cpu, divisor: 1m}}},
			{name: NODECPU, valueFrom: {resourceFieldRef: {containerName: first, resource: limits.cpu}}},
			{name: NODEMEM, valueFrom: {resourceFieldRef: {containerName: first, resource: limits.memory, divisor: 1Gi}}}]}`,
			[]string{"CPU=2", "MILLI=1500", "MEM=67108864", "MI=64", "OTHER=100", "NODECPU=4", "NODEMEM=1"}, ""},
		{"keys of objects", `{name: web, env: [{name: C, valueFrom: {configMapKeyRef: {name: settings, key: color}}}, {name: U, valueFrom: {secretKeyRef: {name: login, key: user}}}]}`,
			[]string{"C=red", "U=me"}, ""},
		{"whole objects, with a prefix; env comes after them", `{name: web, envFrom: [{prefix: P_, configMapRef: {name: settings}}, {secretRef: {name: login}}], env: [{name: P_size, value: "9"}]}`,
			[]string{"P_color=red", "P_size=9", "user=me"}, ""},
		{"what may be missing", `{name: web, envFrom: [{configMapRef: {name: none, optional: true}}], env: [{name: A, valueFrom: {configMapKeyRef: {name: none, key: k, optional: true}}},
			{name: B, valueFrom: {secretKeyRef: {name: login, key: none, optional: true}}}, {name: C, value: "$(A)"}]}`, []string{"C=$(A)"}, ""},
		{"an object that is missing", `{name: web, env: [{name: A, valueFrom: {configMapKeyRef: {name: none, key: k}}}]}`, nil, `configmaps "none" not found`},
		{"a key that is missing", `{name: web, env: [{name: A, valueFrom: {secretKeyRef: {name: login, key: none}}}]}`, nil, "couldn't find key none in Secret shop/login"},
		{"a path that is unknown", `{name: web, env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.nothing}}}]}`, nil, "spec.nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			container := &corev1.Container{}
			if err := yaml.UnmarshalStrict([]byte(c.container), container); err != nil {
				t.Fatal(err)
			}
			got, err := Of(t.Context(), pod(t), container, objects{}, []string{"GIVEN=g"})
			if c.words != "" {
				if err == nil || !strings.Contains(err.Error(), c.words) {
					t.Fatalf("%v does not say %q", err, c.words)
				}
				return
			}
			want := append([]string{"GIVEN=g"}, c.want...)
			if c.want == nil {
				want = []string{"GIVEN=g2"}
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("got %q, %v, not %q", got, err, want)
			}
		})
	}
}

func TestMaps(t *testing.T) {
	for path, want := range map[string]string{
		"metadata.labels": "app=\"web\"\ntier=\"2\"", "metadata.annotations": `note="a \"b\""`,
	} {
		if got, err := pod(t).Field(path); got != want || err != nil {
			t.Errorf("%s is %q, %v, not %q", path, got, err, want)
		}
	}
}

func TestServices(t *testing.T) {
	var services []*corev1.Service
	for _, text := range []string{
		`{metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443}]}}`,
		`{metadata: {name: my-db, namespace: shop}, spec: {clusterIP: 10.96.0.7, ports: [{port: 53, protocol: UDP}]}}`,
		`{metadata: {name: headless, namespace: shop}, spec: {clusterIP: None, ports: [{port: 1}]}}`,
		`{metadata: {name: elsewhere, namespace: other}, spec: {clusterIP: 10.96.0.8, ports: [{port: 1}]}}`,
	} {
		s := &corev1.Service{}
		if err := yaml.UnmarshalStrict([]byte(text), s); err != nil {
			t.Fatal(err)
		}
		services = append(services, s)
	}
	api := []string{"KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443", "KUBERNETES_SERVICE_PORT_HTTPS=443", "KUBERNETES_PORT=tcp://10.96.0.1:443",
		"KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443", "KUBERNETES_PORT_443_TCP_PROTO=tcp", "KUBERNETES_PORT_443_TCP_PORT=443", "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1"}
	db := []string{"MY_DB_SERVICE_HOST=10.96.0.7", "MY_DB_SERVICE_PORT=53", "MY_DB_PORT=udp://10.96.0.7:53",
		"MY_DB_PORT_53_UDP=udp://10.96.0.7:53", "MY_DB_PORT_53_UDP_PROTO=udp", "MY_DB_PORT_53_UDP_PORT=53", "MY_DB_PORT_53_UDP_ADDR=10.96.0.7"}
	p := pod(t).Object
	if got := Services(p, services); !slices.Equal(got, append(slices.Clone(api), db...)) {
		t.Errorf("with links: %q", got)
	}
	no := false
	p.Spec.EnableServiceLinks = &no
	if got := Services(p, services); !slices.Equal(got, api) {
		t.Errorf("without links: %q", got)
	}
}

func FuzzExpand(f *testing.F) {
	for _, text := range []string{"", "$", "$$", "$(A)", "$(", "$(A", "$$(A)", "a$(A)b$(B)", "$$$(A)"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got := Expand(text, nil); !strings.Contains(text, "$$") && got != text {
			t.Errorf("without values %q became %q", text, got)
		}
		if got := Expand(strings.ReplaceAll(text, "$", "$$"), map[string]string{"A": "x"}); got != text {
			t.Errorf("escaped %q became %q", text, got)
		}
	})
}
