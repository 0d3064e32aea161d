package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/test/material"
)

func TestMeshConfig(t *testing.T) {
	for _, c := range []struct {
		name, yaml string
		check      func(*meshconfig.MeshConfig) bool
	}{
		{"nothing written: the defaults", "", func(m *meshconfig.MeshConfig) bool {
			return m.RootNamespace == "istio-system" && m.TrustDomain == "cluster.local" && m.ConnectTimeout.AsDuration() == 10*time.Second &&
				m.EnableAutoMtls.Value && m.EnableTracing && m.AccessLogFile == "" && m.DefaultConfig.DrainDuration.AsDuration() == 45*time.Second &&
				m.OutboundTrafficPolicy.Mode == meshconfig.MeshConfig_OutboundTrafficPolicy_ALLOW_ANY
		}},
		{"access log", "accessLogFile: /dev/stdout\naccessLogEncoding: JSON\naccessLogFormat: '{\"a\": \"%PROTOCOL%\"}'\n", func(m *meshconfig.MeshConfig) bool {
			return m.AccessLogFile == "/dev/stdout" && m.AccessLogEncoding == meshconfig.MeshConfig_JSON && strings.Contains(m.AccessLogFormat, "PROTOCOL")
		}},
		{"zero values win over defaults", "enableTracing: false\nenableAutoMtls: false\nproxyInboundListenPort: 0\ndnsRefreshRate: 0s\n", func(m *meshconfig.MeshConfig) bool {
			return !m.EnableTracing && !m.EnableAutoMtls.Value && m.ProxyInboundListenPort == 0 && m.DnsRefreshRate.AsDuration() == 0
		}},
		{"messages are laid over field by field", "defaultConfig: {concurrency: 2, proxyMetadata: {A: b}}\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n", func(m *meshconfig.MeshConfig) bool {
			return m.DefaultConfig.Concurrency.Value == 2 && m.DefaultConfig.DiscoveryAddress == "istiod.istio-system.svc:15012" &&
				m.OutboundTrafficPolicy.Mode == meshconfig.MeshConfig_OutboundTrafficPolicy_REGISTRY_ONLY
		}},
		{"lists are replaced", "defaultServiceExportTo: ['.']\n", func(m *meshconfig.MeshConfig) bool {
			return len(m.DefaultServiceExportTo) == 1 && m.DefaultServiceExportTo[0] == "."
		}},
		{"one of a group replaces the default one", "defaultConfig: {tracingServiceName: CANONICAL_NAME_ONLY}\n", func(m *meshconfig.MeshConfig) bool {
			return m.DefaultConfig.GetTracingServiceName() == meshconfig.ProxyConfig_CANONICAL_NAME_ONLY && m.DefaultConfig.GetServiceCluster() == ""
		}},
		{"MC-036 extension providers stand beside the built-in ones", "extensionProviders: [{name: mine, envoyFileAccessLog: {path: /dev/stderr}}, {name: envoy, envoyFileAccessLog: {path: /x}}]\n",
			func(m *meshconfig.MeshConfig) bool {
				names := ""
				for _, p := range m.ExtensionProviders {
					names += p.Name + p.GetEnvoyFileAccessLog().GetPath() + " "
				}
				return names == "prometheus stackdriver envoy/x mine/dev/stderr "
			}},
		{"MC-030 certificates of old are taken and say nothing", "certificates: [{secretName: a, dnsNames: [b.test]}]\naccessLogFile: /dev/stdout\n",
			func(m *meshconfig.MeshConfig) bool { return m.AccessLogFile == "/dev/stdout" }},
		{"MC-044 the sampler of a vendor is taken", "extensionProviders: [{name: a, opentelemetry: {service: a.test, port: 4317, dynatraceSampler: {tenant: b, clusterId: 3}}}]\n",
			func(m *meshconfig.MeshConfig) bool { return len(m.ExtensionProviders) == 4 }},
		{"providers of all kinds", `extensionProviders:
- {name: a, envoyExtAuthzHttp: {service: ns/a.test, port: 80, pathPrefix: /check, statusOnError: "503"}}
- {name: b, envoyExtAuthzGrpc: {service: 10.0.0.1, port: 9000}}
- {name: c, zipkin: {service: zipkin.test, port: 9411}}
- {name: d, opentelemetry: {service: otel.test, port: 4318, http: {path: /v1/traces, timeout: 5s}}}
- {name: e, envoyOtelAls: {service: otel.test, port: 4317}}
`, func(m *meshconfig.MeshConfig) bool { return len(m.ExtensionProviders) == 8 }},
		{"MC-059 keys of old versions are left alone", "mixerCheckServer: istio-policy:9091\npolicyCheckFailOpen: false\nsdsUdsPath: unix:/x\nreportBatchMaxEntries: 100\naccessLogFile: /dev/stdout\n",
			func(m *meshconfig.MeshConfig) bool { return m.AccessLogFile == "/dev/stdout" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, problems := config.DecodeMeshConfig("mesh.yaml", []byte(c.yaml))
			if config.HasErrors(problems) {
				t.Fatal(problems)
			}
			if !c.check(m) {
				t.Errorf("got %v", m)
			}
		})
	}
}

