package config

import (
	"regexp"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func validateDestinationRule(p place, o *Config) {
	dr := o.Spec.(*networking.DestinationRule)
	p.field("host").wrong(wildcardDomain(dr.Host))
	validateTrafficPolicy(p.field("trafficPolicy"), dr.TrafficPolicy)
	names := map[string]bool{}
	for i, s := range dr.Subsets {
		at := p.at("subsets", i)
		switch {
		case s.Name == "":
			at.field("name").errorf("required")
		case !isDNSLabel(s.Name):
			at.field("name").errorf("%q is not a subset name", shorten(s.Name))
		case names[s.Name]:
			at.field("name").errorf("duplicate subset %q", shorten(s.Name))
		}
		names[s.Name] = true
		at.field("labels").labels(s.Labels)
		validateTrafficPolicy(at.field("trafficPolicy"), s.TrafficPolicy)
	}
	p.exportTo(o.Namespace, dr.ExportTo, false)
	if dr.WorkloadSelector == nil {
		return
	}
	p.field("workloadSelector").selector(dr.WorkloadSelector.MatchLabels, "matchLabels")
	if to := dr.ExportTo; len(to) > 1 || len(to) == 1 && to[0] != "." && to[0] != o.Namespace {
		p.field("exportTo").errorf("with a workloadSelector only the own namespace is allowed")
	}
}

func validateTrafficPolicy(p place, t *networking.TrafficPolicy) {
	if t == nil {
		return
	}
	if t.OutlierDetection == nil && t.ConnectionPool == nil && t.LoadBalancer == nil && t.Tls == nil &&
		t.PortLevelSettings == nil && t.Tunnel == nil && t.ProxyProtocol == nil && t.RetryBudget == nil {
		p.errorf("at least one setting is required")
	}
	if t.Tunnel != nil && t.ProxyProtocol != nil {
		p.field("tunnel").errorf("cannot be set together with proxyProtocol")
	}
	validatePolicyGroups(p, t.OutlierDetection, t.ConnectionPool, t.LoadBalancer, t.Tls)
	validateTunnel(p.field("tunnel"), t.Tunnel)
	if rb := t.RetryBudget; rb != nil && (rb.GetPercent().GetValue() < 0 || rb.GetPercent().GetValue() > 100) {
		p.field("retryBudget.percent").errorf("must be 0–100, got %v", rb.GetPercent().GetValue())
	}
	if t.GetRetryBudget().GetBudgetInterval() != nil {
		p.field("retryBudget.budgetInterval").notYet("has no effect yet")
	}
	for i, pl := range t.PortLevelSettings {
		at := p.at("portLevelSettings", i)
		if pl.Port == nil {
			at.field("port").errorf("required")
		}
		if pl.OutlierDetection == nil && pl.ConnectionPool == nil && pl.LoadBalancer == nil && pl.Tls == nil {
			at.errorf("at least one setting is required")
		}
		validatePolicyGroups(at, pl.OutlierDetection, pl.ConnectionPool, pl.LoadBalancer, pl.Tls)
	}
}

// validatePolicyGroups checks the groups that a policy has at all levels.
func validatePolicyGroups(p place, od *networking.OutlierDetection, cp *networking.ConnectionPoolSettings,
	lb *networking.LoadBalancerSettings, tls *networking.ClientTLSSettings,
) {
	validateOutlierDetection(p.field("outlierDetection"), od)
	validateConnectionPool(p.field("connectionPool"), cp)
	validateLoadBalancer(p.field("loadBalancer"), lb, od != nil)
	validateClientTLS(p.field("tls"), tls)
}

func validateTunnel(p place, t *networking.TrafficPolicy_TunnelSettings) {
	if t == nil {
		return
	}
	if t.Protocol != "" && t.Protocol != "CONNECT" && t.Protocol != "POST" {
		p.field("protocol").errorf("must be CONNECT or POST, got %q", shorten(t.Protocol))
	}
	if !isIP(t.TargetHost) {
		p.field("targetHost").wrong(fqdn(t.TargetHost))
	}
	p.field("targetPort").wrong(port(int64(t.TargetPort)))
	p.notYet("has no effect yet: connections go to the destination itself")
}

func validateOutlierDetection(p place, od *networking.OutlierDetection) {
	if od == nil {
		return
	}
	p.field("baseEjectionTime").wrong(positive(od.BaseEjectionTime))
	p.field("interval").wrong(positive(od.Interval))
	if od.ConsecutiveErrors != 0 { //nolint:staticcheck // deprecated, still in users' files
		p.field("consecutiveErrors").add(Warning, "use consecutiveGatewayErrors or consecutive5xxErrors", "is deprecated and has no effect")
	}
	if !od.SplitExternalLocalOriginErrors && od.ConsecutiveLocalOriginFailures.GetValue() > 0 {
		p.field("consecutiveLocalOriginFailures").errorf("needs splitExternalLocalOriginErrors: true")
	}
	p.field("maxEjectionPercent").wrong(percent(od.MaxEjectionPercent))
	p.field("minHealthPercent").wrong(percent(od.MinHealthPercent))
	for i, code := range od.OutlierDetectionHttpErrorCodes {
		if code < 100 || code > 599 {
			p.at("outlierDetectionHttpErrorCodes", i).errorf("must be 100–599, got %d", code)
		}
	}
}

func validateConnectionPool(p place, cp *networking.ConnectionPoolSettings) {
	if cp == nil {
		return
	}
	if cp.Http == nil && cp.Tcp == nil {
		p.errorf("one of http and tcp is required")
	}
	if h := cp.Http; h != nil {
		at := p.field("http")
		at.notNegative(map[string]int32{
			"http1MaxPendingRequests": h.Http1MaxPendingRequests, "http2MaxRequests": h.Http2MaxRequests,
			"maxRequestsPerConnection": h.MaxRequestsPerConnection, "maxRetries": h.MaxRetries, "maxConcurrentStreams": h.MaxConcurrentStreams})
		at.field("idleTimeout").wrong(zeroOrPositive(h.IdleTimeout))
		if h.H2UpgradePolicy == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE && h.UseClientProtocol {
			at.field("useClientProtocol").errorf("cannot be true with h2UpgradePolicy UPGRADE")
		}
	}
	if t := cp.Tcp; t != nil {
		at := p.field("tcp")
		at.notNegative(map[string]int32{"maxConnections": t.MaxConnections})
		at.field("connectTimeout").wrong(positive(t.ConnectTimeout))
		at.field("maxConnectionDuration").wrong(positive(t.MaxConnectionDuration))
		at.field("idleTimeout").wrong(zeroOrPositive(t.IdleTimeout))
		at.field("tcpKeepalive.time").wrong(positive(t.GetTcpKeepalive().GetTime()))
		at.field("tcpKeepalive.interval").wrong(positive(t.GetTcpKeepalive().GetInterval()))
	}
}

func (p place) notNegative(fields map[string]int32) {
	for _, f := range sortedKeys(fields) {
		if fields[f] < 0 {
			p.field(f).errorf("must not be negative, got %d", fields[f])
		}
	}
}

func validateLoadBalancer(p place, lb *networking.LoadBalancerSettings, outlier bool) {
	if lb == nil {
		return
	}
	validateConsistentHash(p.field("consistentHash"), lb.GetConsistentHash())
	validateLocalityLB(p.field("localityLbSetting"), lb.LocalityLbSetting, outlier)
	if lb.LocalityLbSetting != nil && lb.GetZoneAwareLbSetting() != nil {
		p.field("zoneAwareLbSetting").errorf("cannot be set together with localityLbSetting")
	}
	p.field("warmupDurationSecs").wrong(positive(lb.WarmupDurationSecs)) //nolint:staticcheck // deprecated, still in users' files
	if w := lb.Warmup; w != nil {
		at := p.field("warmup")
		if w.Duration == nil {
			at.field("duration").errorf("required")
		}
		at.field("duration").wrong(positive(w.Duration))
		if v := w.MinimumPercent; v != nil && (v.Value < 0 || v.Value > 100) {
			at.field("minimumPercent").errorf("must be 0–100, got %v", v.Value)
		}
		if v := w.Aggression; v != nil && v.Value < 0 {
			at.field("aggression").errorf("must not be negative, got %v", v.Value)
		}
	}
}

// fieldName is any name of a header by HTTP's grammar, or of a pseudo header.
var fieldName = regexp.MustCompile("^:?[-!#$%&'*+.^_`|~0-9A-Za-z]+$")

func validateConsistentHash(p place, h *networking.LoadBalancerSettings_ConsistentHashLB) {
	if h == nil {
		return
	}
	switch k := h.HashKey.(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		if k.HttpCookie.GetName() == "" {
			p.field("httpCookie.name").errorf("required")
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		if !fieldName.MatchString(k.HttpHeaderName) {
			p.field("httpHeaderName").errorf("%q is not a header name", shorten(k.HttpHeaderName))
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		if k.HttpQueryParameterName == "" {
			p.field("httpQueryParameterName").errorf("required")
		}
	}
	if old := h.MinimumRingSize; old != 0 { //nolint:staticcheck // deprecated, still in users' files
		if h.HashAlgorithm != nil {
			p.field("minimumRingSize").errorf("cannot be set together with ringHash or maglev")
		}
		p.field("minimumRingSize").add(Warning, "use ringHash.minimumRingSize", "is deprecated")
	}
	const largestTable, largestRing = 5000011, 8 << 20 // Envoy's
	for field, size := range map[string]uint64{
		"minimumRingSize":          h.MinimumRingSize, //nolint:staticcheck // deprecated, still in users' files
		"ringHash.minimumRingSize": h.GetRingHash().GetMinimumRingSize(),
	} {
		if size > largestRing {
			p.field(field).errorf("must be at most %d, got %d", largestRing, size)
		}
	}
	if m := h.GetMaglev(); m != nil && (m.TableSize >= largestTable || !isPrime(m.TableSize)) {
		p.field("maglev.tableSize").errorf("must be a prime number below %d, got %d", largestTable, m.TableSize)
	}
}

func isPrime(n uint64) bool {
	if n < 2 {
		return false // a table of 1 ends Envoy with a division by zero
	}
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}

// maxSNI is the longest server name of TLS.
const maxSNI = 255

// validateClientTLS checks the client side of TLS.
func validateClientTLS(p place, t *networking.ClientTLSSettings) {
	if t == nil {
		return
	}
	if len(t.Sni) > maxSNI {
		p.field("sni").errorf("is longer than %d bytes", maxSNI)
	}
	simple, mutual := t.Mode == networking.ClientTLSSettings_SIMPLE, t.Mode == networking.ClientTLSSettings_MUTUAL
	if t.GetInsecureSkipVerify().GetValue() && (simple || mutual) {
		p.excluded("insecureSkipVerify is true", map[string]bool{"caCertificates": t.CaCertificates != "",
			"credentialName": t.CredentialName != "" && simple, "subjectAltNames": t.SubjectAltNames != nil})
	}
	if (simple || mutual) && t.CredentialName != "" {
		p.excluded("credentialName is set", map[string]bool{"clientCertificate": t.ClientCertificate != "",
			"privateKey": t.PrivateKey != "", "caCertificates": t.CaCertificates != "", "caCrl": t.CaCrl != ""})
		return
	}
	if mutual && t.ClientCertificate == "" {
		p.field("clientCertificate").add(Error, "or name a Secret in credentialName", "required for mode MUTUAL")
	}
	if mutual && t.PrivateKey == "" {
		p.field("privateKey").add(Error, "or name a Secret in credentialName", "required for mode MUTUAL")
	}
}

// validateLocalityLB checks locality load balancing, of rules and of MeshConfig.
func validateLocalityLB(p place, lb *networking.LocalityLoadBalancerSetting, outlier bool) {
	if lb == nil {
		return
	}
	if len(lb.Distribute) > 0 && len(lb.Failover) > 0 {
		p.errorf("only one of distribute and failover can be set")
	}
	if len(lb.Failover) > 0 {
		for i, l := range lb.FailoverPriority {
			if l == "topology.kubernetes.io/region" || l == "topology.kubernetes.io/zone" || l == "topology.istio.io/subzone" {
				p.at("failoverPriority", i).errorf("topology label %q cannot be used together with failover", l)
			}
		}
	}
	var sources []string
	for i, d := range lb.Distribute {
		at := p.at("distribute", i)
		sources = append(sources, d.From)
		total := uint64(0)
		for _, to := range sortedKeys(d.To) {
			if w := d.To[to]; w < 1 || w > 100 {
				at.field("to").key(to).errorf("must be 1–100, got %d", w)
			}
			total += uint64(d.To[to])
		}
		if total != 100 {
			at.field("to").errorf("the weights must add up to 100, got %d", total)
		}
		localities(at.field("to"), sortedKeys(d.To))
	}
	localities(p.field("distribute"), sources)
	if (len(lb.Failover) > 0 || len(lb.FailoverPriority) > 0) && !outlier {
		p.warnf("failover needs outlierDetection, which tells when to leave a locality")
	}
	for i, f := range lb.Failover {
		at := p.at("failover", i)
		if f.From == f.To {
			at.errorf("from and to must be different regions")
		}
		if strings.ContainsAny(f.From+f.To, "/*") {
			at.errorf("from and to must be regions, without / and *")
		}
	}
}

// localities checks region[/zone[/subzone]] patterns, of which none may contain another.
func localities(p place, all []string) {
	for i, l := range all {
		if stars := strings.Count(l, "*"); stars > 1 || stars == 1 && !strings.HasSuffix(l, "*") {
			p.errorf("locality %q: one * is allowed, at the end", shorten(l))
		}
		for part := range strings.SplitSeq(l, "/") {
			if part == "" {
				p.errorf("locality %q has an empty part", shorten(l))
				break
			}
		}
		for _, before := range all[:i] {
			if localityWithin(l, before) || !strings.Contains(l, "*") && localityWithin(before, l) {
				p.errorf("locality %q overlaps with %q", shorten(l), shorten(before))
				break
			}
		}
	}
}

func localityWithin(inner, outer string) bool {
	in, out := strings.SplitN(inner, "/", 3), strings.SplitN(outer, "/", 3)
	for i, part := range out {
		if part == "*" {
			return true
		}
		if i >= len(in) || in[i] != part {
			return false
		}
	}
	return true
}
