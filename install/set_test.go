package install_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/install"
)

// meshOf is the MeshConfig that an installation writes.
func meshOf(t *testing.T, i *install.Installation) map[string]any {
	t.Helper()
	mesh := map[string]any{}
	if err := yaml.Unmarshal([]byte(i.MeshConfig()), &mesh); err != nil {
		t.Fatal(err)
	}
	return mesh
}

// injected are the values that injection reads.
func injected(t *testing.T, objects []*unstructured.Unstructured) map[string]any {
	t.Helper()
	content, _, _ := unstructured.NestedString(find(t, objects, "ConfigMap", "istio-sidecar-injector").Object, "data", "values")
	values := map[string]any{}
	if err := yaml.Unmarshal([]byte(content), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

func TestSetMesh(t *testing.T) {
	for _, c := range []struct{ name, set, path, want string }{
		{"OP-019 tracing", "meshConfig.enableTracing=true", "enableTracing", "true"},
		{"OP-019 the address of a collector", "meshConfig.defaultConfig.tracing.zipkin.address=aaaabbbb.apm-agt.us-ashburn-1.oci.oraclecloud.com:443",
			"defaultConfig.tracing.zipkin.address", "aaaabbbb.apm-agt.us-ashburn-1.oci.oraclecloud.com:443"},
		{"OP-019 access log", "meshConfig.accessLogFile=/dev/stdout", "accessLogFile", "/dev/stdout"},
		{"OP-019 outbound policy", "meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY", "outboundTrafficPolicy.mode", "REGISTRY_ONLY"},
		{"IN-011 OP-017 outbound policy under its old path", "values.global.outboundTrafficPolicy.mode=REGISTRY_ONLY", "outboundTrafficPolicy.mode", "REGISTRY_ONLY"},
		{"IN-011 access log under its old path", "values.global.proxy.accessLogFile=/dev/stdout", "accessLogFile", "/dev/stdout"},
		{"IN-011 collector under its old path", "values.global.tracer.zipkin.address=zipkin:9411", "defaultConfig.tracing.zipkin.address", "zipkin:9411"},
		{"IN-009 mesh configuration among the values", "values.meshConfig.accessLogFile=/tmp/log", "accessLogFile", "/tmp/log"},
		{"IN-007 sampling", "values.pilot.traceSampling=100", "defaultConfig.tracing.sampling", "100"},
		{"OP-019 the prefix spec.", "spec.meshConfig.accessLogFile=/dev/stdout", "accessLogFile", "/dev/stdout"},
		{"OP-019 a key with dots", `meshConfig.defaultConfig.proxyMetadata.a\.b=c`, `defaultConfig.proxyMetadata.a\.b`, "c"},
		{"OP-019 a whole list", "meshConfig.defaultServiceExportTo={.,istio-system}", "defaultServiceExportTo[1]", "istio-system"},
		{"OP-019 an element of a list", "meshConfig.defaultServiceExportTo[0]=.", "defaultServiceExportTo[0]", "."},
		{"OP-005 the address of a revision", "revision=canary", "defaultConfig.discoveryAddress", "istiod-canary.istio-system.svc:15012"},
		{"IN-006 the namespace of the control plane", "values.global.istioNamespace=mesh", "rootNamespace", "mesh"},
		{"IN-006 the ID of the mesh", "values.global.meshID=m1", "defaultConfig.meshId", "m1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, _ := render(t, install.Input{Set: []string{c.set}})
			if got := fmt.Sprint(install.At(t, meshOf(t, i), c.path)); got != c.want {
				t.Errorf("%s is %s, want %s, in\n%s", c.path, got, c.want, i.MeshConfig())
			}
		})
	}
	t.Run("OP-019 the last one of two counts, and beats files", func(t *testing.T) {
		file := "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {meshConfig: {accessLogFile: /a}}\n"
		i, _ := render(t, install.Input{Files: [][]byte{[]byte(file)}, Set: []string{"meshConfig.accessLogFile=/b", "meshConfig.accessLogFile=/c"}})
		if got := meshOf(t, i)["accessLogFile"]; got != "/c" {
			t.Errorf("accessLogFile %v", got)
		}
	})
	t.Run("each run begins with the profile", func(t *testing.T) {
		i, _ := render(t, install.Input{})
		if got, there := meshOf(t, i)["accessLogFile"]; there {
			t.Errorf("accessLogFile %v", got)
		}
	})
}

func TestSetInjection(t *testing.T) {
	for _, c := range []struct{ name, set, path, want string }{
		{"IN-006 only these ranges are redirected", "values.global.proxy.includeIPRanges=10.0.0.1/24", "global.proxy.includeIPRanges", "10.0.0.1/24"},
		{"IN-006 these ranges are not", `values.global.proxy.excludeIPRanges=10.0.0.1/24\,10.1.0.0/16`, "global.proxy.excludeIPRanges", "10.0.0.1/24,10.1.0.0/16"},
		{"IN-006 a number where text is meant", "values.global.proxy.excludeOutboundPorts=8080", "global.proxy.excludeOutboundPorts", "8080"},
		{"OP-003 a tag that looks like a number", "tag=1.10", "global.tag", "1.10"},
		{"IN-008 annotations of all injected pods", "values.sidecarInjectorWebhook.rewriteAppHTTPProbe=false", "sidecarInjectorWebhook.rewriteAppHTTPProbe", "false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, objects := render(t, install.Input{Set: []string{c.set}})
			if got := fmt.Sprint(install.At(t, injected(t, objects), c.path)); got != c.want {
				t.Errorf("%s is %s, want %s", c.path, got, c.want)
			}
		})
	}
}

