package tcpproxy

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/cespare/xxhash/v2"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tcpproxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A weighted is a cluster that connections may get.
type weighted struct {
	name     string
	weight   uint32
	criteria map[string]any // metadata_match, that of all clusters included; nil: none
	common   map[string]any // that of all clusters
}

// logOptions are the lines before the one at the end.
type logOptions struct {
	onStart, onConnected bool
	interval             time.Duration // 0: none
}

// defaultIdle is Envoy's idle_timeout where none is set.
const defaultIdle = time.Hour

func compile(c *tcpproxypb.TcpProxy, env Env) (*filter, error) {
	// Early data needs no buffer here: until there is an upstream side it stays in the socket.
	// The idle timeouts of one side are in the schema only.
	if err := xds.Only(c, "stat_prefix", "cluster", "weighted_clusters", "metadata_match", "idle_timeout", "downstream_idle_timeout", "upstream_idle_timeout", "access_log", "max_connect_attempts",
		"backoff_options", "hash_policy", "tunneling_config", "max_downstream_connection_duration", "max_downstream_connection_duration_jitter_percentage",
		"access_log_flush_interval", "flush_access_log_on_connected", "access_log_options", "proxy_protocol_tlvs", "proxy_protocol_tlv_merge_policy",
		"upstream_connect_mode", "max_early_data_bytes", "check_drain_close"); err != nil {
		return nil, err
	}
	f := &filter{
		env: env, attempts: 1, idle: defaultIdle, maxDuration: c.GetMaxDownstreamConnectionDuration().AsDuration(),
		jitter:     c.GetMaxDownstreamConnectionDurationJitterPercentage().GetValue() / 100,
		checkDrain: c.GetCheckDrainClose().GetValue(), mergeTLVs: c.GetProxyProtocolTlvMergePolicy(),
		stats: newCounters(env.Stats.Scope("tcp." + c.GetStatPrefix() + ".")),
	}
	if n := c.GetMaxConnectAttempts(); n != nil {
		f.attempts = int(n.GetValue())
	}
	if t := c.GetIdleTimeout(); t != nil {
		f.idle = t.AsDuration()
	}
	if err := f.compileClusters(c); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil { // the constraints that the schema itself states
		return nil, err
	}
	if err := f.compileConnect(c); err != nil {
		return nil, err
	}
	if err := f.compileLogs(c); err != nil {
		return nil, err
	}
	var err error
	if f.loggers, err = env.AccessLog(c.GetAccessLog()); err != nil {
		return nil, fmt.Errorf("access_log: %w", err)
	}
	return f, nil
}

func (f *filter) compileConnect(c *tcpproxypb.TcpProxy) (err error) {
	f.onData = c.GetUpstreamConnectMode() == tcpproxypb.UpstreamConnectMode_ON_DOWNSTREAM_DATA
	if c.GetUpstreamConnectMode() != tcpproxypb.UpstreamConnectMode_IMMEDIATE && c.GetMaxEarlyDataBytes() == nil {
		return errors.New("max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE")
	}
	if f.backOff, err = compileBackOff(c.GetBackoffOptions()); err != nil {
		return fmt.Errorf("backoff_options: %w", err)
	}
	if err = f.compileTLVs(c.GetProxyProtocolTlvs()); err != nil {
		return fmt.Errorf("proxy_protocol_tlvs%w", err)
	}
	if c.GetTunnelingConfig() != nil {
		if f.tunnel, err = compileTunnel(c.GetTunnelingConfig()); err != nil {
			return fmt.Errorf("tunneling_config.%w", err)
		}
	}
	for i, h := range c.GetHashPolicy() {
		if f.hash, err = compileHash(h); err != nil {
			return fmt.Errorf("hash_policy[%d]: %w", i, err)
		}
	}
	return nil
}

