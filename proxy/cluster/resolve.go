package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// dnsConfig is how a DNS cluster resolves.
type dnsConfig struct {
	family     dns.Family
	refresh    time.Duration
	failBase   time.Duration // dns_failure_refresh_rate, 0: refresh
	failMax    time.Duration
	respectTTL bool
	jitter     time.Duration
	least      time.Duration     // that an answer holds (dns_min_refresh_rate)
	typed      *dnsv3.DnsCluster // the type envoy.clusters.dns, nil: the cluster's fields
	resolver   *dns.Options      // nil: the proxy's own
}

func (cfg *config) decodeDNS(c *clusterv3.Cluster) error {
	if cfg.dns.typed != nil {
		return at("cluster_type", cfg.decodeTyped(cfg.dns.typed))
	}
	cfg.dns = dnsConfig{
		refresh: seconds(c.GetDnsRefreshRate(), 5*time.Second), respectTTL: c.GetRespectDnsTtl(), jitter: seconds(c.GetDnsJitter(), 0),
		failBase: c.GetDnsFailureRefreshRate().GetBaseInterval().AsDuration(), failMax: c.GetDnsFailureRefreshRate().GetMaxInterval().AsDuration(),
	}
	if err := cfg.dns.check(); err != nil {
		return err
	}
	family, err := lookupFamily(c.GetDnsLookupFamily())
	if err != nil {
		return err
	}
	cfg.dns.family = family
	return cfg.decodeResolver(c)
}

// check completes what depends on each other.
func (d *dnsConfig) check() error {
	if d.refresh <= time.Millisecond {
		return errors.New("dns_refresh_rate: value must be greater than 1ms")
	}
	if d.failMax == 0 {
		d.failMax = 10 * d.failBase
	}
	d.least = max(d.least, time.Second)
	return nil
}

// decodeDNSType reads the type of a DNS cluster that is an extension.
func (cfg *config) decodeDNSType(typed *anypb.Any) error {
	var m dnsv3.DnsCluster
	if err := unpack(typed, &m, "dns_refresh_rate", "dns_failure_refresh_rate", "respect_dns_ttl", "dns_jitter",
		"typed_dns_resolver_config", "dns_lookup_family", "all_addresses_in_single_endpoint", "dns_min_refresh_rate"); err != nil {
		return err
	}
	cfg.kind, cfg.dns.typed = strictDNS, &m
	if m.GetAllAddressesInSingleEndpoint() {
		cfg.kind = logicalDNS
	}
	return nil
}

func (cfg *config) decodeTyped(m *dnsv3.DnsCluster) error {
	cfg.dns = dnsConfig{
		refresh: seconds(m.GetDnsRefreshRate(), 5*time.Second), respectTTL: m.GetRespectDnsTtl(), jitter: seconds(m.GetDnsJitter(), 0),
		failBase: m.GetDnsFailureRefreshRate().GetBaseInterval().AsDuration(), failMax: m.GetDnsFailureRefreshRate().GetMaxInterval().AsDuration(),
		least: m.GetDnsMinRefreshRate().AsDuration(),
	}
	if err := cfg.dns.check(); err != nil {
		return err
	}
	families := map[commondnsv3.DnsLookupFamily]dns.Family{
		commondnsv3.DnsLookupFamily_UNSPECIFIED: dns.Auto, commondnsv3.DnsLookupFamily_AUTO: dns.Auto, commondnsv3.DnsLookupFamily_V4_ONLY: dns.V4Only,
		commondnsv3.DnsLookupFamily_V6_ONLY: dns.V6Only, commondnsv3.DnsLookupFamily_V4_PREFERRED: dns.V4Preferred, commondnsv3.DnsLookupFamily_ALL: dns.All,
	}
	cfg.dns.family = families[m.GetDnsLookupFamily()]
	if r := m.GetTypedDnsResolverConfig(); r != nil {
		o, err := DecodeResolver(r)
		cfg.dns.resolver = special(o)
		return at("typed_dns_resolver_config", err)
	}
	return nil
}

