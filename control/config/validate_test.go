package config_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/control/config"
)

// A ruleCase is a spec and the beginning of the problem that is found first;
// warnings begin with "warning: ", and "" is for specs without any problem.
type ruleCase struct{ name, spec, want string }

func checkRules(t *testing.T, apiVersion, kind string, cases []ruleCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			text := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: a}\n%s\n", apiVersion, kind, c.spec)
			objects, problems := config.DecodeYAML("f", []byte(text))
			got := ""
			if problems = slices.DeleteFunc(problems, aboutTheKind); len(problems) > 0 {
				p := problems[0]
				got = p.Field + ": " + p.Message
				if p.Severity == config.Warning {
					got = "warning: " + got
				}
			}
			if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
				t.Errorf("problem %q, want %q", got, c.want)
			}
			if refused := got != "" && !strings.HasPrefix(got, "warning: "); refused == (len(objects) == 1) {
				t.Errorf("%d objects beside problem %q", len(objects), got)
			}
		})
	}
}

// aboutTheKind are the warnings that every object of a kind gets.
func aboutTheKind(p config.Problem) bool {
	return p.Aside && p.Field == ""
}

const networkingV1 = "networking.istio.io/v1"

func TestVirtualServiceRules(t *testing.T) {
	http := func(fields string) string {
		return "spec: {hosts: [a.test], gateways: [gw], http: [{" + fields + "}]}"
	}
	route := func(fields string) string { return http("route: [{destination: {host: b}}], " + fields) }
	checkRules(t, networkingV1, "VirtualService", []ruleCase{
		{"no rules", "spec: {hosts: [a.test]}", "spec: one of http, tls and tcp is required"},
		{"no spec", "", "spec: one of http"},
		{"an IP address as host", "spec: {hosts: [10.0.0.1], http: [{route: [{destination: {host: b}}]}]}", ""},
		{"star alone for sidecars", "spec: {hosts: ['*'], http: [{route: [{destination: {host: b}}]}]}", `hosts[0]: "*" is not allowed for routes of sidecars`},
		{"star alone for gateways and sidecars", "spec: {hosts: ['*'], gateways: [gw, mesh], http: [{route: [{destination: {host: b}}]}]}", `hosts[0]: "*" is not allowed`},
		{"old name of a gateway", "spec: {hosts: [a.test], gateways: [gw.ns.svc.cluster.local], http: [{route: [{destination: {host: b}}]}]}", "warning: gateways[0]: "},
		{"gateway of the own namespace", "spec: {hosts: [a.test], gateways: [./gw], http: [{route: [{destination: {host: b}}]}]}", ""},
		{"exportTo of two kinds", "spec: {hosts: [a.test], exportTo: ['*', ns], http: [{route: [{destination: {host: b}}]}]}", `exportTo[0]: "*" cannot be combined`},

		{"nothing to do", http("name: x"), "http[0]: one of route, redirect, directResponse and delegate is required"},
		{"route and redirect", route("redirect: {uri: /x}"), "http[0].route: cannot be set: the route has a redirect"},
		{"route and direct response", route("directResponse: {status: 200}"), "http[0].route: cannot be set: the route has a directResponse"},
		{"uri regex", route("match: [{uri: {regex: '/a(b'}}]"), "http[0].match[0].uri.regex: is not an RE2 expression: missing closing ): `/a(b`"},
		{"uri regex with a look-ahead, which RE2 has not", route("match: [{uri: {regex: '/(?!a)'}}]"), "http[0].match[0].uri.regex: is not an RE2"},
		{"regex of 1025 characters", route("match: [{uri: {regex: " + strings.Repeat("a", 1025) + "}}]"), "http[0].match[0].uri.regex: is longer than 1024"},
		{"empty prefix of a path", route("match: [{uri: {prefix: ''}}]"), ""},
		{"empty prefix of a header", route("match: [{headers: {x: {prefix: ''}}}]"), `http[0].match[0].headers["x"].prefix: must not be empty`},
		{"a header present", route("match: [{headers: {x: {}}}]"), ""},
		{"a header name", route("match: [{headers: {'x y': {}}}]"), `http[0].match[0].headers["x y"]: "x y" is not a header name`},
		{"a JWT claim at a gateway", route("match: [{headers: {'@request.auth.claims.group': {exact: x}}}]"), ""},
		{"a JWT claim at a sidecar", "spec: {hosts: [a.test], http: [{match: [{headers: {'@request.auth.claims.group': {exact: x}}}], route: [{destination: {host: b}}]}]}", `http[0].match[0].headers["@request.auth.claims.group"]: routing by JWT claims`},
		{"port of a match", route("match: [{port: 70000}]"), "http[0].match[0].port: must be 1–65535, got 70000"},

		{"VS-029 one weight of zero", http("route: [{destination: {host: b}, weight: 0}]"), ""},
		{"VS-029 weights need not add up", http("route: [{destination: {host: b}, weight: 1}, {destination: {host: c}, weight: 0}, {destination: {host: d}, weight: 7}]"), ""},
		{"VS-029 all weights zero", http("route: [{destination: {host: b}}, {destination: {host: c}}]"), "http[0].route: the weights of all destinations are 0"},
		{"negative weight", http("route: [{destination: {host: b}, weight: -1}, {destination: {host: c}, weight: 2}]"), "http[0].route[0].weight: must not be negative, got -1"},
		{"port of a destination", http("route: [{destination: {host: b, port: {number: 0}}}]"), "http[0].route[0].destination.port.number: must be 1–65535"},
		{"subset of a destination", http("route: [{destination: {host: b, subset: 'a.b'}}]"), "http[0].route[0].destination.subset: "},

		{"timeout zero switches off", route("timeout: 0s"), ""},
		{"timeout negative", route("timeout: -1s"), "http[0].timeout: must be at least 1ms"},
		{"retries off", route("retries: {attempts: 0}"), ""},
		{"retries off with settings", route("retries: {attempts: 0, retryOn: 5xx}"), "http[0].retries.attempts: is 0"},
		{"retry conditions and codes", route("retries: {attempts: 3, retryOn: 'connect-failure,503,unavailable'}"), ""},
		{"unknown retry condition", route("retries: {attempts: 3, retryOn: 'conect-failure'}"), `http[0].retries.retryOn: unknown condition "conect-failure"`},
		{"zero per-try timeout", route("retries: {attempts: 3, perTryTimeout: 0s}"), "http[0].retries.perTryTimeout: must be at least 1ms"},

		{"fault of neither kind", route("fault: {}"), "http[0].fault: one of abort and delay is required"},
		{"fault percentage", route("fault: {delay: {fixedDelay: 1s, percentage: {value: 101}}}"), "http[0].fault.delay.percentage.value: must be 0 or 0.0001–100, got 101"},
		{"VS-056 exponential delay", route("fault: {delay: {exponentialDelay: 1s}}"), "http[0].fault.delay.exponentialDelay: exponential delays are not supported"},
		{"VS-059 HTTP/2 error", route("fault: {abort: {http2Error: x}}"), "http[0].fault.abort.http2Error: HTTP/2 errors are not supported"},
		{"abort status", route("fault: {abort: {httpStatus: 100}}"), "http[0].fault.abort.httpStatus: must be an HTTP status"},
		{"abort gRPC status", route("fault: {abort: {grpcStatus: UNREACHABLE}}"), `http[0].fault.abort.grpcStatus: "UNREACHABLE" is not a gRPC status name`},

		{"redirect code", http("redirect: {uri: /x, redirectCode: 200}"), "http[0].redirect.redirectCode: must be 3xx, got 200"},
		{"redirect scheme", http("redirect: {scheme: ftp}"), "http[0].redirect.scheme: must be http or https"},
		{"empty redirect", http("redirect: {redirectCode: 301}"), "http[0].redirect: one of uri, authority, scheme and port is required"},
		{"direct response status", http("directResponse: {status: 601}"), "http[0].directResponse.status: must be an HTTP status"},
		{"empty rewrite", route("rewrite: {}"), "http[0].rewrite: one of uri"},
		{"rewrite by regex", route(`rewrite: {uriRegexRewrite: {match: '^/a/(.*)', rewrite: '/b/\1'}}`), ""},
		{"two rewrites", route("rewrite: {uri: /x, uriRegexRewrite: {match: a, rewrite: b}}"), "http[0].rewrite: only one of uri and uriRegexRewrite"},
		{"VS-065 mirror and mirrors", route("mirror: {host: c}, mirrors: [{destination: {host: d}}]"), "http[0].mirror: cannot be set together with mirrors"},
		{"mirror percentage", route("mirror: {host: c}, mirrorPercentage: {value: 101}"), "http[0].mirrorPercentage.value: must be 0–100"},
		{"old mirror percentage", route("mirror: {host: c}, mirrorPercent: 50"), "warning: http[0].mirrorPercent: is deprecated"},

		{"header values with operators", route("headers: {request: {set: {x: 'a %REQ(:AUTHORITY)% 100%% %START_TIME(%Y-%m)%'}}}"), ""},
		{"header value with a bare percent sign", route("headers: {request: {set: {x: '100% sure'}}}"), `http[0].headers.request.set["x"]: "% sure" is not a command operator`},
		{"header value with a line break", route(`headers: {response: {add: {x: "a\nb"}}}`), `http[0].headers.response.add["x"]: must not have control characters`},
		{"host of a response", route("headers: {response: {set: {host: x}}}"), `http[0].headers.response.set["host"]: header "host" cannot be changed here`},
		{"pseudo header", route("headers: {request: {set: {':path': /x}}}"), `http[0].headers.request.set[":path"]: header ":path" cannot be changed here`},
		{"authority twice", route("headers: {request: {set: {host: x, ':authority': z}}}"), `http[0].headers.request.set["host"]: the authority is already set`},

		{"CORS method", route("corsPolicy: {allowMethods: [FETCH]}"), `http[0].corsPolicy.allowMethods[0]: "FETCH" is not an HTTP method`},
		{"CORS age of a fraction", route("corsPolicy: {maxAge: 1500ms}"), "http[0].corsPolicy.maxAge: must be whole seconds"},
		{"CORS origin", route("corsPolicy: {allowOrigins: [{}]}"), "http[0].corsPolicy.allowOrigins[0]: one of exact, prefix and regex is required"},

		{"SNI outside the hosts", "spec: {hosts: [a.test], tls: [{match: [{sniHosts: [b.test]}], route: [{destination: {host: b}}]}]}", `tls[0].match[0].sniHosts[0]: "b.test" is not within the hosts`},
		{"SNI within a wildcard", "spec: {hosts: ['*.test'], tls: [{match: [{sniHosts: [b.test, '*.x.test']}], route: [{destination: {host: b}}]}]}", ""},
		{"no SNI", "spec: {hosts: [a.test], tls: [{match: [{port: 443}], route: [{destination: {host: b}}]}]}", "tls[0].match[0].sniHosts: at least one SNI host is required"},
		{"TCP subnets", "spec: {hosts: [a.test], tcp: [{match: [{destinationSubnets: [10.0.0.0/33]}], route: [{destination: {host: b}}]}]}", `tcp[0].match[0].destinationSubnets[0]: "10.0.0.0/33" is not a CIDR block`},
		{"TCP without destination", "spec: {hosts: [a.test], tcp: [{match: [{port: 1}]}]}", "tcp[0].route: at least one destination is required"},
		{"VS-083 sourceSubnet is accepted", "spec: {hosts: [a.test], tcp: [{match: [{sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: b}}]}]}", "warning: tcp[0].match[0].sourceSubnet: has no effect"},

		{"a rule after one that matches everything", "spec: {hosts: [a.test], http: [{route: [{destination: {host: b}}]}, {route: [{destination: {host: c}}]}]}", "warning: http[1]: is never reached: http[0]"},
		{"a match twice", "spec: {hosts: [a.test], http: [{match: [{uri: {exact: /a}}], route: [{destination: {host: b}}]}, {match: [{uri: {exact: /a}}], route: [{destination: {host: c}}]}]}", "warning: http[1].match[0]: is never reached"},
		{"a longer prefix after a shorter one", "spec: {hosts: [a.test], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: b}}]}, {match: [{uri: {prefix: /ab}}], route: [{destination: {host: c}}]}]}", "warning: http[1].match[0]: is never reached: prefix"},
		{"a longer prefix with another method", "spec: {hosts: [a.test], http: [{match: [{uri: {prefix: /a}, method: {exact: PUT}}], route: [{destination: {host: b}}]}, {match: [{uri: {prefix: /ab}}], route: [{destination: {host: c}}]}]}", ""},
	})
}

