package control

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// metrics are the server's own Prometheus series, under the original's names;
// those of the discovery service are in package ads.
type metrics struct {
	info            *prometheus.GaugeVec            // pilot_info{version}
	services        prometheus.Gauge                // pilot_services
	virtualServices prometheus.Gauge                // pilot_virt_services
	build           prometheus.Histogram            // pilot_pushcontext_init_seconds
	events          map[bool]*prometheus.CounterVec // pilot_k8s_cfg_events{type,event} of custom kinds, pilot_k8s_reg_events{type,event}

	hiddenListeners  prometheus.Gauge // pilot_conflict_outbound_listener_tcp_over_current_tcp
	duplicateDomains prometheus.Gauge // pilot_vservice_dup_domain
	duplicateSubsets prometheus.Gauge // pilot_destrule_subsets
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		info:            prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "pilot_info", Help: "Pilot version and build information."}, []string{"version"}),
		services:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_services", Help: "Total services known to pilot."}),
		virtualServices: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_virt_services", Help: "Total virtual services known to pilot."}),
		build:           prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pilot_pushcontext_init_seconds", Help: "Seconds spent building the mesh from its objects.", Buckets: []float64{.001, .01, .1, .5, 1, 3, 5}}),
		events: map[bool]*prometheus.CounterVec{
			true:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_k8s_cfg_events", Help: "Events from k8s config."}, []string{"type", "event"}),
			false: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_k8s_reg_events", Help: "Events from k8s registry."}, []string{"type", "event"}),
		},

		hiddenListeners:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_conflict_outbound_listener_tcp_over_current_tcp", Help: "Number of conflicting tcp listeners with current tcp listener."}),
		duplicateDomains: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_vservice_dup_domain", Help: "Virtual services with dup domains."}),
		duplicateSubsets: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_destrule_subsets", Help: "Duplicate subsets across destination rules for same host."}),
	}
	uptime := time.Now()
	r.MustRegister(m.info, m.services, m.virtualServices, m.build, m.events[true], m.events[false], m.hiddenListeners, m.duplicateDomains, m.duplicateSubsets,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "istiod_uptime_seconds", Help: "Seconds since the control plane started."},
			func() float64 { return time.Since(uptime).Seconds() }))
	m.info.WithLabelValues(wellknown.Version()).Set(1)
	return m
}

// built records a new snapshot.
func (m *metrics) built(s *mesh.Snapshot, took time.Duration) {
	m.services.Set(float64(len(s.Registry.Services())))
	m.virtualServices.Set(float64(len(s.Config.List(config.VirtualService))))
	m.build.Observe(took.Seconds())
	conflicts := s.Conflicts()
	m.hiddenListeners.Set(float64(conflicts.Listeners))
	m.duplicateDomains.Set(float64(conflicts.Domains))
	m.duplicateSubsets.Set(float64(conflicts.Subsets))
}

// event counts what a Kubernetes API says: that an object was added, updated or deleted.
func (m *metrics) event(kind config.Kind, custom bool, event string) {
	name := string(kind)
	if kind == config.EndpointSlice || kind == config.Service || kind == config.Pod || kind == config.Node {
		name += "s" // as the original has these
	}
	m.events[custom].WithLabelValues(name, event).Inc()
}
