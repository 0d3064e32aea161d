package stats

import (
	"fmt"
	"regexp"
	"strings"

	metricspb "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/lateen-mesh/lateen/proxy/match"
)

// Buckets are the Prometheus bucket limits of the stats whose name Match accepts.
type Buckets struct {
	Match  func(string) bool
	Limits []float64 // ascending
}

// Compile reads the bootstrap's stats_config; nil is the default.
func Compile(c *metricspb.StatsConfig) (Options, error) {
	var o Options
	if m := c.GetStatsMatcher(); m != nil {
		accept, err := compileMatcher(m)
		if err != nil {
			return o, fmt.Errorf("stats_matcher: %w", err)
		}
		o.Accept = accept
		if m.GetInclusionList() != nil {
			o.Asked = breaking
		}
	}
	tags, err := compileTags(c)
	if err != nil {
		return o, err
	}
	o.Tags = tags
	for i, b := range c.GetHistogramBucketSettings() {
		accept, err := compileString(b.GetMatch())
		if err != nil {
			return o, fmt.Errorf("histogram_bucket_settings[%d].match: %w", i, err)
		}
		o.Buckets = append(o.Buckets, Buckets{accept, b.GetBuckets()})
	}
	return o, nil
}

// breaking accepts what tells why a cluster refuses requests: it is there for those who ask
// the proxy, although the inclusion list of a mesh has it for none.
func breaking(name string) bool {
	return strings.HasPrefix(name, "cluster.") &&
		(strings.Contains(name, ".circuit_breakers.") || strings.Contains(name, ".upstream_rq_pending_"))
}

// compileTags puts the default extractors first: of two of one name the first that
// matches counts.
func compileTags(c *metricspb.StatsConfig) ([]Tag, error) {
	tags := []Tag{}
	if c.GetUseAllDefaultTags() == nil || c.GetUseAllDefaultTags().GetValue() {
		tags = DefaultTags()
	}
	for i, s := range c.GetStatsTags() {
		switch v := s.GetTagValue().(type) {
		case *metricspb.TagSpecifier_FixedValue:
			tags = append(tags, Tag{Name: s.GetTagName(), Value: v.FixedValue})
		case *metricspb.TagSpecifier_Regex:
			re, err := compileTagRegex(v.Regex)
			if err != nil {
				return nil, fmt.Errorf("stats_tags[%d] %q: %w", i, s.GetTagName(), err)
			}
			tags = append(tags, Tag{Name: s.GetTagName(), Pattern: re})
		case nil: // the name of a default tag
			n := len(tags)
			for _, d := range DefaultTags() {
				if d.Name == s.GetTagName() {
					tags = append(tags, d)
				}
			}
			if len(tags) == n {
				return nil, fmt.Errorf("stats_tags[%d]: no regex specified for tag specifier and no default regex for name: '%s'", i, s.GetTagName())
			}
		}
	}
	return inOrder(tags), nil
}

// compileTagRegex accepts the one construct of std::regex that RE2 lacks and that the
// original's bootstraps contain: "(?=\.)" after a word, where a word boundary says
// the same of every stat name.
func compileTagRegex(s string) (*regexp.Regexp, error) {
	return regexp.Compile(strings.ReplaceAll(s, `(?=\.)`, `\b`))
}

func compileMatcher(m *metricspb.StatsMatcher) (func(string) bool, error) {
	switch m := m.GetStatsMatcher().(type) {
	case *metricspb.StatsMatcher_RejectAll:
		return func(string) bool { return !m.RejectAll }, nil
	case *metricspb.StatsMatcher_InclusionList:
		return compileList("inclusion_list", m.InclusionList.GetPatterns(), true)
	case *metricspb.StatsMatcher_ExclusionList:
		return compileList("exclusion_list", m.ExclusionList.GetPatterns(), false)
	default:
		return nil, nil
	}
}

func compileList(field string, patterns []*matcherpb.StringMatcher, found bool) (func(string) bool, error) {
	list := make([]func(string) bool, len(patterns))
	for i, p := range patterns {
		f, err := compileString(p)
		if err != nil {
			return nil, fmt.Errorf("%s.patterns[%d]: %w", field, i, err)
		}
		list[i] = f
	}
	return func(name string) bool {
		for _, f := range list {
			if f(name) {
				return found
			}
		}
		return !found
	}, nil
}

// compileString is a StringMatcher over stat names.
func compileString(m *matcherpb.StringMatcher) (func(string) bool, error) {
	s, err := match.NewString(m)
	if err != nil {
		return nil, err
	}
	return func(name string) bool { return s.Match([]byte(name)) }, nil
}