func TestDestinationRuleRules(t *testing.T) {
	policy := func(fields string) string { return "spec: {host: a.test, trafficPolicy: {" + fields + "}}" }
	checkRules(t, networkingV1, "DestinationRule", []ruleCase{
		{"wildcard host", "spec: {host: '*.a.test'}", ""},
		{"empty policy", policy(""), "trafficPolicy: at least one setting is required"},
		{"DR-055 subset without name", "spec: {host: a.test, subsets: [{labels: {v: v1}}]}", "subsets[0].name: required"},
		{"DR-055 subset twice", "spec: {host: a.test, subsets: [{name: v1}, {name: v1}]}", `subsets[1].name: duplicate subset "v1"`},
		{"DR-055 subset name", "spec: {host: a.test, subsets: [{name: v_1}]}", `subsets[0].name: "v_1" is not a subset name`},
		{"label value", "spec: {host: a.test, subsets: [{name: v1, labels: {v: 'a b'}}]}", `subsets[0].labels["v"]: "a b" is not a label value`},
		{"hash by cookie without name", policy("loadBalancer: {consistentHash: {httpCookie: {ttl: 0s}}}"), "trafficPolicy.loadBalancer.consistentHash.httpCookie.name: required"},
		{"hash by what is no header", policy("loadBalancer: {consistentHash: {httpHeaderName: \"x user\"}}"), "trafficPolicy.loadBalancer.consistentHash.httpHeaderName: \"x user\" is not a header name"},
		{"hash by an empty parameter", policy("loadBalancer: {consistentHash: {httpQueryParameterName: \"\"}}"), "trafficPolicy.loadBalancer.consistentHash.httpQueryParameterName: required"},
		{"maglev table of one", policy("loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 1}}}"), "trafficPolicy.loadBalancer.consistentHash.maglev.tableSize: must be a prime number"},
		{"DR-011 ring", policy("loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 8388609}}}"), "trafficPolicy.loadBalancer.consistentHash.ringHash.minimumRingSize: must be at most 8388608, got 8388609"},
		{"server name", policy("tls: {mode: SIMPLE, sni: " + strings.Repeat("a", 256) + "}"), "trafficPolicy.tls.sni: is longer than 255 bytes"},
		{"DR-011 maglev table", policy("loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65536}}}"), "trafficPolicy.loadBalancer.consistentHash.maglev.tableSize: must be a prime number"},
		{"distribution", policy("loadBalancer: {localityLbSetting: {distribute: [{from: a/*, to: {a/*: 80, b/*: 20}}]}}"), ""},
		{"DR-014 distribution that does not add up", policy("loadBalancer: {localityLbSetting: {distribute: [{from: a/*, to: {a/*: 80}}]}}"), "trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to: the weights must add up to 100, got 80"},
		{"failover to itself", policy("outlierDetection: {interval: 1s}, loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}"), "trafficPolicy.loadBalancer.localityLbSetting.failover[0]: from and to must be different"},
		{"failover without outlier detection", policy("loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}"), "warning: trafficPolicy.loadBalancer.localityLbSetting: failover needs outlierDetection"},
		{"empty connection pool", policy("connectionPool: {}"), "trafficPolicy.connectionPool: one of http and tcp is required"},
		{"negative limit", policy("connectionPool: {http: {maxRetries: -1}}"), "trafficPolicy.connectionPool.http.maxRetries: must not be negative"},
		{"client protocol and upgrade", policy("connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}"), "trafficPolicy.connectionPool.http.useClientProtocol: "},
		{"DR-036 consecutiveErrors is accepted", policy("outlierDetection: {consecutiveErrors: 5}"), "warning: trafficPolicy.outlierDetection.consecutiveErrors: is deprecated"},
		{"ejection percent", policy("outlierDetection: {maxEjectionPercent: 101}"), "trafficPolicy.outlierDetection.maxEjectionPercent: must be 0–100, got 101"},
		{"local origin failures", policy("outlierDetection: {consecutiveLocalOriginFailures: 5}"), "trafficPolicy.outlierDetection.consecutiveLocalOriginFailures: needs splitExternalLocalOriginErrors"},
		{"DR-047 DISABLE with an SNI", policy("tls: {mode: DISABLE, sni: localhost.local}"), ""},
		{"MUTUAL without certificate", policy("tls: {mode: MUTUAL}"), "trafficPolicy.tls.clientCertificate: required for mode MUTUAL"},
		{"MUTUAL by secret and by file", policy("tls: {mode: MUTUAL, credentialName: x, privateKey: /k}"), "trafficPolicy.tls.privateKey: cannot be set: credentialName is set"},
		{"no verification with a CA", policy("tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: /ca}"), "trafficPolicy.tls.caCertificates: cannot be set: insecureSkipVerify is true"},
		{"port level without port", policy("portLevelSettings: [{tls: {mode: SIMPLE}}]"), "trafficPolicy.portLevelSettings[0].port: required"},
		{"tunnel", policy("tunnel: {targetHost: 'a b', targetPort: 0}"), "trafficPolicy.tunnel.targetHost: "},
		{"tunnel is not there yet", policy("tunnel: {targetHost: a.test, targetPort: 80}"), "warning: trafficPolicy.tunnel: has no effect yet"},
		{"nor is budgetInterval", policy("retryBudget: {percent: 10, budgetInterval: 5s}"), "warning: trafficPolicy.retryBudget.budgetInterval: has no effect yet"},
		{"workload selector and export", "spec: {host: a.test, workloadSelector: {matchLabels: {a: b}}, exportTo: ['*']}", "exportTo: with a workloadSelector only the own namespace"},
	})
}

