package config_test

import (
	"strings"
	"testing"
)

// attachmentCases are the rules of selector, targetRef and targetRefs; with is what the
// kind needs besides.
func attachmentCases(with string) []ruleCase {
	spec := func(fields string) string { return "spec: {" + fields + ", " + with + "}" }
	return []ruleCase{
		{"a selector", spec("selector: {matchLabels: {app: a}}"), ""},
		{"a selector of no label", spec("selector: {}"), "warning: selector: selects by no label"},
		{"a wildcard in a selector", spec("selector: {matchLabels: {app: a*}}"), `selector.matchLabels["app"]: wildcards are not supported`},
		{"a label without name", spec("selector: {matchLabels: {'': a}}"), `selector.matchLabels[""]: the label name must not be empty`},
		{"a label that is too long", spec("selector: {matchLabels: {app: " + strings.Repeat("a", 64) + "}}"), `selector.matchLabels["app"]: is longer than a label may be`},
		{"targets", spec("targetRefs: [{kind: Service, name: a}, {kind: Service, group: core, name: b}, {kind: Gateway, group: gateway.networking.k8s.io, name: c}, {kind: ServiceEntry, group: networking.istio.io, name: d}]"), ""},
		{"a selector and targets", spec("selector: {matchLabels: {app: a}}, targetRefs: [{kind: Service, name: a}]"), "targetRefs: only one of selector and targetRefs"},
		{"a target without name", spec("targetRefs: [{kind: Service}]"), "targetRefs[0].name: required"},
		{"a target of another namespace", spec("targetRefs: [{kind: Service, name: a, namespace: b}]"), "targetRefs[0].namespace: objects of other namespaces"},
		{"a target of another group", spec("targetRefs: [{kind: Gateway, group: networking.istio.io, name: a}]"), `targetRefs[0].group: kind Gateway is of group "gateway.networking.k8s.io", not "networking.istio.io"`},
		{"a target of another kind", spec("targetRefs: [{kind: Servic, name: a}]"), `targetRefs[0].kind: must be Service, ServiceEntry, Gateway or GatewayClass, got "Servic"`},
		{"a target without kind", spec("targetRefs: [{name: a}]"), "targetRefs[0].kind: required"},
		{"too many targets", spec("targetRefs: [" + strings.Repeat("{kind: Service, name: a}, ", 17) + "]"), "targetRefs: at most 16, got 17"},
	}
}

// singleTarget are the rules of targetRef, which newer kinds have not.
func singleTarget(with string) []ruleCase {
	return append(attachmentCases(with),
		ruleCase{"one target", "spec: {targetRef: {kind: Service, name: a}, " + with + "}", ""},
		ruleCase{"a selector and one target", "spec: {selector: {matchLabels: {app: a}}, targetRef: {kind: Service, name: a}, " + with + "}", "targetRef: only one of selector, targetRef and targetRefs"},
		ruleCase{"one target and several", "spec: {targetRef: {kind: Service, name: a}, targetRefs: [{kind: Service, name: b}], " + with + "}", "targetRef: only one of selector, targetRef and targetRefs"})
}

func TestPeerAuthenticationRules(t *testing.T) {
	checkRules(t, "security.istio.io/v1", "PeerAuthentication", []ruleCase{
		{"nothing", "spec: {}", ""},
		{"a mode", "spec: {mtls: {mode: STRICT}}", ""},
		{"a mode that is none", "spec: {mtls: {mode: STRICKT}}", "mtls.mode: must be one of"},
		{"a selector of no label", "spec: {selector: {}}", "warning: selector: selects by no label"},
		{"ports", "spec: {selector: {matchLabels: {app: a}}, portLevelMtls: {80: {mode: DISABLE}}}", ""},
		{"ports of everything", "spec: {portLevelMtls: {80: {mode: DISABLE}}}", "portLevelMtls: needs a selector"},
		{"no ports", "spec: {selector: {matchLabels: {app: a}}, portLevelMtls: {}}", "portLevelMtls: must not be empty"},
		{"port zero", "spec: {selector: {matchLabels: {app: a}}, portLevelMtls: {0: {}}}", `portLevelMtls["0"]: must be 1–65535`},
		{"no such port", "spec: {selector: {matchLabels: {app: a}}, portLevelMtls: {'70000': {}}}", `portLevelMtls["70000"]: must be 1–65535`},
	})
}

