// Package istiostats is the filter istio.stats, for HTTP and for TCP: it counts requests and
// connections by who asked whom, for the dashboards and alerts of a mesh.
//
//	istio_requests_total, istio_request_duration_milliseconds, istio_request_bytes,
//	istio_response_bytes, istio_request_messages_total, istio_response_messages_total
//	istio_tcp_connections_opened_total, istio_tcp_connections_closed_total,
//	istio_tcp_sent_bytes_total, istio_tcp_received_bytes_total
//
// Each side counts its own view: the reporter is "source" where a workload's own requests
// leave, "destination" where they arrive. Who the peer is its proxy has told (package
// peer); of an upstream that says nothing, its endpoint does. What is not known is
// "unknown".
//
// The configuration (stats.PluginConfig) may drop metrics, take labels off, and set labels
// by expressions. Series are looked up by a key that costs no allocation; a label that
// explodes is cut off and named in the log.
package istiostats

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	statspb "istio.io/api/envoy/extensions/stats"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

// TypeURL is the type of the configuration.
const TypeURL = "type.googleapis.com/stats.PluginConfig"

// The labels in the order in which they are printed.
const (
	reporter = iota
	sourceWorkload
	sourceService
	sourceRevision
	sourceNamespace
	sourcePrincipal
	sourceApp
	sourceVersion
	sourceCluster
	destinationWorkload
	destinationNamespace
	destinationPrincipal
	destinationApp
	destinationVersion
	destinationService
	destinationCanonical
	destinationRevision
	destinationName
	destinationServiceNamespace
	destinationCluster
	protocol
	code
	grpcStatus
	flags
	policy
	deniedBy // left out where nothing was denied
	labelCount
)

var labelNames = [labelCount]string{
	"reporter", "source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
	"source_principal", "source_app", "source_version", "source_cluster", "destination_workload", "destination_workload_namespace",
	"destination_principal", "destination_app", "destination_version", "destination_service", "destination_canonical_service",
	"destination_canonical_revision", "destination_service_name", "destination_service_namespace", "destination_cluster",
	"request_protocol", "response_code", "grpc_response_status", "response_flags", "connection_security_policy",
	"denied_by",
}

// The metrics.
const (
	requestsTotal = iota
	requestDuration
	requestBytes
	responseBytes
	requestMessages
	responseMessages
	tcpOpened
	tcpClosed
	tcpSent
	tcpReceived
	metricCount
)

var metricNames = [metricCount]string{
	"requests_total", "request_duration_milliseconds", "request_bytes", "response_bytes", "request_messages_total", "response_messages_total",
	"tcp_connections_opened_total", "tcp_connections_closed_total", "tcp_sent_bytes_total", "tcp_received_bytes_total",
}

// config is a compiled PluginConfig.
type config struct {
	noHost  bool          // the Host header says nothing of the destination
	every   time.Duration // how often bytes of open TCP connections are counted
	metrics [metricCount]*metric
	custom  []definition
	exprs   []*expression // all that a request is asked for
}

// A metric is what remains of one metric after overrides; nil in the table: dropped.
type metric struct {
	name   string // with "istio_"
	labels []label
}

// A label is a standard one, or the value of an expression.
type label struct {
	name     string
	standard int // of the constants above
	expr     int // index into config.exprs, -1 for none
}

// A definition is a counter that the configuration adds.
type definition struct {
	metric
	value *expression
}

// unpack reads the configuration, which may come as the JSON of a TypedStruct.
func unpack(cfg *anypb.Any) (*statspb.PluginConfig, error) {
	c := &statspb.PluginConfig{}
	var value *structpb.Struct
	var current xdsv3.TypedStruct
	var old udpav1.TypedStruct
	switch {
	case cfg.MessageIs(&current):
		if err := cfg.UnmarshalTo(&current); err != nil {
			return nil, err
		}
		value = current.GetValue()
	case cfg.MessageIs(&old):
		if err := cfg.UnmarshalTo(&old); err != nil {
			return nil, err
		}
		value = old.GetValue()
	default:
		return c, cfg.UnmarshalTo(c)
	}
	b, err := protojson.Marshal(value)
	if err != nil {
		return nil, err
	}
	return c, protojson.Unmarshal(b, c)
}

// defaultEvery is how often open connections are counted where nothing else is said.
const defaultEvery = 5 * time.Second