func (f *filter) compileTLVs(list []*corepb.TlvEntry) error {
	for i, e := range list {
		t := tlv{kind: byte(e.GetType()), value: e.GetValue()}
		switch {
		case len(t.value) == 0 && e.GetFormatString() == nil:
			return fmt.Errorf("[%d]: Invalid TLV configuration: one of 'value' or 'format_string' must be set.", i) //nolint:revive,staticcheck // Envoy's words
		case len(t.value) > 0 && e.GetFormatString() != nil:
			return fmt.Errorf("[%d]: Invalid TLV configuration: only one of 'value' or 'format_string' may be set.", i) //nolint:revive,staticcheck // Envoy's words
		case e.GetFormatString() != nil:
			var err error
			if t.format, err = format.New(e.GetFormatString()); err != nil {
				return fmt.Errorf("[%d].format_string: %w", i, err)
			}
		}
		f.tlvs = append(f.tlvs, t)
	}
	return nil
}

func compileHash(h *typepb.HashPolicy) (func(*streaminfo.Info) (uint64, bool), error) {
	switch p := h.GetPolicySpecifier().(type) {
	case *typepb.HashPolicy_SourceIp_:
		return func(i *streaminfo.Info) (uint64, bool) {
			return xxhash.Sum64String(i.DownstreamRemote.Addr().String()), true
		}, nil
	case *typepb.HashPolicy_FilterState_:
		key := p.FilterState.GetKey()
		return func(i *streaminfo.Info) (uint64, bool) {
			v, ok := i.FilterState[key].(string)
			return xxhash.Sum64String(v), ok
		}, nil
	default:
		return nil, fmt.Errorf("%T is not supported", p)
	}
}

func (f *filter) compileClusters(c *tcpproxypb.TcpProxy) error {
	common := criteria(nil, c.GetMetadataMatch())
	switch s := c.GetClusterSpecifier().(type) {
	case *tcpproxypb.TcpProxy_Cluster:
		f.clusters, f.total = []weighted{{s.Cluster, 1, common, common}}, 1
	case *tcpproxypb.TcpProxy_WeightedClusters:
		for _, w := range s.WeightedClusters.GetClusters() {
			f.clusters = append(f.clusters, weighted{w.GetName(), w.GetWeight(), criteria(common, w.GetMetadataMatch()), common})
			f.total += uint64(w.GetWeight())
		}
	}
	if f.total == 0 {
		return errors.New("cluster_specifier: no cluster with a weight")
	}
	if f.total > math.MaxUint32 {
		return fmt.Errorf("weighted_clusters: weights must sum up to at most %d, got %d", uint32(math.MaxUint32), f.total)
	}
	return nil
}

// criteria are those that m adds to base, in which it replaces what has the same key.
func criteria(base map[string]any, m *corepb.Metadata) map[string]any {
	own := m.GetFilterMetadata()["envoy.lb"].AsMap()
	if len(own) == 0 {
		return base
	}
	out := maps.Clone(base)
	if out == nil {
		out = map[string]any{}
	}
	maps.Copy(out, own)
	return out
}

func (f *filter) compileLogs(c *tcpproxypb.TcpProxy) error {
	deprecated := logOptions{interval: c.GetAccessLogFlushInterval().AsDuration(), onConnected: c.GetFlushAccessLogOnConnected()}
	o := c.GetAccessLogOptions()
	switch {
	case o == nil:
		f.logs = deprecated
	case deprecated.onConnected:
		return errors.New("Only one of flush_access_log_on_connected or access_log_options can be specified.") //nolint:revive,staticcheck // Envoy's words
	case deprecated.interval > 0:
		return errors.New("Only one of access_log_flush_interval or access_log_options can be specified.") //nolint:revive,staticcheck // Envoy's words
	default:
		f.logs = logOptions{interval: o.GetAccessLogFlushInterval().AsDuration(), onConnected: o.GetFlushAccessLogOnConnected(), onStart: o.GetFlushAccessLogOnStart()}
	}
	return nil
}
