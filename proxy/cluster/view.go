package cluster

import (
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
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
	EDSService  string // eds_service_name, "" for other types
	Thresholds  [2]upstream.Thresholds
	Outlier     bool
	Endpoints   []*endpoint.Endpoint // live: read their counters, change nothing
	UseHTTP2    bool
	AutoSNI     bool
	ConnectTime time.Duration
}

var kindNames = [...]string{static: "STATIC", strictDNS: "STRICT_DNS", logicalDNS: "LOGICAL_DNS", eds: "EDS", originalDst: "ORIGINAL_DST"}

// View returns all clusters by name, a warming one after the live one that it will replace.
func (cs *Clusters) View() []View {
	var views []View
	for _, c := range cs.all() {
		v := View{
			Name: c.Name(), StatName: c.config.statName, Dynamic: c.dynamic, Version: c.version, Updated: c.added,
			Type: kindNames[c.config.kind], Policy: c.config.policy.Kind.String(), Thresholds: c.config.thresholds,
			Outlier: c.config.outlier != nil, Endpoints: c.Endpoints(), UseHTTP2: c.config.http.h2, AutoSNI: c.AutoSNI(),
			ConnectTime: c.ConnectTimeout(), Warming: true,
		}
		select {
		case <-c.live:
			v.Warming = false
		default:
		}
		if c.config.kind == originalDst {
			v.Policy = "CLUSTER_PROVIDED"
		}
		if c.config.eds != nil {
			v.EDSService = c.config.eds.service
		}
		views = append(views, v)
	}
	return views
}
