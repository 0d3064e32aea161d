// Package tcpproxy is the terminal network filter envoy.filters.network.tcp_proxy: it
// connects a downstream connection to an endpoint of a cluster and relays bytes both
// ways until both have ended.
//
// A half of the stream that ends is passed on as such; a reset on one side resets the
// other. Where both sides are plain sockets and much is to move, the kernel moves it
// (splice). The upstream side is a connection of its own, or with tunneling_config the
// body of an HTTP exchange (CONNECT or POST) of the cluster's pool. Every connection ends
// with one access log line; access_log_options order more.
package tcpproxy

import (
	"context"
	"math/rand/v2"
	"time"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	tcpproxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// ClusterKey is the filter state by which an earlier filter names the cluster, in the
// place of what is configured (a string).
const ClusterKey = "envoy.tcp_proxy.cluster"

// HostKey is the filter state by which an earlier filter says where a cluster connects to
// whose endpoints are whatever clients ask for, "name:port".
const HostKey = "envoy.upstream.dynamic_host"

// A Cluster is what the filter needs of a cluster.Cluster.
type Cluster interface {
	Pick(*lb.Context) *endpoint.Endpoint
	// Dial connects for a stream of bytes, HTTP is the pool for tunnels.
	Dial(ctx context.Context, ep *endpoint.Endpoint, t transport.Target) (transport.Conn, error)
	HTTP(ep *endpoint.Endpoint, w upstream.Wish) *upstream.Pool
	Stats() *upstream.Stats
}

// A Logger records connections: at their end, and before where that is asked for.
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
	backOff     backOff
	idle        time.Duration // 0: none
	maxDuration time.Duration // 0: none
	jitter      float64       // of maxDuration, as a part of it
	hash        func(*streaminfo.Info) (uint64, bool)
	tunnel      *tunneling // nil: none
	onData      bool       // upstream_connect_mode ON_DOWNSTREAM_DATA
	checkDrain  bool       // check_drain_close
	tlvs        []tlv
	mergeTLVs   tcpproxypb.ProxyProtocolTlvMergePolicy
	logs        logOptions
	loggers     []Logger
	stats       counters
}

// counters are "tcp.<stat_prefix>.…".
type counters struct {
	total, noRoute, rx, tx, idle, maxDuration, earlyData *stats.Counter
	flushTotal                                           *stats.Counter
	rxBuffered, txBuffered, flushActive                  *stats.Gauge
	paused, resumed                                      *stats.Counter
}

func newCounters(s *stats.Scope) counters {
	return counters{
		total: s.Counter("downstream_cx_total"), noRoute: s.Counter("downstream_cx_no_route"),
		rx: s.Counter("downstream_cx_rx_bytes_total"), tx: s.Counter("downstream_cx_tx_bytes_total"),
		rxBuffered: s.Gauge("downstream_cx_rx_bytes_buffered"), txBuffered: s.Gauge("downstream_cx_tx_bytes_buffered"),
		paused: s.Counter("downstream_flow_control_paused_reading_total"), resumed: s.Counter("downstream_flow_control_resumed_reading_total"),
		idle: s.Counter("idle_timeout"), maxDuration: s.Counter("max_downstream_connection_duration"),
		earlyData: s.Counter("early_data_received_count_total"), flushTotal: s.Counter("upstream_flush_total"), flushActive: s.Gauge("upstream_flush_active"),
	}
}

func (f *filter) close() {
	for _, l := range f.loggers {
		l.Close()
	}
}

// Serve connects c upstream and relays until both sides are done.
func (f *filter) Serve(ctx context.Context, c *network.Conn) {
	f.stats.total.Inc()
	if f.logs.onStart {
		c.Look(func(i *streaminfo.Info) { f.log(i, "TcpConnectionStart") })
	}
	f.serve(ctx, c)
	c.Settle()
	c.Info.End = time.Now()
	c.Info.LogType = ""
	for _, l := range f.loggers {
		l.LogTCP(c.Info)
	}
}

func (f *filter) serve(ctx context.Context, c *network.Conn) {
	if f.onData && !f.spoken(c) {
		_ = c.Close()
		return
	}
	up, s := f.connection(ctx, c)
	if up == nil {
		_ = c.Close() // bytes that nobody read make the kernel send a reset, as with Envoy
		return
	}
	if f.logs.onConnected {
		c.Look(func(i *streaminfo.Info) { f.log(i, "TcpUpstreamConnected") })
	}
	f.relay(c, up, s)
}

// spoken waits until the client says something, no longer than it may be idle.
func (f *filter) spoken(c *network.Conn) bool {
	if f.idle > 0 {
		_ = c.SetReadDeadline(time.Now().Add(f.idle)) // fails on a closed socket, which the wait finds out
	}
	err := c.WaitReadable()
	_ = c.SetReadDeadline(time.Time{})
	if err != nil || c.Ended() {
		return false
	}
	f.stats.earlyData.Inc()
	return true
}

// log writes a line of the given type for a connection that goes on.
func (f *filter) log(info *streaminfo.Info, kind string) {
	info.LogType = kind
	for _, l := range f.loggers {
		l.LogTCP(info)
	}
	info.LogType = ""
}

// Refused logs a connection whose handshake failed. Envoy chooses the cluster before it.
func (f *filter) Refused(info *streaminfo.Info) {
	f.stats.total.Inc()
	if w := f.choose(info); f.env.Cluster(w.name) != nil {
		info.Cluster = w.name
	}
	info.End = time.Now()
	for _, l := range f.loggers {
		l.LogTCP(info)
	}
}

// Denied logs a connection that an earlier filter has ended.
func (f *filter) Denied(info *streaminfo.Info) {
	f.stats.total.Inc()
	info.End = time.Now()
	for _, l := range f.loggers {
		l.LogTCP(info)
	}
}

// choose returns the cluster for one connection.
func (f *filter) choose(info *streaminfo.Info) weighted {
	if name, ok := info.FilterState[ClusterKey].(string); ok {
		return weighted{name: name, criteria: f.clusters[0].common}
	}
	n := uint64(0)
	if len(f.clusters) > 1 {
		n = rand.Uint64N(f.total)
	}
	for _, w := range f.clusters {
		if n < uint64(w.weight) {
			return w
		}
		n -= uint64(w.weight)
	}
	return f.clusters[0]
}
