package router

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/route"
)

// A retryState is what became of a retry policy in one call.
type retryState struct {
	policy *route.RetryPolicy
	left   int
	tries  int           // retries made
	next   time.Duration // the back-off's present upper bound
	most   time.Duration // beyond which next does not grow
	wait   time.Duration // what a rate limited answer asks for instead, 0: nothing
	late   bool          // the last attempt took longer than one may
	held   bool          // one of the cluster's retries is taken
	been   uint64        // priorities that attempts went to, as in lb.Context.Without
}

// A judgement says whether an attempt is to be repeated.
type judgement uint8

const (
	final     judgement = iota // not a case for a retry
	again                      // repeat
	exhausted                  // it would be one, but none is left
	refused                    // the circuit breaker forbids it
)

func (r *retryState) begin(k *call) {
	p := k.forward.Retry
	if h := &k.s.Request.Headers; h.Has("x-envoy-internal") { // others may not ask
		p = p.AskedBy(h)
	}
	if p != nil && p.For(&k.s.Request) {
		r.policy, r.left, r.next, r.most = p, p.Retries, p.BackOffBase, p.BackOffMax
		if !p.OwnBackOff {
			ms := k.r.runtime.Whole("upstream.base_retry_backoff_ms", uint64(p.BackOffBase.Milliseconds()))
			r.next = time.Duration(min(max(ms, 1), maxBackOff)) * time.Millisecond
			r.most = 10 * r.next
		}
	}
}

// maxBackOff keeps what the runtime has within the range of a duration: a day, in ms.
const maxBackOff = 24 * 60 * 60 * 1000

func (r *retryState) end(k *call) {
	if r.held {
		k.limits.Retries.Give()
		r.held = false
	}
}

// take claims a retry for an attempt that is a case for one.
func (r *retryState) take(k *call) judgement {
	r.end(k)
	if r.left == 0 {
		k.stats.RqRetryLimitExceeded.Inc()
		k.tallies.add(retriesExceeded)
		return exhausted
	}
	if !k.limits.Retries.Take() {
		k.stats.RqRetryOverflow.Inc()
		k.tallies.add(retriesOverflow)
		return refused
	}
	if share := k.r.runtime.Below("upstream.", "use_retry", match.Fraction{Numerator: 100, Denominator: 100}); !share.Of(rand.Uint64()) {
		k.limits.Retries.Give()
		return final
	}
	k.lb.Omit = r.policy.Omits()
	if r.policy.PreviousHosts && k.endpoint != nil {
		k.lb.Avoid = append(k.lb.Avoid, k.endpoint)
	}
	r.held = true
	r.left--
	r.tries++
	k.stats.RqRetry.Inc()
	k.tallies.add(retried)
	return again
}

// response judges an answer.
func (r *retryState) response(k *call, resp *http.Response) judgement {
	if r.policy == nil || !r.wants(resp) {
		r.end(k)
		return final
	}
	r.wait = r.policy.Reset(&resp.Headers, time.Now())
	return r.take(k)
}

func (r *retryState) wants(resp *http.Response) bool {
	on, code := r.policy.On, resp.Status
	if resp.Headers.Has("x-envoy-ratelimited") { // that is not made worse unasked
		return on&route.OnEnvoyRateLimited != 0
	}
	switch {
	case on&route.On5xx != 0 && code >= 500,
		on&route.OnGatewayError != 0 && code >= 502 && code <= 504,
		on&route.OnRetriable4xx != 0 && code == 409:
		return true
	}
	if on&route.OnRetriableStatusCodes != 0 && slices.Contains(r.policy.StatusCodes, code) {
		return true
	}
	if on&route.OnRetriableHeaders != 0 {
		for i := range r.policy.RetriableHeaders {
			if r.policy.RetriableHeaders[i].MatchResponse(resp) {
				return true
			}
		}
	}
	return on&anyGRPC != 0 && r.wantsGRPC(resp)
}

const anyGRPC = route.OnGRPCCancelled | route.OnGRPCDeadlineExceeded | route.OnGRPCInternal | route.OnGRPCResourceExhausted | route.OnGRPCUnavailable

