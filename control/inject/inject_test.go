package inject

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/control/config"
)

const webPod = `
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v2}}
spec: {containers: [{name: web, image: nginx, ports: [{name: http, containerPort: 8080}]}]}
`

// A pod that is to be injected: YAML over webPod, lists replaced.
func pod(t testing.TB, over string) *corev1.Pod {
	t.Helper()
	base, err := parseTree([]byte(webPod))
	if err != nil {
		t.Fatal(err)
	}
	more, err := parseTree([]byte(over))
	if err != nil {
		t.Fatal(err)
	}
	p := &corev1.Pod{}
	if err := convert(overlay(base, more), p); err != nil {
		t.Fatal(err)
	}
	return p
}

// settings are ours, with values.
func settings(t testing.TB, values string) *Settings {
	t.Helper()
	v, err := parseTree([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	configText, valuesText, err := Render(v)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(configText, valuesText)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func native(p *corev1.Pod) Request { return Request{Pod: p, NativeSidecars: true} }

func mustInject(t testing.TB, s *Settings, r Request) *corev1.Pod {
	t.Helper()
	result, err := s.Inject(r)
	if err != nil {
		t.Fatal(err)
	}
	if !result.Injected {
		t.Fatalf("not injected: %s", result.Reason)
	}
	return result.Pod
}

func proxyOf(t testing.TB, p *corev1.Pod) *corev1.Container {
	t.Helper()
	c := findContainer(p, ProxyContainer)
	if c == nil {
		t.Fatalf("no proxy among %v", containerNames(p))
	}
	return c
}

func envOf(c *corev1.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// containerNames are the init containers, then the others.
func containerNames(p *corev1.Pod) (names []string) {
	for _, c := range p.Spec.InitContainers {
		names = append(names, "init:"+c.Name)
	}
	for _, c := range p.Spec.Containers {
		names = append(names, c.Name)
	}
	return names
}

func TestRequired(t *testing.T) {
	for _, c := range []struct {
		name, pod, values string
		namespace         map[string]string
		want              bool
	}{
		{"IN-008 a pod that says nothing", ``, ``, nil, true},
		{"AN-002 the annotation says no", `metadata: {annotations: {sidecar.istio.io/inject: "false"}}`, ``, nil, false},
		{"AN-046 the label says no", `metadata: {labels: {sidecar.istio.io/inject: "false"}}`, ``, nil, false},
		{"AN-002 AN-046 the label wins over the annotation", `metadata: {labels: {sidecar.istio.io/inject: "true"}, annotations: {sidecar.istio.io/inject: "false"}}`, ``, nil, true},
		{"KC-011 IN-023 a pod in its node's network, even if it asks", `{metadata: {labels: {sidecar.istio.io/inject: "true"}}, spec: {hostNetwork: true}}`, ``, nil, false},
		{"IN-023 a pod of the cluster itself", `metadata: {namespace: kube-system}`, ``, nil, false},
		{"AN-043 a namespace that wants none, even if the pod asks", `metadata: {labels: {sidecar.istio.io/inject: "true"}}`, ``, map[string]string{"istio-injection": "disabled"}, false},
		{"IN-008 neverInjectSelector", ``, `sidecarInjectorWebhook: {neverInjectSelector: [{matchExpressions: [{key: app, operator: In, values: [web]}]}]}`, nil, false},
		{"IN-008 a selector that says nothing matches nothing", ``, `sidecarInjectorWebhook: {neverInjectSelector: [{}]}`, nil, true},
		{"IN-008 neverInjectSelector before alwaysInjectSelector", ``, `sidecarInjectorWebhook: {neverInjectSelector: [{matchLabels: {app: web}}], alwaysInjectSelector: [{matchLabels: {app: web}}]}`, nil, false},
		{"IN-008 the policy is disabled", ``, `global: {proxy: {autoInject: disabled}}`, nil, false},
		{"IN-008 alwaysInjectSelector where the policy is disabled", ``, `{global: {proxy: {autoInject: disabled}}, sidecarInjectorWebhook: {alwaysInjectSelector: [{matchLabels: {app: web}}]}}`, nil, true},
		{"AN-046 the label where the policy is disabled", `metadata: {labels: {sidecar.istio.io/inject: "true"}}`, `global: {proxy: {autoInject: disabled}}`, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := native(pod(t, c.pod))
			r.NamespaceLabels = c.namespace
			result, err := settings(t, c.values).Inject(r)
			if err != nil {
				t.Fatal(err)
			}
			asked := r.Pod.Labels[labelInject] == "true"
			if result.Injected != c.want || !c.want && result.Reason == "" || (!c.want && asked) != (len(result.Warnings) > 0) {
				t.Errorf("injected %t, reason %q, warnings %q", result.Injected, result.Reason, result.Warnings)
			}
		})
	}
}

// TestWhatIsPutIn has one line for each thing that a pod or an installation may ask for.
func TestWhatIsPutIn(t *testing.T) {
	first := func(p *corev1.Pod) *corev1.Container { return &p.Spec.InitContainers[0] }
	args := func(c *corev1.Container) string { return strings.Join(c.Args, " ") }
	for _, c := range []struct {
		name, pod, values, mesh string
		got                     func(*corev1.Pod) string
		want                    string
	}{
		{"IN-021 rules, proxy, application", ``, ``, ``, func(p *corev1.Pod) string { return strings.Join(containerNames(p), " ") }, "init:istio-init init:istio-proxy web"},
		{"IN-021 with CNI rules are only looked at", ``, `pilot: {cni: {enabled: true}}`, ``, func(p *corev1.Pod) string {
			return fmt.Sprint(containerNames(p), first(p).Args[len(first(p).Args)-2:], first(p).SecurityContext.Capabilities.Add, *first(p).SecurityContext.RunAsUser)
		}, "[init:istio-validation init:istio-proxy web] [--run-validation --skip-rule-apply] [] 1337"},
		{"AN-041 with CNI by Multus", `metadata: {annotations: {k8s.v1.cni.cncf.io/networks: other}}`, `pilot: {cni: {enabled: true, provider: multus}}`, ``, func(p *corev1.Pod) string { return p.Annotations["k8s.v1.cni.cncf.io/networks"] }, "other, default/istio-cni"},
		{"AN-008 interception NONE has no rules", `metadata: {annotations: {sidecar.istio.io/interceptionMode: NONE}}`, ``, ``, func(p *corev1.Pod) string {
			return fmt.Sprint(containerNames(p), envOf(proxyOf(t, p), "ISTIO_META_INTERCEPTION_MODE"))
		}, "[init:istio-proxy web]NONE"},
		{"AN-008 interception TPROXY is root's", `metadata: {annotations: {sidecar.istio.io/interceptionMode: TPROXY}}`, ``, ``, func(p *corev1.Pod) string {
			return fmt.Sprint(*proxyOf(t, p).SecurityContext.RunAsUser, proxyOf(t, p).SecurityContext.Capabilities.Add)
		}, "0 [NET_ADMIN]"},
		{"AN-006 an image of the pod's choice", `metadata: {annotations: {sidecar.istio.io/proxyImage: example.com/p:1}}`, ``, ``, func(p *corev1.Pod) string { return proxyOf(t, p).Image }, "example.com/p:1"},
		{"AN-006 the kind of image", `metadata: {annotations: {sidecar.istio.io/proxyImageType: distroless}}`, `global: {hub: h.io/x, tag: 1.2.3}`, ``, func(p *corev1.Pod) string { return proxyOf(t, p).Image }, "h.io/x/proxyv2:1.2.3-distroless"},
		{"IN-006 hub, tag and variant", ``, `global: {hub: h.io/x, tag: 1.2.3, variant: debug}`, ``, func(p *corev1.Pod) string { return proxyOf(t, p).Image }, "h.io/x/proxyv2:1.2.3-debug"},
		{"IN-006 an image with its registry stays whole", ``, `global: {proxy: {image: e.io/p@sha256:00}}`, ``, func(p *corev1.Pod) string { return proxyOf(t, p).Image }, "e.io/p@sha256:00"},
		{"AN-007 one resource drops the others' defaults", `metadata: {annotations: {sidecar.istio.io/proxyMemoryLimit: 64Mi}}`, ``, ``, func(p *corev1.Pod) string {
			r := proxyOf(t, p).Resources
			return fmt.Sprint(r.Limits.Memory(), r.Limits.Cpu(), len(r.Requests))
		}, "64Mi 0 0"},
		{"AN-013 levels of the logs", `metadata: {annotations: {sidecar.istio.io/logLevel: debug, sidecar.istio.io/componentLogLevel: "http:trace", sidecar.istio.io/agentLogLevel: "default:warn"}}`, ``, ``,
			func(p *corev1.Pod) string { return args(proxyOf(t, p)) },
			"proxy sidecar --domain $(POD_NAMESPACE).svc.cluster.local --proxyLogLevel=debug --proxyComponentLogLevel=http:trace --log_output_level=default:warn"},
		{"AN-017 AN-018 AN-019 which traffic is redirected", `metadata: {annotations: {traffic.sidecar.istio.io/includeOutboundIPRanges: 10.0.0.0/8, traffic.sidecar.istio.io/excludeOutboundIPRanges: 10.1.0.0/16,
			traffic.sidecar.istio.io/includeInboundPorts: "80,81", traffic.sidecar.istio.io/excludeInboundPorts: "22", traffic.sidecar.istio.io/includeOutboundPorts: "443", traffic.sidecar.istio.io/excludeOutboundPorts: "3306"}}`, ``, ``,
			func(p *corev1.Pod) string { return args(first(p)) },
			"istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i 10.0.0.0/8 -x 10.1.0.0/16 -b 80,81 -d 15090,15021,22,15020 -q 443 -o 3306 --log_output_level=default:info"},
		{"AN-020 interfaces", `metadata: {annotations: {istio.io/reroute-virtual-interfaces: tap0, traffic.sidecar.istio.io/excludeInterfaces: eth1}}`, ``, ``, func(p *corev1.Pod) string { return strings.Join(first(p).Args[17:21], " ") }, "-k tap0 -c eth1"},
		{"AN-015 another port of the agent", `metadata: {annotations: {status.sidecar.istio.io/port: "15999"}}`, ``, ``, func(p *corev1.Pod) string {
			return fmt.Sprint(first(p).Args[16], proxyOf(t, p).Lifecycle.PreStop.Exec.Command[2])
		}, "15090,15021,15999--debug-port=15999"},
		{"AN-016 how often readiness is asked", `metadata: {annotations: {readiness.status.sidecar.istio.io/periodSeconds: "7", readiness.status.sidecar.istio.io/initialDelaySeconds: "3", readiness.status.sidecar.istio.io/failureThreshold: "9"}}`, ``, ``, func(p *corev1.Pod) string {
			r := proxyOf(t, p).ReadinessProbe
			return fmt.Sprint(r.PeriodSeconds, r.InitialDelaySeconds, r.FailureThreshold, r.HTTPGet.Path, r.HTTPGet.Port.IntValue())
		}, "7 3 9/healthz/ready15021"},
		{"AN-001 a bootstrap of the user's", `metadata: {annotations: {sidecar.istio.io/bootstrapOverride: mine}}`, ``, ``, func(p *corev1.Pod) string {
			i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == "mine" })
			m := slices.IndexFunc(proxyOf(t, p).VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == p.Spec.Volumes[max(i, 0)].Name })
			return envOf(proxyOf(t, p), "ISTIO_BOOTSTRAP_OVERRIDE") + " " + proxyOf(t, p).VolumeMounts[max(m, 0)].MountPath
		}, "/etc/istio/custom-bootstrap/custom_bootstrap.json /etc/istio/custom-bootstrap"},
		{"IN-022 the proxy's volumes", ``, ``, ``, func(p *corev1.Pod) string {
			var mounts []string
			for _, m := range proxyOf(t, p).VolumeMounts {
				mounts = append(mounts, m.Name+"="+m.MountPath)
			}
			return strings.Join(mounts, " ")
		}, "workload-socket=/var/run/secrets/workload-spiffe-uds credential-socket=/var/run/secrets/credential-uds workload-certs=/var/run/secrets/workload-spiffe-credentials " +
			"istiod-ca-cert=/var/run/secrets/istio istio-ca-crl=/var/run/secrets/istio/crl istio-data=/var/lib/istio/data istio-envoy=/etc/istio/proxy istio-token=/var/run/secrets/tokens istio-podinfo=/etc/istio/pod"},
		{"AN-012 volumes of the user's in the proxy", `metadata: {annotations: {sidecar.istio.io/userVolume: '{"certs":{"secret":{"secretName":"s"}}}', sidecar.istio.io/userVolumeMount: '{"certs":{"mountPath":"/c","readOnly":true}}'}}`, ``, ``, func(p *corev1.Pod) string {
			m := proxyOf(t, p).VolumeMounts
			return fmt.Sprint(m[len(m)-1].Name, m[len(m)-1].MountPath, m[len(m)-1].ReadOnly, p.Spec.Volumes[len(p.Spec.Volumes)-1].Secret.SecretName)
		}, "certs/ctrues"},
		{"AN-024 ProxyConfig of the pod over the mesh's", `metadata: {annotations: {proxy.istio.io/config: "{concurrency: 3, proxyMetadata: {B: two, C: three}}"}}`, ``, `defaultConfig: {drainDuration: 9s, proxyMetadata: {A: one, B: one}}`, func(p *corev1.Pod) string {
			return strings.TrimSpace(envOf(proxyOf(t, p), "PROXY_CONFIG")) + envOf(proxyOf(t, p), "B") + envOf(first(p), "A")
		}, `{"drainDuration":"9s","concurrency":3,"proxyMetadata":{"A":"one","B":"two","C":"three"}}twoone`},
		{"AN-005 another control plane", `metadata: {annotations: {sidecar.istio.io/discoveryAddress: "other:15012"}}`, ``, ``, func(p *corev1.Pod) string { return strings.TrimSpace(envOf(proxyOf(t, p), "PROXY_CONFIG")) }, `{"discoveryAddress":"other:15012"}`},
		{"AN-040 kubectl logs and exec mean the application", ``, ``, ``, func(p *corev1.Pod) string {
			return p.Annotations["kubectl.kubernetes.io/default-container"] + p.Annotations["kubectl.kubernetes.io/default-logs-container"]
		}, "webweb"},
		{"AN-048 the canonical service of labels", ``, ``, ``, func(p *corev1.Pod) string {
			return p.Labels["service.istio.io/canonical-name"] + p.Labels["service.istio.io/canonical-revision"]
		}, "webv2"},
		{"AN-048 Kubernetes' own labels before app and version", `metadata: {labels: {app.kubernetes.io/name: shop, app.kubernetes.io/version: v7}}`, ``, ``, func(p *corev1.Pod) string {
			return p.Labels["service.istio.io/canonical-name"] + p.Labels["service.istio.io/canonical-revision"]
		}, "shopv7"},
		{"AN-050 mutual TLS is spoken unless the pod says no", `metadata: {labels: {security.istio.io/tlsMode: disabled}}`, ``, ``, func(p *corev1.Pod) string { return p.Labels["security.istio.io/tlsMode"] }, "disabled"},
		{"AN-027 the revision", ``, ``, ``, func(p *corev1.Pod) string { return p.Annotations["istio.io/rev"] }, "default"},
		{"AN-003 the status", ``, ``, ``, func(p *corev1.Pod) string { return p.Annotations["sidecar.istio.io/status"] },
			`{"initContainers":["istio-init","istio-proxy"],"containers":null,"volumes":["workload-socket","credential-socket","workload-certs","istio-envoy","istio-data","istio-podinfo","istio-token","istiod-ca-cert","istio-ca-crl"],"imagePullSecrets":null,"revision":"default"}`},
		{"IN-008 annotations of every injected pod", ``, `sidecarInjectorWebhook: {injectedAnnotations: {a/b: c}}`, ``, func(p *corev1.Pod) string { return p.Annotations["a/b"] }, "c"},
		{"MC-033 AN-030 scrapers ask the agent", `metadata: {annotations: {prometheus.io/port: "9000", prometheus.io/path: /m}}`, ``, ``, func(p *corev1.Pod) string {
			return p.Annotations["prometheus.io/port"] + p.Annotations["prometheus.io/path"] + envOf(proxyOf(t, p), "ISTIO_PROMETHEUS_ANNOTATIONS")
		}, `15020/stats/prometheus{"scrape":"","path":"/m","port":"9000"}`},
		{"AN-029 unless the pod keeps its metrics", `metadata: {annotations: {prometheus.istio.io/merge-metrics: "false", prometheus.io/port: "9000"}}`, ``, ``, func(p *corev1.Pod) string {
			return p.Annotations["prometheus.io/port"] + p.Annotations["prometheus.io/path"] + envOf(proxyOf(t, p), "ISTIO_PROMETHEUS_ANNOTATIONS")
		}, "9000"},
		{"MC-033 or the mesh does", ``, ``, `enablePrometheusMerge: false`, func(p *corev1.Pod) string { return p.Annotations["prometheus.io/port"] }, ""},
		{"EN-042 whose proxy it is", ``, `global: {meshID: m1, network: n1, multiCluster: {clusterName: c1}}`, `trustDomain: td`, func(p *corev1.Pod) string {
			e := func(name string) string { return envOf(proxyOf(t, p), name) }
			return strings.Join([]string{e("ISTIO_META_MESH_ID"), e("ISTIO_META_NETWORK"), e("ISTIO_META_CLUSTER_ID"), e("TRUST_DOMAIN"), e("CA_ADDR"), e("PILOT_CERT_PROVIDER"), e("ISTIO_META_APP_CONTAINERS")}, " ")
		}, "m1 n1 c1 td istiod.istio-system.svc:15012 istiod web"},
		{"EN-041 who the pod is", ``, ``, ``, func(p *corev1.Pod) string {
			var paths []string
			for _, e := range proxyOf(t, p).Env {
				if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
					paths = append(paths, e.Name+"="+e.ValueFrom.FieldRef.FieldPath)
				}
			}
			return strings.Join(paths[:5], " ")
		}, "POD_NAME=metadata.name POD_NAMESPACE=metadata.namespace INSTANCE_IP=status.podIP SERVICE_ACCOUNT=spec.serviceAccountName HOST_IP=status.hostIP"},
		{"IN-006 further settings of an installation", ``, `global: {logAsJson: true, priorityClassName: high, podDNSSearchNamespaces: [global, "{{ valueOrDefault .DeploymentMeta.Namespace \"default\" }}.global"], proxy: {lifecycle: {preStop: {sleep: {seconds: 3}}}}}`, ``, func(p *corev1.Pod) string {
			return fmt.Sprint(p.Spec.PriorityClassName, p.Spec.DNSConfig.Searches, slices.Contains(proxyOf(t, p).Args, "--log_as_json"), proxyOf(t, p).Lifecycle.PreStop.Sleep.Seconds)
		}, "high[global shop.global] true 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := native(pod(t, c.pod))
			var problems []config.Problem
			if r.Mesh, problems = config.DecodeMeshConfig("", []byte(c.mesh)); config.HasErrors(problems) {
				t.Fatal(problems)
			}
			if got := c.got(mustInject(t, settings(t, c.values), r)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestLegacySidecar(t *testing.T) {
	withInit := `spec: {initContainers: [{name: first, image: i}]}`
	for _, c := range []struct {
		name, pod, values string
		native            bool
		want, hook        string
	}{
		{"AN-014 beside the application, rules last", withInit, ``, false, "init:first init:istio-init web istio-proxy", ""},
		{"AN-014 the annotation says so", `{metadata: {annotations: {sidecar.istio.io/nativeSidecar: "false"}}, ` + withInit + `}`, ``, true, "init:first init:istio-init web istio-proxy", ""},
		{"AN-014 the annotation says native", `{metadata: {annotations: {sidecar.istio.io/nativeSidecar: "true"}}, ` + withInit + `}`, ``, false, "init:istio-init init:istio-proxy init:first web", ""},
		{"an application that waits starts after the proxy", withInit, `global: {proxy: {holdApplicationUntilProxyStarts: true}}`, false, "init:first init:istio-init istio-proxy web", "pilot-agent wait"},
		{"AN-024 the pod's ProxyConfig has the last word on that", `metadata: {annotations: {proxy.istio.io/config: "holdApplicationUntilProxyStarts: false"}}`, `global: {proxy: {holdApplicationUntilProxyStarts: true}}`, false, "init:istio-init web istio-proxy", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustInject(t, settings(t, c.values), Request{Pod: pod(t, c.pod), NativeSidecars: c.native})
			if got := strings.Join(containerNames(p), " "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			hook := ""
			if l := proxyOf(t, p).Lifecycle; l != nil && l.PostStart != nil {
				hook = strings.Join(l.PostStart.Exec.Command, " ")
			}
			if hook != c.hook {
				t.Errorf("hook %q, want %q", hook, c.hook)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ name, annotations, want string }{
		{"a port that is none", `traffic.sidecar.istio.io/excludeInboundPorts: "80,http"`, `annotation traffic.sidecar.istio.io/excludeInboundPorts: excludeInboundPorts: "80,http" is not a list of ports`},
		{"a range that is none", `traffic.sidecar.istio.io/includeOutboundIPRanges: 10.0.0.1`, `annotation traffic.sidecar.istio.io/includeOutboundIPRanges: includeIPRanges: "10.0.0.1" is not a range`},
		{"a mode that is none", `sidecar.istio.io/interceptionMode: redirect`, `annotation sidecar.istio.io/interceptionMode: "redirect" is none of REDIRECT, TPROXY, NONE`},
		{"a status port that is none", `status.sidecar.istio.io/port: "99999"`, `annotation status.sidecar.istio.io/port: "99999" is not a number from 0 to 65535`},
		{"neither true nor false", `sidecar.istio.io/rewriteAppHTTPProbers: maybe`, `annotation sidecar.istio.io/rewriteAppHTTPProbers: "maybe" is neither true nor false`},
		{"a quantity that is none", `sidecar.istio.io/proxyCPU: much`, `annotation sidecar.istio.io/proxyCPU: "much" is not a quantity`},
		{"a volume that is no object", `sidecar.istio.io/userVolume: "[]"`, `annotation sidecar.istio.io/userVolume: not a JSON object of objects`},
		{"a template that there is not", `inject.istio.io/templates: "sidecar,spire"`, `annotation inject.istio.io/templates: there is no template "spire": there are gateway, sidecar`},
		{"a ProxyConfig that is none", `proxy.istio.io/config: "concurrency: many"`, `annotation proxy.istio.io/config: concurrency: `},
		{"a status that is none", `sidecar.istio.io/status: "{"`, `annotation sidecar.istio.io/status: `},
		{"overrides that are none", `proxy.istio.io/overrides: "{"`, `annotation proxy.istio.io/overrides: `},
		{"scrape targets that are none", `prometheus.istio.io/scrape-targets: "/metrics"`, `annotation prometheus.istio.io/scrape-targets: "/metrics" is not PORT:PATH`},
		{"a port in and out", `{traffic.sidecar.istio.io/includeInboundPorts: "80,81", traffic.sidecar.istio.io/excludeInboundPorts: "81"}`,
			`annotations traffic.sidecar.istio.io/includeInboundPorts and traffic.sidecar.istio.io/excludeInboundPorts: both name 81`},
		{"no interception, and what to intercept", `{sidecar.istio.io/interceptionMode: NONE, traffic.sidecar.istio.io/includeOutboundPorts: "443"}`,
			`annotations sidecar.istio.io/interceptionMode and traffic.sidecar.istio.io/includeOutboundPorts: with NONE no traffic is redirected`},
		{"more than the limit", `{sidecar.istio.io/proxyCPU: "2", sidecar.istio.io/proxyCPULimit: 500m}`,
			`annotations sidecar.istio.io/proxyCPU and sidecar.istio.io/proxyCPULimit: 2 is more than the limit of 500m`},
		{"a mount of no volume", `sidecar.istio.io/userVolumeMount: '{"data": {"mountPath": "/d"}}'`,
			`annotation sidecar.istio.io/userVolumeMount: volume "data" is neither in annotation sidecar.istio.io/userVolume nor in the pod`},
	} {
		t.Run(c.name+" is refused by the name of its annotation", func(t *testing.T) {
			if !strings.HasPrefix(c.annotations, "{") {
				c.annotations = "{" + c.annotations + "}"
			}
			_, err := Default().Inject(native(pod(t, "metadata: {annotations: "+c.annotations+"}")))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error %v\nwant  %s", err, c.want)
			}
		})
	}
}

// TestOwnContainer has pods that say something about the proxy's container themselves.
func TestOwnContainer(t *testing.T) {
	t.Run("IN-024 what the pod says of container istio-proxy counts over the template", func(t *testing.T) {
		p := pod(t, `spec: {containers: [{name: istio-proxy, image: auto, resources: {requests: {cpu: 7m}}, env: [{name: MINE, value: x}, {name: TRUST_DOMAIN, value: mine}],
			readinessProbe: {exec: {command: [ok]}}, volumeMounts: [{name: v, mountPath: /v}]}, {name: web, image: nginx}], volumes: [{name: v}]}`)
		got := mustInject(t, Default(), native(p))
		c := proxyOf(t, got)
		if names := strings.Join(containerNames(got), " "); names != "init:istio-init init:istio-proxy web" {
			t.Errorf("containers %s", names)
		}
		if c.Image != "lateen/proxyv2:dev" || c.Resources.Requests.Cpu().String() != "7m" || c.Resources.Limits.Memory().String() != "1Gi" || envOf(c, "MINE") != "x" || envOf(c, "TRUST_DOMAIN") != "mine" ||
			envOf(c, "ISTIO_META_APP_CONTAINERS") != "web" || c.ReadinessProbe.HTTPGet != nil || c.ReadinessProbe.Exec == nil || len(c.VolumeMounts) != 10 {
			t.Errorf("proxy %+v", c)
		}
	})
	t.Run("AN-025 it is noted, and holds when the pod is injected again", func(t *testing.T) {
		p := pod(t, `spec: {containers: [{name: istio-proxy, image: auto, env: [{name: MINE, value: x}], ports: [{name: extra, containerPort: 7000}]}, {name: web, image: nginx, livenessProbe: {httpGet: {port: 80}}}]}`)
		once := mustInject(t, Default(), native(p))
		if once.Annotations["proxy.istio.io/overrides"] == "" {
			t.Errorf("annotations %v", once.Annotations)
		}
		if diff := cmp.Diff(once, mustInject(t, Default(), native(once))); diff != "" {
			t.Errorf("- once + twice\n%s", diff)
		}
	})
	t.Run("AN-003 an injected pod is made anew with other settings", func(t *testing.T) {
		once := mustInject(t, Default(), native(pod(t, `metadata: {annotations: {prometheus.io/port: "9000"}}`)))
		changed := settings(t, `global: {hub: other.io, mountMtlsCerts: true}`)
		if diff := cmp.Diff(mustInject(t, changed, native(pod(t, `metadata: {annotations: {prometheus.io/port: "9000"}}`))), mustInject(t, changed, native(once))); diff != "" {
			t.Errorf("- at once + again\n%s", diff)
		}
	})
	t.Run("AN-028 a gateway leaves its proxy to template gateway", func(t *testing.T) {
		p := pod(t, `{metadata: {annotations: {inject.istio.io/templates: gateway}, labels: {istio: ingressgateway}}, spec: {containers: [{name: istio-proxy, image: auto, ports: [{containerPort: 8080}]}]}}`)
		got := mustInject(t, Default(), native(p))
		c := proxyOf(t, got)
		if names := containerNames(got); len(names) != 1 || c.Args[1] != "router" || len(c.Ports) != 2 || c.Image == "auto" || !strings.Contains(envOf(c, "ISTIO_META_POD_PORTS"), "8080") {
			t.Errorf("%v %+v", names, c)
		}
	})
	t.Run("image auto where no template has the container is refused", func(t *testing.T) {
		_, err := Default().Inject(native(pod(t, `spec: {containers: [{name: sidecar, image: auto}]}`)))
		if err == nil || !strings.Contains(err.Error(), `container sidecar has image "auto"`) {
			t.Errorf("error %v", err)
		}
	})
}

func TestProbes(t *testing.T) {
	probes := `{spec: {containers: [{name: web, image: nginx, ports: [{name: http, containerPort: 8080}],
		livenessProbe: {grpc: {port: 9000}, timeoutSeconds: 2}, readinessProbe: {httpGet: {port: absent}}, startupProbe: {httpGet: {path: /s, port: http, httpHeaders: [{name: A, value: b}]}}}],
		initContainers: [{name: helper, image: h, restartPolicy: Always, startupProbe: {tcpSocket: {port: 5}}}]}}`
	got := mustInject(t, Default(), native(pod(t, probes)))
	web, helper := findContainer(got, "web"), findContainer(got, "helper")
	t.Run("AN-004 every probe over the network is the agent's", func(t *testing.T) {
		for where, probe := range map[string]*corev1.Probe{"web/livez": web.LivenessProbe, "web/startupz": web.StartupProbe, "helper/startupz": helper.StartupProbe} {
			if h := probe.HTTPGet; h == nil || h.Path != "/app-health/"+where || h.Port.IntValue() != 15020 || probe.GRPC != nil || probe.TCPSocket != nil {
				t.Errorf("%s: %+v", where, probe)
			}
		}
	})
	t.Run("EN-042 which is told how to ask", func(t *testing.T) {
		want := `{"/app-health/helper/startupz":{"tcpSocket":{"port":5}},"/app-health/web/livez":{"grpc":{"port":9000,"service":null},"timeoutSeconds":2},"/app-health/web/startupz":{"httpGet":{"path":"/s","port":8080,"httpHeaders":[{"name":"A","value":"b"}]}}}`
		if got := envOf(proxyOf(t, got), "ISTIO_KUBE_APP_PROBERS"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
	t.Run("a port that the container does not have stays the kubelet's trouble", func(t *testing.T) {
		if h := web.ReadinessProbe.HTTPGet; h.Port.StrVal != "absent" {
			t.Errorf("%+v", h)
		}
	})
	t.Run("AN-015 without an agent to ask nothing is rewritten", func(t *testing.T) {
		off := pod(t, probes)
		off.Annotations = map[string]string{"status.sidecar.istio.io/port": "0"}
		if p := findContainer(mustInject(t, Default(), native(off)), "web").StartupProbe; p.HTTPGet.Path != "/s" {
			t.Errorf("%+v", p)
		}
	})
	t.Run("IN-008 nor where the installation says so", func(t *testing.T) {
		if p := findContainer(mustInject(t, settings(t, `sidecarInjectorWebhook: {rewriteAppHTTPProbe: false}`), native(pod(t, probes))), "web").StartupProbe; p.HTTPGet.Path != "/s" {
			t.Errorf("%+v", p)
		}
	})
}

func TestOwner(t *testing.T) {
	for _, c := range []struct{ name, pod, kind, workload string }{
		{"a Deployment", `{generateName: a-5d4, labels: {pod-template-hash: 5d4}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: a-5d4, uid: u, controller: true}]}`, "apps/v1 Deployment", "a"},
		{"a ReplicaSet of its own", `{ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: a-5d4, uid: u, controller: true}]}`, "apps/v1 ReplicaSet", "a-5d4"},
		{"a CronJob", `{ownerReferences: [{apiVersion: batch/v1, kind: Job, name: nightly-28392839, uid: u, controller: true}]}`, "batch/v1 CronJob", "nightly"},
		{"a Job", `{ownerReferences: [{apiVersion: batch/v1, kind: Job, name: once, uid: u, controller: true}]}`, "batch/v1 Job", "once"},
		{"a DeploymentConfig", `{labels: {deploymentconfig: d}, ownerReferences: [{apiVersion: v1, kind: ReplicationController, name: d-1, uid: u, controller: true}]}`, "apps.openshift.io/v1 DeploymentConfig", "d"},
		{"a StatefulSet", `{ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: s, uid: u, controller: true}]}`, "apps/v1 StatefulSet", "s"},
		{"nobody", `{name: alone}`, "v1 Pod", "alone"},
		{"nobody, and no name yet", `{generateName: some-}`, "v1 Pod", "some"},
		{"an owner that does not control it", `{name: alone, ownerReferences: [{apiVersion: v1, kind: Node, name: n, uid: u}]}`, "v1 Pod", "alone"},
	} {
		t.Run("a pod of "+c.name, func(t *testing.T) {
			p := &corev1.Pod{}
			if err := yaml.Unmarshal([]byte("metadata: "+c.pod), p); err != nil {
				t.Fatal(err)
			}
			kind, meta := ownerOf(p)
			if kind.APIVersion+" "+kind.Kind != c.kind || meta.Name != c.workload {
				t.Errorf("%v %s", kind, meta.Name)
			}
		})
	}
}

// TestUsersTemplates have the fields and the functions that Istio's templates have.
func TestUsersTemplates(t *testing.T) {
	one := func(t *testing.T, expression string) string {
		t.Helper()
		text, err := json.Marshal(document{Templates: map[string]string{"sidecar": "metadata: {annotations: {got: {{ " + expression + " | quote }}}}"}})
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(text, []byte(`{"global": {"proxy": {"statusPort": 15020, "lifecycle": {"a": {"b": 1}}}, "flag": true}}`))
		if err != nil {
			t.Fatal(err)
		}
		r := native(pod(t, `metadata: {annotations: {x: why}}`))
		r.Mesh = config.DefaultMeshConfig()
		r.Mesh.DefaultConfig.Concurrency = nil
		return mustInject(t, s, r).Annotations["got"]
	}
	for expression, want := range map[string]string{
		`annotation .ObjectMeta "x" "z"`:                                            "why",
		`annotation .ObjectMeta "none" .Values.global.proxy.statusPort`:             "15020",
		`isset .ObjectMeta.Annotations "x"`:                                         "true",
		`valueOrDefault .DeploymentMeta.Namespace "default"`:                        "shop",
		`excludeInboundPort 15020 "1,2"`:                                            "1,2,15020",
		`excludeInboundPort "0" "1,2"`:                                              "1,2",
		`includeInboundPorts .Spec`:                                                 "8080",
		`formatDuration .ProxyConfig.DrainDuration`:                                 "45s",
		`toJSON .ObjectMeta.Labels`:                                                 `{"app":"web","version":"v2"}`,
		`toJsonMap (strdict "a" "b") (omit .ObjectMeta.Labels "app")`:               `{"a":"b","version":"v2"}`,
		`toYaml .Values.global.proxy.lifecycle | indent 2`:                          "a:\n    b: 1",
		`(fromJSON "{\"k\": 5}").k`:                                                 "5",
		`protoToJSON .ProxyConfig`:                                                  "{}",
		`structToJSON (index (index .Spec.Containers 0).Ports 0)`:                   `{"name":"http","containerPort":8080}`,
		`.ProxyConfig.InterceptionMode`:                                             "REDIRECT",
		`.MeshConfig.TrustDomain`:                                                   "cluster.local",
		`directory "/etc/certs/key.pem"`:                                            "/etc/certs",
		`index .ObjectMeta.Labels "none" | default "d" | trunc 63 | trimSuffix "-"`: "d",
		`env "PILOT_NOT_SET" "d"`:                                                   "d",
		`env "HOME" "d"`:                                                            "d",
		`appendMultusNetwork "[{\"name\":\"a\"}]" "default/b"`:                      `[{"name":"a"},{"name":"b","namespace":"default"}]`,
		`ternary "yes" "no" .Values.global.flag`:                                    "yes",
		`coalesce "" .Values.global.none "c"`:                                       "c",
		`contains "b" "abc"`:                                                        "true",
		`join "-" (list "a" 2)`:                                                     "a-2",
		`get (merge (dict "a" 1) (dict "a" 2)) "a"`:                                 "1",
		`printf "%s~%d" .Revision (int .ProxyUID)`:                                  "default~1337",
		`.NativeSidecars`:                                                           "true",
		`.InboundTrafficPolicyMode`:                                                 "passthrough",
		`replace "a" "b" "banana" | upper | lower | trim`:                           "bbnbnb",
		`keys (set (dict "z" 1) "a" 2) | join ","`:                                  "a,z",
		`omitNil (dict "a" nil "b" 1) | toJSON`:                                     `{"b":1}`,
		`hasKey .Values.global "proxy"`:                                             "true",
		`mergeMaps (strdict "a" "1") (strdict "a" "2") | toJSON`:                    `{"a":"2"}`,
		`directory (annotation .ObjectMeta "proxy.istio.io/none" "/a/b")`:           "/a",
		`(annotation .ObjectMeta "none" .Values.global.none) | default "otherwise"`: "otherwise",
		`eq (annotation .ObjectMeta "n" .Values.global.proxy.statusPort) "15020"`:   "true",
		`ne .Values.global.proxy.statusPort 0`:                                      "true",
		`empty .Values.global.imagePullSecrets`:                                     "true",
		`nindent 1 "a"`:                                                             "\n a",
		`trunc -2 "abc"`:                                                            "bc",
		`hasPrefix "a" "abc" | and (hasSuffix "c" "abc")`:                           "true",
		`add 1 2`:                         "3",
		`has "a" (compact (list "" "a"))`: "true",
		`split "," "a,b" | join "-"`:      "a-b",
		`toString 5`:                      "5",
		`(fromYaml "a: [1]").a | toJSON`:  "[1]",
		`render "{{ .Revision }}" .`:      "default",
		`kubevirtInterfaces (annotation .ObjectMeta "none" "net1")`: "net1",
		`.ProxyImage`:                       "lateen/proxyv2:dev",
		`excludeInterfaces "a"`:             "a",
		`applicationPorts .Spec.Containers`: "8080",
		`.EstimatedConcurrency`:             "0",
		`.CompliancePolicy`:                 "",
		`.TypeMeta.Kind`:                    "Pod",
		`.ProxyConfig.HoldApplicationUntilProxyStarts.GetValue`: "false",
		`.ProxyConfig.ProxyMetadata | toJSON`:                   "null",
	} {
		t.Run("IN-024 "+expression, func(t *testing.T) {
			if got := one(t, expression); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestSeveralTemplates(t *testing.T) {
	values := `sidecarInjectorWebhook: {defaultTemplates: [sidecar, mine], templates: {mine: "spec: {containers: [{name: istio-proxy, env: [{name: MINE, value: '1'}]}, {name: extra, image: e}]}\n"}}`
	s := settings(t, values)
	t.Run("IN-024 IN-008 templates of the installation go over each other", func(t *testing.T) {
		got := mustInject(t, s, Request{Pod: pod(t, "")})
		if envOf(proxyOf(t, got), "MINE") != "1" || findContainer(got, "extra") == nil || envOf(proxyOf(t, got), "TRUST_DOMAIN") == "" {
			t.Errorf("%v %+v", containerNames(got), proxyOf(t, got).Env)
		}
	})
	t.Run("AN-028 a pod chooses", func(t *testing.T) {
		got := mustInject(t, s, native(pod(t, `metadata: {annotations: {inject.istio.io/templates: "mine, mine"}}`)))
		if names := strings.Join(containerNames(got), " "); names != "extra web istio-proxy" {
			t.Errorf("containers %s", names)
		}
	})
	for _, c := range []struct{ name, config, values, want string }{
		{"a template that is none", "templates: {sidecar: '{{ if }}'}", "", "config: template sidecar:1: missing value for if"},
		{"values that are none", "templates: {sidecar: ''}", "[", "values: "},
		{"a selector that is none", "{templates: {sidecar: ''}, neverInjectSelector: [{matchExpressions: [{key: a, operator: Like}]}]}", "", "config: neverInjectSelector[0]: "},
		{"the form of old versions", "{template: 'containers: []'}", "", "config: it has one template, in the form of Istio 1.8"},
		{"nothing at all", "", "", "config: there are no templates"},
	} {
		t.Run(c.name+" is refused", func(t *testing.T) {
			if _, err := Parse([]byte(c.config), []byte(c.values)); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
	for _, c := range []struct{ name, template, want string }{
		{"what fails on this pod", "{{ index .Spec.Containers 9 }}", "template sidecar:1:"},
		{"what is no YAML", "a: [", "template sidecar: what it renders is not YAML"},
		{"what is no pod", "spec: {containers: 5}", "template sidecar: what it renders is not a pod"},
		{"what never ends", `{{ define "x" }}{{ printf "%1000000s" "" }}{{ template "x" }}{{ end }}{{ template "x" }}`, "template sidecar: it renders too much"},
	} {
		t.Run("a template that renders "+c.name+" is the error", func(t *testing.T) {
			text, err := json.Marshal(document{Templates: map[string]string{"sidecar": c.template}})
			if err != nil {
				t.Fatal(err)
			}
			s, err := Parse(text, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Inject(native(pod(t, ""))); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func TestRequestIsNotChanged(t *testing.T) {
	p := pod(t, `metadata: {annotations: {prometheus.io/port: "9"}}`)
	before := p.DeepCopy()
	r := Request{Pod: p, Mesh: &meshconfig.MeshConfig{}, Owner: metav1.ObjectMeta{Name: "o"}, OwnerType: metav1.TypeMeta{Kind: "K"}}
	mustInject(t, Default(), r)
	if diff := cmp.Diff(before, p); diff != "" {
		t.Error(diff)
	}
}
