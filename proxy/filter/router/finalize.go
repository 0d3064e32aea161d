package router

import (
	"math"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// timeouts decides how long the request and each attempt may take: the route's, then
// grpc-timeout as far as the route allows it, then what a trusted client asked for or,
// with respect_expected_rq_timeout, what the proxy before this one expects.
func (k *call) timeouts() {
	h := &k.s.Request.Headers
	k.timeout = k.forward.Timeout
	if k.grpc && k.forward.MaxGRPCTimeoutSet {
		k.grpcTimeout(h)
	}
	if p := k.forward.Retry; p != nil {
		k.perTry = p.PerTry
	}
	if k.r.respectExpected && h.Has(expectedTimeout) {
		takeMillis(h, expectedTimeout, &k.timeout)
	} else {
		takeMillis(h, "x-envoy-upstream-rq-timeout-ms", &k.timeout)
	}
	takeMillis(h, "x-envoy-upstream-rq-per-try-timeout-ms", &k.perTry)
	if k.timeout > 0 && k.perTry >= k.timeout {
		k.perTry = 0
	}
	if k.timeout > 0 {
		k.deadline = k.began.Add(k.timeout)
	}
	expected := k.timeout
	if k.perTry > 0 {
		expected = k.perTry
	}
	if expected > 0 && !k.r.quiet {
		k.setNumber(expectedTimeout, expected.Milliseconds())
	}
}

const (
	expectedTimeout = "x-envoy-expected-rq-timeout-ms"
	attemptCount    = "x-envoy-attempt-count"
)

func (k *call) setNumber(name string, n int64) {
	k.s.Request.Headers.Set(name, k.s.Keep(strconv.AppendInt(k.s.Scratch(), n, 10)))
}

// takeMillis reads and removes a header that sets a duration.
func takeMillis(h *http.Headers, name string, d *time.Duration) {
	v := h.Get(name)
	if v == nil {
		return
	}
	if n, err := strconv.ParseUint(string(v), 10, 31); err == nil {
		*d = time.Duration(n) * time.Millisecond
	}
	h.Remove(name)
}

// grpcTimeout takes the deadline of a gRPC client, at most the route's maximum.
func (k *call) grpcTimeout(h *http.Headers) {
	t, ok := parseGRPCTimeout(h.Get("grpc-timeout"))
	limit := k.forward.MaxGRPCTimeout
	switch {
	case !ok:
		t = limit
	case limit > 0 && t > limit:
		t = limit
	}
	k.timeout = t
	if ok && t > 0 {
		h.Set("grpc-timeout", k.s.Keep(appendGRPCTimeout(k.s.Scratch(), t)))
	}
}

// appendGRPCTimeout writes a deadline in the smallest unit that eight digits allow.
func appendGRPCTimeout(dst []byte, d time.Duration) []byte {
	for _, u := range []byte("mSM") {
		if n := d / grpcUnits[u]; n <= maxGRPCTimeout {
			return append(strconv.AppendInt(dst, int64(n), 10), u)
		}
	}
	return append(strconv.AppendInt(dst, int64(d/time.Hour), 10), 'H')
}

var grpcUnits = map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}

// maxGRPCTimeout is the largest number of a grpc-timeout: it has eight digits.
const maxGRPCTimeout = 99_999_999

// parseGRPCTimeout parses up to eight digits and a unit, and rounds up to milliseconds.
// What no duration can hold (292 years) is the longest one.
func parseGRPCTimeout(v []byte) (time.Duration, bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	unit, ok := grpcUnits[v[len(v)-1]]
	n, err := strconv.ParseUint(string(v[:len(v)-1]), 10, 32)
	if !ok || err != nil {
		return 0, false
	}
	if time.Duration(n) > math.MaxInt64/unit-1 {
		return math.MaxInt64 / time.Hour * time.Hour, true
	}
	d := time.Duration(n)*unit + time.Millisecond - 1
	return d - d%time.Millisecond, true
}

// finalize changes the request as the route says, in Envoy's order.
func (k *call) finalize() {
	s := k.s
	k.fromProxy = s.Request.Headers.Has(attemptCount)
	k.countAttempt(1)
	k.invalid = k.target.EditRequest(s, k.target.Weighted)
	k.rewriteHost()
	if f := k.forward; f.PrefixRewrite != "" || f.RegexRewrite != nil {
		before := s.Request.Path
		s.Request.Path = s.Keep(k.target.Route.AppendPath(s.Scratch(), before))
		if !k.r.quiet {
			s.Request.Headers.Set("x-envoy-original-path", before)
		}
	}
}

func (k *call) countAttempt(n int) {
	if k.target.VirtualHost.IncludeAttemptCount {
		k.setNumber(attemptCount, int64(n))
	}
}

// rewriteHost sets the host that the route, its cluster or a header names.
func (k *call) rewriteHost() {
	f := k.forward
	switch w := k.target.Weighted; {
	case w != nil && w.HostRewrite != "":
		k.setHost([]byte(w.HostRewrite))
	case f.HostRewrite != "":
		k.setHost([]byte(f.HostRewrite))
	case len(f.HostRewriteHeader) > 0:
		if v, ok := k.s.Request.First(string(f.HostRewriteHeader)); ok && len(v) > 0 {
			k.setHost(v)
		}
	}
}

// autoHost sets the host name of the chosen endpoint (auto_host_rewrite).
func (k *call) autoHost() {
	if k.forward.AutoHostRewrite && k.endpoint.Hostname != "" && string(k.s.Request.Authority) != k.endpoint.Hostname {
		k.setHost([]byte(k.endpoint.Hostname))
	}
}

func (k *call) setHost(host []byte) {
	r := &k.s.Request
	if k.forward.AppendXForwardedHost {
		k.appendList("x-forwarded-host", r.Authority)
	}
	r.Headers.Set("x-envoy-original-host", r.Authority)
	r.Authority = host
}

// appendList appends an element to a comma separated header.
func (k *call) appendList(name string, v []byte) {
	h := &k.s.Request.Headers
	if before := h.Get(name); len(before) > 0 {
		b := append(append(k.s.Scratch(), before...), ',')
		h.Set(name, k.s.Keep(append(b, v...)))
		return
	}
	h.Set(name, v)
}