func lookupFamily(f clusterv3.Cluster_DnsLookupFamily) (dns.Family, error) {
	switch f {
	case clusterv3.Cluster_AUTO:
		return dns.Auto, nil
	case clusterv3.Cluster_V4_ONLY:
		return dns.V4Only, nil
	case clusterv3.Cluster_V6_ONLY:
		return dns.V6Only, nil
	case clusterv3.Cluster_V4_PREFERRED:
		return dns.V4Preferred, nil
	case clusterv3.Cluster_ALL:
		return dns.All, nil
	}
	return 0, fmt.Errorf("dns_lookup_family: unknown value %d", f)
}

// decodeResolver reads the resolver, also from the fields that older control planes send.
func (cfg *config) decodeResolver(c *clusterv3.Cluster) error {
	switch typed := c.GetTypedDnsResolverConfig(); {
	case typed != nil:
		o, err := DecodeResolver(typed)
		cfg.dns.resolver = special(o)
		return at("typed_dns_resolver_config", err)
	case c.GetDnsResolutionConfig() != nil:
		r := c.GetDnsResolutionConfig()
		return at("dns_resolution_config", cfg.resolver(r.GetResolvers(), r.GetDnsResolverOptions()))
	default:
		return at("dns_resolvers", cfg.resolver(c.GetDnsResolvers(), &corev3.DnsResolverOptions{UseTcpForDnsLookups: c.GetUseTcpForDnsLookups()}))
	}
}

func (cfg *config) resolver(servers []*corev3.Address, o *corev3.DnsResolverOptions) error {
	out, err := resolverOptions(servers, o)
	cfg.dns.resolver = special(out)
	return err
}

// special is o, or nil if o is nothing but the proxy's own resolver.
func special(o *dns.Options) *dns.Options {
	if o == nil || len(o.Servers) == 0 && !o.TCP && !o.NoSearch && o.Timeout == 0 && o.Tries == 0 {
		return nil
	}
	return o
}

// DecodeResolver compiles a typed_dns_resolver_config, of a cluster or of the
// bootstrap. The zero Options are the system's resolver.
func DecodeResolver(typed *corev3.TypedExtensionConfig) (*dns.Options, error) {
	switch typed.GetTypedConfig().GetTypeUrl() {
	case "type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig":
		return &dns.Options{}, nil
	case "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig":
	default:
		return nil, fmt.Errorf("%s: not supported", typed.GetTypedConfig().GetTypeUrl())
	}
	var c caresv3.CaresDnsResolverConfig
	if err := proto.Unmarshal(typed.GetTypedConfig().GetValue(), &c); err != nil {
		return nil, err
	}
	// How many questions share a socket or a channel is c-ares's own matter.
	if err := xds.Only(&c, "resolvers", "dns_resolver_options", "udp_max_queries", "query_timeout_seconds", "query_tries",
		"rotate_nameservers", "edns0_max_payload_size", "max_udp_channel_duration", "filter_unroutable_families",
		"reinit_channel_on_timeout"); err != nil {
		return nil, err
	}
	o, err := resolverOptions(c.GetResolvers(), c.GetDnsResolverOptions())
	if err != nil {
		return nil, err
	}
	o.Timeout, o.Tries = time.Duration(c.GetQueryTimeoutSeconds().GetValue())*time.Second, int(c.GetQueryTries().GetValue())
	return o, nil
}

func resolverOptions(servers []*corev3.Address, o *corev3.DnsResolverOptions) (*dns.Options, error) {
	out := &dns.Options{TCP: o.GetUseTcpForDnsLookups(), NoSearch: o.GetNoDefaultSearchDomain()}
	for i, a := range servers {
		s := a.GetSocketAddress()
		ip, err := netip.ParseAddr(s.GetAddress())
		if err != nil || s.GetPortValue() > 65535 {
			return nil, fmt.Errorf("resolvers[%d]: malformed IP address: %s", i, s.GetAddress())
		}
		out.Servers = append(out.Servers, netip.AddrPortFrom(ip, uint16(s.GetPortValue())).String())
	}
	return out, nil
}

// A target is one name of a DNS cluster and what it last resolved to.
type target struct {
	cluster  *Cluster
	member   *member
	found    []netip.Addr
	answered bool
	failures int
	timer    *time.Timer // until the next lookup
}