func TestGatewayRules(t *testing.T) {
	server := func(fields string) string {
		return "spec: {selector: {istio: ingressgateway}, servers: [{" + fields + "}]}"
	}
	http := "port: {number: 80, name: http, protocol: HTTP}, "
	https := "port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.test], tls: "
	checkRules(t, networkingV1, "Gateway", []ruleCase{
		{"scenario 54: a short name", server(http + "hosts: [httpbin-service]"), `servers[0].hosts[0]: short names (non FQDN) are not allowed: "httpbin-service"`},
		{"hosts of all forms", server(http + "hosts: ['*', ./a.test, ns/*.b.test, 10.0.0.1, '*/c.test']"), ""},
		{"no hosts", server(http), "servers[0].hosts: at least one host is required"},
		{"no port", server("hosts: [a.test]"), "servers[0].port: required"},
		{"GW-006 a target port", server("port: {number: 80, name: a, protocol: HTTP, targetPort: 8080}, hosts: [a.test]"), "warning: servers[0].port.targetPort: has no effect on gateways"},
		{"GW-020 pins", server("port: {number: 443, name: s, protocol: HTTPS}, tls: {mode: MUTUAL, credentialName: c, verifyCertificateSpki: [" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "], verifyCertificateHash: [" + strings.Repeat("0a", 32) + ", '" + strings.Repeat("0a:", 31) + "0a']}, hosts: [a.test]"), ""},
		{"GW-020 a pin of the wrong length", server("port: {number: 443, name: s, protocol: HTTPS}, tls: {mode: MUTUAL, credentialName: c, verifyCertificateSpki: [AAAA]}, hosts: [a.test]"), "servers[0].tls.verifyCertificateSpki[0]: must be a SHA-256 in base64"},
		{"GW-020 a hash that is none", server("port: {number: 443, name: s, protocol: HTTPS}, tls: {mode: MUTUAL, credentialName: c, verifyCertificateHash: [zz]}, hosts: [a.test]"), "servers[0].tls.verifyCertificateHash[0]: must be a SHA-256 in hexadecimal digits"},
		{"GW-004 protocols in any case", server("port: {number: 80, name: a, protocol: http}, hosts: [a.test]"), ""},
		{"GW-004 HTTPS without tls", server("port: {number: 443, name: https, protocol: https}, hosts: [a.test]"), "servers[0].tls: required for protocol https"},
		{"unknown protocol", server("port: {number: 80, name: a, protocol: HTPP}, hosts: [a.test]"), `servers[0].port.protocol: "HTPP" is not a protocol of gateways`},
		{"UDP", server("port: {number: 80, name: a, protocol: UDP}, hosts: [a.test]"), "servers[0].port.protocol: "},
		{"GW-005 port name twice", "spec: {servers: [{" + http + "hosts: [a.test]}, {port: {number: 81, name: http, protocol: HTTP}, hosts: [a.test]}]}", `servers[1].port.name: duplicate port name "http"`},
		{"GW-010 defaultEndpoint is accepted", server(http + "hosts: [a.test], defaultEndpoint: '127.0.0.1:80'"), ""},
		{"bind", server(http + "hosts: [a.test], bind: localhost"), "servers[0].bind: "},
		{"tls on plain HTTP", server(http + "hosts: [a.test], tls: {mode: SIMPLE, credentialName: c}"), "servers[0].tls: cannot be set for protocol HTTP"},
		{"redirect on plain HTTP", server(http + "hosts: [a.test], tls: {httpsRedirect: true}"), ""},
		{"tls on TCP", server("port: {number: 1, name: t, protocol: TCP}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}"), "servers[0].tls: cannot be set for protocol TCP"},
		{"SIMPLE without certificate", server(https + "{mode: SIMPLE}"), "servers[0].tls.serverCertificate: required for mode SIMPLE"},
		{"MUTUAL without CA", server(https + "{mode: MUTUAL, serverCertificate: /c, privateKey: /k}"), "servers[0].tls.caCertificates: required for mode MUTUAL"},
		{"by secret", server(https + "{mode: MUTUAL, credentialName: c}"), ""},
		{"ISTIO_MUTUAL with a secret", server(https + "{mode: ISTIO_MUTUAL, credentialName: c}"), "servers[0].tls.credentialName: cannot be set: ISTIO_MUTUAL"},
		{"PASSTHROUGH with a secret", server(https + "{mode: PASSTHROUGH, credentialName: c}"), "warning: servers[0].tls.mode: PASSTHROUGH does not use certificates"},
		{"GW-015 one name or several", server(https + "{mode: SIMPLE, credentialName: c, credentialNames: [d]}"), "servers[0].tls: only one of credentialName"},
		{"GW-015 three certificates", server(https + "{mode: SIMPLE, credentialNames: [d, e, f]}"), "servers[0].tls.credentialNames: at most two, got 3"},
		{"GW-022 unknown cipher suite", server(https + "{mode: SIMPLE, credentialName: c, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256, NULL-MD5]}"), `warning: servers[0].tls.cipherSuites[1]: unknown cipher suite "NULL-MD5" is ignored`},
		{"GW-022 a cipher suite that proxies are not given", server(https + "{mode: SIMPLE, credentialName: c, cipherSuites: [AES128-SHA256]}"), `warning: servers[0].tls.cipherSuites[0]: unknown cipher suite "AES128-SHA256" is ignored`},
	})
}

