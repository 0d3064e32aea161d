package cluster

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/outside"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Options are what Clusters use of the proxy around them.
type Options struct {
	Stats *stats.Store // nil: a store of its own
	// Exchange begins a TCP connection with what peers tell each other; nil: nothing is told.
	Exchange func(transport.Conn) transport.Conn
	// Source gives the xDS client for a config source of EDS; nil: no EDS.
	Source func(*corev3.ConfigSource) (*xds.Client, error)
	// Secrets are those of transport sockets; nil: no SDS.
	Secrets *transport.Secrets
	// Resolver resolves names of DNS clusters without a resolver of their own; nil: the system's.
	Resolver *dns.Resolver
	// Bind is the bind config of clusters without one of their own (cluster_manager of the
	// bootstrap), in the form that CheckBind accepts.
	Bind *corev3.BindConfig
	// Outside connects to addresses beyond the mesh; nil: they are dialled like others.
	Outside *outside.Door
	// Locality is where the proxy runs, and Local the name of the cluster of its like
	// (local_cluster_name): with both there is zone aware routing.
	Locality endpoint.Locality
	Local    string
	// Still, if not nil, keeps the clusters from doing anything by themselves: no name is
	// resolved, no endpoint checked, nothing subscribed to or waited for. It gives what EDS
	// would, nil for nothing. Endpoints of DNS clusters then have their names for addresses.
	Still func(service string) *endpointv3.ClusterLoadAssignment
	// Runtime may have other maxima of circuit breakers; nil: it has none.
	Runtime *runtime.Values
	Logger  *slog.Logger
}

// Clusters are all clusters of the proxy by name. They are safe for concurrent use.
type Clusters struct {
	opts  Options
	log   *slog.Logger
	live  index
	ctx   context.Context
	stop  context.CancelFunc
	store *stats.Store
	// control prepares the sockets of resolvers, nil: nothing to do.
	control func(network, address string, c syscall.RawConn) error

	mu           sync.Mutex
	warming      map[string]*Cluster
	calm         chan struct{} // closed when none warms any more; nil while none does
	static       map[string]bool
	resolvers    map[string]*dns.Resolver
	caches       map[string]*sharedCache // of dynamic forward proxies
	initializing int                     // clusters that Initialized waits for, and CDS itself
	initialized  chan struct{}           // closed when there is none
	gauges       struct{ active, warming *stats.Gauge }
	counts       struct{ added, modified, removed *stats.Counter }
}

// New returns an empty set. Close ends its timers and connections.
func New(o Options) *Clusters {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Stats == nil {
		o.Stats = stats.NewStore()
	}
	if o.Resolver == nil {
		o.Resolver = dns.New(dns.Options{})
	}
	if o.Source == nil {
		o.Source = func(*corev3.ConfigSource) (*xds.Client, error) {
			return nil, errors.New("there is no management server")
		}
	}
	if o.Secrets == nil {
		o.Secrets = transport.NewSecrets(o.Source)
	}
	cs := &Clusters{
		control: ControlOf(o.Bind),
		opts:    o, log: o.Logger, store: o.Stats, warming: map[string]*Cluster{}, static: map[string]bool{},
		resolvers: map[string]*dns.Resolver{}, caches: map[string]*sharedCache{}, initializing: 1, initialized: make(chan struct{}),
		live: index{seed: maphash.MakeSeed()},
	}
	cs.ctx, cs.stop = context.WithCancel(context.Background())
	scope := o.Stats.Scope("cluster_manager.")
	cs.gauges.active, cs.gauges.warming = scope.Gauge("active_clusters"), scope.Gauge("warming_clusters")
	cs.counts.added, cs.counts.modified, cs.counts.removed = scope.Counter("cluster_added"), scope.Counter("cluster_modified"), scope.Counter("cluster_removed")
	o.Runtime.OnChange(cs.takeRuntime)
	return cs
}

// Get returns the live cluster of that name, nil when there is none (or it is still
// warming for the first time). It takes no lock and does not allocate.
func (cs *Clusters) Get(name string) *Cluster { return cs.live.get(name) }