func TestRequestAuthenticationRules(t *testing.T) {
	rule := func(fields string) string { return "spec: {jwtRules: [{issuer: a.test, " + fields + "}]}" }
	checkRules(t, "security.istio.io/v1", "RequestAuthentication", singleTarget("jwtRules: []"))
	checkRules(t, "security.istio.io/v1", "RequestAuthentication", []ruleCase{
		{"nothing", "spec: {}", ""},
		{"keys from elsewhere without issuer", "spec: {jwtRules: [{jwksUri: 'https://a.test/keys'}]}", ""},
		{"neither issuer nor keys", "spec: {jwtRules: [{forwardOriginalToken: true}]}", "jwtRules[0].issuer: required"},
		{"an empty issuer", "spec: {jwtRules: [{issuer: '', jwksUri: 'https://a.test/keys'}]}", "jwtRules[0].issuer: must not be empty"},
		{"a port of keys", rule("jwksUri: 'https://a.test:8443/keys'"), ""},
		{"no port of keys", rule("jwksUri: 'https://a.test:x/keys'"), "jwtRules[0].jwksUri: "},
		{"too large a port of keys", rule("jwksUri: 'https://a.test:70000/keys'"), "jwtRules[0].jwksUri: "},
		{"keys of another scheme", rule("jwksUri: 'ftp://a.test/keys'"), "jwtRules[0].jwksUri: \"ftp://a.test/keys\" is not a URL of http or https"},
		{"keys inline", rule(`jwks: '{"keys": [{"kty": "RSA", "n": "AQ", "e": "AQAB"}, {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}]}'`), ""},
		{"one key inline", rule(`jwks: '{"kty": "oct", "k": "AQ"}'`), ""},
		{"keys that are no JSON", rule("jwks: foo"), "jwtRules[0].jwks: is not a JSON Web Key Set"},
		{"a key of no type", rule(`jwks: '{"keys": [{"n": "AQ"}]}'`), `jwtRules[0].jwks: key 0 has the unknown type ""`},
		{"half a key", rule(`jwks: '{"keys": [{"kty": "RSA", "n": "AQ"}]}'`), "jwtRules[0].jwks: key 0 of type RSA is not complete"},
		{"no keys", rule(`jwks: '{}'`), "jwtRules[0].jwks: is not a JSON Web Key Set: it has no keys"},
		{"keys from two places", rule(`jwksUri: 'https://a.test', jwks: '{"keys": []}'`), "jwtRules[0].jwks: cannot be set together with jwksUri"},
		{"an audience", rule("audiences: [a, '']"), "jwtRules[0].audiences[1]: must not be empty"},
		{"a parameter", rule("fromParams: ['']"), "jwtRules[0].fromParams[0]: must not be empty"},
		{"a cookie", rule("fromCookies: ['']"), "jwtRules[0].fromCookies[0]: must not be empty"},
		{"a header", rule("fromHeaders: [{prefix: 'Bearer '}]"), "jwtRules[0].fromHeaders[0].name: required"},
		{"a claim", rule("outputClaimToHeaders: [{header: x}]"), "jwtRules[0].outputClaimToHeaders[0].claim: required"},
		{"the header of a claim", rule("outputClaimToHeaders: [{claim: a, header: ':path'}]"), `jwtRules[0].outputClaimToHeaders[0].header: ":path" is not a header name`},
		{"a timeout", rule("timeout: 100us"), "jwtRules[0].timeout: must be at least 1ms"},
		{"a claim of many words", rule("spaceDelimitedClaims: ['']"), "jwtRules[0].spaceDelimitedClaims[0]: must not be empty"},
	})
}

