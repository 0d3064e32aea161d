package compile

import (
	"math"
	"strings"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

const (
	defaultRingSize   = 1024
	defaultBudget     = 20 // percent
	defaultMinRetries = 3
)

// A policy is what a DestinationRule says for one port and subset.
type policy struct {
	balancer *networking.LoadBalancerSettings
	pool     *networking.ConnectionPoolSettings
	outlier  *networking.OutlierDetection
	tls      *networking.ClientTLSSettings
	proxy    *networking.TrafficPolicy_ProxyProtocol
	budget   *networking.TrafficPolicy_RetryBudget
}

// policyFor merges a rule's policies: a subset's groups replace the rule's groups
// whole, and settings for the port replace all four groups, so that a group which
// they leave out goes back to its default.
func policyFor(rule *mesh.DestinationRule, subset *networking.Subset, port uint32) policy {
	var p policy
	p.override(rule.Policy(), port)
	p.override(subset.GetTrafficPolicy(), port)
	return p
}

func (p *policy) override(t *networking.TrafficPolicy, port uint32) {
	if t == nil {
		return
	}
	replace(&p.balancer, t.LoadBalancer)
	replace(&p.pool, t.ConnectionPool)
	replace(&p.outlier, t.OutlierDetection)
	replace(&p.tls, t.Tls)
	replace(&p.proxy, t.ProxyProtocol)
	replace(&p.budget, t.RetryBudget)
	for _, l := range t.PortLevelSettings {
		if l.GetPort().GetNumber() == port {
			p.balancer, p.pool, p.outlier, p.tls = l.LoadBalancer, l.ConnectionPool, l.OutlierDetection, l.Tls
			return
		}
	}
}

func replace[T any](have **T, with *T) {
	if with != nil {
		*have = with
	}
}

func (b *clusterBuilder) applyPolicy(c *ir.Cluster, t target, p policy) {
	c.Limits = noLimits()
	b.applyPool(c, p.pool, p.budget)
	if c.Discovery == ir.DynamicForwardProxy {
		c.LoadBalancer = ir.LoadBalancer{Balancer: ir.ClusterProvided}
		c.Outlier = outlier(c, p.outlier)
	} else {
		c.LoadBalancer.PanicThreshold = new(float64)
		c.Outlier = outlier(c, p.outlier)
		b.balance(c, p)
	}
	if isSNICluster(c.Name) {
		return
	}
	b.applyTLS(c, t, p)
	if p.proxy != nil {
		c.ProxyProtocol = int(p.proxy.Version) + 1
	}
}

// version decides how HTTP is spoken: by the port's protocol, by the policies
// for upgrading plain HTTP, or, on a sidecar's ports of unknown protocol, as the
// client did.
func (b *clusterBuilder) version(c *ir.Cluster, port registry.Port, p policy) {
	http := p.pool.GetHttp()
	switch {
	case http.GetUseClientProtocol():
		c.HTTP = &ir.UpstreamHTTP{Version: ir.DownstreamChoice}
	case port.Protocol.IsHTTP2():
		c.HTTP = &ir.UpstreamHTTP{Version: ir.HTTP2}
	case strings.HasPrefix(c.Name, "outbound") && b.upgrades(http, port):
		c.HTTP = &ir.UpstreamHTTP{Version: ir.HTTP2}
	case port.Protocol == registry.Unsupported && b.proxy.Type == mesh.SidecarProxy:
		c.HTTP = &ir.UpstreamHTTP{Version: ir.DownstreamChoice}
	}
	if b.keepCase && (port.Protocol.IsHTTP() || port.Protocol == registry.Unsupported) {
		if c.HTTP == nil {
			c.HTTP = &ir.UpstreamHTTP{}
		}
		c.HTTP.PreserveCase = true
	}
}

func (b *clusterBuilder) upgrades(http *networking.ConnectionPoolSettings_HTTPSettings, port registry.Port) bool {
	switch http.GetH2UpgradePolicy() {
	case networking.ConnectionPoolSettings_HTTPSettings_UPGRADE:
		return true
	case networking.ConnectionPoolSettings_HTTPSettings_DO_NOT_UPGRADE:
		return false
	}
	return port.Protocol.IsHTTP() && b.mesh.MeshConfig.H2UpgradePolicy == meshconfig.MeshConfig_UPGRADE
}

func (b *clusterBuilder) applyPool(c *ir.Cluster, pool *networking.ConnectionPoolSettings, budget *networking.TrafficPolicy_RetryBudget) {
	tcp, http := pool.GetTcp(), pool.GetHttp()
	b.keepalive(c, tcp.GetTcpKeepalive())
	if pool == nil {
		return
	}
	limit(&c.Limits.MaxConnections, tcp.GetMaxConnections())
	limit(&c.Limits.MaxPendingRequests, http.GetHttp1MaxPendingRequests())
	limit(&c.Limits.MaxRequests, http.GetHttp2MaxRequests())
	limit(&c.Limits.MaxRetries, http.GetMaxRetries())
	if budget != nil {
		c.Limits.RetryBudget = retryBudget(budget)
	}
	if d := tcp.GetConnectTimeout(); d != nil {
		c.ConnectTimeout = d.AsDuration()
	}
	applyHTTPPool(c, tcp, http)
}

func limit(have *uint32, n int32) {
	if n > 0 {
		*have = uint32(n)
	}
}

func retryBudget(r *networking.TrafficPolicy_RetryBudget) *ir.RetryBudget {
	out := &ir.RetryBudget{Percent: defaultBudget, MinConcurrency: defaultMinRetries}
	if r.Percent != nil {
		out.Percent = r.Percent.Value
	}
	if r.MinRetryConcurrency > 0 {
		out.MinConcurrency = r.MinRetryConcurrency
	}
	return out
}

// applyHTTPPool sets what concerns single connections. An idle timeout of the
// HTTP settings goes before that of the TCP settings.
func applyHTTPPool(c *ir.Cluster, tcp *networking.ConnectionPoolSettings_TCPSettings, http *networking.ConnectionPoolSettings_HTTPSettings) {
	idle := tcp.GetIdleTimeout()
	if http.GetIdleTimeout() != nil {
		idle = http.GetIdleTimeout()
	}
	if idle == nil && tcp.GetMaxConnectionDuration() == nil && http.GetMaxRequestsPerConnection() <= 0 &&
		http.GetMaxConcurrentStreams() <= 0 && http.GetHttp2KeepAlive() == nil {
		return
	}
	if c.HTTP == nil {
		c.HTTP = &ir.UpstreamHTTP{}
	}
	if idle != nil {
		c.HTTP.IdleTimeout = new(idle.AsDuration())
	}
	if d := tcp.GetMaxConnectionDuration(); d != nil {
		c.HTTP.MaxConnectionDuration = new(d.AsDuration())
	}
	c.HTTP.MaxRequestsPerConn = uint32(max(http.GetMaxRequestsPerConnection(), 0))
	c.HTTP.MaxConcurrentStreams = uint32(max(http.GetMaxConcurrentStreams(), 0))
	if k := http.GetHttp2KeepAlive(); k != nil {
		c.HTTP.KeepaliveInterval, c.HTTP.KeepaliveTimeout = k.Interval.AsDuration(), k.Timeout.AsDuration()
	}
}

// keepalive takes the DestinationRule's setting, else the mesh's.
func (b *clusterBuilder) keepalive(c *ir.Cluster, k *networking.ConnectionPoolSettings_TCPSettings_TcpKeepalive) {
	if k == nil {
		k = b.mesh.MeshConfig.GetTcpKeepalive()
	}
	if k == nil {
		return
	}
	c.Keepalive = &ir.Keepalive{}
	if k.Probes > 0 {
		c.Keepalive.Probes = new(k.Probes)
	}
	if k.Time != nil {
		c.Keepalive.Time = new(seconds(k.Time.AsDuration()))
	}
	if k.Interval != nil {
		c.Keepalive.Interval = new(seconds(k.Interval.AsDuration()))
	}
}

func seconds(d time.Duration) uint32 { return uint32(min(max(d/time.Second, 0), math.MaxUint32)) }

func outlier(c *ir.Cluster, o *networking.OutlierDetection) *ir.OutlierDetection {
	if o == nil {
		return nil
	}
	out := &ir.OutlierDetection{
		Interval:           o.Interval.AsDuration(),
		BaseEjectionTime:   o.BaseEjectionTime.AsDuration(),
		MaxEjectionPercent: uint32(max(o.MaxEjectionPercent, 0)),
		SplitLocalErrors:   o.SplitExternalLocalOriginErrors,
	}
	if o.Consecutive_5XxErrors != nil {
		out.Consecutive5xx = new(o.Consecutive_5XxErrors.Value)
	}
	if o.ConsecutiveGatewayErrors != nil {
		out.ConsecutiveGatewayErrors = new(o.ConsecutiveGatewayErrors.Value)
	}
	out.ConsecutiveLocalErrors = o.ConsecutiveLocalOriginFailures.GetValue()
	if o.MinHealthPercent >= 0 && c.LoadBalancer.PanicThreshold != nil {
		c.LoadBalancer.PanicThreshold = new(float64(o.MinHealthPercent))
	}
	if len(o.OutlierDetectionHttpErrorCodes) > 0 {
		if c.HTTP == nil {
			c.HTTP = &ir.UpstreamHTTP{}
		}
		c.HTTP.ErrorCodes = o.OutlierDetectionHttpErrorCodes
	}
	return out
}

// balance chooses the load balancer. Where the discovery itself gives the one
// address, there is nothing to choose.
func (b *clusterBuilder) balance(c *ir.Cluster, p policy) {
	lb := &c.LoadBalancer
	locality := b.localitySetting(p)
	lb.LocalityWeighted = locality.GetDistribute() != nil ||
		c.Outlier != nil && (locality.GetFailover() != nil || locality.GetFailoverPriority() != nil)
	if z := p.balancer.GetZoneAwareLbSetting(); z != nil && (z.Enabled == nil || z.Enabled.Value) {
		lb.ZoneAware = &ir.ZoneAware{MinClusterSize: uint64(z.GetMinClusterSize().GetValue())}
	}
	if c.Discovery == ir.OriginalDestination {
		lb.Balancer = ir.ClusterProvided
		return
	}
	lb.Balancer = ir.LeastRequest
	switch p.balancer.GetSimple() {
	case networking.LoadBalancerSettings_ROUND_ROBIN:
		lb.Balancer = ir.RoundRobin
	case networking.LoadBalancerSettings_RANDOM:
		lb.Balancer = ir.Random
	case networking.LoadBalancerSettings_PASSTHROUGH:
		lb.Balancer, c.Discovery = ir.ClusterProvided, ir.OriginalDestination
		return
	}
	if h := p.balancer.GetConsistentHash(); h != nil {
		hashBalancer(lb, h)
		return
	}
	lb.SlowStart = slowStart(p.balancer)
}

func hashBalancer(lb *ir.LoadBalancer, h *networking.LoadBalancerSettings_ConsistentHashLB) {
	if m := h.GetMaglev(); m != nil {
		lb.Balancer, lb.TableSize = ir.Maglev, m.TableSize
		return
	}
	lb.Balancer, lb.MinRingSize = ir.RingHash, defaultRingSize
	switch {
	case h.GetRingHash().GetMinimumRingSize() > 0:
		lb.MinRingSize = h.GetRingHash().MinimumRingSize
	case h.MinimumRingSize > 0: //nolint:staticcheck // the old place of the same setting
		lb.MinRingSize = h.MinimumRingSize //nolint:staticcheck // as above
	}
}

// slowStart reads warmup, or its old form that gives the duration only.
func slowStart(lb *networking.LoadBalancerSettings) *ir.SlowStart {
	if w := lb.GetWarmup(); w != nil {
		out := &ir.SlowStart{Window: w.Duration.AsDuration(), Aggression: w.GetAggression().GetValue()}
		if w.MinimumPercent != nil {
			out.MinWeightPercent = new(w.MinimumPercent.Value)
		}
		return out
	}
	if d := lb.GetWarmupDurationSecs(); d != nil { // still served
		return &ir.SlowStart{Window: d.AsDuration()}
	}
	return nil
}
