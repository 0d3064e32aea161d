package ads

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the server's Prometheus series, under the original's names.
type Metrics struct {
	connected   *prometheus.GaugeVec     // pilot_xds{version}
	pushes      *prometheus.CounterVec   // pilot_xds_pushes{type}
	rejects     *prometheus.CounterVec   // pilot_total_xds_rejects{type}
	triggers    *prometheus.CounterVec   // pilot_push_triggers{type}
	unmade      prometheus.Counter       // pilot_total_xds_internal_errors
	expired     *prometheus.CounterVec   // pilot_xds_expired_nonce{type}
	convergence prometheus.Histogram     // pilot_proxy_convergence_time
	queued      prometheus.Histogram     // pilot_proxy_queue_time
	generate    *prometheus.HistogramVec // pilot_xds_push_time{type}
	send        prometheus.Histogram     // pilot_xds_send_time
	size        *prometheus.HistogramVec // pilot_xds_config_size_bytes{type}
}

// NewMetrics makes the series and registers them; it panics when one of the names
// is taken, as a registry is made for one server.
func NewMetrics(r prometheus.Registerer) *Metrics {
	times := []float64{.01, .1, .5, 1, 3, 5, 10, 20, 30}
	sizes := []float64{1, 10_000, 1_000_000, 4_000_000, 10_000_000, 40_000_000}
	byType := []string{"type"}
	m := &Metrics{
		connected:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "pilot_xds", Help: "Number of endpoints connected to this pilot using XDS."}, []string{"version"}),
		pushes:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_xds_pushes", Help: "Responses sent, by type."}, byType),
		rejects:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_total_xds_rejects", Help: "Responses refused by proxies, by type."}, byType),
		triggers:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_push_triggers", Help: "Total number of times a push was triggered, labeled by reason for the push."}, byType),
		unmade:      prometheus.NewCounter(prometheus.CounterOpts{Name: "pilot_total_xds_internal_errors", Help: "Total number of internal XDS errors in pilot."}),
		expired:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_xds_expired_nonce", Help: "Requests that answered an older response, by type."}, byType),
		convergence: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pilot_proxy_convergence_time", Help: "Seconds from a change to its last response being sent to a proxy.", Buckets: times}),
		queued:      prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pilot_proxy_queue_time", Help: "Seconds that a change waited for a proxy's stream.", Buckets: times}),
		generate:    prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pilot_xds_push_time", Help: "Seconds spent making and sending the resources of a type.", Buckets: times}, byType),
		send:        prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pilot_xds_send_time", Help: "Seconds spent sending one response.", Buckets: times}),
		size:        prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pilot_xds_config_size_bytes", Help: "Size of the resources of one response.", Buckets: sizes}, byType),
	}
	r.MustRegister(m.connected, m.pushes, m.rejects, m.triggers, m.unmade, m.expired, m.convergence, m.queued, m.generate, m.send, m.size)
	return m
}

// label is a type's value of the label "type": "cds". Types that the server does
// not have share one value, so that proxies cannot make series.
func label(t Type) string {
	if t.Name == "" {
		return "unknown"
	}
	return strings.ToLower(t.Name)
}

// reasons are the values of pilot_push_triggers' label for a change.
func reasons(c Change) []string {
	if c.All {
		return []string{"global"}
	}
	var list []string
	if len(c.Subjects) > 0 {
		list = append(list, "endpoint")
	}
	for _, k := range c.Kinds {
		reason := "config"
		switch k {
		case "EndpointSlice", "Pod", "WorkloadEntry":
			reason = "endpoint"
		case "Service", "ServiceEntry":
			reason = "service"
		case "Secret":
			reason = "secret"
		}
		if !slices.Contains(list, reason) {
			list = append(list, reason)
		}
	}
	return list
}
