package hcm

import (
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// countRoutes keeps the stats of a subscription to routes, "http.<prefix>.rds.<name>.".
func countRoutes(sc *stats.Scope, t xds.Type[*route.Table], update func(*route.Table, bool)) (xds.Type[*route.Table], func(*route.Table, bool)) {
	attempt, success, rejected := sc.Counter("update_attempt"), sc.Counter("update_success"), sc.Counter("update_rejected")
	reload, empty, late := sc.Counter("config_reload"), sc.Counter("update_empty"), sc.Counter("init_fetch_timeout")
	at, reloaded := sc.Gauge("update_time"), sc.Gauge("config_reload_time_ms")
	sc.Counter("update_failure")
	attempt.Inc()
	decode := t.Decode
	arrived := false // touched by update alone
	t.Decode = func(name string, body *anypb.Any) (*route.Table, error) {
		attempt.Inc()
		table, err := decode(name, body)
		if err != nil {
			rejected.Inc()
		}
		return table, err
	}
	return t, func(table *route.Table, present bool) {
		switch {
		case present:
			now := time.Now().UnixMilli()
			success.Inc()
			reload.Inc()
			at.Set(now)
			reloaded.Set(now)
			arrived = true
		case arrived:
			empty.Inc()
		default:
			late.Inc()
		}
		update(table, present)
	}
}