// Has reports a cluster of that name, live or warming.
func (cs *Clusters) Has(name string) bool {
	if cs.Get(name) != nil {
		return true
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.warming[name] != nil || cs.Get(name) != nil // it may have become live between the two looks
}

// Soon is Get that waits for a cluster that warms for the first time: a route may
// arrive before what it names is warm, and its first requests are not to be lost. One
// that has been warming for warmPatience is not waited for.
func (cs *Clusters) Soon(name string) *Cluster {
	for {
		if c := cs.Get(name); c != nil {
			return c
		}
		cs.mu.Lock()
		c := cs.warming[name]
		cs.mu.Unlock()
		if c == nil {
			return cs.Get(name) // it may have become live between the two looks
		}
		patience := time.NewTimer(warmPatience - time.Since(c.added))
		select {
		case <-c.live:
		case <-c.ctx.Done(): // removed, or replaced by another one that warms
		case <-patience.C:
			return cs.Get(name)
		}
		patience.Stop()
	}
}

// warmPatience is many times what a control plane at hand needs for endpoints and
// secrets.
const warmPatience = 2 * time.Second

// AddStatic adds a cluster of the bootstrap. The error names the cluster and the field.
func (cs *Clusters) AddStatic(pb *clusterv3.Cluster) error {
	c, err := cs.build(pb, true)
	if err == nil {
		cs.adopt(c)
	}
	if err != nil {
		return fmt.Errorf("cluster %s: %w", pb.GetName(), err)
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.static[pb.GetName()] = true
	return nil
}

// Start ends the set-up: after it Initialized can come. With a client it subscribes to
// CDS, and Initialized waits for the clusters of the first response (or timeout, when
// not 0).
func (cs *Clusters) Start(client *xds.Client, timeout time.Duration) {
	first := sync.OnceFunc(cs.settled)
	if client == nil {
		first()
		return
	}
	t := xds.Type[*Cluster]{URL: wellknown.ClusterType, FetchTimeout: timeout, Decode: cs.decodeCDS, Settled: cs.settledDown}
	xds.SubscribeAll(client, t, func(ch xds.Changes[*Cluster]) error {
		defer first()
		cs.apply(ch)
		return nil
	})
}

// decodeCDS makes a cluster that is ready to warm; apply takes it into use.
func (cs *Clusters) decodeCDS(_ string, body *anypb.Any) (*Cluster, error) {
	var pb clusterv3.Cluster
	if err := proto.Unmarshal(body.GetValue(), &pb); err != nil {
		return nil, err
	}
	return cs.build(&pb, false)
}

// Initialized is closed when every cluster of the bootstrap and of the first CDS
// response is live: then listeners may take traffic.
func (cs *Clusters) Initialized() <-chan struct{} { return cs.initialized }

func (cs *Clusters) settled() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.initializing--; cs.initializing == 0 {
		close(cs.initialized)
	}
}

func (cs *Clusters) apply(ch xds.Changes[*Cluster]) {
	for _, r := range ch.Updated {
		if cs.isStatic(r.Name) { // Envoy keeps the one of the bootstrap, without a word
			r.Value.close()
			continue
		}
		r.Value.version = r.Version
		cs.adopt(r.Value)
	}
	for _, name := range ch.Removed {
		if !cs.isStatic(name) {
			cs.remove(name)
		}
	}
}

func (cs *Clusters) isStatic(name string) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.static[name]
}

// build makes a cluster of its resource, up to what can be refused.
func (cs *Clusters) build(pb *clusterv3.Cluster, bootstrap bool) (*Cluster, error) {
	cfg, err := decode(pb, cs.opts.Bind)
	if err != nil {
		return nil, err
	}
	cfg.dialer.Outside = cs.opts.Outside
	c := cs.make(cfg)
	c.dynamic = !bootstrap
	if err := c.prepare(); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// adopt warms a cluster; the one of the same name serves until then.
func (cs *Clusters) adopt(c *Cluster) {
	if cs.Get(c.Name()) == nil {
		cs.counts.added.Inc()
	} else {
		cs.counts.modified.Inc()
	}
	previous := cs.warm(c)
	c.start()
	if previous != nil {
		previous.close()
	}
}

// warm notes that c is warming and returns the cluster whose place it takes there.
func (cs *Clusters) warm(c *Cluster) (previous *Cluster) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	previous = cs.warming[c.Name()]
	cs.warming[c.Name()] = c
	cs.showWarming()
	if cs.initializing > 0 {
		cs.initializing++
		c.settle = sync.OnceFunc(cs.settled)
	}
	return previous
}

// showWarming notes how many clusters warm. cs.mu is held.
func (cs *Clusters) showWarming() {
	cs.gauges.warming.Set(int64(len(cs.warming)))
	switch {
	case len(cs.warming) > 0 && cs.calm == nil:
		cs.calm = make(chan struct{})
	case len(cs.warming) == 0 && cs.calm != nil:
		close(cs.calm)
		cs.calm = nil
	}
}

// settledDown returns a channel that is closed when no cluster warms.
func (cs *Clusters) settledDown() <-chan struct{} {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.calm != nil {
		return cs.calm
	}
	none := make(chan struct{})
	close(none)
	return none
}

// make builds a cluster that has nothing yet. Its circuit breakers are those of the
// one that it will replace.
func (cs *Clusters) make(cfg *config) *Cluster {
	c := &Cluster{
		config: cfg, parent: cs, scope: cs.store.Scope(statPrefix(cfg.statName)), added: time.Now(),
		live: make(chan struct{}), hosts: map[identity]*host{}, limits: &breakers{}, resolver: cs.resolver(cfg.dns.resolver), settle: func() {},
	}
	c.lbStats = lb.NewStats(c.scope)
	c.ctx, c.stop = context.WithCancel(cs.ctx)
	if old := cs.Get(cfg.name); old != nil && old.config.tracksAs(cfg) {
		c.limits = old.limits
	}
	return c
}

