package tcpproxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tcpproxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/peer"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// backOff is how long to wait between attempts: a random time below a bound that doubles.
// The zero value is no wait.
type backOff struct{ base, most time.Duration }

func compileBackOff(b *corepb.BackoffStrategy) (backOff, error) {
	if b == nil {
		return backOff{}, nil
	}
	o := backOff{base: b.GetBaseInterval().AsDuration(), most: 10 * b.GetBaseInterval().AsDuration()}
	if b.GetMaxInterval() != nil {
		o.most = b.GetMaxInterval().AsDuration()
	}
	if o.most < o.base {
		return o, errors.New("max_backoff_interval must be greater or equal to base_backoff_interval")
	}
	return o, nil
}

// wait pauses before attempt n, counted from 1; false when ctx has ended.
func (b backOff) wait(ctx context.Context, n int) bool {
	if b.base <= 0 {
		return ctx.Err() == nil
	}
	bound := b.base
	for range n - 1 {
		if bound = min(2*bound, b.most); bound == b.most {
			break
		}
	}
	t := time.NewTimer(rand.N(bound))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect finds an endpoint and connects to it, as often as the configuration allows;
// nil after a failure, which Info tells. The stats are the cluster's.
func (f *filter) connect(ctx context.Context, info *streaminfo.Info) (transport.Conn, *upstream.Stats) {
	w := f.choose(info)
	cl := f.env.Cluster(w.name)
	if cl == nil {
		f.stats.noRoute.Inc()
		info.Flags.Set(streaminfo.NoClusterFound)
		return nil, nil
	}
	info.Cluster = w.name
	choice := lb.Context{OriginalDst: info.OriginalDst(), Match: w.criteria, Host: asked(info)}
	if f.hash != nil {
		choice.Hash, choice.HasHash = f.hash(info)
	}
	target := transport.Target{Proxied: f.proxied(info)}
	for info.Attempts < f.attempts {
		if info.Attempts > 0 && !f.backOff.wait(ctx, info.Attempts) {
			return nil, nil
		}
		ep := cl.Pick(&choice)
		if ep == nil {
			cl.Stats().CxNoneHealthy.Inc()
			info.Flags.Set(streaminfo.NoHealthyUpstream)
			return nil, nil
		}
		up, err := f.reach(ctx, cl, ep, target, info)
		if errors.Is(err, cluster.ErrOverflow) {
			info.Flags.Set(streaminfo.UpstreamOverflow)
			return nil, nil
		}
		info.Attempts++
		info.Upstream = ep
		if err == nil {
			info.UpstreamLocal, info.UpstreamTLS = up.LocalAddr(), up.Handshake()
			info.UpstreamPeer, _ = up.(peer.Known)
			return up, cl.Stats()
		}
		info.Flags.Set(streaminfo.UpstreamConnectionFailure)
		if failure, ok := errors.AsType[*transport.Error](err); ok {
			info.UpstreamFailureReason = failure.Reason
		}
		if reset, ok := errors.AsType[*http.Reset](err); ok {
			info.UpstreamFailureReason = reset.Detail
		}
	}
	cl.Stats().CxConnectAttemptsExceeded.Inc()
	info.Flags.Set(streaminfo.UpstreamRetryLimitExceeded)
	return nil, nil
}

// asked is where the client wants to go by name: as a filter says, else by its server name.
func asked(info *streaminfo.Info) []byte {
	if host, ok := info.FilterState[HostKey].(string); ok {
		return []byte(host)
	}
	return []byte(info.ServerName)
}

// reach makes the upstream side: a connection, or a tunnel.
func (f *filter) reach(ctx context.Context, cl Cluster, ep *endpoint.Endpoint, t transport.Target, info *streaminfo.Info) (transport.Conn, error) {
	if f.tunnel == nil {
		return cl.Dial(ctx, ep, t)
	}
	state := maps.Clone(info.FilterState)
	if state == nil {
		state = map[string]any{}
	}
	state[transport.ProxiedKey] = t.Proxied
	pool := cl.HTTP(ep, upstream.Wish{State: state})
	if pool == nil { // there are too many
		return nil, cluster.ErrOverflow
	}
	up, err := f.tunnel.open(ctx, pool, info)
	if err != nil {
		return nil, fmt.Errorf("tunnel: %w", err)
	}
	return up, nil
}

// A tlv is one of proxy_protocol_tlvs: a value, or the form of one.
type tlv struct {
	kind   byte
	value  []byte
	format *format.Format
}

func (f *filter) ownTLVs(info *streaminfo.Info) (list []transport.TLV) {
	for _, t := range f.tlvs {
		if t.format != nil {
			t.value = t.format.Append(nil, format.Record{Info: info})
		}
		list = append(list, transport.TLV{Type: t.kind, Value: t.value})
	}
	return list
}

// proxied is what the PROXY protocol tells upstream about the connection: what it has
// told us itself, else what the sockets say, with the configured TLVs.
func (f *filter) proxied(info *streaminfo.Info) *transport.Proxied {
	told, ok := info.FilterState[transport.ProxiedKey].(*transport.Proxied)
	own := f.ownTLVs(info)
	if !ok {
		return &transport.Proxied{From: info.DownstreamRemote, To: info.DownstreamLocal, TLVs: own}
	}
	merged := *told
	switch f.mergeTLVs {
	case tcpproxypb.ProxyProtocolTlvMergePolicy_OVERWRITE_BY_TYPE_IF_EXISTS_OR_ADD:
		merged.TLVs = slices.DeleteFunc(slices.Clone(told.TLVs), func(t transport.TLV) bool {
			return slices.ContainsFunc(own, func(o transport.TLV) bool { return o.Type == t.Type })
		})
		merged.TLVs = append(merged.TLVs, own...)
	case tcpproxypb.ProxyProtocolTlvMergePolicy_APPEND_IF_EXISTS_OR_ADD:
		merged.TLVs = append(slices.Clip(told.TLVs), own...)
	}
	return &merged
}
