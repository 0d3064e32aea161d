package router

import (
	"bytes"
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
	switch d := &k.forward.Duration; {
	case d.MaxSet || d.GRPCMaxSet: // the connection manager keeps the time
		k.timeout = 0
	case k.grpc && k.forward.MaxGRPCTimeoutSet:
		k.grpcTimeout(h)
	}
	if p := k.forward.Retry; p != nil {
		k.perTry, k.perTryIdle = p.PerTry, p.PerTryIdle
	}
	k.altTimeout = h.Has("x-envoy-upstream-rq-timeout-alt-response")
	if k.r.respectExpected && h.Has(expectedTimeout) {
		readMillis(h.Get(expectedTimeout), &k.timeout)
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
	k.announce(0)
}

// announce tells the upstream how long it has, after so much of the time is gone.
func (k *call) announce(gone time.Duration) {
	expected := k.timeout
	if k.perTry > 0 {
		expected = k.perTry
	}
	if expected <= 0 {
		return
	}
	if k.timeout > 0 { // 0 would be for ever
		expected = max(min(expected, k.timeout-gone), time.Millisecond)
	}
	if !k.r.quiet {
		k.setNumber(expectedTimeout, expected.Milliseconds())
	}
	if k.grpc && k.forward.MaxGRPCTimeoutSet {
		k.s.Request.Headers.Set("grpc-timeout", k.s.Keep(http.AppendGRPCTimeout(k.s.Scratch(), expected)))
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
	if v := h.Get(name); v != nil {
		readMillis(v, d)
		h.Remove(name)
	}
}

// readMillis sets a duration to that of a header, unless it is no number.
func readMillis(v []byte, d *time.Duration) {
	if n, err := strconv.ParseUint(string(v), 10, 31); err == nil {
		*d = time.Duration(n) * time.Millisecond
	}
}

// grpcTimeout takes the deadline of a gRPC client, at most the route's maximum.
func (k *call) grpcTimeout(h *http.Headers) {
	t, _ := http.ParseGRPCTimeout(h.Get("grpc-timeout"))
	if offset := k.forward.GRPCTimeoutOffset; offset < t {
		t -= offset
	}
	if limit := k.forward.MaxGRPCTimeout; limit > 0 && (t == 0 || t > limit) {
		t = limit
	}
	k.timeout = t
}

// finalize changes the request as the route says, in Envoy's order.
func (k *call) finalize() {
	s := k.s
	k.fromProxy = s.Request.Headers.Has(attemptCount)
	k.countAttempt(1)
	k.invalid = k.target.EditRequest(s, k.target.Weighted)
	k.rewriteHost()
	if k.target.Route.Rewrites() {
		before := s.Request.Path
		s.Request.Path = s.Keep(k.target.Route.AppendPath(s.Scratch(), s))
		if !k.r.quiet && (k.forward.PathRewrite == nil || !bytes.Equal(before, s.Request.Path)) {
			s.Request.Headers.Set("x-envoy-original-path", before)
		}
	}
}

func (k *call) countAttempt(n int) {
	if k.target.VirtualHost.IncludeAttemptCount {
		k.setNumber(attemptCount, int64(n))
	}
}

// rewriteHost sets the host that the weighted cluster names, without a word of what it was,
// then that of the route or a header.
func (k *call) rewriteHost() {
	if w := k.target.Weighted; w != nil && w.HostRewrite != "" {
		k.s.Request.Authority = []byte(w.HostRewrite)
	}
	if host := k.target.Host(k.s); len(host) > 0 {
		k.setHost(host)
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
	if !k.r.quiet {
		r.Headers.Set("x-envoy-original-host", r.Authority)
	}
	if k.forward.AppendXForwardedHost {
		k.appendList("x-forwarded-host", r.Authority)
	}
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