func TestServiceEntryRules(t *testing.T) {
	http := "ports: [{number: 80, name: http, protocol: HTTP}], "
	checkRules(t, networkingV1, "ServiceEntry", []ruleCase{
		{"SE-001 no host", "spec: {" + http + "resolution: DNS}", "hosts: at least one host is required"},
		{"SE-001 wildcard and DNS", "spec: {hosts: ['*.a.test'], " + http + "resolution: DNS}", `hosts[0]: "*.a.test" cannot be resolved`},
		{"SE-001 wildcard and NONE", "spec: {hosts: ['*.a.test'], " + http + "resolution: NONE}", ""},
		{"SE-001 wildcard and DYNAMIC_DNS", "spec: {hosts: ['*.a.test'], " + http + "resolution: DYNAMIC_DNS}", ""},
		{"SE-002 CIDR and DNS", "spec: {hosts: [a.test], addresses: [10.0.0.0/8], " + http + "resolution: DNS}", "addresses[0]: CIDR blocks are allowed for resolution NONE and STATIC only"},
		{"address", "spec: {hosts: [a.test], addresses: [a.test], " + http + "resolution: DNS}", `addresses[0]: "a.test" is not an IP address`},
		{"SE-003 without protocol", "spec: {hosts: [a.test], ports: [{number: 80, name: http}], resolution: DNS}", ""},
		{"SE-003 unknown protocol", "spec: {hosts: [a.test], ports: [{number: 80, name: http, protocol: HTPS}], resolution: DNS}", `ports[0].protocol: unknown protocol "HTPS"`},
		{"SE-003 name twice", "spec: {hosts: [a.test], ports: [{number: 80, name: a}, {number: 81, name: a}], resolution: DNS}", `ports[1].name: duplicate port name "a"`},
		{"number twice", "spec: {hosts: [a.test], ports: [{number: 80, name: a}, {number: 80, name: b}], resolution: DNS}", "ports[1].number: duplicate port 80"},
		{"two hosts on plain TCP", "spec: {hosts: [a.test, b.test], ports: [{number: 80, name: a, protocol: TCP}], resolution: DNS}", "ports[0].protocol: with several hosts"},
		{"TCP without addresses", "spec: {hosts: [a.test], ports: [{number: 80, name: a, protocol: TCP}]}", "warning: ports[0]: without addresses"},
		{"SE-006 unknown resolution", "spec: {hosts: [a.test], " + http + "resolution: DNSS}", "resolution: must be one of NONE, STATIC, DNS, DNS_ROUND_ROBIN, DYNAMIC_DNS"},
		{"SE-006 NONE with endpoints", "spec: {hosts: [a.test], " + http + "endpoints: [{address: 1.1.1.1}]}", "endpoints: cannot be set for resolution NONE"},
		{"SE-006 STATIC with a name", "spec: {hosts: [a.test], " + http + "resolution: STATIC, endpoints: [{address: b.test}]}", `endpoints[0].address: "b.test" is not an IP address`},
		{"SE-008 unix socket", "spec: {hosts: [a.test], " + http + "resolution: STATIC, endpoints: [{address: 'unix:///run/a.sock'}]}", ""},
		{"SE-008 unix socket and DNS", "spec: {hosts: [a.test], " + http + "resolution: DNS, endpoints: [{address: 'unix:///run/a.sock'}]}", "endpoints[0].address: unix sockets are for resolution STATIC"},
		{"SE-008 endpoints and selector", "spec: {hosts: [a.test], " + http + "resolution: STATIC, endpoints: [{address: 1.1.1.1}], workloadSelector: {labels: {a: b}}}", "endpoints: cannot be set together with workloadSelector"},
		{"SE-009 unknown port name", "spec: {hosts: [a.test], " + http + "resolution: STATIC, endpoints: [{address: 1.1.1.1, ports: {htp: 80}}]}", `endpoints[0].ports["htp"]: the service has no port named "htp"`},
		{"SE-010 selector and DYNAMIC_DNS", "spec: {hosts: ['*.a.test'], " + http + "resolution: DYNAMIC_DNS, workloadSelector: {labels: {a: b}}}", "workloadSelector: cannot be set for resolution DYNAMIC_DNS"},
		{"exported to nobody", "spec: {hosts: [a.test], " + http + "resolution: DNS, exportTo: ['~']}", ""},
		{"round robin with two endpoints", "spec: {hosts: [a.test], " + http + "resolution: DNS_ROUND_ROBIN, endpoints: [{address: b.test}, {address: c.test}]}", "endpoints: at most one"},
	})
	checkRules(t, networkingV1, "WorkloadEntry", []ruleCase{
		{"SE-015 address", "spec: {address: vm.a.test}", ""},
		{"SE-015 no address", "spec: {labels: {app: a}}", "address: required"},
		{"SE-015 network only", "spec: {network: net-1}", "warning: address: is unset"},
		{"SE-015 unix socket with ports", "spec: {address: 'unix:///a', ports: {http: 80}}", "ports: cannot be set for a unix socket"},
		{"port", "spec: {address: 1.1.1.1, ports: {http: 0}}", `ports["http"]: must be 1–65535`},
	})
}

