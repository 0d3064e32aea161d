package config

import (
	"encoding/json"
	"net"
	"strconv"
	"strings"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"
)

func validateMeshConfig(p place, mc *meshconfig.MeshConfig) {
	p.field("proxyListenPort").wrong(port(int64(mc.ProxyListenPort)))
	p.field("connectTimeout").wrong(positive(mc.ConnectTimeout))
	if d := mc.GetConnectTimeout().AsDuration(); d > time.Hour {
		p.field("connectTimeout").errorf("must be at most 1h, got %v", d)
	}
	p.field("protocolDetectionTimeout").wrong(zeroOrPositive(mc.ProtocolDetectionTimeout))
	validateProxyConfig(p.field("defaultConfig"), mc.DefaultConfig)
	validateLocalityLB(p.field("localityLbSetting"), mc.LocalityLbSetting, true)
	validateDiscoverySelectors(p, mc)
	for i, s := range mc.ServiceSettings {
		for j, h := range s.Hosts {
			p.at("serviceSettings", i).at("hosts", j).wrong(wildcardDomain(h))
		}
	}
	trustDomain(p.field("trustDomain"), mc.TrustDomain)
	for i, alias := range mc.TrustDomainAliases {
		trustDomain(p.at("trustDomainAliases", i), alias)
	}
	if mc.RootNamespace != "" && !isDNSLabel(mc.RootNamespace) {
		p.field("rootNamespace").errorf("%q is not a namespace", shorten(mc.RootNamespace))
	}
	if len(mc.GetMeshMTLS().GetEcdhCurves()) > 0 {
		p.field("meshMTLS.ecdhCurves").errorf("not supported: set them in tlsDefaults")
	}
	if f := mc.AccessLogFormat; mc.AccessLogEncoding == meshconfig.MeshConfig_JSON && f != "" {
		var fields map[string]any
		if err := json.Unmarshal([]byte(f), &fields); err != nil {
			p.field("accessLogFormat").warnf("is not a JSON object: the default format is used: %v", err)
		}
	}
}

func validateProxyConfig(p place, pc *meshconfig.ProxyConfig) {
	if pc.ConfigPath == "" {
		p.field("configPath").errorf("required")
	}
	if pc.BinaryPath == "" {
		p.field("binaryPath").errorf("required")
	}
	p.field("drainDuration").wrong(positive(pc.DrainDuration))
	if d := pc.GetDrainDuration().AsDuration(); d%time.Second != 0 {
		p.field("drainDuration").errorf("must be whole seconds, got %v", d)
	}
	hostPort(p.field("discoveryAddress"), pc.DiscoveryAddress, true)
	hostPort(p.field("statsdUdpAddress"), pc.StatsdUdpAddress, false)
	hostPort(p.field("envoyMetricsService.address"), pc.GetEnvoyMetricsService().GetAddress(), false)
	hostPort(p.field("envoyAccessLogService.address"), pc.GetEnvoyAccessLogService().GetAddress(), false)
	p.field("proxyAdminPort").wrong(port(int64(pc.ProxyAdminPort)))
	p.field("statusPort").wrong(port(int64(pc.StatusPort)))
	validateClientTLS(p.field("tracing.tlsSettings"), pc.GetTracing().GetTlsSettings())
}

func trustDomain(p place, domain string) {
	if domain == "" {
		p.errorf("required")
		return
	}
	// The last label of a trust domain may be a number.
	if domainLabels(strings.TrimSuffix(domain, ".")+".") != nil {
		p.errorf("%q is not a trust domain", shorten(domain))
	}
}

func hostPort(p place, address string, required bool) {
	if address == "" {
		if required {
			p.errorf("required")
		}
		return
	}
	host, number, err := net.SplitHostPort(address)
	if err != nil {
		p.errorf("must be HOST:PORT, got %q", shorten(address))
		return
	}
	n, err := strconv.Atoi(number)
	if err != nil || port(int64(n)) != nil {
		p.errorf("the port must be 1–65535, got %q", shorten(number))
	}
	if !isIP(host) {
		p.wrong(fqdn(host))
	}
}