func TestSetObjects(t *testing.T) {
	const container = "spec.template.spec.containers[0]."
	for _, c := range []struct {
		name         string
		set          []string
		kind, object string
		path, want   string
	}{
		{"OP-003 hub and tag", []string{"hub=registry.example/mesh", "tag=1.8"}, "Deployment", "istiod", container + "image", "registry.example/mesh/pilot:1.8"},
		{"OP-010 hub of a component", []string{"hub=a", "tag=t", "components.pilot.hub=b"}, "Deployment", "istiod", container + "image", "b/pilot:t"},
		{"OP-012 the image of gateways", []string{"hub=a", "tag=t"}, "Deployment", "istio-ingressgateway", container + "image", "a/proxyv2:t"},
		{"OP-013 an egress gateway by index", []string{"components.egressGateways[0].name=istio-egressgateway", "components.egressGateways[0].enabled=true"},
			"Deployment", "istio-egressgateway", "metadata.labels.istio", "egressgateway"},
		{"IN-011 an egress gateway by its old path", []string{"values.gateways.istio-egressgateway.enabled=true"}, "Service", "istio-egressgateway", "spec.type", "ClusterIP"},
		{"IN-010 type of the Service", []string{"values.gateways.istio-ingressgateway.type=NodePort"}, "Service", "istio-ingressgateway", "spec.type", "NodePort"},
		{"OP-015 the address of the Service", []string{"components.ingressGateways[0].k8s.service.loadBalancerIP=1.2.3.4"}, "Service", "istio-ingressgateway", "spec.loadBalancerIP", "1.2.3.4"},
		{"OP-015 annotations of the Service", []string{`components.ingressGateways[0].k8s.serviceAnnotations.a\.b/c=d`}, "Service", "istio-ingressgateway", `metadata.annotations.a\.b/c`, "d"},
		{"OP-015 replicas without autoscaler", []string{"values.pilot.autoscaleEnabled=false", "components.pilot.k8s.replicaCount=3"}, "Deployment", "istiod", "spec.replicas", "3"},
		{"OP-015 replicas are the autoscaler's where there is one", []string{"components.pilot.k8s.replicaCount=3"}, "Deployment", "istiod", "spec.replicas", "<nil>"},
		{"OP-015 resources", []string{"components.pilot.k8s.resources.requests.memory=1Gi"}, "Deployment", "istiod", container + "resources.requests.memory", "1Gi"},
		{"SX-007 istiod may have a signer sign", []string{"values.pilot.env.EXTERNAL_CA=ISTIOD_RA_KUBERNETES_API", "values.pilot.env.K8S_SIGNER=example.com/mesh"}, "ClusterRole", "istiod-clusterrole-istio-system", "rules[12].resourceNames[0]", "example.com/mesh"},
		{"IN-007 environment of istiod", []string{"values.pilot.env.PILOT_DEBOUNCE_AFTER=10ms"}, "Deployment", "istiod", container + "env.[name:PILOT_DEBOUNCE_AFTER].value", "10ms"},
		{"IN-007 the autoscaler's bounds", []string{"values.pilot.autoscaleMax=9"}, "HorizontalPodAutoscaler", "istiod", "spec.maxReplicas", "9"},
		{"IN-012 a budget only where there is more than one", []string{"values.pilot.autoscaleMin=2"}, "PodDisruptionBudget", "istiod", "spec.minAvailable", "1"},
		{"IN-006 log levels", []string{"values.global.logging.level=default:debug"}, "Deployment", "istiod", container + "args.[--log_output_level=default:debug]", "--log_output_level=default:debug"},
		{"IN-006 secrets for images", []string{"values.global.imagePullSecrets[0]=regcred"}, "Deployment", "istiod", "spec.template.spec.imagePullSecrets[0].name", "regcred"},
		{"OP-019 components.x.k8s.overlays", []string{"components.pilot.k8s.overlays[0].kind=Service", "components.pilot.k8s.overlays[0].name=istiod",
			"components.pilot.k8s.overlays[0].patches[0].path=spec.type", "components.pilot.k8s.overlays[0].patches[0].value=NodePort"}, "Service", "istiod", "spec.type", "NodePort"},
		{"IN-016 OP-005 webhooks of a revision", []string{"revision=canary"}, "MutatingWebhookConfiguration", "istio-sidecar-injector-canary", "webhooks[0].clientConfig.service.name", "istiod-canary"},
		{"IN-018 names of another namespace", []string{"values.global.istioNamespace=mesh"}, "ClusterRole", "istiod-clusterrole-mesh", "metadata.labels.app", "istiod"},
		{"IN-008 pods are injected unless they say no", []string{"values.sidecarInjectorWebhook.enableNamespacesByDefault=true"},
			"MutatingWebhookConfiguration", "istio-sidecar-injector", "webhooks[4].name", "auto.sidecar-injector.istio.io"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, objects := render(t, install.Input{Set: c.set})
			o := find(t, objects, c.kind, c.object)
			if got := fmt.Sprint(install.At(t, o.Object, c.path)); got != c.want {
				t.Errorf("%s is %s, want %s", c.path, got, c.want)
			}
		})
	}
}