func TestSidecarRules(t *testing.T) {
	checkRules(t, networkingV1, "Sidecar", []ruleCase{
		{"nothing", "spec: {}", "spec: one of egress, ingress"},
		{"SC-002 host without namespace", "spec: {egress: [{hosts: [a.test]}]}", `egress[0].hosts[0]: must be namespace/host, got "a.test"`},
		{"SC-002 hosts of all forms", "spec: {egress: [{hosts: [./a.test, ~/*, ns/*.b.test]}]}", ""},
		{"SC-002 no hosts", "spec: {egress: [{port: {number: 80, name: a}}]}", "egress[0].hosts: at least one host is required"},
		{"SC-003 listener without port first", "spec: {egress: [{hosts: ['*/*']}, {port: {number: 80}, hosts: ['*/*']}]}", "egress[0]: a listener without port"},
		{"SC-004 bind of port 0", "spec: {egress: [{port: {protocol: http, name: a}, bind: 1.1.1.1, hosts: ['*/*']}]}", "egress[0].bind: must be a unix socket"},
		{"SC-007 ingress without port", "spec: {ingress: [{defaultEndpoint: '127.0.0.1:80'}]}", "ingress[0].port: required"},
		{"SC-008 endpoint elsewhere", "spec: {ingress: [{port: {number: 80, name: a}, defaultEndpoint: '10.0.0.1:80'}]}", "ingress[0].defaultEndpoint: the host must be"},
		{"SC-013 empty policy", "spec: {outboundTrafficPolicy: {}}", ""},
		{"SC-014 egress proxy and REGISTRY_ONLY", "spec: {outboundTrafficPolicy: {egressProxy: {host: a.test, port: {number: 80}}}}", "outboundTrafficPolicy.egressProxy: needs mode ALLOW_ANY"},
		{"egress proxy is not there yet", "spec: {outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.test, port: {number: 80}}}}", "warning: outboundTrafficPolicy.egressProxy: has no effect yet"},
	})
}