func compile(cfg *anypb.Any) (*config, error) {
	p, err := unpack(cfg)
	if err != nil {
		return nil, err
	}
	err = xds.Only(p, "debug", "max_peer_cache_size", "stat_prefix", "field_separator", "value_separator", "disable_host_header_fallback",
		"tcp_reporting_duration", "metrics", "definitions", "rotation_interval", "graceful_deletion_interval")
	if err != nil {
		return nil, err
	}
	c := &config{noHost: p.GetDisableHostHeaderFallback(), every: defaultEvery}
	if d := p.GetTcpReportingDuration(); d != nil {
		if c.every = d.AsDuration(); c.every < time.Second {
			return nil, fmt.Errorf("tcp_reporting_duration: at least 1s, got %v", c.every)
		}
	}
	for i := range c.metrics {
		c.metrics[i] = standardMetric(i)
	}
	for i, d := range p.GetDefinitions() {
		if err := c.define(d); err != nil {
			return nil, fmt.Errorf("definitions[%d]: %w", i, err)
		}
	}
	for i, m := range p.GetMetrics() {
		if err := c.override(m); err != nil {
			return nil, fmt.Errorf("metrics[%d]: %w", i, err)
		}
	}
	return c, nil
}

// standardMetric is one with the labels that it has without overrides.
func standardMetric(i int) *metric {
	m := &metric{name: "istio_" + metricNames[i]}
	for s, name := range labelNames {
		if i >= tcpOpened && (s == code || s == grpcStatus) || (i == requestMessages || i == responseMessages) && s >= protocol {
			continue
		}
		m.labels = append(m.labels, label{name: name, standard: s, expr: -1})
	}
	return m
}

// define adds a counter.
func (c *config) define(d *statspb.MetricDefinition) error {
	switch {
	case d.GetName() == "":
		return errors.New("name: must not be empty")
	case d.GetType() != statspb.MetricType_COUNTER:
		return fmt.Errorf("type: %s: not supported", d.GetType())
	}
	value, err := parse(d.GetValue())
	if err != nil {
		return fmt.Errorf("value: %w", err)
	}
	c.custom = append(c.custom, definition{metric{name: "istio_" + d.GetName()}, value})
	return nil
}

// override changes the metric of a name, or all of them.
func (c *config) override(o *statspb.MetricConfig) error {
	if o.GetMatch() != "" {
		return errors.New("match: not supported")
	}
	found := false
	for i := range c.metrics {
		if o.GetName() != "" && o.GetName() != metricNames[i] || c.metrics[i] == nil {
			found = found || o.GetName() == metricNames[i]
			continue
		}
		found = true
		if o.GetDrop() {
			c.metrics[i] = nil
			continue
		}
		if err := c.relabel(c.metrics[i], o); err != nil {
			return err
		}
	}
	for i := range c.custom {
		m := &c.custom[i].metric
		if o.GetName() != "" && "istio_"+o.GetName() != m.name {
			continue
		}
		found = true
		if err := c.relabel(m, o); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("name: no metric %q", o.GetName())
	}
	return nil
}

func (c *config) relabel(m *metric, o *statspb.MetricConfig) error {
	for _, name := range slices.Sorted(maps.Keys(o.GetDimensions())) {
		x, err := c.expression(o.GetDimensions()[name])
		if err != nil {
			return fmt.Errorf("dimensions[%s]: %w", name, err)
		}
		i := slices.IndexFunc(m.labels, func(l label) bool { return l.name == name })
		if i < 0 {
			i = len(m.labels)
			m.labels = append(m.labels, label{name: name})
		}
		m.labels[i] = label{name: name, expr: x}
	}
	m.labels = slices.DeleteFunc(m.labels, func(l label) bool { return slices.Contains(o.GetTagsToRemove(), l.name) })
	return nil
}

// maxExpressions bounds what a request is asked for.
const maxExpressions = 64

// expression compiles a text, once for all that have the same.
func (c *config) expression(text string) (int, error) {
	for i, x := range c.exprs {
		if x.text == text {
			return i, nil
		}
	}
	if len(c.exprs) >= maxExpressions {
		return 0, fmt.Errorf("more than %d expressions", maxExpressions)
	}
	x, err := parse(text)
	if err != nil {
		return 0, err
	}
	c.exprs = append(c.exprs, x)
	return len(c.exprs) - 1, nil
}

// names of a metric's labels.
func (m *metric) names(denied bool) []string {
	list := make([]string, 0, len(m.labels))
	for _, l := range m.labels {
		if denied || !l.ofDenials() {
			list = append(list, l.name)
		}
	}
	return list
}

// ofDenials reports the label that others than denials do not have.
func (l *label) ofDenials() bool { return l.expr < 0 && l.standard == deniedBy }

// fill is the values of a metric's labels.
func (m *metric) fill(standard *[labelCount]string, exprs []string) []string {
	list := make([]string, 0, len(m.labels))
	for _, l := range m.labels {
		switch {
		case l.expr >= 0:
			list = append(list, exprs[l.expr])
		case !l.ofDenials() || standard[deniedBy] != "":
			list = append(list, standard[l.standard])
		}
	}
	return list
}

// orUnknown is what stands for what is not known.
func orUnknown(values ...string) string { return cmp.Or(append(values, "unknown")...) }
