package proxy

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// keepServerStats fills the "server." gauges when somebody reads.
func (s *server) keepServerStats() {
	sc := s.stats.Scope("server.")
	live, state, uptime := sc.Gauge("live"), sc.Gauge("state"), sc.Gauge("uptime")
	allocated, heap, physical := sc.Gauge("memory_allocated"), sc.Gauge("memory_heap_size"), sc.Gauge("memory_physical_size")
	total, days := sc.Gauge("total_connections"), sc.Gauge("days_until_first_cert_expiring")
	sc.Gauge("concurrency").Set(int64(concurrency()))
	sc.Gauge("hot_restart_epoch").Set(0)
	sc.Gauge("hot_restart_generation").Set(1)
	sc.Gauge("parent_connections").Set(0)
	sc.Gauge("version").Set(int64(release.GetMajorNumber()<<16 | release.GetMinorNumber()<<8 | release.GetPatch()))
	s.stats.Before(func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		allocated.Set(int64(m.HeapAlloc))
		heap.Set(int64(m.HeapSys - m.HeapReleased))
		physical.Set(int64(m.Sys - m.HeapReleased))
		state.Set(int64(s.currentState()))
		live.Set(boolGauge(s.currentState() == 0))
		uptime.Set(int64(time.Since(s.start).Seconds()))
		total.Set(s.listeners.Connections())
		days.Set(s.daysLeft())
	})
}

func boolGauge(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func concurrency() int { return runtime.GOMAXPROCS(0) }

// daysLeft until the first certificate ends; Envoy's largest number without one.
func (s *server) daysLeft() int64 {
	first := int64(math.MaxUint32)
	for _, v := range s.secrets.View() {
		for _, c := range v.Certificates {
			first = min(first, int64(max(time.Until(c.NotAfter), 0)/(24*time.Hour)))
		}
	}
	return first
}

// observer counts what an xDS client reports, under the names of Envoy's
// subscriptions.
func (s *server) observer(service xds.Service) func(string, xds.Event) {
	connected := s.stats.Scope("control_plane.").Gauge("connected_state")
	scopes := map[string]string{wellknown.ListenerType: "listener_manager.lds.", wellknown.ClusterType: "cluster_manager.cds."}
	names := map[xds.Event]string{xds.Requested: "update_attempt", xds.Accepted: "update_success", xds.Rejected: "update_rejected", xds.TimedOut: "init_fetch_timeout"}
	for _, prefix := range scopes {
		for _, name := range names {
			s.stats.Scope(prefix).Counter(name)
		}
		s.stats.Scope(prefix).Counter("update_failure")
	}
	return func(url string, e xds.Event) {
		switch {
		case e == xds.Connected && service == xds.Aggregated:
			connected.Set(1)
		case e == xds.Disconnected && service == xds.Aggregated:
			connected.Set(0)
			for _, prefix := range scopes {
				s.stats.Scope(prefix).Counter("update_failure").Inc()
			}
		case scopes[url] != "" && names[e] != "":
			s.stats.Scope(scopes[url]).Counter(names[e]).Inc()
		}
		if e == xds.Accepted && url != wellknown.EndpointType { // endpoints change all the time and are small
			s.trimMemory()
		}
	}
}

// connectionLimit is the runtime's limit of a listener's connections, 0 for none.
func (b *Bootstrap) connectionLimit(name string) int64 {
	n, err := strconv.ParseInt(b.runtime["envoy.resource_limits.listener."+name+".connection_limit"], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (s *server) setComponentLevels(list string) error {
	for item := range strings.SplitSeq(list, ",") {
		if item == "" {
			continue
		}
		name, level, found := strings.Cut(item, ":")
		if !found || name == "" || !s.admin.SetLevel(name, level) {
			return fmt.Errorf("error: component log level not correctly specified '%s'", item)
		}
	}
	return nil
}

func encodePEM(list []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range list {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer does not fail
	}
	return b.Bytes()
}
