package inject

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/config"
)

const proxyConfigObjects = `
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: all, namespace: istio-system}
spec: {concurrency: 1, environmentVariables: {A: root, B: root, C: root, D: root}, image: {imageType: debug}}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: namespace, namespace: shop, creationTimestamp: "2026-01-01T00:00:00Z"}
spec: {concurrency: 2, environmentVariables: {B: namespace, C: namespace, D: namespace}}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: younger, namespace: shop, creationTimestamp: "2026-01-02T00:00:00Z"}
spec: {concurrency: 7}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, environmentVariables: {C: workload, D: workload, ISTIO_META_TEAM: one}, image: {imageType: distroless}}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: other, namespace: shop}
spec: {selector: {matchLabels: {app: other}}, concurrency: 9}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: else, namespace: elsewhere}
spec: {concurrency: 8, environmentVariables: {A: elsewhere}}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: selected, namespace: istio-system}
spec: {selector: {matchLabels: {app: web}}, concurrency: 6}
`

func TestProxyConfigObjects(t *testing.T) {
	objects, problems := config.DecodeYAML("all.yaml", []byte(proxyConfigObjects))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	mesh, problems := config.DecodeMeshConfig("", []byte(`defaultConfig: {concurrency: 4, drainDuration: 9s, proxyMetadata: {A: mesh, M: mesh}}`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	set := config.NewSet(1, objects)
	for _, c := range []struct{ name, pod, concurrency, env, image string }{
		{"EX-028 EX-029 EX-030 workload, namespace, root, mesh: each over the one before", `metadata: {namespace: shop}`,
			`"concurrency":2`, "root namespace workload workload mesh one", "-distroless"},
		{"EX-028 the selector", `metadata: {namespace: shop, labels: {app: other}}`,
			`"concurrency":9`, "root namespace namespace namespace mesh ", "-debug"},
		{"EX-028 another namespace has what the root says", `metadata: {namespace: quiet}`,
			`"concurrency":1`, "root root root root mesh ", "-debug"},
		{"EX-028 the annotation over all", `metadata: {namespace: shop, annotations: {proxy.istio.io/config: "{concurrency: 3, proxyMetadata: {D: pod}}"}}`,
			`"concurrency":3`, "root namespace workload pod mesh one", "-distroless"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := native(pod(t, c.pod))
			r.Mesh, r.Objects = mesh, set
			proxy := proxyOf(t, mustInject(t, settings(t, ``), r))
			if got := envOf(proxy, "PROXY_CONFIG"); !strings.Contains(got, c.concurrency) || !strings.Contains(got, `"drainDuration":"9s"`) {
				t.Errorf("configuration %s, want %s", got, c.concurrency)
			}
			var env []string
			for _, name := range []string{"A", "B", "C", "D", "M", "ISTIO_META_TEAM"} {
				env = append(env, envOf(proxy, name))
			}
			if got := strings.Join(env, " "); got != c.env {
				t.Errorf("environment %q, want %q", got, c.env)
			}
			if !strings.HasSuffix(proxy.Image, c.image) {
				t.Errorf("image %s, want …%s", proxy.Image, c.image)
			}
		})
	}
}

// What defaultConfig says of proxies reaches them in their pod.
func TestDefaultConfig(t *testing.T) {
	for _, c := range []struct {
		name, mesh string
		got        func(*corev1.Pod) string
		want       string
	}{
		{"MC-067 concurrency", `{concurrency: 3}`, func(p *corev1.Pod) string { return envOf(proxyOf(t, p), "PROXY_CONFIG") }, `{"concurrency":3}`},
		{"MC-068 interceptionMode", `{interceptionMode: TPROXY}`, func(p *corev1.Pod) string {
			return fmt.Sprint(envOf(proxyOf(t, p), "ISTIO_META_INTERCEPTION_MODE"), *proxyOf(t, p).SecurityContext.RunAsUser, strings.Contains(strings.Join(p.Spec.InitContainers[0].Args, " "), "-m TPROXY"))
		}, "TPROXY0 true"},
		{"MC-076 meshId, image.imageType and caCertificatesPem", `{meshId: m1, image: {imageType: debug}, caCertificatesPem: [abc]}`, func(p *corev1.Pod) string {
			return fmt.Sprint(strings.HasSuffix(proxyOf(t, p).Image, "-debug"), " ", envOf(proxyOf(t, p), "PROXY_CONFIG"))
		}, `true {"meshId":"m1","caCertificatesPem":["abc"],"image":{"imageType":"debug"}}`},
		{"MC-062 discoveryAddress", `{discoveryAddress: "other:15012"}`, func(p *corev1.Pod) string { return envOf(proxyOf(t, p), "PROXY_CONFIG") }, `{"discoveryAddress":"other:15012"}`},
		{"MC-079 proxyStatsMatcher", `{proxyStatsMatcher: {inclusionPrefixes: [a], inclusionSuffixes: [b], inclusionRegexps: [c]}}`, func(p *corev1.Pod) string { return envOf(proxyOf(t, p), "PROXY_CONFIG") },
			`{"proxyStatsMatcher":{"inclusionPrefixes":["a"],"inclusionSuffixes":["b"],"inclusionRegexps":["c"]}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := native(pod(t, ``))
			var problems []config.Problem
			if r.Mesh, problems = config.DecodeMeshConfig("", []byte("defaultConfig: "+c.mesh)); config.HasErrors(problems) {
				t.Fatal(problems)
			}
			if got := strings.TrimSpace(c.got(mustInject(t, settings(t, ``), r))); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
