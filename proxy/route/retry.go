package route

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	canaryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_canary_hosts/v3"
	omitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_host_metadata/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

var retryNames = map[string]RetryOn{
	"5xx": On5xx, "gateway-error": OnGatewayError, "reset": OnReset, "reset-before-request": OnResetBeforeRequest,
	"connect-failure": OnConnectFailure, "envoy-ratelimited": OnEnvoyRateLimited, "retriable-4xx": OnRetriable4xx,
	"refused-stream": OnRefusedStream, "retriable-status-codes": OnRetriableStatusCodes, "retriable-headers": OnRetriableHeaders,
	"cancelled": OnGRPCCancelled, "deadline-exceeded": OnGRPCDeadlineExceeded, "internal": OnGRPCInternal,
	"resource-exhausted": OnGRPCResourceExhausted, "unavailable": OnGRPCUnavailable,
}

// parseRetryOn reads a list of retry conditions. Envoy ignores words that it does not
// know, so this does too; http3-post-connect-failure cannot happen here.
func parseRetryOn(list string) RetryOn {
	var on RetryOn
	for word := range strings.SplitSeq(list, ",") {
		on |= retryNames[strings.TrimSpace(word)]
	}
	return on
}

// KnownRetryOn reports whether every word of a list is a condition of a retry, of gRPC ones or
// the others.
func KnownRetryOn(list string, grpc bool) bool {
	for word := range strings.SplitSeq(list, ",") {
		on := retryNames[strings.TrimSpace(word)]
		if on == 0 || (on >= OnGRPCCancelled) != grpc {
			return false
		}
	}
	return true
}

// AskedBy is the policy with what a trusted client asks for by request headers, which end
// here; p, which stays as it is, may be nil. Only what retry_on says makes a policy where
// the route has none.
func (p *RetryPolicy) AskedBy(h *http.Headers) *RetryPolicy {
	take := func(name string) string {
		v := string(h.Get(name))
		h.Remove(name)
		return v
	}
	on := parseRetryOn(take("x-envoy-retry-on")) | parseRetryOn(take("x-envoy-retry-grpc-on"))
	retries, codes, names := take("x-envoy-max-retries"), take("x-envoy-retriable-status-codes"), take("x-envoy-retriable-header-names")
	for _, name := range []string{"x-envoy-hedge-on-per-try-timeout", "x-envoy-upstream-rq-timeout-alt-response", "x-envoy-upstream-alt-stat-name"} {
		take(name) // without effect here
	}
	if p == nil && on == 0 {
		return nil
	}
	out := RetryPolicy{Retries: 1, BackOffBase: defaultBackOff, BackOffMax: 10 * defaultBackOff}
	if p != nil {
		out = *p
	}
	out.On |= on
	if n, err := strconv.ParseUint(retries, 10, 31); err == nil {
		out.Retries = int(n)
	}
	out.StatusCodes = slices.Clip(out.StatusCodes)
	for code := range strings.SplitSeq(codes, ",") {
		if n, err := strconv.ParseUint(strings.TrimSpace(code), 10, 16); err == nil {
			out.StatusCodes = append(out.StatusCodes, int(n))
		}
	}
	out.RetriableHeaders = slices.Clip(out.RetriableHeaders)
	for name := range strings.SplitSeq(names, ",") {
		if m, err := match.NewHeader(&routev3.HeaderMatcher{Name: strings.TrimSpace(name)}); err == nil {
			out.RetriableHeaders = append(out.RetriableHeaders, HeaderMatcher{m})
		}
	}
	return &out
}

// For reports whether requests like r are sent again at all.
func (p *RetryPolicy) For(r *http.Request) bool {
	for i := range p.RequestHeaders {
		if p.RequestHeaders[i].MatchRequest(r) {
			return true
		}
	}
	return len(p.RequestHeaders) == 0
}

// Omits tells the endpoints that are no use for another attempt, nil for none.
func (p *RetryPolicy) Omits() func(*endpoint.Endpoint) bool {
	if !p.OmitCanary && len(p.OmitMetadata) == 0 {
		return nil
	}
	return func(e *endpoint.Endpoint) bool {
		of := e.Metadata.Load()["envoy.lb"]
		canary, _ := of["canary"].(bool)
		return p.OmitCanary && canary || len(p.OmitMetadata) > 0 && has(of, p.OmitMetadata)
	}
}

// has reports whether metadata has all of some values.
func has(of, values map[string]any) bool {
	for key, value := range values {
		if v, ok := of[key]; !ok || !reflect.DeepEqual(v, value) {
			return false
		}
	}
	return true
}

