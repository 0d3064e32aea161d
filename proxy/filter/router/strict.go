package router

import (
	"strconv"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// checks are the headers that strict_check_headers may name, and what they must hold.
var checks = map[string]func(value string) bool{
	"x-envoy-upstream-rq-timeout-ms":         isNumber,
	"x-envoy-upstream-rq-per-try-timeout-ms": isNumber,
	"x-envoy-max-retries":                    isNumber,
	"x-envoy-retry-on":                       func(v string) bool { return route.KnownRetryOn(v, false) },
	"x-envoy-retry-grpc-on":                  func(v string) bool { return route.KnownRetryOn(v, true) },
}

func isNumber(v string) bool {
	_, err := strconv.ParseUint(v, 10, 32)
	return err == nil
}

// check looks at the headers that must be as they should; false: one is not, and reply says so.
func (r *router) check(h *http.Headers) (reply http.Reply, ok bool) {
	for _, name := range r.strict {
		v, there := h.First(name)
		if !there || checks[name](string(v)) {
			continue
		}
		return http.Reply{Status: 400, Body: []byte("invalid header '" + name + "' with value '" + string(v) + "'"),
			Details: "request_headers_failed_strict_check{" + name + "}", Flag: streaminfo.InvalidEnvoyRequestHeaders, GRPCStatus: -1}, false
	}
	return reply, true
}