func TestMeshConfigProblems(t *testing.T) {
	for _, c := range []struct{ name, yaml, want string }{
		{"unknown key", "a: 1\naccesLogFile: x\n", `mesh.yaml:2: accesLogFile: unknown field "accesLogFile"`},
		{"syntax", "a: [\n", "mesh.yaml:1: YAML syntax: "},
		{"wrong type", "rootNamespace: x\nenableTracing: maybe\n", `mesh.yaml:2: enableTracing: must be true or false, got "maybe"`},
		{"bad value", "defaultConfig:\n  drainDuration: 1500ms\n", "mesh.yaml:2: defaultConfig.drainDuration: must be whole seconds, got 1.5s"},
		{"bad trust domain", "trustDomain: a_b\n", `mesh.yaml:1: trustDomain: "a_b" is not a trust domain`},
		{"a JSON log format that is none", "accessLogEncoding: JSON\naccessLogFormat: '%PROTOCOL%'\n", "mesh.yaml:2: accessLogFormat: is not a JSON object: the default format is used"},
		{"MC-036 two providers of one name", "extensionProviders:\n- {name: a, prometheus: {}}\n- {name: a, prometheus: {}}\n", `mesh.yaml:3: extensionProviders[1].name: must be unique and not empty, got "a"`},
		{"a provider of nothing", "extensionProviders: [{name: a}]\n", "mesh.yaml:1: extensionProviders[0]: does not say what it provides"},
		{"a provider without port", "extensionProviders: [{name: a, envoyExtAuthzHttp: {service: a.test}}]\n", "mesh.yaml:1: extensionProviders[0].envoyExtAuthzHttp.port: must be 1–65535"},
		{"a provider without service", "extensionProviders: [{name: a, zipkin: {port: 80}}]\n", "mesh.yaml:1: extensionProviders[0].zipkin.service: must not be empty"},
		{"a service in no namespace", "extensionProviders: [{name: a, zipkin: {service: a.b/c, port: 80}}]\n", `mesh.yaml:1: extensionProviders[0].zipkin.service: "a.b" is not a namespace`},
		{"a path", "extensionProviders: [{name: a, envoyExtAuthzHttp: {service: a, port: 80, pathPrefix: check}}]\n", "mesh.yaml:1: extensionProviders[0].envoyExtAuthzHttp.pathPrefix: must be a path"},
		{"a status", "extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: a, port: 80, statusOnError: '999'}}]\n", "mesh.yaml:1: extensionProviders[0].envoyExtAuthzGrpc.statusOnError: must be an HTTP status"},
		{"a token", "extensionProviders: [{name: a, lightstep: {service: a, port: 80}}]\n", "mesh.yaml:1: extensionProviders[0].lightstep.accessToken: required"},
		{"two protocols", "extensionProviders: [{name: a, opentelemetry: {service: a, port: 80, grpc: {}, http: {path: /}}}]\n", "mesh.yaml:1: extensionProviders[0].opentelemetry.grpc: cannot be set together with http"},
		{"two documents", "rootNamespace: x\n---\nrootNamespace: y\n", "mesh.yaml:3: only one document is expected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, problems := config.DecodeMeshConfig("mesh.yaml", []byte(c.yaml))
			found := false
			for _, p := range problems {
				found = found || strings.HasPrefix(p.Error(), c.want)
			}
			if !found {
				t.Errorf("problems %v, want %q", problems, c.want)
			}
			if diff := cmp.Diff(config.DefaultMeshConfig(), m, protocmp.Transform()); config.HasErrors(problems) && diff != "" {
				t.Errorf("a broken MeshConfig is not the default one: %s", diff)
			}
		})
	}
}

func TestMeshConfigInTheSet(t *testing.T) {
	text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    accessLogFile: /dev/stdout\n    outboundTrafficPolicy: {mode: REGISTRI}\n"
	objects, problems := config.DecodeYAML("istio.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	set := config.NewSet(1, objects)
	_, problems = config.MeshConfigOf(set, "istio-system")
	if len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), "istio.yaml:1: ConfigMap istio-system/istio: data.mesh: line 2: outboundTrafficPolicy.mode: must be one of ") {
		t.Errorf("problems %v", problems)
	}
	if m, problems := config.MeshConfigOf(set, "other"); m != nil || problems != nil {
		t.Errorf("a MeshConfig from nowhere: %v, %v", m, problems)
	}
	good, _ := config.DecodeYAML("istio.yaml", []byte(strings.Replace(text, "REGISTRI", "REGISTRY_ONLY", 1)))
	if m, problems := config.MeshConfigOf(config.NewSet(1, good), "istio-system"); len(problems) > 0 || m.GetAccessLogFile() != "/dev/stdout" {
		t.Errorf("%v, problems %v", m, problems)
	}
}

// Every mesh configuration of the recorded runs is understood.
func TestRecordedMeshConfigs(t *testing.T) {
	root := material.Path(t)
	seen := 0
	for _, dir := range goldenRuns(t, root) {
		seen++
		if _, problems := config.DecodeMeshConfig(dir, read(t, dir)); len(problems) > 0 {
			t.Error(problems)
		}
	}
	if seen == 0 {
		t.Error("none found")
	}
}
