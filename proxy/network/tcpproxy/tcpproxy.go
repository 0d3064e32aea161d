// Package tcpproxy is the terminal network filter envoy.filters.network.tcp_proxy: it
// connects a downstream connection to an endpoint of a cluster and relays bytes both
// ways until both have ended.
//
// A half of the stream that ends is passed on as such; a reset on one side resets the
// other. Where both sides are plain sockets and much is to move, the kernel moves it
// (splice). Every connection ends with one access log line.
package tcpproxy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/cespare/xxhash/v2"
	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	tcpproxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A Cluster is what the filter needs of a cluster.Cluster.
type Cluster interface {
	Pick(*lb.Context) *endpoint.Endpoint
	Dial(ctx context.Context, ep *endpoint.Endpoint) (transport.Conn, error)
	Stats() *upstream.Stats
}

// A Logger records finished connections.
type Logger interface {
	LogTCP(*streaminfo.Info)
	Close()
}

// Env is what the filter uses of the proxy around it.
type Env struct {
	// Cluster finds a cluster by name, nil when there is none.
	Cluster func(name string) Cluster
	// AccessLog compiles access_log.
	AccessLog func([]*accesslogpb.AccessLog) ([]Logger, error)
	Stats     *stats.Store
}

// Factory makes the filter known to listeners.
func Factory(env Env) network.Factory {
	return network.Factory{
		Name:     "envoy.filters.network.tcp_proxy",
		TypeURLs: []string{"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			var c tcpproxypb.TcpProxy
			if err := cfg.UnmarshalTo(&c); err != nil {
				return network.Built{}, err
			}
			release := env.Stats.Scope("tcp." + c.GetStatPrefix() + ".").Claim()
			f, err := compile(&c, env)
			if err != nil {
				release()
				return network.Built{}, err
			}
			return network.Built{Terminal: f, Close: func() { f.close(); release() }}, nil
		},
	}
}

// filter is the compiled configuration, shared by all its connections.
type filter struct {
	env         Env
	clusters    []weighted
	total       uint64 // sum of weights
	attempts    int
	idle        time.Duration // 0: none
	maxDuration time.Duration // 0: none
	hashSource  bool
	loggers     []Logger
	stats       counters
}

type weighted struct {
	name   string
	weight uint32
}

// counters are "tcp.<stat_prefix>.…".
type counters struct {
	total, noRoute, rx, tx, idle, maxDuration *stats.Counter
}

// defaultIdle is Envoy's idle_timeout where none is set.
const defaultIdle = time.Hour

func compile(c *tcpproxypb.TcpProxy, env Env) (*filter, error) {
	if err := xds.Only(c, "stat_prefix", "cluster", "weighted_clusters", "idle_timeout", "access_log",
		"max_connect_attempts", "hash_policy", "max_downstream_connection_duration"); err != nil {
		return nil, err
	}
	s := env.Stats.Scope("tcp." + c.GetStatPrefix() + ".")
	f := &filter{env: env, attempts: 1, idle: defaultIdle, maxDuration: c.GetMaxDownstreamConnectionDuration().AsDuration(), stats: counters{
		total: s.Counter("downstream_cx_total"), noRoute: s.Counter("downstream_cx_no_route"),
		rx: s.Counter("downstream_cx_rx_bytes_total"), tx: s.Counter("downstream_cx_tx_bytes_total"),
		idle: s.Counter("idle_timeout"), maxDuration: s.Counter("max_downstream_connection_duration"),
	}}
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
	for i, h := range c.GetHashPolicy() {
		if h.GetSourceIp() == nil {
			return nil, fmt.Errorf("hash_policy[%d]: %T is not supported", i, h.GetPolicySpecifier())
		}
		f.hashSource = true
	}
	var err error
	if f.loggers, err = env.AccessLog(c.GetAccessLog()); err != nil {
		return nil, fmt.Errorf("access_log: %w", err)
	}
	return f, nil
}

func (f *filter) compileClusters(c *tcpproxypb.TcpProxy) error {
	switch s := c.GetClusterSpecifier().(type) {
	case *tcpproxypb.TcpProxy_Cluster:
		f.clusters, f.total = []weighted{{s.Cluster, 1}}, 1
	case *tcpproxypb.TcpProxy_WeightedClusters:
		for i, w := range s.WeightedClusters.GetClusters() {
			if w.GetMetadataMatch() != nil {
				return fmt.Errorf("weighted_clusters.clusters[%d].metadata_match: not supported", i)
			}
			f.clusters = append(f.clusters, weighted{w.GetName(), w.GetWeight()})
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

func (f *filter) close() {
	for _, l := range f.loggers {
		l.Close()
	}
}

// Serve connects c upstream and relays until both sides are done.
func (f *filter) Serve(ctx context.Context, c *network.Conn) {
	f.stats.total.Inc()
	if up, s := f.connection(ctx, c); up != nil {
		f.relay(c, up, s)
	} else {
		_ = c.Close() // bytes that nobody read make the kernel send a reset, as with Envoy
	}
	c.Info.End = time.Now()
	for _, l := range f.loggers {
		l.LogTCP(c.Info)
	}
}

// Refused logs a connection whose handshake failed. Envoy chooses the cluster before it.
func (f *filter) Refused(info *streaminfo.Info) {
	f.stats.total.Inc()
	if name := f.choose(); f.env.Cluster(name) != nil {
		info.Cluster = name
	}
	info.End = time.Now()
	for _, l := range f.loggers {
		l.LogTCP(info)
	}
}

// choose returns the cluster's name for one connection.
func (f *filter) choose() string {
	n := uint64(0)
	if len(f.clusters) > 1 {
		n = rand.Uint64N(f.total)
	}
	for _, w := range f.clusters {
		if n < uint64(w.weight) {
			return w.name
		}
		n -= uint64(w.weight)
	}
	return f.clusters[0].name
}

// connect finds an endpoint and connects to it, as often as the configuration allows;
// nil after a failure, which Info tells. The stats are the cluster's.
func (f *filter) connect(ctx context.Context, info *streaminfo.Info) (transport.Conn, *upstream.Stats) {
	name := f.choose()
	cl := f.env.Cluster(name)
	if cl == nil {
		f.stats.noRoute.Inc()
		info.Flags.Set(streaminfo.NoClusterFound)
		return nil, nil
	}
	info.Cluster = name
	choice := lb.Context{OriginalDst: info.OriginalDst()}
	if f.hashSource {
		choice.Hash, choice.HasHash = xxhash.Sum64String(info.DownstreamRemote.Addr().String()), true
	}
	for info.Attempts < f.attempts {
		ep := cl.Pick(&choice)
		if ep == nil {
			cl.Stats().CxNoneHealthy.Inc()
			info.Flags.Set(streaminfo.NoHealthyUpstream)
			return nil, nil
		}
		up, err := cl.Dial(ctx, ep)
		if errors.Is(err, cluster.ErrOverflow) {
			info.Flags.Set(streaminfo.UpstreamOverflow)
			return nil, nil
		}
		info.Attempts++
		info.Upstream = ep
		if err == nil {
			info.UpstreamLocal = up.LocalAddr()
			return up, cl.Stats()
		}
		info.Flags.Set(streaminfo.UpstreamConnectionFailure)
		if failure, ok := errors.AsType[*transport.Error](err); ok {
			info.UpstreamFailureReason = failure.Reason
		}
	}
	cl.Stats().CxConnectAttemptsExceeded.Inc()
	info.Flags.Set(streaminfo.UpstreamRetryLimitExceeded)
	return nil, nil
}