// Reset is how long a rate limited answer asks to wait, 0 when it does not say, or longer
// than the policy heeds.
func (p *RetryPolicy) Reset(h *http.Headers, now time.Time) time.Duration {
	for _, r := range p.Resets {
		n, err := strconv.ParseInt(strings.TrimSpace(string(h.Get(r.Name))), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/int64(time.Second) {
			continue
		}
		wait := time.Duration(n) * time.Second
		if r.Unix {
			if n <= now.Unix() {
				continue
			}
			wait = time.Unix(n, 0).Sub(now)
		}
		if wait <= p.ResetMax {
			return wait
		}
	}
	return 0
}

const defaultBackOff = 25 * time.Millisecond

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
	err := xds.Only(p, "retry_on", "num_retries", "per_try_timeout", "retry_priority", "retry_host_predicate",
		"host_selection_retry_max_attempts", "retriable_status_codes", "retry_back_off", "retriable_headers", "retriable_request_headers",
		"per_try_idle_timeout", "rate_limited_retry_back_off", "refresh_cluster_on_retry")
	if err != nil {
		return nil, err
	}
	out := &RetryPolicy{On: parseRetryOn(p.GetRetryOn()), Retries: 1, HostAttempts: int(p.GetHostSelectionRetryMaxAttempts())}
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
	if out.RequestHeaders, err = NewHeaderMatchers("retriable_request_headers", p.GetRetriableRequestHeaders()); err != nil {
		return nil, err
	}
	if err := out.setResets(p.GetRateLimitedRetryBackOff()); err != nil {
		return nil, fmt.Errorf("rate_limited_retry_back_off: %w", err)
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
		switch predicate.GetName() {
		case "envoy.retry_host_predicates.previous_hosts":
			r.PreviousHosts = true
		case "envoy.retry_host_predicates.omit_canary_hosts":
			if err := predicate.GetTypedConfig().UnmarshalTo(new(canaryv3.OmitCanaryHostsPredicate)); err != nil {
				return fmt.Errorf("retry_host_predicate[%d]: %w", i, err)
			}
			r.OmitCanary = true
		case "envoy.retry_host_predicates.omit_host_metadata":
			var c omitv3.OmitHostMetadataConfig
			if err := predicate.GetTypedConfig().UnmarshalTo(&c); err != nil {
				return fmt.Errorf("retry_host_predicate[%d]: %w", i, err)
			}
			r.OmitMetadata = subset(c.GetMetadataMatch(), nil)
		default:
			return fmt.Errorf("retry_host_predicate[%d] %q: not supported", i, predicate.GetName())
		}
	}
	return r.setPriorities(p.GetRetryPriority())
}

// setResets takes the headers by which an upstream says when its rate limit is over.
func (r *RetryPolicy) setResets(b *routev3.RetryPolicy_RateLimitedRetryBackOff) (err error) {
	for i, h := range b.GetResetHeaders() {
		if h.GetName() == "" {
			return fmt.Errorf("reset_headers[%d]: name: must not be empty", i)
		}
		r.Resets = append(r.Resets, ResetHeader{strings.ToLower(h.GetName()), h.GetFormat() == routev3.RetryPolicy_UNIX_TIMESTAMP})
	}
	if b != nil {
		r.ResetMax, err = duration("max_interval", b.GetMaxInterval(), defaultResetMax)
	}
	return err
}

const defaultResetMax = 5 * time.Minute

// setPriorities takes what chooses another priority.
func (r *RetryPolicy) setPriorities(p *routev3.RetryPolicy_RetryPriority) error {
	if p == nil {
		return nil
	}
	var c prioritiesv3.PreviousPrioritiesConfig
	if p.GetName() != "envoy.retry_priorities.previous_priorities" || p.GetTypedConfig().UnmarshalTo(&c) != nil {
		return fmt.Errorf("retry_priority %q: not supported", p.GetName())
	}
	if c.GetUpdateFrequency() <= 0 {
		return fmt.Errorf("retry_priority: update_frequency must be greater than 0, got %d", c.GetUpdateFrequency())
	}
	r.PreviousPriorities = int(c.GetUpdateFrequency())
	return nil
}

func (r *RetryPolicy) setBackOff(b *routev3.RetryPolicy_RetryBackOff) (err error) {
	if r.BackOffBase, err = duration("retry_back_off.base_interval", b.GetBaseInterval(), defaultBackOff); err != nil {
		return err
	}
	r.OwnBackOff = b != nil
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
