package cluster

import (
	"cmp"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// A View is one cluster as admin pages show it.
type View struct {
	Name        string
	StatName    string // observability_name: alt_stat_name, or the name
	Dynamic     bool   // added_via_api
	Warming     bool
	Version     string // of the resource, "" for the bootstrap's
	Updated     time.Time
	Type        string // STATIC, EDS …
	Policy      string // lb_policy
	EDSService  string // service_name of eds_cluster_config as configured
	Thresholds  [2]upstream.Thresholds
	Outlier     *Rates                    // nil: no outlier detection
	Weights     map[lb.LocalityKey]uint32 // of localities, as the assignment has them
	Endpoints   []*endpoint.Endpoint      // live: read their counters, change nothing
	UseHTTP2    bool
	AutoSNI     bool
	ConnectTime time.Duration
}

var kindNames = [...]string{static: "STATIC", strictDNS: "STRICT_DNS", logicalDNS: "LOGICAL_DNS", eds: "EDS", originalDst: "ORIGINAL_DST",
	aggregate: "envoy.clusters.aggregate", dynamicForward: "envoy.clusters.dynamic_forward_proxy"}

// View returns all clusters by name, a warming one after the live one that it will replace.
func (cs *Clusters) View() []View {
	var views []View
	for _, c := range cs.all() {
		v := View{
			Name: c.Name(), StatName: c.config.statName, Dynamic: c.dynamic, Version: c.version, Updated: c.added,
			Type: kindNames[c.config.kind], Policy: c.config.balancing.Kind.String(), Thresholds: c.thresholdsNow(),
			Endpoints: c.Endpoints(), UseHTTP2: c.config.http.version == upstream.HTTP2, AutoSNI: c.config.http.autoSNI,
			ConnectTime: c.ConnectTimeout(), Warming: true,
		}
		select {
		case <-c.live:
			v.Warming = false
		default:
		}
		c.mu.Lock()
		v.Weights = c.weights // replaced whole, as are rates
		if c.config.outlier != nil {
			v.Outlier = cmp.Or(c.outlier.rates, noRates())
		}
		c.mu.Unlock()
		if c.config.balancing.provided {
			v.Policy = "CLUSTER_PROVIDED"
		}
		if c.config.eds != nil {
			v.EDSService = c.config.eds.named
		}
		views = append(views, v)
	}
	return views
}