// startDNS resolves all members; the cluster is warm when each has had an answer,
// good or bad.
func (c *Cluster) startDNS() {
	for i := range c.config.assignment.members {
		t := &target{cluster: c, member: &c.config.assignment.members[i]}
		if ip, err := netip.ParseAddr(t.member.host); err == nil || t.member.pipe != "" {
			t.found, t.answered = []netip.Addr{ip}, true
		}
		c.targets = append(c.targets, t)
	}
	c.waiting.Add(1)
	c.place()
	for _, t := range c.targets {
		if !t.answered {
			go t.resolve()
		}
	}
	if c.allAnswered() {
		c.arrived()
	}
}

// resolve asks once and arms the next time.
func (t *target) resolve() {
	c := t.cluster
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	a, err := c.resolver.Lookup(ctx, t.member.host, c.config.dns.family)
	if c.ctx.Err() != nil {
		return
	}
	next := t.next(a, err)
	c.mu.Lock()
	first := !t.answered
	t.answered = true
	changed := t.take(a, err)
	c.mu.Unlock()
	if changed || first {
		c.place()
	}
	if first && c.allAnswered() {
		c.arrived()
	}
	c.countResolve(err, changed || first)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() == nil {
		t.timer = time.AfterFunc(next, t.resolve)
	}
}

// take keeps what was found. A name that does not exist has no endpoints, except that
// a LOGICAL_DNS cluster keeps its last one; a failure changes nothing.
func (t *target) take(a dns.Answer, err error) (changed bool) {
	switch {
	case errors.Is(err, dns.ErrNotFound) && t.cluster.config.kind == strictDNS:
		changed = len(t.found) > 0
		t.found = nil
	case err == nil:
		changed = !equal(t.found, a.Addresses)
		t.found = a.Addresses
	}
	return changed
}

func equal(a, b []netip.Addr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// next is when to ask again.
func (t *target) next(a dns.Answer, err error) time.Duration {
	d := t.cluster.config.dns
	if err == nil {
		t.failures = 0
		wait := d.refresh
		if d.respectTTL && a.TTL > 0 {
			wait = max(a.TTL, d.least)
		}
		if d.jitter > 0 {
			wait += rand.N(d.jitter)
		}
		return wait
	}
	if d.failBase == 0 {
		return d.refresh
	}
	limit := min(d.failMax, d.failBase<<min(t.failures, 20))
	t.failures++
	return rand.N(max(limit, time.Millisecond)) + time.Millisecond
}

// place puts what the targets have found into force.
func (c *Cluster) place() {
	c.placing.Lock()
	defer c.placing.Unlock()
	c.mu.Lock()
	var list []placed
	for _, t := range c.targets {
		if c.config.kind == logicalDNS && len(t.found) > 1 {
			list = append(list, c.together(t))
			continue
		}
		for _, ip := range t.found {
			list = append(list, placed{t.member, t.member.address(ip.String())})
		}
	}
	c.mu.Unlock()
	c.set(list, c.config.assignment)
}

// together is the one endpoint of a LOGICAL_DNS cluster whose name has several addresses:
// all but the current one are tried when that fails, in an order that does not depend on
// how the server turns them. The caller holds mu.
func (c *Cluster) together(t *target) placed {
	m, now := *t.member, c.current(t)
	for _, ip := range slices.SortedFunc(slices.Values(t.found), netip.Addr.Compare) {
		if ip != now {
			m.more = append(m.more, m.address(ip.String()))
		}
	}
	return placed{&m, m.address(now.String())}
}

// current is the address of a LOGICAL_DNS cluster: the one in use while it is still
// among the answers (servers rotate them), else the first. The caller holds mu.
func (c *Cluster) current(t *target) netip.Addr {
	for _, ip := range t.found {
		if len(c.order) == 1 && c.order[0].ep.Address == t.member.address(ip.String()) {
			return ip
		}
	}
	return t.found[0]
}

func (c *Cluster) allAnswered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.warmed {
		return false
	}
	for _, t := range c.targets {
		if !t.answered {
			return false
		}
	}
	c.warmed = true
	return true
}

// countResolve counts like Envoy: an answer without addresses is a success too.
func (c *Cluster) countResolve(err error, changed bool) {
	c.scope.Counter("update_attempt").Inc()
	if err == nil || errors.Is(err, dns.ErrNotFound) {
		c.scope.Counter("update_success").Inc()
		if !changed {
			c.scope.Counter("update_no_rebuild").Inc()
		}
	} else {
		c.scope.Counter("update_failure").Inc()
	}
}
