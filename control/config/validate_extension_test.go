package config_test

import (
	"strings"
	"testing"
)

func TestEnvoyFilterRules(t *testing.T) {
	patch := func(fields string) string { return "spec: {configPatches: [{" + fields + "}]}" }
	match := func(to, fields string) string {
		return patch("applyTo: " + to + ", match: {" + fields + "}, patch: {operation: REMOVE}")
	}
	filter := func(to, fields string) string {
		return match(to, "listener: {filterChain: {filter: {"+fields+"}}}")
	}
	const manager = "name: envoy.filters.network.http_connection_manager"
	checkRules(t, "networking.istio.io/v1alpha3", "EnvoyFilter", []ruleCase{
		{"nothing", "spec: {}", ""},
		{"a selector of no label", "spec: {workloadSelector: {}}", "warning: workloadSelector: selects by no label"},
		{"a wildcard in a selector", "spec: {workloadSelector: {labels: {a: b*}}}", `workloadSelector.labels["a"]: wildcards`},
		{"a selector and targets", "spec: {workloadSelector: {labels: {a: b}}, targetRefs: [{kind: Service, name: a}]}", "targetRefs: only one of workloadSelector and targetRefs"},
		{"a target", "spec: {targetRefs: [{kind: Pod, name: a}]}", "targetRefs[0].kind: must be Service"},
		{"no place", patch("patch: {operation: REMOVE}"), "configPatches[0].applyTo: required"},
		{"no patch", patch("applyTo: CLUSTER"), "configPatches[0].patch: required"},
		{"no operation", patch("applyTo: CLUSTER, patch: {value: {}}"), "configPatches[0].patch.operation: required"},
		{"no value", patch("applyTo: CLUSTER, patch: {operation: MERGE}"), "configPatches[0].patch.value: required for operation MERGE"},
		{"a value of any form", patch("applyTo: CLUSTER, patch: {operation: ADD, value: {name: a, typed_config: {'@type': x, size: 1.5, l: [null, true]}}}"), ""},
		{"a version", match("CLUSTER", "proxy: {proxyVersion: '^1\\.2.*'}"), ""},
		{"no version", match("CLUSTER", "proxy: {proxyVersion: '1.('}"), "configPatches[0].match.proxy.proxyVersion: is not an RE2 expression"},
		{"a listener by its cluster", match("LISTENER", "cluster: {}"), "configPatches[0].match: applyTo LISTENER needs a match of a listener"},
		{"a route by its listener", match("HTTP_ROUTE", "listener: {}"), "configPatches[0].match: applyTo HTTP_ROUTE needs a match of a routeConfiguration"},
		{"a cluster by its listener", match("CLUSTER", "listener: {}"), "configPatches[0].match: applyTo CLUSTER needs a match of a cluster"},
		{"two matches", match("CLUSTER", "listener: {}, cluster: {}"), "configPatches[0].match.cluster: cannot be set together with listener"},
		{"an HTTP filter", filter("HTTP_FILTER", manager+", subFilter: {name: envoy.filters.http.router}"), ""},
		{"a filter without name", filter("NETWORK_FILTER", ""), "configPatches[0].match.listener.filterChain.filter.name: required"},
		{"an HTTP filter without name", filter("HTTP_FILTER", manager+", subFilter: {}"), "configPatches[0].match.listener.filterChain.filter.subFilter.name: required"},
		{"an HTTP filter of a chain", filter("NETWORK_FILTER", manager+", subFilter: {name: a}"), "configPatches[0].match.listener.filterChain.filter.subFilter: has a meaning with applyTo HTTP_FILTER only"},
		{"an HTTP filter within another", filter("HTTP_FILTER", "name: envoy.filters.network.tcp_proxy, subFilter: {name: a}"), "configPatches[0].match.listener.filterChain.filter.subFilter: is within the filter"},
		{"a filter of a listener", filter("LISTENER", "name: a"), "warning: configPatches[0].match.listener.filterChain.filter: has no effect with applyTo LISTENER"},
		{"a name of old", filter("HTTP_FILTER", manager+", subFilter: {name: envoy.router}"), `warning: configPatches[0].match.listener.filterChain.filter.subFilter.name: "envoy.router" is deprecated: the filter is called "envoy.filters.http.router"`},
		{"a waypoint", match("CLUSTER", "context: WAYPOINT, waypoint: {}"), ""},
		{"a waypoint's match elsewhere", match("CLUSTER", "waypoint: {}"), "configPatches[0].match.waypoint: has to be set for context WAYPOINT"},
		{"another match at a waypoint", match("CLUSTER", "context: WAYPOINT, cluster: {}"), "configPatches[0].match.waypoint: has to be set for context WAYPOINT"},
		{"a waypoint's port", match("CLUSTER", "context: WAYPOINT, waypoint: {portNumber: 65536}"), "configPatches[0].match.waypoint.portNumber: must be 1–65535"},
	})
}