func (cfg *config) tracksAs(other *config) bool {
	for i := range cfg.thresholds {
		if cfg.thresholds[i].TrackRemaining != other.thresholds[i].TrackRemaining {
			return false
		}
	}
	return cfg.statName == other.statName
}

func (cs *Clusters) resolver(o *dns.Options) *dns.Resolver {
	if o == nil {
		return cs.opts.Resolver
	}
	key := fmt.Sprintf("%+v", *o)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.resolvers[key] == nil {
		special := *o
		special.Control = cs.control
		cs.resolvers[key] = dns.New(special)
	}
	return cs.resolvers[key]
}

// External reports that a live cluster is not the mesh's: its metadata say so, or its
// endpoints are wherever clients want to go.
func (cs *Clusters) External(name string) bool {
	c := cs.Get(name)
	return c != nil && c.config.external
}

// activate makes a warm cluster the live one of its name.
func (cs *Clusters) activate(c *Cluster) {
	cs.mu.Lock()
	if cs.warming[c.Name()] != c { // removed or replaced meanwhile
		cs.mu.Unlock()
		return
	}
	delete(cs.warming, c.Name())
	c.limits.setMax(c.thresholdsNow())
	old := cs.live.put(c.Name(), c)
	cs.showWarming()
	cs.gauges.active.Set(int64(cs.live.len()))
	close(c.live)
	cs.mu.Unlock()
	c.settle()
	if old != nil {
		old.close()
	}
	cs.localChanged(c)
}

// remove drops a cluster. Streams that hold it finish.
func (cs *Clusters) remove(name string) {
	cs.mu.Lock()
	warming, live := cs.warming[name], cs.live.put(name, nil)
	delete(cs.warming, name)
	cs.showWarming()
	cs.gauges.active.Set(int64(cs.live.len()))
	cs.mu.Unlock()
	if live != nil {
		live.close()
		cs.counts.removed.Inc()
	}
	if warming != nil {
		warming.close()
	}
	for _, c := range []*Cluster{live, warming} {
		if c != nil {
			cs.forgetStats(c.config.statName)
		}
	}
}

// forgetStats drops the stats of a cluster that is gone, but not those of others whose
// names begin with its name, or are the same.
func (cs *Clusters) forgetStats(name string) {
	prefix := statPrefix(name)
	var others []string
	for _, c := range cs.all() {
		if p := statPrefix(c.config.statName); strings.HasPrefix(p, prefix) {
			others = append(others, p)
		}
	}
	cs.store.Forget(prefix, others...)
}

func statPrefix(name string) string { return "cluster." + name + "." }

// Dialer is the way to a cluster for gRPC streams of the proxy itself: it waits until
// the cluster is live, picks an endpoint and connects, with "h2" as ALPN of TLS.
func (cs *Clusters) Dialer(name string) xds.Dial {
	return func(ctx context.Context) (net.Conn, error) {
		c, err := cs.await(ctx, name)
		if err != nil {
			return nil, err
		}
		ep := c.Pick(&lb.Context{})
		if ep == nil {
			return nil, fmt.Errorf("cluster %s: no healthy upstream", name)
		}
		conn, err := ep.Owner.(*host).connect(ctx, transport.Target{ALPN: []string{"h2"}})
		if err != nil {
			return nil, fmt.Errorf("cluster %s: %s: %w", name, ep.Address, err)
		}
		return transport.NetConn(conn), nil
	}
}

func (cs *Clusters) await(ctx context.Context, name string) (*Cluster, error) {
	if c := cs.Get(name); c != nil {
		return c, nil
	}
	cs.mu.Lock()
	c := cs.warming[name]
	cs.mu.Unlock()
	if c == nil {
		if c = cs.Get(name); c != nil {
			return c, nil
		}
		return nil, fmt.Errorf("unknown cluster %q", name)
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.connectTimeout)
	defer cancel()
	select {
	case <-c.live:
		return c, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("cluster %s is warming: %w", name, ctx.Err())
	}
}

// Drain has every pool close its connections when they are idle, and new ones be made
// for later requests.
func (cs *Clusters) Drain() {
	for _, c := range cs.all() {
		c.drain()
	}
}

// Close ends all clusters.
func (cs *Clusters) Close() {
	cs.stop()
	for _, c := range cs.all() {
		c.close()
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for key, c := range cs.caches { // that only filters look names up in
		c.Close()
		delete(cs.caches, key)
	}
}

// all are the live and the warming clusters, by name.
func (cs *Clusters) all() []*Cluster {
	cs.mu.Lock()
	list := cs.live.all()
	for _, c := range cs.warming {
		list = append(list, c)
	}
	cs.mu.Unlock()
	sort.SliceStable(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	return list
}