func TestProfiles(t *testing.T) {
	for name, want := range map[string]string{
		"default": "istiod istio-ingressgateway",
		"demo":    "istiod istio-ingressgateway istio-egressgateway",
		"minimal": "istiod",
		"empty":   "",
		"preview": "istiod istio-ingressgateway",
	} {
		id := map[string]string{"default": "IN-001", "demo": "IN-002"}[name]
		if id == "" {
			id = "IN-003"
		}
		t.Run(id+" OP-002 "+name, func(t *testing.T) {
			for _, in := range []install.Input{{Profile: name}, {Set: []string{"profile=" + name}},
				{Files: [][]byte{[]byte("kind: IstioOperator\nspec: {profile: " + name + "}\n")}}} {
				i, objects := render(t, in)
				var got []string
				for _, o := range objects {
					if o.GetKind() == "Deployment" {
						got = append(got, o.GetName())
					}
				}
				if strings.Join(got, " ") != want || i.Profile() != name {
					t.Errorf("%+v: profile %s with %v, want %s", in, i.Profile(), got, want)
				}
			}
		})
	}
	t.Run("CL-013 all of them are listed", func(t *testing.T) {
		if got := install.Profiles(); !slices.Equal(got, []string{"default", "demo", "empty", "minimal", "preview"}) {
			t.Errorf("profiles %v", got)
		}
	})
	t.Run("CL-009 the manifest begins with the mesh's kinds, a cluster's alone", func(t *testing.T) {
		i, _ := render(t, install.Input{})
		if d, err := i.Definitions(); err != nil || len(d) != 15 {
			t.Errorf("%d definitions, %v", len(d), err)
		}
		i, _ = render(t, install.Input{Local: local()})
		if d, err := i.Definitions(); err != nil || len(d) != 0 {
			t.Errorf("%d definitions on one machine, %v", len(d), err)
		}
	})
}

