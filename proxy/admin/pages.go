package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

var errNotObject = errors.New("not an object")

func serverInfo(s *Server, w http.ResponseWriter, _ *http.Request) {
	s.writeProto(w, s.view.ServerInfo(), true)
}

func certs(s *Server, w http.ResponseWriter, _ *http.Request) {
	s.writeProto(w, s.view.Certs(), true)
}

func initDump(s *Server, w http.ResponseWriter, _ *http.Request) {
	s.writeProto(w, s.view.Unready(), false)
}

func listeners(s *Server, w http.ResponseWriter, r *http.Request) {
	list := s.view.Listeners()
	if r.URL.Query().Get("format") == formJSON {
		s.writeProto(w, list, false)
		return
	}
	for _, l := range list.GetListenerStatuses() {
		write(w, l.GetName()+"::"+addressText(l.GetLocalAddress())+"\n")
		for _, a := range l.GetAdditionalLocalAddresses() {
			write(w, l.GetName()+"::"+addressText(a)+"\n")
		}
	}
}

func addressText(a *corepb.Address) string {
	if p := a.GetPipe(); p != nil {
		return p.GetPath()
	}
	s := a.GetSocketAddress()
	host := s.GetAddress()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(s.GetPortValue()))
}

func clusters(s *Server, w http.ResponseWriter, r *http.Request) {
	all := s.view.Clusters()
	if f := r.URL.Query().Get("filter"); f != "" {
		re, bad := compileRegexp(f)
		if bad != "" {
			fail(w, http.StatusBadRequest, "Invalid re2 regex")
			return
		}
		all = filterClusters(all, re.MatchString)
	}
	if r.URL.Query().Get("format") == formJSON {
		s.writeProto(w, all, false)
		return
	}
	var outliers map[string][2]float64
	if s.view.Outliers != nil {
		outliers = s.view.Outliers()
	}
	for _, c := range all.GetClusterStatuses() {
		averages, detects := outliers[c.GetName()]
		write(w, clusterText(c, detects, averages))
	}
}

func filterClusters(all *adminpb.Clusters, keep func(string) bool) *adminpb.Clusters {
	out := &adminpb.Clusters{}
	for _, c := range all.GetClusterStatuses() {
		if keep(c.GetName()) {
			out.ClusterStatuses = append(out.ClusterStatuses, c)
		}
	}
	return out
}

// clusterText prints "name::key::value" lines, and "name::address::key::value" for
// each endpoint.
func clusterText(c *adminpb.ClusterStatus, outlier bool, averages [2]float64) string {
	var b strings.Builder
	line := func(parts ...any) {
		b.WriteString(c.GetName())
		for _, p := range parts {
			b.WriteString("::")
			fmt.Fprint(&b, p)
		}
		b.WriteByte('\n')
	}
	line("observability_name", c.GetObservabilityName())
	if outlier {
		line("outlier", "success_rate_average", short(averages[0]))
		line("outlier", "success_rate_ejection_threshold", percent(c.GetSuccessRateEjectionThreshold()))
		line("outlier", "local_origin_success_rate_average", short(averages[1]))
		line("outlier", "local_origin_success_rate_ejection_threshold", percent(c.GetLocalOriginSuccessRateEjectionThreshold()))
	}
	for _, t := range c.GetCircuitBreakers().GetThresholds() {
		priority := strings.ToLower(t.GetPriority().String()) + "_priority"
		line(priority, "max_connections", t.GetMaxConnections().GetValue())
		line(priority, "max_pending_requests", t.GetMaxPendingRequests().GetValue())
		line(priority, "max_requests", t.GetMaxRequests().GetValue())
		line(priority, "max_retries", t.GetMaxRetries().GetValue())
	}
	line("added_via_api", c.GetAddedViaApi())
	if s := c.GetEdsServiceName(); s != "" {
		line("eds_service_name", s)
	}
	for _, h := range c.GetHostStatuses() {
		hostText(line, h)
	}
	return b.String()
}

// hostStats is the order of the text page, alphabetical over counters and gauges.
var hostStats = []string{"cx_active", "cx_connect_fail", "cx_total", "rq_active", "rq_error", "rq_pending_active", "rq_success", "rq_timeout", "rq_total"}

func hostText(line func(...any), h *adminpb.HostStatus) {
	a := addressText(h.GetAddress())
	values := map[string]uint64{}
	for _, s := range h.GetStats() {
		values[s.GetName()] = s.GetValue()
	}
	for _, name := range hostStats {
		line(a, name, values[name])
	}
	line(a, "hostname", h.GetHostname())
	line(a, "health_flags", healthFlags(h.GetHealthStatus()))
	line(a, "weight", h.GetWeight())
	line(a, "region", h.GetLocality().GetRegion())
	line(a, "zone", h.GetLocality().GetZone())
	line(a, "sub_zone", h.GetLocality().GetSubZone())
	line(a, "canary", false)
	line(a, "priority", h.GetPriority())
	line(a, "success_rate", rate(h.GetSuccessRate().GetValue(), h.GetSuccessRate() != nil))
	line(a, "local_origin_success_rate", rate(h.GetLocalOriginSuccessRate().GetValue(), h.GetLocalOriginSuccessRate() != nil))
}

func percent(p *typepb.Percent) string {
	if p == nil {
		return "-1"
	}
	return short(p.GetValue())
}

// short is a number with six digits, which are enough for a whole cluster.
func short(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

func rate(v float64, known bool) string {
	if !known {
		return "-1"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

func healthFlags(h *adminpb.HostHealthStatus) string {
	var flags strings.Builder
	for _, f := range []struct {
		set  bool
		text string
	}{
		{h.GetFailedActiveHealthCheck(), "/failed_active_hc"},
		{h.GetFailedOutlierCheck(), "/failed_outlier_check"},
		{h.GetEdsHealthStatus() == corepb.HealthStatus_UNHEALTHY, "/failed_eds_health"},
		{h.GetFailedActiveDegradedCheck(), "/degraded_active_hc"},
		{h.GetEdsHealthStatus() == corepb.HealthStatus_DEGRADED, "/degraded_eds_health"},
		{h.GetPendingDynamicRemoval(), "/pending_dynamic_removal"},
		{h.GetPendingActiveHc(), "/pending_active_hc"},
		{h.GetExcludedViaImmediateHcFail(), "/excluded_via_immediate_hc_fail"},
		{h.GetActiveHcTimeout(), "/active_hc_timeout"},
		{h.GetEdsHealthStatus() == corepb.HealthStatus_DRAINING, "/eds_status_draining"},
	} {
		if f.set {
			flags.WriteString(f.text)
		}
	}
	if flags.Len() == 0 {
		return "healthy"
	}
	return flags.String()
}
