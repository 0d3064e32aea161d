package route

import (
	"fmt"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

var retryNames = map[string]RetryOn{
	"5xx": On5xx, "gateway-error": OnGatewayError, "reset": OnReset, "reset-before-request": OnResetBeforeRequest,
	"connect-failure": OnConnectFailure, "envoy-ratelimited": OnEnvoyRateLimited, "retriable-4xx": OnRetriable4xx,
	"refused-stream": OnRefusedStream, "retriable-status-codes": OnRetriableStatusCodes, "retriable-headers": OnRetriableHeaders,
	"http3-post-connect-failure": OnHTTP3PostConnectFailure,
	"cancelled":                  OnGRPCCancelled, "deadline-exceeded": OnGRPCDeadlineExceeded, "internal": OnGRPCInternal,
	"resource-exhausted": OnGRPCResourceExhausted, "unavailable": OnGRPCUnavailable,
}

// ParseRetryOn reads a list of retry conditions as in retry_on and in the request
// headers x-envoy-retry-on and x-envoy-retry-grpc-on. Envoy ignores words that it
// does not know, so this does too.
func ParseRetryOn(list string) RetryOn {
	var on RetryOn
	for word := range strings.SplitSeq(list, ",") {
		on |= retryNames[strings.TrimSpace(word)]
	}
	return on
}

// inheritedRetry is the retry policy of the action, or else of its virtual host.
func inheritedRetry(a *routev3.RouteAction, v *routev3.VirtualHost) (*RetryPolicy, error) {
	p := a.GetRetryPolicy()
	if p == nil {
		p = v.GetRetryPolicy()
	}
	if p == nil {
		return nil, nil
	}
	out, err := newRetry(p)
	if err != nil {
		return nil, fmt.Errorf("retry_policy: %w", err)
	}
	return out, nil
}

func newRetry(p *routev3.RetryPolicy) (*RetryPolicy, error) {
	err := xds.Only(p, "retry_on", "num_retries", "per_try_timeout", "per_try_idle_timeout", "retry_priority", "retry_host_predicate",
		"host_selection_retry_max_attempts", "retriable_status_codes", "retry_back_off", "retriable_headers")
	if err != nil {
		return nil, err
	}
	out := &RetryPolicy{On: ParseRetryOn(p.GetRetryOn()), Retries: 1, HostAttempts: int(p.GetHostSelectionRetryMaxAttempts())}
	if n := p.GetNumRetries(); n != nil {
		out.Retries = int(n.GetValue())
	}
	for _, code := range p.GetRetriableStatusCodes() {
		out.StatusCodes = append(out.StatusCodes, int(code))
	}
	if out.PerTry, err = duration("per_try_timeout", p.GetPerTryTimeout(), 0); err != nil {
		return nil, err
	}
	if out.PerTryIdle, err = duration("per_try_idle_timeout", p.GetPerTryIdleTimeout(), 0); err != nil {
		return nil, err
	}
	if out.RetriableHeaders, err = NewHeaderMatchers("retriable_headers", p.GetRetriableHeaders()); err != nil {
		return nil, err
	}
	if err := out.setHosts(p); err != nil {
		return nil, err
	}
	return out, out.setBackOff(p.GetRetryBackOff())
}

// setHosts takes the predicates that choose another endpoint.
func (r *RetryPolicy) setHosts(p *routev3.RetryPolicy) error {
	for i, predicate := range p.GetRetryHostPredicate() {
		if predicate.GetName() != "envoy.retry_host_predicates.previous_hosts" {
			return fmt.Errorf("retry_host_predicate[%d] %q: not supported", i, predicate.GetName())
		}
		r.PreviousHosts = true
	}
	switch name := p.GetRetryPriority().GetName(); name {
	case "":
	case "envoy.retry_priorities.previous_priorities":
		r.PreviousPriorities = true
	default:
		return fmt.Errorf("retry_priority %q: not supported", name)
	}
	return nil
}

func (r *RetryPolicy) setBackOff(b *routev3.RetryPolicy_RetryBackOff) (err error) {
	if r.BackOffBase, err = duration("retry_back_off.base_interval", b.GetBaseInterval(), 25*time.Millisecond); err != nil {
		return err
	}
	r.BackOffBase = max(r.BackOffBase, time.Millisecond) // as Envoy rounds up
	if r.BackOffMax, err = duration("retry_back_off.max_interval", b.GetMaxInterval(), 10*r.BackOffBase); err != nil {
		return err
	}
	r.BackOffMax = max(r.BackOffMax, time.Millisecond)
	if r.BackOffMax < r.BackOffBase {
		return fmt.Errorf("retry_back_off: max_interval %s is less than base_interval %s", r.BackOffMax, r.BackOffBase)
	}
	return nil
}
