package proxy

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"time"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

// keepServerStats makes what the server itself tells, and fills it when somebody reads.
func (s *server) keepServerStats() {
	sc := s.stats.Scope("server.")
	live, state, uptime := sc.Gauge("live"), sc.Gauge("state"), sc.Gauge("uptime")
	allocated, heap, physical := sc.Gauge("memory_allocated"), sc.Gauge("memory_heap_size"), sc.Gauge("memory_physical_size")
	total, days := sc.Gauge("total_connections"), sc.Gauge("days_until_first_cert_expiring")
	sc.Gauge("concurrency").Set(int64(concurrency()))
	sc.Gauge("hot_restart_generation").Set(1)
	sc.Gauge("version").Set(int64(release.GetMajorNumber()<<16 | release.GetMinorNumber()<<8 | release.GetPatch()))
	for _, name := range []string{"hot_restart_epoch", "parent_connections", "seconds_until_first_ocsp_response_expiring", "compilation_settings.fips_mode"} {
		sc.Gauge(name).Set(0)
	}
	for _, name := range []string{"debug_assertion_failures", "envoy_bug_failures", "envoy_notifications", "static_unknown_fields",
		"dynamic_unknown_fields", "wip_protos", "dropped_stat_flushes"} {
		sc.Counter(name)
	}
	sc.Computed("stats_recent_lookups", s.stats.Lookups)
	for _, name := range []string{"cluster_updated", "cluster_updated_via_merge", "update_merge_cancelled", "update_out_of_merge_window"} {
		s.stats.Scope("cluster_manager.").Counter(name)
	}
	s.boot.runtime.KeepStats(s.stats.Scope("runtime."))
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

// The lateness from which a step counts as missed.
const (
	miss     = 200 * time.Millisecond
	megaMiss = time.Second
)

// flushStats ends an interval of histograms in regular steps. A step that comes late says
// that the process does not get the time it needs.
func (s *server) flushStats() {
	every := s.boot.flushInterval
	if s.boot.Proto.GetStatsFlushOnAdmin() {
		s.stats.Before(s.stats.Flush)
		return
	}
	var missed, mega []*stats.Counter
	for _, prefix := range []string{"server.main_thread.", "main_thread.", "workers."} {
		sc := s.stats.Scope(prefix)
		missed, mega = append(missed, sc.Counter("watchdog_miss")), append(mega, sc.Counter("watchdog_mega_miss"))
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case due := <-t.C:
			late := time.Since(due)
			if late >= miss {
				count(missed)
			}
			if late >= megaMiss {
				count(mega)
			}
			s.stats.Flush()
		}
	}
}

func count(list []*stats.Counter) {
	for _, c := range list {
		c.Inc()
	}
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