func TestAuthorizationPolicyRules(t *testing.T) {
	rule := func(fields string) string { return "spec: {rules: [{" + fields + "}]}" }
	from := func(fields string) string { return rule("from: [{source: {" + fields + "}}]") }
	to := func(fields string) string { return rule("to: [{operation: {" + fields + "}}]") }
	when := func(fields string) string { return rule("when: [{" + fields + "}]") }
	custom := func(fields string) string {
		return "spec: {action: CUSTOM, provider: {name: a}, rules: [{" + fields + "}]}"
	}
	deny := func(fields string) string { return "spec: {action: DENY, rules: [{" + fields + "}]}" }
	checkRules(t, "security.istio.io/v1", "AuthorizationPolicy", singleTarget("rules: [{}]"))
	checkRules(t, "security.istio.io/v1beta1", "AuthorizationPolicy", []ruleCase{
		{"nothing", "spec: {}", ""},
		{"everything denied", "spec: {action: DENY, rules: [{}]}", ""},
		{"nothing denied", "spec: {action: DENY}", "rules: required: without rules action DENY never takes place"},
		{"nobody asked", "spec: {action: CUSTOM, provider: {name: a}}", "rules: required: without rules action CUSTOM"},
		{"a provider without name", "spec: {action: CUSTOM, provider: {}, rules: [{}]}", "provider.name: required for action CUSTOM"},
		{"a provider for nothing", "spec: {provider: {name: a}}", "provider: has a meaning for action CUSTOM only, not ALLOW"},

		{"an empty source", from(""), "rules[0].from[0].source: must not be empty"},
		{"no source", rule("from: [{}]"), "rules[0].from[0].source: required"},
		{"an empty principal", from("principals: [a, '']"), "rules[0].from[0].source.principals[1]: must not be empty"},
		{"addresses", from("ipBlocks: [1.2.3.4, 10.0.0.0/8, '2001:db8::/32']"), ""},
		{"no address", from("notRemoteIpBlocks: [1.2.3.256]"), `rules[0].from[0].source.notRemoteIpBlocks[0]: "1.2.3.256" is not an IP address`},
		{"service accounts", from("serviceAccounts: [a, b/c], requestPrincipals: ['*']"), ""},
		{"service accounts with a wildcard", from("serviceAccounts: ['a*']"), "rules[0].from[0].source.serviceAccounts[0]: wildcards are not allowed"},
		{"a service account of no namespace", from("serviceAccounts: [/a]"), "rules[0].from[0].source.serviceAccounts[0]: must be account or namespace/account"},
		{"service accounts and namespaces", from("notServiceAccounts: [a], namespaces: [b]"), "rules[0].from[0].source.notServiceAccounts: cannot be set together with"},
		{"many service accounts", from("serviceAccounts: [" + strings.Repeat("a, ", 17) + "]"), "rules[0].from[0].source.serviceAccounts: at most 16, got 17"},
		{"trust domains", from("trustDomains: [a.test]"), ""},

		{"an empty operation", to(""), "rules[0].to[0].operation: must not be empty"},
		{"no operation", rule("to: [{}]"), "rules[0].to[0].operation: required"},
		{"ports", to("ports: ['0', '65535']"), ""},
		{"no port", to("ports: [http]"), `rules[0].to[0].operation.ports[0]: "http" is not a port`},
		{"no such port", to("notPorts: ['65536']"), `rules[0].to[0].operation.notPorts[0]: "65536" is not a port`},
		{"paths", to("paths: [/a/*, '*/b', '*', '/a/{*}/b/{**}', '/{**}/b/']"), ""},
		{"an operator after the last", to("paths: ['/{**}/a/{*}']"), "rules[0].to[0].operation.paths[0]: no operator may follow {**}"},
		{"an operator within a segment", to("paths: ['/a{*}']"), "rules[0].to[0].operation.paths[0]: {*} and {**} must be whole segments"},
		{"another template", to("paths: ['/{name}']"), "rules[0].to[0].operation.paths[0]: {*} and {**} must be whole segments"},
		{"a wildcard in a template", to("notPaths: ['/a/*/{*}']"), `rules[0].to[0].operation.notPaths[0]: segment "*" of a template`},

		{"conditions", when("key: 'request.headers[x-a]', values: [a*]}, {key: 'request.auth.claims[a][b]', notValues: [c]}, {key: source.trustDomain, values: [a.test]}, {key: connection.sni, values: ['*']}, {key: 'experimental.envoy.filters.a.b[c]', values: [d]"), ""},
		{"no key", when("values: [a]"), "rules[0].when[0].key: required"},
		{"no values", when("key: source.principal"), "rules[0].when[0]: one of values and notValues is required"},
		{"an address", when("key: remote.ip, notValues: [a.b.c.d]"), `rules[0].when[0].notValues[0]: "a.b.c.d" is not an IP address`},
		{"a port", when("key: destination.port, values: [a]"), `rules[0].when[0].values[0]: "a" is not a port`},
		{"a header without name", when("key: request.headers, values: [a]"), "rules[0].when[0].key: must be of the form name[key]"},
		{"an unknown attribute", when("key: source.principle, values: [a]"), `rules[0].when[0].key: unknown attribute "source.principle"`},
		{"an attribute of old", when("key: 'destination.labels[a]', values: [b]"), `rules[0].when[0].key: "destination.labels[a]" is not supported: use the selector`},

		{"a provider is asked by address", custom("from: [{source: {ipBlocks: [1.2.3.4]}}]"), ""},
		{"a provider is asked by identity", custom("from: [{source: {notPrincipals: [a]}}]"), "rules[0].from[0].source.notPrincipals: cannot be set: action CUSTOM knows no identities"},
		{"a provider is asked by claim", custom("when: [{key: 'request.auth.claims[a]', values: [b]}]"), `rules[0].when[0].key: cannot be "request.auth.claims[a]": action CUSTOM`},

		{"denied by caller", deny("from: [{source: {principals: [a]}}]"), ""},
		{"denied by token", deny("from: [{source: {requestPrincipals: [a]}}]"), "warning: rules[0]: has attributes of HTTP only"},
		{"denied by method", deny("from: [{source: {principals: [a]}}], to: [{operation: {methods: [GET]}}]"), "warning: rules[0]: has attributes of HTTP only"},
		{"denied by method and port", deny("to: [{operation: {methods: [GET], ports: ['80']}}]"), ""},
	})
}

