package listener

import (
	"strings"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

// counters are the "listener.<address>.…" stats of one listener.
type counters struct {
	total, destroy, overflow, globalOverflow, handshakeTimeout *stats.Counter
	filterError, filterRemoteClose, preTimeout, noMatch        *stats.Counter
	active, preActive                                          *stats.Gauge
	length                                                     *stats.Histogram
}

func newCounters(s *stats.Scope) *counters {
	return &counters{
		total: s.Counter("downstream_cx_total"), destroy: s.Counter("downstream_cx_destroy"),
		overflow: s.Counter("downstream_cx_overflow"), globalOverflow: s.Counter("downstream_global_cx_overflow"),
		handshakeTimeout: s.Counter("downstream_cx_transport_socket_connect_timeout"),
		filterError:      s.Counter("downstream_listener_filter_error"), filterRemoteClose: s.Counter("downstream_listener_filter_remote_close"),
		preTimeout: s.Counter("downstream_pre_cx_timeout"), noMatch: s.Counter("no_filter_chain_match"),
		active: s.Gauge("downstream_cx_active"), preActive: s.Gauge("downstream_pre_cx_active"),
		length: s.Histogram("downstream_cx_length_ms"),
	}
}

// Prefix is the name of a listener in stats: its stat_prefix, or its address with
// "_" for ":".
func statPrefix(configured string, a address) string {
	if configured != "" {
		return configured
	}
	return strings.ReplaceAll(a.String(), ":", "_")
}

// setStats are the "listener_manager.…" stats.
type setStats struct {
	added, createFailure, createSuccess, inPlaceUpdated, modified, removed, stopped *stats.Counter
	active, warming, draining, chainsDraining, workersStarted                       *stats.Gauge
}

func newSetStats(store *stats.Store) *setStats {
	s := store.Scope("listener_manager.")
	return &setStats{
		added: s.Counter("listener_added"), createFailure: s.Counter("listener_create_failure"), createSuccess: s.Counter("listener_create_success"),
		inPlaceUpdated: s.Counter("listener_in_place_updated"), modified: s.Counter("listener_modified"),
		removed: s.Counter("listener_removed"), stopped: s.Counter("listener_stopped"),
		active: s.Gauge("total_listeners_active"), warming: s.Gauge("total_listeners_warming"), draining: s.Gauge("total_listeners_draining"),
		chainsDraining: s.Gauge("total_filter_chains_draining"), workersStarted: s.Gauge("workers_started"),
	}
}
