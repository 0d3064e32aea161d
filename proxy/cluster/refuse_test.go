package cluster

import (
	"strings"
	"testing"
)

// errorsBy are HTTP options with an error_matcher.
func errorsBy(matcher string) string {
	return `"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type":
		"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {}, "outlier_detection": {"error_matcher": ` + matcher + `}}}`
}

// overriding is a policy by which requests name endpoints.
func overriding(fields string) string {
	return `"load_balancing_policy": {"policies": [{"typed_extension_config": {"name": "o", "typed_config": {"@type":
		"type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost", ` + fields + `}}}]}`
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"name", `{}`, "name: value length must be at least 1 characters"},
		{"subset selector", `{"name": "a", "lb_subset_config": {"subset_selectors": [{"keys": ["a"], "fallback_policy": "KEYS_SUBSET"}]}}`,
			"lb_subset_config.subset_selectors[0].fallback_keys_subset cannot be empty"},
		{"EDS without config", `{"name": "a", "type": "EDS"}`, "eds_cluster_config: cannot create an EDS cluster without an EDS config"},
		{"name where an address must be", `{"name": "a", "load_assignment": ` + to("www.test:80") + `}`,
			"load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.malformed IP address: www.test. Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'"},
		{"two endpoints of LOGICAL_DNS", `{"name": "a", "type": "LOGICAL_DNS", "load_assignment": ` + to("a.test:80", "b.test:80") + `}`,
			"load_assignment: LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint"},
		{"policy of another type", `{"name": "a", "type": "ORIGINAL_DST"}`, "cluster: LB policy ROUND_ROBIN is not valid for Cluster type ORIGINAL_DST"},
		{"threshold", `{"name": "a", "circuit_breakers": {"per_host_thresholds": [{"max_requests": 3}]}}`, "circuit_breakers.per_host_thresholds[0].max_requests: not supported"},
		{"table size", `{"name": "a", "lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 10}}`, "maglev_lb_config.table_size: must be a prime of at most 5000011, got 10"},
		{"sweeps without a pause", `{"name": "a", "outlier_detection": {"enforcing_success_rate": 0, "interval": "0s"}}`,
			"invalid OutlierDetection.Interval: value must be greater than 0s"},
		{"degraded hosts", `{"name": "a", "outlier_detection": {"detect_degraded_hosts": true}}`, "outlier_detection.detect_degraded_hosts: not supported"},
		{"transport socket", `{"name": "a", "transport_socket": {"name": "x", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}}`,
			"transport_socket: x (type.googleapis.com/google.protobuf.Empty) is not supported"},
		{"errors by what is asked", `{"name": "a", ` + errorsBy(`{"http_request_headers_match": {}}`) + `}`,
			"typed_extension_protocol_options.outlier_detection.error_matcher.http_request_headers_match: not supported"},
		{"one alternative", `{"name": "a", ` + errorsBy(`{"or_match": {"rules": [{"any_match": true}]}}`) + `}`,
			"typed_extension_protocol_options.outlier_detection.error_matcher.rules: value must contain at least 2 item(s)"},
		{"override without sources", `{"name": "a", ` + overriding(`"fallback_policy": {}`) + `}`,
			"load_balancing_policy.policies[0].override_host_sources: value must contain at least 1 item(s)"},
		{"override by nothing", `{"name": "a", ` + overriding(`"override_host_sources": [{}], "fallback_policy": {}`) + `}`,
			"load_balancing_policy.policies[0].override_host_sources[0]: either header or metadata must be set"},
		{"override that tells its choice", `{"name": "a", ` + overriding(`"selected_host_key": {"key": "k"}`) + `}`, "load_balancing_policy.policies[0].selected_host_key: not supported"},
		{"filter", `{"name": "a", "filters": [{"name": "x"}]}`, "filters[0]: x is not supported"},
		{"weight", `{"name": "a", "load_assignment": {"endpoints": [{"lb_endpoints": [{"load_balancing_weight": 0, "endpoint": {"address": {"pipe": {"path": "/x"}}}}]}]}}`,
			"load_assignment.endpoints[0].lb_endpoints[0].load_balancing_weight: value must be at least 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cs := New(Options{})
			defer cs.Close()
			err := cs.AddStatic(newCluster(t, c.in))
			if err == nil || !strings.HasSuffix(err.Error(), ": "+c.want) {
				t.Fatalf("error %v, want %s", err, c.want)
			}
		})
	}
}