func TestTelemetryRules(t *testing.T) {
	spec := func(fields string) string { return "spec: {" + fields + "}" }
	checkRules(t, "telemetry.istio.io/v1", "Telemetry", singleTarget("metrics: []"))
	checkRules(t, "telemetry.istio.io/v1alpha1", "Telemetry", []ruleCase{
		{"nothing", "spec: {}", ""},
		{"a provider of metrics", spec("metrics: [{providers: [{name: ''}]}]"), "metrics[0].providers[0].name: required"},
		{"a provider of logs", spec("accessLogging: [{providers: [{name: envoy}, {}]}]"), "accessLogging[0].providers[1].name: required"},
		{"an interval", spec("metrics: [{reportingInterval: 10us}]"), "metrics[0].reportingInterval: must be at least 1ms"},
		{"a metric of one's own", spec("metrics: [{overrides: [{match: {customMetric: ''}}]}]"), "metrics[0].overrides[0].match.customMetric: required"},
		{"a tag", spec("metrics: [{overrides: [{tagOverrides: {a: {value: b}, c: {operation: REMOVE}}}]}]"), ""},
		{"a tag without value", spec("metrics: [{overrides: [{tagOverrides: {a: {operation: UPSERT}}}]}]"), `metrics[0].overrides[0].tagOverrides["a"].value: required for operation UPSERT`},
		{"a tag that goes with its value", spec("metrics: [{overrides: [{tagOverrides: {a: {operation: REMOVE, value: b}}}]}]"), `metrics[0].overrides[0].tagOverrides["a"].value: cannot be set for operation REMOVE`},
		{"two tracers", spec("tracing: [{}, {}]"), "warning: tracing: several entries are not supported"},
		{"two providers of traces", spec("tracing: [{providers: [{name: a}, {name: b}]}]"), "warning: tracing[0].providers: several providers"},
		{"sampling", spec("tracing: [{randomSamplingPercentage: 100.5}]"), "tracing[0].randomSamplingPercentage: must be 0–100, got 100.5"},
		{"a span's tag", spec("tracing: [{customTags: {a: {literal: {value: b}}, c: {environment: {name: D}}, e: {header: {name: f}}, g: {formatter: {value: '%PROTOCOL%'}}}}]"), ""},
		{"an empty literal", spec("tracing: [{customTags: {a: {literal: {}}}}]"), `tracing[0].customTags["a"].literal.value: required`},
		{"no variable", spec("tracing: [{customTags: {a: {environment: {}}}}]"), `tracing[0].customTags["a"].environment.name: required`},
		{"no header", spec("tracing: [{customTags: {a: {header: {}}}}]"), `tracing[0].customTags["a"].header.name: required`},
		{"no format", spec("tracing: [{customTags: {a: {formatter: {}}}}]"), `tracing[0].customTags["a"].formatter.value: required`},
	})
}
