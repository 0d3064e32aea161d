package compile

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// What is retried where a VirtualService does not say it: only what certainly did
// not reach the application, and gRPC's word for "try again".
const (
	defaultRetryOn  = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
	defaultAttempts = 2
)

// retry is the retry policy of a rule: its own, else the mesh's, else the default;
// nil where retries are switched off. With a hash policy requests stay with their
// host, also when they are tried again.
func (rc *ruleContext) retry(own *networking.HTTPRetry, hashed bool) *ir.Retry {
	ofRule := own != nil
	if !ofRule {
		own = rc.snapshot.MeshConfig.GetDefaultHttpRetryPolicy()
	}
	out := &ir.Retry{Attempts: defaultAttempts, On: defaultRetryOn, OtherHosts: !hashed}
	if own == nil {
		return out
	}
	if own.GetAttempts() <= 0 {
		return nil
	}
	out.Attempts = uint32(own.GetAttempts())
	switch {
	case own.GetRetryOn() != "":
		out.On, out.StatusCodes = retryConditions(own.GetRetryOn())
	case ofRule: // the conditions of scenario 56: who asks for retries wants those of an overloaded application, too
		out.StatusCodes = []uint32{http.StatusServiceUnavailable}
	}
	out.PerTryTimeout = own.GetPerTryTimeout().AsDuration()
	out.BaseInterval = own.GetBackoff().AsDuration()
	out.OtherLocalities = own.GetRetryRemoteLocalities().GetValue()
	if previous := own.GetRetryIgnorePreviousHosts(); previous != nil {
		out.OtherHosts = previous.GetValue()
	}
	return out
}

// retryConditions splits a comma list into named conditions and status codes.
func retryConditions(list string) (string, []uint32) {
	const byStatus = "retriable-status-codes"
	var named []string
	var codes []uint32
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if n, err := strconv.Atoi(part); err == nil && http.StatusText(n) != "" {
			codes = append(codes, uint32(n))
			continue
		}
		named = append(named, part)
	}
	if len(codes) > 0 && !slices.Contains(named, byStatus) {
		named = append(named, byStatus)
	}
	return strings.Join(named, ","), codes
}

// hashPolicies adds the hash inputs that the destinations' rules ask for, and
// reports whether there are any.
func (rc *ruleContext) hashPolicies(f *ir.Forward, targets []*networking.HTTPRouteDestination) bool {
	for _, t := range targets {
		if h := rc.consistentHash(t.GetDestination()); h != nil {
			f.HashPolicies = append(f.HashPolicies, *h)
		}
	}
	return len(f.HashPolicies) > 0
}

// consistentHash is the hash input for a destination: that of the subset's port, of
// the subset, of the port, of the whole rule, whichever is first.
func (rc *ruleContext) consistentHash(d *networking.Destination) *ir.HashPolicy {
	rule := rc.scope.DestinationRule(rc.scope.Service(d.GetHost()))
	return firstHash(rule, d.GetSubset(), rc.destinationPort(d))
}

// serviceHash is the hash input for requests to a service without subset.
func (rc *ruleContext) serviceHash(s *registry.Service, port uint32) *ir.HashPolicy {
	return firstHash(rc.scope.DestinationRule(s), "", port)
}

func firstHash(rule *mesh.DestinationRule, subset string, port uint32) *ir.HashPolicy {
	var policies []*networking.LoadBalancerSettings
	if subset != "" {
		policies = append(policies, balancers(rule.Subset(subset).GetTrafficPolicy(), port)...)
	}
	policies = append(policies, balancers(rule.Policy(), port)...)
	for _, p := range policies {
		if h := p.GetConsistentHash(); h != nil {
			return hashPolicy(h)
		}
	}
	return nil
}

// balancers are the load balancer settings for a port, the more specific first.
func balancers(t *networking.TrafficPolicy, port uint32) []*networking.LoadBalancerSettings {
	var out []*networking.LoadBalancerSettings
	for _, p := range t.GetPortLevelSettings() {
		if p.GetPort().GetNumber() == port {
			out = append(out, p.GetLoadBalancer())
		}
	}
	return append(out, t.GetLoadBalancer())
}

func hashPolicy(h *networking.LoadBalancerSettings_ConsistentHashLB) *ir.HashPolicy {
	switch k := h.GetHashKey().(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		return &ir.HashPolicy{Header: k.HttpHeaderName}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		out := &ir.HashPolicy{Cookie: k.HttpCookie.GetName(), CookiePath: k.HttpCookie.GetPath()}
		if k.HttpCookie.GetTtl() != nil {
			ttl := k.HttpCookie.GetTtl().AsDuration()
			out.CookieTTL = &ttl
		}
		for _, a := range k.HttpCookie.GetAttributes() {
			out.Attributes = append(out.Attributes, ir.CookieAttribute{Name: a.GetName(), Value: a.GetValue()})
		}
		return out
	case *networking.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		if k.UseSourceIp {
			return &ir.HashPolicy{SourceIP: true}
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		return &ir.HashPolicy{Query: k.HttpQueryParameterName}
	}
	return nil
}
