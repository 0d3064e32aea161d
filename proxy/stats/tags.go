package stats

import (
	"regexp"
	"strings"
)

// A Tag cuts a tag out of stat names. With Pattern, what its first group matched is
// removed from the name and the second group (the first where there is no second) is
// the value; without, every stat has the fixed Value.
type Tag struct {
	Name    string
	Pattern *regexp.Regexp
	Value   string
	within  string // a name without this substring cannot match; "" unknown
}

// defaultTags are the tags that Envoy extracts unless use_all_default_tags is false,
// for the stats that this proxy has.
var defaultTags = [...]struct{ name, pattern, within string }{
	{"envoy.response_code", `_rq(_(\d{3}))$`, "_rq_"},
	{"envoy.response_code_class", `_rq_((\d))xx$`, "_rq_"},
	{"envoy.http_conn_manager_prefix", `^listener\..*?\.http\.((.*?)\.)`, ".http."},
	{"envoy.http_conn_manager_prefix", `^http\.((.*?)\.)`, "http."},
	{"envoy.rds_route_config", `^http\..*?\.rds\.((.*?)\.)\w+?$`, ".rds."},
	{"envoy.fault_downstream_cluster", `^http\..*?\.fault\.((.*?)\.)\w+?$`, ".fault."},
	{"envoy.ssl_cipher", `^listener\..*?\.ssl\.cipher(\.(.*?))$`, ".ssl.cipher"},
	{"envoy.ssl_cipher_suite", `^cluster\..*?\.ssl\.ciphers(\.(.*?))$`, ".ssl.ciphers"},
	{"envoy.ssl_version", `\.ssl\.versions(\.(.*?))$`, ".ssl.versions"},
	{"envoy.ssl_curve", `\.ssl\.curves(\.(.*?))$`, ".ssl.curves"},
	{"envoy.ssl_sigalg", `\.ssl\.sigalgs(\.(.*?))$`, ".ssl.sigalgs"},
	{"envoy.grpc_bridge_service", `^cluster\..*?\.grpc\.((.*)\.)`, ".grpc."},
	{"envoy.tcp_prefix", `^tcp\.((.*?)\.)\w+?$`, "tcp."},
	{"envoy.virtual_cluster", `^vhost\..*?\.vcluster\.((.*?)\.)\w+?$`, ".vcluster."},
	{"envoy.route", `^vhost\..*\.route\.((.*?)\.)`, ".route."},
	{"envoy.virtual_host", `^vhost\.((.*?)\.)`, "vhost."},
	{"envoy.local_http_ratelimit_prefix", `^(([^.]+)\.)http_local_rate_limit\.`, "http_local_rate_limit"},
	{"envoy.cluster_name", `^cluster\.((.+?)\.)`, "cluster."},
	{"envoy.listener_address", `^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)`, "listener."},
}

// DefaultTags are Envoy's default extractors.
func DefaultTags() []Tag {
	tags := make([]Tag, len(defaultTags))
	for i, d := range defaultTags {
		tags[i] = Tag{Name: d.name, Pattern: regexp.MustCompile(d.pattern), within: d.within}
	}
	return tags
}

// tagged is a name without the parts that became tags.
type tagged struct {
	name string
	tags []string // name, value, name, value …
}

// extract applies all extractors to the whole name and then removes what they took;
// of two with one name the first that matches counts.
func extract(tags []Tag, name string) tagged {
	t := tagged{}
	var cut [][2]int
	for i := range tags {
		tag := &tags[i]
		if tag.Pattern == nil {
			t.tags = append(t.tags, tag.Name, tag.Value)
			continue
		}
		if !strings.Contains(name, tag.within) || t.has(tag.Name) {
			continue
		}
		m := tag.Pattern.FindStringSubmatchIndex(name)
		if len(m) < 4 || m[2] < 0 {
			continue
		}
		value := name[m[2]:m[3]]
		if len(m) >= 6 && m[4] >= 0 {
			value = name[m[4]:m[5]]
		}
		t.tags = append(t.tags, tag.Name, value)
		cut = append(cut, [2]int{m[2], m[3]})
	}
	t.name = without(name, cut)
	return t
}

func (t tagged) has(name string) bool {
	for i := 0; i < len(t.tags); i += 2 {
		if t.tags[i] == name {
			return true
		}
	}
	return false
}

// without returns name less the ranges of cut, which may overlap.
func without(name string, cut [][2]int) string {
	if len(cut) == 0 {
		return name
	}
	b := make([]byte, 0, len(name))
next:
	for i := range len(name) {
		for _, c := range cut {
			if i >= c[0] && i < c[1] {
				continue next
			}
		}
		b = append(b, name[i])
	}
	return string(b)
}