// wasmCases are the rules of modules, in WasmPlugin and in TrafficExtension.
func wasmCases(spec func(string) string, in string) []ruleCase {
	return []ruleCase{
		{"no module", spec("pluginName: a"), in + "url: required"},
		{"an image", spec("url: a.test/b"), ""},
		{"a file", spec("url: 'file:///a'"), ""},
		{"another scheme", spec("url: 'ftp://a.test'"), in + `url: scheme "ftp" is not one of`},
		{"no URL", spec("url: 'a b'"), in + `url: "a b" is not a URL`},
		{"a sum", spec("url: a, sha256: " + strings.Repeat("0af", 21) + "f"), ""},
		{"a short sum", spec("url: a, sha256: '0af'"), in + "sha256: must be 64 of 0–9 and a–f"},
		{"a sum in capitals", spec("url: a, sha256: " + strings.Repeat("A", 64)), in + "sha256: must be 64 of 0–9 and a–f"},
		{"an empty name", spec("url: a, pluginName: ''"), in + "pluginName: must not be empty"},
		{"an empty name in snake case", spec("url: a, plugin_name: ''"), in + "pluginName: must not be empty"},
		{"a long name", spec("url: a, pluginName: " + strings.Repeat("a", 257)), in + "pluginName: is longer than 256"},
		{"an empty secret", spec("url: a, imagePullSecret: ''"), in + "imagePullSecret: must not be empty"},
		{"a long secret", spec("url: a, imagePullSecret: " + strings.Repeat("a", 254)), in + "imagePullSecret: is longer than 253"},
		{"variables", spec("url: a, vmConfig: {env: [{name: A, valueFrom: HOST}, {name: B, value: b}]}"), ""},
		{"a variable twice", spec("url: a, vmConfig: {env: [{name: A}, {name: A}]}"), in + `vmConfig.env[1].name: duplicate name "A"`},
		{"a variable without name", spec("url: a, vmConfig: {env: [{value: a}]}"), in + "vmConfig.env[0].name: required"},
		{"a variable of the host with a value", spec("url: a, vmConfig: {env: [{name: A, valueFrom: HOST, value: b}]}"), in + "vmConfig.env[0].value: has a meaning for valueFrom INLINE only"},
		{"configuration of any form", spec("url: a, pluginConfig: {a: [1, {b: null}]}"), ""},
	}
}

func TestWasmPluginRules(t *testing.T) {
	checkRules(t, "extensions.istio.io/v1alpha1", "WasmPlugin", singleTarget("url: a"))
	checkRules(t, "extensions.istio.io/v1alpha1", "WasmPlugin", wasmCases(func(fields string) string { return "spec: {" + fields + "}" }, ""))
	checkRules(t, "extensions.istio.io/v1alpha1", "WasmPlugin", []ruleCase{
		{"no port", "spec: {url: a, match: [{ports: [{}]}]}", "match[0].ports[0].number: must be 1–65535"},
		{"a port twice", "spec: {url: a, match: [{ports: [{number: 1}, {number: 1}]}]}", "match[0].ports[1].number: duplicate port 1"},
	})
}

