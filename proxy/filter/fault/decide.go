package fault

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// Request headers that steer a fault whose configuration says "by header".
const (
	delayHeader        = "x-envoy-fault-delay-request"            // milliseconds
	delayShareHeader   = "x-envoy-fault-delay-request-percentage" // of the percentage's denominator
	abortHeader        = "x-envoy-fault-abort-request"            // HTTP status
	abortGRPCHeader    = "x-envoy-fault-abort-grpc-request"       // gRPC status
	abortShareHeader   = "x-envoy-fault-abort-request-percentage"
	delayInjected      = streaminfo.DelayInjected
	maxGRPCStatus      = 16
	minStatus, endCode = 200, 600
)

// of is how long to delay a request, 0 for not at all.
func (d *delay) of(r *http.Request, k *knobs) time.Duration {
	if d == nil {
		return 0
	}
	length, share := d.fixed, d.fraction
	if length == 0 {
		ms, ok := number(r, delayHeader)
		if !ok || ms <= 0 {
			return 0
		}
		length, share = time.Duration(min(ms, maxDelay))*time.Millisecond, lowered(share, r, delayShareHeader)
	}
	if !k.share(r, k.delay, share).Of(rand.Uint64()) {
		return 0
	}
	return k.length(r, length)
}

// maxDelay keeps what a header asks for within the range of a duration: a year, in ms.
const maxDelay = 365 * 24 * 60 * 60 * 1000

// of is the answer to a request that is to be aborted; false: it is not.
func (a *abort) of(r *http.Request, k *knobs) (http.Reply, bool) {
	if a == nil {
		return http.Reply{}, false
	}
	status, grpc, share := a.status, a.grpc, a.fraction
	if a.byHeader {
		var ok bool
		if status, grpc, ok = asked(r); !ok {
			return http.Reply{}, false
		}
		share = lowered(share, r, abortShareHeader)
	}
	if !k.share(r, k.abort, share).Of(rand.Uint64()) {
		return http.Reply{}, false
	}
	status, grpc = k.answer(r, status, grpc)
	return http.Reply{Status: status, GRPCStatus: grpc, Body: a.body, Details: "fault_filter_abort", Flag: streaminfo.FaultInjected}, true
}

// asked is the status that the headers ask for; the HTTP one comes first.
func asked(r *http.Request) (status, grpc int, ok bool) {
	if n, ok := number(r, abortHeader); ok && n >= minStatus && n < endCode {
		return int(n), -1, true
	}
	if n, ok := number(r, abortGRPCHeader); ok && n >= 0 && n <= maxGRPCStatus {
		return 200, int(n), true
	}
	return 0, 0, false
}

// lowered is the share that a header asks for, at most the configured one.
func lowered(share match.Fraction, r *http.Request, header string) match.Fraction {
	if n, ok := number(r, header); ok && n >= 0 {
		share.Numerator = uint32(min(n, int64(share.Numerator)))
	}
	return share
}

func number(r *http.Request, header string) (int64, bool) {
	v, ok := r.Headers.First(header)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	return n, err == nil
}

// wait lets d pass; false when the client left before.
func wait(s *http.Stream, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.Done():
		return false
	}
}
