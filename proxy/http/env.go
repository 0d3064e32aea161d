package http

import (
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// Env is what a filter factory may use of the proxy around it.
type Env struct {
	Stats *stats.Scope // of the connection manager: "http.<stat_prefix>."
	// Name is the filter's own in its chain.
	Name string
	// Direction is the listener's traffic_direction: "INBOUND", "OUTBOUND" or "".
	Direction string
	// Runtime has values that may change; nil has none.
	Runtime *runtime.Values
}
