package stats

import (
	"regexp"
	"slices"
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
	except  string // a value that is none
}

// defaultTags are the tags that Envoy extracts unless use_all_default_tags is false,
// for the stats that this proxy has.
var defaultTags = [...]struct{ name, pattern, within, except string }{
	{name: "envoy.response_code", pattern: `_rq(_(\d{3}))$`, within: "_rq_"},
	{name: "envoy.response_code_class", pattern: `_rq_((\d))xx$`, within: "_rq_"},
	{name: "envoy.ssl_version", pattern: `\.ssl\.versions(\.(.*?))$`, within: ".ssl.versions"},
	{name: "envoy.ssl_curve", pattern: `\.ssl\.curves(\.(.*?))$`, within: ".ssl.curves"},
	{name: "envoy.ssl_sigalg", pattern: `\.ssl\.sigalgs(\.(.*?))$`, within: ".ssl.sigalgs"},
	{name: "envoy.local_http_ratelimit_prefix", pattern: `^(([^.]+)\.)http_local_rate_limit\.`, within: "http_local_rate_limit"},
	{name: "envoy.http_conn_manager_prefix", pattern: `^listener\..*?\.http\.((.*?)\.)`, within: ".http."},
	{name: "envoy.http_conn_manager_prefix", pattern: `^http\.((.*?)\.)`, within: "http."},
	{name: "envoy.rds_route_config", pattern: `^http\.[^.]*\.rds\.((.*?)\.)\w+?$`, within: ".rds."},
	{name: "envoy.fault_downstream_cluster", pattern: `^http\..*?\.fault\.((.*?)\.)\w+?$`, within: ".fault."},
	{name: "envoy.ssl_cipher", pattern: `^listener\..*?\.ssl\.cipher(\.(.*?))$`, within: ".ssl.cipher"},
	{name: "envoy.ssl_cipher_suite", pattern: `^cluster\..*?\.ssl\.ciphers(\.(.*?))$`, within: ".ssl.ciphers"},
	{name: "envoy.grpc_bridge_service", pattern: `^cluster\..*?\.grpc\.((.*)\.)`, within: ".grpc."},
	{name: "envoy.tcp_prefix", pattern: `^tcp\.(([^.]*)\.)`, within: "tcp."},
	{name: "envoy.virtual_cluster", pattern: `^vhost\..*?\.vcluster\.((.*?)\.)\w+?$`, within: ".vcluster."},
	{name: "envoy.route", pattern: `^vhost\..*\.route\.((.*?)\.)`, within: ".route."},
	{name: "envoy.virtual_host", pattern: `^vhost\.((.*?)\.)`, within: "vhost."},
	{name: "envoy.cluster_name", pattern: `^cluster\.((.+?)\.)`, within: "cluster."},
	{name: "envoy.listener_address", pattern: `^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*|[^.]+))\.)`, within: "listener.", except: "admin"},
}

// DefaultTags are Envoy's default extractors.
func DefaultTags() []Tag {
	tags := make([]Tag, len(defaultTags))
	for i, d := range defaultTags {
		tags[i] = Tag{Name: d.name, Pattern: regexp.MustCompile(d.pattern), within: d.within, except: d.except}
	}
	return tags
}

// begins is a pattern for names whose first part is known: "^cluster\.".
var begins = regexp.MustCompile(`^\^\w+(\\\.|\(\?=\\\.\)|\\b|\$$)`)

// inOrder is the order in which Envoy asks extractors: those for any name come before those
// for names with a certain first part.
func inOrder(tags []Tag) []Tag {
	slices.SortStableFunc(tags, func(a, b Tag) int { return a.rank() - b.rank() })
	return tags
}

func (t Tag) rank() int {
	if t.Pattern != nil && begins.MatchString(t.Pattern.String()) {
		return 1
	}
	return 0
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
		if tag.except != "" && value == tag.except {
			continue
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
