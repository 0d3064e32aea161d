package http

import "github.com/lateen-mesh/lateen/proxy/stats"

// Env is what a filter factory may use of the proxy around it.
type Env struct {
	Stats *stats.Scope // of the connection manager: "http.<stat_prefix>."
	// Direction is the listener's traffic_direction: "INBOUND", "OUTBOUND" or "".
	Direction string
}
