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
	info            *prometheus.GaugeVec // pilot_info{version}
	services        prometheus.Gauge     // pilot_services
	virtualServices prometheus.Gauge     // pilot_virt_services
	build           prometheus.Histogram // pilot_pushcontext_init_seconds
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		info:            prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "pilot_info", Help: "Pilot version and build information."}, []string{"version"}),
		services:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_services", Help: "Total services known to pilot."}),
		virtualServices: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_virt_services", Help: "Total virtual services known to pilot."}),
		build:           prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pilot_pushcontext_init_seconds", Help: "Seconds spent building the mesh from its objects.", Buckets: []float64{.001, .01, .1, .5, 1, 3, 5}}),
	}
	uptime := time.Now()
	r.MustRegister(m.info, m.services, m.virtualServices, m.build,
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
}