// wantsGRPC looks at the status of an answer that consists of its head.
func (r *retryState) wantsGRPC(resp *http.Response) bool {
	on := r.policy.On
	switch string(resp.Headers.Get("grpc-status")) {
	case "1":
		return on&route.OnGRPCCancelled != 0
	case "4":
		return on&route.OnGRPCDeadlineExceeded != 0
	case "8":
		return on&route.OnGRPCResourceExhausted != 0
	case "13":
		return on&route.OnGRPCInternal != 0
	case "14":
		return on&route.OnGRPCUnavailable != 0
	}
	return false
}

// reset judges a broken attempt.
func (r *retryState) reset(k *call, reset *http.Reset) judgement {
	if r.policy == nil || !r.wantsReset(reset) {
		r.end(k)
		return final
	}
	return r.take(k)
}

func (r *retryState) wantsReset(reset *http.Reset) bool {
	on := r.policy.On
	switch {
	case reset.Reason == http.Overflow:
		return false
	case on&(route.OnReset|route.On5xx|route.OnGatewayError) != 0:
		return true
	case on&route.OnResetBeforeRequest != 0 && reset.Unused:
		return true
	case on&route.OnRefusedStream != 0 && reset.Reason == http.RemoteRefusedStream:
		return true
	}
	connect := reset.Reason == http.RemoteConnectionFailure || reset.Reason == http.LocalConnectionFailure || reset.Reason == http.ConnectionTimeout
	return on&route.OnConnectFailure != 0 && connect
}

// backOff waits before the next attempt; false: the stream is over or was answered.
func (k *call) backOff() bool {
	wait := k.retry.pause(k)
	if !k.deadline.IsZero() {
		wait = min(wait, time.Until(k.deadline))
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-k.s.Done():
		k.gone()
		return false
	}
	if !k.deadline.IsZero() && !time.Now().Before(k.deadline) {
		k.stats.RqTimeout.Inc()
		k.tallies.add(timedOut)
		k.reply(k.timeoutReply("response_timeout"))
		return false
	}
	k.countAttempt(k.s.Info.Attempts + 1)
	k.announce(k.sinceComplete(time.Now()))
	if k.target.VirtualHost.IncludeTimeoutRetry {
		k.s.Request.Headers.Set("x-envoy-is-timeout-retry", strconv.AppendBool(nil, k.retry.late))
	}
	return true
}

// pause is the time before the next attempt: what the answer asked for and up to half as
// much again, or else a random part of what doubles each time.
func (r *retryState) pause(k *call) time.Duration {
	if wait := r.wait; wait > 0 {
		r.wait = 0
		k.stats.RqRetryRateLimited.Inc()
		return wait + time.Duration(rand.Int64N(int64(wait)/2+1))
	}
	wait := time.Duration(rand.Int64N(int64(r.next)))
	r.next = min(2*r.next, r.most)
	k.stats.RqRetryBackoff.Inc()
	return wait
}

// originalDst is where an ORIGINAL_DST cluster connects to: what a header says, if the
// cluster looks at one, else where the client wanted to go.
func (k *call) originalDst() netip.AddrPort {
	if name := k.cluster.OriginalDstHeader(); name != "" {
		if v := k.s.Request.Headers.Get(name); v != nil {
			if dst, err := netip.ParseAddrPort(string(v)); err == nil {
				return dst
			}
			k.cluster.Stats().OriginalDstInvalid()
		}
	}
	return k.s.Info.OriginalDst()
}

// said is what the request of a call says of itself (lb.Request).
type said call

// Header implements lb.Request.
func (k *said) Header(name string) []byte {
	v, _ := k.s.Request.Headers.First(name)
	return v
}

// Metadata implements lb.Request.
func (k *said) Metadata(namespace string, path []string) []byte {
	v, _ := match.Find(k.s.Info.Metadata, namespace, path)
	text, _ := v.(string)
	return []byte(text)
}

// pick chooses an endpoint for the attempt.
func (k *call) pick() *endpoint.Endpoint {
	k.lb.OriginalDst, k.lb.Request = k.originalDst(), (*said)(k)
	k.lb.Attempts = 0
	p := k.retry.policy
	if p == nil {
		return k.cluster.Pick(&k.lb)
	}
	k.lb.Attempts = p.HostAttempts
	if before := k.s.Info.Attempts - 1; p.PreviousPriorities > 0 && before > 0 && before%p.PreviousPriorities == 0 {
		k.lb.Without = k.retry.been
	}
	ep := k.cluster.Pick(&k.lb)
	if ep != nil {
		k.retry.been |= 1 << k.lb.Priority // beyond 63 it is no bit
	}
	return ep
}
