package proxy

import (
	"time"

	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// subscribed are the types of which a proxy has one subscription, with the names of their
// stats; runtime layers have those of the runtime together.
func (s *server) subscribed() map[string]string {
	all := map[string]string{wellknown.ListenerType: "listener_manager.lds.", wellknown.ClusterType: "cluster_manager.cds."}
	for _, l := range s.boot.Proto.GetLayeredRuntime().GetLayers() {
		if l.GetRtdsLayer() != nil {
			all[wellknown.RuntimeType] = "runtime."
		}
	}
	return all
}

// counted are the events by the names of their counters.
var counted = map[xds.Event]string{xds.Requested: "update_attempt", xds.Accepted: "update_success", xds.Rejected: "update_rejected", xds.TimedOut: "init_fetch_timeout"}

// observer counts what an xDS client reports, under the names of Envoy's
// subscriptions.
func (s *server) observer(service xds.Service) func(string, xds.Event) {
	subscribed := s.subscribed()
	plane := s.stats.Scope("control_plane.")
	connected := plane.Gauge("connected_state")
	connected.Add(0)
	plane.Gauge("pending_requests").Add(0)
	plane.Counter("rate_limit_enforced")
	for _, prefix := range subscribed {
		sc := s.stats.Scope(prefix)
		for _, name := range counted {
			sc.Counter(name)
		}
		sc.Counter("update_failure")
		sc.Gauge("update_time").Add(0)
	}
	s.stats.Before(s.showVersions)
	return func(url string, e xds.Event) {
		switch {
		case e == xds.Connected && service == xds.Aggregated:
			connected.Set(1)
		case e == xds.Disconnected && service == xds.Aggregated:
			connected.Set(0)
			for _, prefix := range subscribed {
				s.stats.Scope(prefix).Counter("update_failure").Inc()
			}
		case subscribed[url] != "" && counted[e] != "":
			sc := s.stats.Scope(subscribed[url])
			sc.Counter(counted[e]).Inc()
			if e == xds.Accepted {
				sc.Gauge("update_time").Set(time.Now().UnixMilli())
			}
		}
		if e == xds.Accepted && url != wellknown.EndpointType { // endpoints change all the time and are small
			s.trimMemory()
		}
	}
}

// showVersions tells which versions are in force.
func (s *server) showVersions() {
	subscribed := s.subscribed()
	for _, v := range s.views() {
		if prefix := subscribed[v.URL]; prefix != "" && v.Version != "" {
			s.stats.Scope(prefix).Text("version_text").Set(v.Version)
		}
	}
}