func TestTrafficExtensionRules(t *testing.T) {
	checkRules(t, "extensions.istio.io/v1alpha1", "TrafficExtension", attachmentCases("lua: {inlineCode: a}"))
	checkRules(t, "extensions.istio.io/v1alpha1", "TrafficExtension", wasmCases(func(fields string) string { return "spec: {wasm: {" + fields + "}}" }, "wasm."))
	checkRules(t, "extensions.istio.io/v1alpha1", "TrafficExtension", []ruleCase{
		{"nothing", "spec: {}", "spec: one of wasm and lua is required"},
		{"both", "spec: {wasm: {url: a}, lua: {inlineCode: a}}", "lua: cannot be set together with wasm"},
		{"no script", "spec: {lua: {}}", "lua.inlineCode: required"},
		{"a long script", "spec: {lua: {inlineCode: " + strings.Repeat("a", 65537) + "}}", "lua.inlineCode: is longer than 65536"},
		{"a port", "spec: {lua: {inlineCode: a}, match: [{ports: [{number: 65536}]}]}", "match[0].ports[0].number: must be 1–65535"},
	})
}

func TestProxyConfigRules(t *testing.T) {
	checkRules(t, "networking.istio.io/v1beta1", "ProxyConfig", []ruleCase{
		{"nothing", "spec: {}", ""},
		{"everything", "spec: {selector: {matchLabels: {a: b}}, concurrency: 0, image: {imageType: debug}, environmentVariables: {A: ''}}", ""},
		{"threads", "spec: {concurrency: -1}", "concurrency: must not be negative, got -1"},
		{"a selector of no label", "spec: {selector: {matchLabels: {}}}", "warning: selector: selects by no label"},
		{"a label without name", "spec: {selector: {matchLabels: {'': b}}}", `selector.matchLabels[""]: the label name`},
		{"a long variable", "spec: {environmentVariables: {A: " + strings.Repeat("a", 2049) + "}}", `environmentVariables["A"]: is longer than 2048`},
	})
}

func TestWorkloadGroupRules(t *testing.T) {
	probe := func(fields string) string { return "spec: {template: {}, probe: {" + fields + "}}" }
	checkRules(t, networkingV1, "WorkloadGroup", []ruleCase{
		{"nothing", "", "template: required"},
		{"a template", "spec: {template: {serviceAccount: a, network: b, ports: {http: 80}, labels: {app: a}}}", ""},
		{"a template's socket", "spec: {template: {address: 'unix:///a', ports: {http: 80}}}", "template.ports: cannot be set for a unix socket"},
		{"a template's port", "spec: {template: {ports: {http: 65536}}}", `template.ports["http"]: must be 1–65535`},
		{"a template's label", "spec: {template: {labels: {a: '-'}}}", `template.labels["a"]: "-" is not a label value`},
		{"a label", "spec: {metadata: {labels: {-a: b}}, template: {}}", `metadata.labels["-a"]: "-a" is not a label name`},
		{"a probe of nothing", probe(""), "probe: one of httpGet, tcpSocket, exec and grpc is required"},
		{"a probe of two things", probe("tcpSocket: {port: 1}, grpc: {port: 1}"), "probe.grpc: cannot be set together with tcpSocket"},
		{"a period", probe("periodSeconds: -1, tcpSocket: {port: 1}"), "probe.periodSeconds: must not be negative"},
		{"HTTP", probe("httpGet: {port: 80, scheme: HTTPS, path: /a, httpHeaders: [{name: x-a, value: b}]}"), ""},
		{"HTTP without port", probe("httpGet: {path: /a}"), "probe.httpGet.port: must be 1–65535"},
		{"HTTP of another scheme", probe("httpGet: {port: 80, scheme: http}"), `probe.httpGet.scheme: must be HTTP or HTTPS, got "http"`},
		{"a header", probe("httpGet: {port: 80, httpHeaders: [{name: '**'}]}"), `probe.httpGet.httpHeaders[0].name: "**" is not a header name`},
		{"TCP", probe("tcpSocket: {port: 65536}"), "probe.tcpSocket.port: must be 1–65535"},
		{"a command", probe("exec: {command: [a, -b]}"), ""},
		{"no command", probe("exec: {}"), "probe.exec.command: required"},
		{"gRPC", probe("grpc: {port: 0}"), "probe.grpc.port: must be 1–65535"},
	})
}
