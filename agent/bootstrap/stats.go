package bootstrap

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	meshpb "istio.io/api/mesh/v1alpha1"
)

// Annotations that change statistics.
const (
	prefixesAnnotation    = "sidecar.istio.io/statsInclusionPrefixes"
	suffixesAnnotation    = "sidecar.istio.io/statsInclusionSuffixes"
	regexpsAnnotation     = "sidecar.istio.io/statsInclusionRegexps"
	tagsAnnotation        = "sidecar.istio.io/extraStatTags"
	bucketsAnnotation     = "sidecar.istio.io/statsHistogramBuckets"
	flushAnnotation       = "sidecar.istio.io/statsFlushInterval"
	evictionAnnotation    = "sidecar.istio.io/statsEvictionInterval"
	compressionAnnotation = "sidecar.istio.io/statsCompression"
)

// defaultFlush is how often Envoy hands statistics to sinks.
const defaultFlush = 5 * time.Second

func (in Input) statsConfig() (object, error) {
	config := object{"use_all_default_tags": false, "stats_tags": in.tags(), "stats_matcher": in.matcher()}
	text, ok := in.annotations()[bucketsAnnotation]
	if !ok {
		return config, nil
	}
	var buckets map[string][]float64
	if err := json.Unmarshal([]byte(text), &buckets); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", bucketsAnnotation, err)
	}
	var settings []any
	for _, prefix := range slices.Sorted(maps.Keys(buckets)) {
		settings = append(settings, object{"match": object{"prefix": prefix}, "buckets": buckets[prefix]})
	}
	config["histogram_bucket_settings"] = settings
	return config, nil
}

// tags take labels out of the names of statistics.
func (in Input) tags() []any {
	all := [][2]string{
		{"cluster_name", `^cluster(\.(.+);)`},
		{"http_conn_manager_prefix", `^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)`},
		{"thread_name", `^server(\.(.+))\.watchdog`},
		{"tcp_prefix", `^tcp\.((.*?)\.)\w+?$`},
		{"response_code", `_rq(_(\d{3}))$`},
		{"response_code_class", `_rq(_(\dxx))$`},
		{"http_conn_manager_listener_prefix", `^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)`},
		{"listener_address", `^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)`},
		{"mongo_prefix", `^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$`},
	}
	for _, name := range slices.Concat(in.Config.GetExtraStatTags(), list(in.annotations()[tagsAnnotation])) {
		all = append(all, [2]string{name, `(` + name + `=\.=(.*?);\.;)`})
	}
	all = append(all, [][2]string{
		{"cache", `(cache\.(.+?)\.)`},
		{"component", `(component\.(.+?)\.)`},
		{"tag", `(tag\.(.+?);\.)`},
		{"wasm_filter", `(wasm_filter\.(.+?)\.)`},
		{"authz_enforce_result", `rbac(\.(allowed|denied))`},
		{"authz_dry_run_action", `(\.istio_dry_run_(allow|deny)_)`},
		{"authz_dry_run_result", `(\.shadow_(allowed|denied))`},
	}...)
	tags := make([]any, len(all))
	for i, t := range all {
		tags[i] = object{"tag_name": t[0], "regex": t[1]}
	}
	return tags
}

// matcher names the statistics that the proxy keeps.
func (in Input) matcher() object {
	asked, notes := in.Config.GetProxyStatsMatcher(), in.annotations()
	if asked == nil {
		asked = &meshpb.ProxyConfig_ProxyStatsMatcher{}
	}
	patterns := []any{object{"prefix": "reporter="}}
	add := func(kind string, names ...string) {
		for _, name := range names {
			patterns = append(patterns, object{kind: name})
		}
	}
	if in.discoversWorkloads() {
		add("prefix", "workload_discovery")
	}
	add("prefix", in.chosen(asked.GetInclusionPrefixes(), notes[prefixesAnnotation])...)
	add("prefix", "cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm")
	add("suffix", in.chosen(asked.GetInclusionSuffixes(), notes[suffixesAnnotation])...)
	add("suffix", "rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied")
	if in.Metadata["EXIT_ON_ZERO_ACTIVE_CONNECTIONS"] == "true" {
		add("suffix", "downstream_cx_active") // by which the agent sees that nobody is left
	}
	for _, text := range append(in.chosen(asked.GetInclusionRegexps(), notes[regexpsAnnotation]), `vhost\..*\.route\..*`) {
		patterns = append(patterns, object{"safe_regex": object{"regex": text}})
	}
	add("prefix", "component", "istio")
	return object{"inclusion_list": object{"patterns": patterns}}
}

// chosen are the names of the proxy's configuration or, without any, of an annotation.
// "{pod_ip}" stands for each address of the workload.
func (in Input) chosen(configured []string, annotation string) []string {
	if len(configured) == 0 {
		configured = list(annotation)
	}
	var out []string
	for _, name := range configured {
		if !strings.Contains(name, "{pod_ip}") {
			out = append(out, name)
			continue
		}
		for _, address := range in.Addresses {
			out = append(out, strings.ReplaceAll(name, "{pod_ip}", address))
		}
	}
	return out
}

func list(text string) []string {
	return slices.DeleteFunc(strings.Split(text, ","), func(s string) bool { return s == "" })
}

// flush sets how often statistics go to sinks, and when those that nobody used are removed. The
// second must be a multiple of the first, or Envoy does not start: a wrong one is left out.
func (in Input) flush(b object) {
	every := defaultFlush
	if d, err := time.ParseDuration(in.annotations()[flushAnnotation]); err == nil && d > 0 {
		every = d
		b["stats_flush_interval"] = seconds(d)
	}
	if d, err := time.ParseDuration(in.annotations()[evictionAnnotation]); err == nil && d > 0 && d%every == 0 {
		b["stats_eviction_interval"] = seconds(d)
	}
}

// seconds is a duration as protobuf's JSON has it.
func seconds(d time.Duration) string {
	text := fmt.Sprintf("%.9f", d.Seconds())
	return strings.TrimRight(strings.TrimRight(text, "0"), ".") + "s"
}

// sinks are where statistics go by themselves.
func (in Input) sinks() ([]any, error) {
	var all []any
	if in.Config.GetEnvoyMetricsService().GetAddress() != "" {
		all = append(all, object{"name": "envoy.stat_sinks.metrics_service", "typed_config": object{
			"@type":                 "type.googleapis.com/envoy.config.metrics.v3.MetricsServiceConfig",
			"transport_api_version": "V3", "grpc_service": object{"envoy_grpc": object{"cluster_name": "envoy_metrics_service"}}}})
	}
	if text := in.Config.GetStatsdUdpAddress(); text != "" {
		address, err := hostPort("statsdUdpAddress", text)
		if err != nil {
			return nil, err
		}
		all = append(all, object{"name": "envoy.stat_sinks.statsd", "typed_config": object{
			"@type": "type.googleapis.com/envoy.config.metrics.v3.StatsdSink", "address": address}})
	}
	return all, nil
}
