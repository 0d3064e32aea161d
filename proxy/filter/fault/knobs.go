package fault

import (
	"cmp"
	"math"
	"time"

	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/runtime"
)

// clusterHeader names the cluster that a request comes from, which may have values of its own.
const clusterHeader = "x-envoy-downstream-service-cluster"

// A key names a value of the runtime: for all requests, and behind "fault.http.CLUSTER."
// for those of one cluster.
type key struct{ all, cluster string }

// knobs are by what an operator changes faults while the proxy runs.
type knobs struct {
	values                                  *runtime.Values
	delay, duration, abort, status, status2 key
	rate, limit                             string
}

func newKnobs(f *faultv3.HTTPFault, values *runtime.Values) knobs {
	named := func(own, name string) key { return key{cmp.Or(own, "fault.http."+name), name} }
	return knobs{
		values:   values,
		delay:    named(f.GetDelayPercentRuntime(), "delay.fixed_delay_percent"),
		duration: named(f.GetDelayDurationRuntime(), "delay.fixed_duration_ms"),
		abort:    named(f.GetAbortPercentRuntime(), "abort.abort_percent"),
		status:   named(f.GetAbortHttpStatusRuntime(), "abort.http_status"),
		status2:  named(f.GetAbortGrpcStatusRuntime(), "abort.grpc_status"),
		rate:     cmp.Or(f.GetResponseRateLimitPercentRuntime(), "fault.http.rate_limit.response_percent"),
		limit:    cmp.Or(f.GetMaxActiveFaultsRuntime(), "fault.http.max_active_faults"),
	}
}

// of is the key for requests of the cluster that r comes from, "" for none.
func (k key) of(r *http.Request) string {
	if v, ok := r.Headers.First(clusterHeader); ok && len(v) > 0 {
		return "fault.http." + string(v) + "." + k.cluster
	}
	return ""
}

// share is the part of the requests like r.
func (k *knobs) share(r *http.Request, name key, otherwise match.Fraction) match.Fraction {
	return k.values.ShareOf(name.of(r), k.values.ShareOf(name.all, otherwise).Fraction()).Fraction()
}

func (k *knobs) whole(r *http.Request, name key, otherwise uint64) uint64 {
	return k.values.Whole(name.of(r), k.values.Whole(name.all, otherwise))
}

// length is how long to delay a request for which d is configured.
func (k *knobs) length(r *http.Request, d time.Duration) time.Duration {
	ms := k.whole(r, k.duration, uint64(d.Milliseconds()))
	return time.Duration(min(ms, maxDelay)) * time.Millisecond
}

// answer is the status of an aborted request for which HTTP's or gRPC's is configured.
func (k *knobs) answer(r *http.Request, status, grpc int) (http, inGRPC int) {
	if grpc >= 0 {
		return status, int(min(k.whole(r, k.status2, uint64(grpc)), math.MaxInt32))
	}
	return int(min(k.whole(r, k.status, uint64(status)), math.MaxInt32)), grpc
}

// most is how many faults may be active where limit is configured, -1 for no limit.
func (k *knobs) most(limit int64) int64 {
	none := uint64(math.MaxUint64)
	if limit >= 0 {
		none = uint64(limit)
	}
	if n := k.values.Whole(k.limit, none); n <= math.MaxInt64 {
		return int64(n)
	}
	return -1
}