func TestKubernetesRules(t *testing.T) {
	checkRules(t, "v1", "Service", []ruleCase{
		{"ports", "spec: {ports: [{port: 80}]}", ""},
		{"headless without ports", "spec: {clusterIP: None}", ""},
		{"no ports", "spec: {}", "spec.ports: at least one port is required"},
		{"two ports without names", "spec: {ports: [{port: 80}, {port: 81}]}", "spec.ports[0].name: required when there are several ports"},
		{"one number, two protocols", "spec: {ports: [{port: 53, name: a, protocol: TCP}, {port: 53, name: b, protocol: UDP}]}", ""},
		{"protocol", "spec: {ports: [{port: 80, protocol: HTTP}]}", `spec.ports[0].protocol: must be TCP, UDP or SCTP, got "HTTP"`},
		{"type", "spec: {type: Loadbalancer, ports: [{port: 80}]}", `spec.type: unknown type "Loadbalancer"`},
		{"external name", "spec: {type: ExternalName, externalName: 'a b'}", "spec.externalName: "},
	})
	checkRules(t, "discovery.k8s.io/v1", "EndpointSlice", []ruleCase{
		{"addresses", "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]\nports: [{name: http, port: 80}]", ""},
		{"no address type", "endpoints: []", "addressType: must be IPv4, IPv6 or FQDN"},
		{"address of another family", "addressType: IPv4\nendpoints: [{addresses: ['::1']}]", `endpoints[0].addresses[0]: "::1" is not an IPv4 address`},
	})
	checkRules(t, "v1", "Secret", []ruleCase{
		{"text and base64", "type: kubernetes.io/tls\nstringData: {tls.crt: C}\ndata: {tls.key: Sw==}", ""},
		{"TLS without key", "type: kubernetes.io/tls\nstringData: {tls.crt: C}", `data["tls.key"]: required for type kubernetes.io/tls`},
		{"key of data", "stringData: {a b: C}", `data["a b"]: "a b" is not a key`},
	})
	checkRules(t, "v1", "ConfigMap", []ruleCase{
		{"key twice", "data: {a: b}\nbinaryData: {a: Yg==}", `binaryData["a"]: is in data as well`},
	})
}

func TestMetadataRules(t *testing.T) {
	for _, c := range []struct{ metadata, want string }{
		{"{name: A}", `metadata.name: "A" is not a name`},
		{"{name: a, namespace: b.c}", `metadata.namespace: "b.c" is not a namespace`},
		{"{name: a, labels: {-x: y1}}", `metadata.labels["-x"]: "-x" is not a label name`},
		{"{name: a, annotations: {istio.io/dry-run: 'true'}}", `metadata.annotations["istio.io/dry-run"]: has a meaning for AuthorizationPolicy only`},
		{"{name: a, creationTimestamp: yesterday}", "parsing time"},
		{"{name: a, creationTimestamp: 2020-01-01T00:00:00Z}", ""},
		{"{name: a, creationTimestamp: null}", ""},
	} {
		t.Run(c.metadata, func(t *testing.T) {
			_, problems := config.DecodeYAML("f", []byte("apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: "+c.metadata+"\nspec: {outboundTrafficPolicy: {}}\n"))
			got := ""
			if len(problems) > 0 {
				got = problems[0].Error()
			}
			if !strings.Contains(got, c.want) || c.want == "" && got != "" {
				t.Errorf("problem %q, want %q", got, c.want)
			}
		})
	}
}