func TestRefusals(t *testing.T) {
	head := "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n"
	for _, c := range []struct {
		name string
		set  string
		file string
		want string
	}{
		{"no value", "meshConfig.accessLogFile", "", "--set meshConfig.accessLogFile: must be PATH=VALUE"},
		{"a field that there is not", "component.pilot.enabled=true", "", `component: there is no such field; "components" is near`},
		{"a value that there is not", "values.global.proxy.logLevl=debug", "", `values.global.proxy.logLevl: there is no such field; "logLevel" is near`},
		{"a field that the mesh has not", "meshConfig.enableTracng=true", "", "meshConfig.enableTracng"},
		{"a word that the mesh does not know", "meshConfig.outboundTrafficPolicy.mode=SOME", "", "meshConfig.outboundTrafficPolicy.mode"},
		{"text where a flag is", "components.pilot.enabled=perhaps", "", `components.pilot.enabled: must be true or false, not "perhaps"`},
		{"text where a number is", "values.pilot.autoscaleMin=many", "", `must be a number, not "many"`},
		{"a list where one value is", "tag={a,b}", "", "tag: must be a single value"},
		{"one value where fields are", "components.pilot=true", "", "components.pilot: must be a mapping"},
		{"a path that ends", "meshConfig.=x", "", "ends with a dot"},
		{"an index too far", "components.egressGateways[7].enabled=true", "", "[7]: the list of 1 has no such element"},
		{"a profile that there is not", "profile=large", "", `profile "large": there is none of that name, but default, demo, empty, minimal, preview`},
		{"a component that there is not yet", "components.cni.enabled=true", "", "components.cni.enabled: this component is not built yet"},
		{"a gateway without a name", "components.ingressGateways[1].enabled=true", "", "needs a name"},
		{"a line of a file", "", head + "  components:\n    pilot: {enabled: true}\n    pilott: {enabled: true}\n", `op.yaml:6: components.pilott: there is no such field; "pilot" is near`},
		{"a line of the mesh's", "", head + "  meshConfig:\n    accessLogFile: /a\n    accesslog: /b\n", "op.yaml:6: meshConfig.accesslog"},
		{"another kind", "", "apiVersion: v1\nkind: ConfigMap\n", "op.yaml:1: must be of kind IstioOperator"},
		{"another version", "", "apiVersion: install.istio.io/v2\nkind: IstioOperator\n", "apiVersion install.istio.io/v2: must be install.istio.io/v1alpha1"},
		{"no YAML", "", "kind: [", "op.yaml: "},
		{"an overlay of nothing", "", head + "  components: {pilot: {k8s: {overlays: [{kind: Deployment, name: istio, patches: []}]}}}\n", "k8s.overlays[0] (Deployment istio): the component has no such object, but"},
		{"an overlay that leads nowhere", "", head + "  components: {pilot: {k8s: {overlays: [{kind: Deployment, name: istiod, patches: [{path: 'spec.template.spec.containers.[name:x].image', value: y}]}]}}}\n",
			"patches[0] spec.template.spec.containers.[name:x].image: [name:x]: the list of 1 has no such element"},
	} {
		t.Run("OP-019 "+c.name, func(t *testing.T) {
			in := install.Input{}
			if c.set != "" {
				in.Set = []string{c.set}
			} else {
				in.Files, in.Names = [][]byte{[]byte(c.file)}, []string{"op.yaml"}
			}
			if _, err := install.New(in); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
	t.Run("CL-009 by force a field that there is not is a warning", func(t *testing.T) {
		i, err := install.New(install.Input{Set: []string{"values.global.badKey=x"}, Force: true})
		if err != nil || len(i.Warnings()) != 1 || !strings.Contains(i.Warnings()[0], "values.global.badKey") {
			t.Errorf("%v, %v", i.Warnings(), err)
		}
	})
	t.Run("OP-014 IN-011 what has another place now is taken, and said", func(t *testing.T) {
		file := "kind: IstioOperator\nspec:\n  profile: empty\n  egressGateways:\n  - {name: e, enabled: true}\n  addonComponents: {prometheus: {enabled: true}}\n"
		i, objects := render(t, install.Input{Files: [][]byte{[]byte(file)}, Names: []string{"op.yaml"}, Set: []string{"values.grafana.enabled=true"}})
		find(t, objects, "Deployment", "e")
		said := strings.Join(i.Warnings(), "\n")
		for _, want := range []string{"op.yaml:5: egressGateways is components.egressGateways now", "addonComponents has no effect", "--set values.grafana.enabled=true: values.grafana has no effect"} {
			if !strings.Contains(said, want) {
				t.Errorf("no %q in\n%s", want, said)
			}
		}
	})
}
