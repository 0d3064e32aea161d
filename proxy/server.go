package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/proxy/accesslog"
	"github.com/lateen-mesh/lateen/proxy/admin"
	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/listener"
	"github.com/lateen-mesh/lateen/proxy/network/metadataexchange"
	"github.com/lateen-mesh/lateen/proxy/outside"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// server is the running proxy: its parts and what connects them.
type server struct {
	boot  *Bootstrap
	opts  Options
	start time.Time
	logs  *logging.Log
	log   *slog.Logger
	out   *logFile

	stats     *stats.Store
	files     *accesslog.Files
	ads       *xds.Client // nil without a management server
	cds, lds  *xds.Client // nil: all clusters, or listeners, are of the bootstrap
	secrets   *transport.Secrets
	clusters  *cluster.Clusters
	listeners *listener.Set
	admin     *admin.Server
	adminAddr net.Addr
	doors     map[string]*outside.Door // by path

	ctx   context.Context // ends everything
	halt  context.CancelFunc
	tasks sync.WaitGroup
	trim  *time.Timer // gives memory back after a change of configuration

	state   atomic.Int32 // adminpb.ServerInfo_State without draining
	failing atomic.Bool  // /healthcheck/fail, or draining

	model   *Model          // nil: this proxy serves
	quit    func()          // ends the proxy at once
	statics map[string]bool // names of listeners of the bootstrap

	mu     sync.Mutex
	others map[string]*xds.Client // servers of one type, and files, by their configuration
}

func newServer(b *Bootstrap, o Options, out io.Writer) (*server, error) {
	return newServerFor(nil, b, o, out)
}

// newServerFor makes the parts of a proxy that serves, or of a Model.
func newServerFor(m *Model, b *Bootstrap, o Options, out io.Writer) (*server, error) {
	s := &server{model: m, boot: b, opts: o, start: time.Now(), others: map[string]*xds.Client{}, statics: map[string]bool{}, doors: map[string]*outside.Door{}}
	for _, l := range b.Proto.GetStaticResources().GetListeners() {
		s.statics[l.GetName()] = true
	}
	s.ctx, s.halt = context.WithCancel(context.Background())
	var err error
	if s.out, err = openLog(o.LogPath, out); err != nil {
		return nil, err
	}
	if s.logs, err = logging.New(logging.Options{Output: s.out}); err != nil {
		return nil, err
	}
	s.log = s.logs.Scope("main")
	settings, err := stats.Compile(b.Proto.GetStatsConfig())
	if err != nil {
		return nil, fmt.Errorf("stats_config: %w", err)
	}
	s.stats = stats.New(settings)
	s.files = accesslog.NewFiles(s.stats.Scope(""), s.opts.FlushInterval)
	if m != nil {
		s.files.Mute()
	}
	if err := s.connectParts(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// connectParts makes clusters, listeners and the ADS client, each with what it may
// know of the others.
func (s *server) connectParts() error {
	if err := s.newADS(); err != nil {
		return err
	}
	resolver, err := s.resolver()
	if err != nil {
		return err
	}
	s.secrets = transport.NewSecrets(s.source(wellknown.SecretType))
	for i, secret := range s.boot.Proto.GetStaticResources().GetSecrets() {
		if err := s.secrets.AddStatic(secret); err != nil {
			return fmt.Errorf("static_resources.secrets[%d]: %w", i, err)
		}
	}
	s.clusters = cluster.New(cluster.Options{
		Stats: s.stats, Exchange: metadataexchange.Exchange(s.identity()), Source: s.source(wellknown.EndpointType), Secrets: s.secrets, Resolver: resolver, Logger: s.logs.Scope("upstream"),
		Bind: s.boot.Proto.GetClusterManager().GetUpstreamBindConfig(), Outside: s.door(s.opts.DialSocket), Still: s.model.assignments(),
		Runtime: s.boot.runtime, Locality: locality(s.identity().GetLocality()), Local: s.boot.Proto.GetClusterManager().GetLocalClusterName(),
	})
	if err := s.dynamicSources(); err != nil {
		return err
	}
	s.listeners = listener.NewSet(listener.Options{
		Network: s.networkFilters(), Source: s.source,
		Transport: s.downstreamSocket, AccessLog: loggersFor[listener.Logger](s), Stats: s.stats, Log: s.logs.Scope("config"),
		DrainTime: s.opts.DrainTime, GlobalLimit: connectionLimitOf(descriptors(), s.boot.globalLimit), ConnectionLimit: s.boot.connectionLimit,
		Publish: s.publisher(), Failing: s.failing.Load, ValidateOnly: s.opts.Mode == "validate",
	})
	s.admin = admin.New(s.view())
	s.keepServerStats()
	return s.setLevels()
}

// door is the way to who answers at a path, nil for "".
func (s *server) door(path string) *outside.Door {
	if path == "" {
		return nil
	}
	if s.doors[path] == nil {
		s.doors[path] = outside.New(path)
	}
	return s.doors[path]
}

// publisher is how listeners ask for published ports, nil when there is nobody to ask.
func (s *server) publisher() func(context.Context, uint16) (net.Listener, error) {
	door := s.door(s.opts.PublishSocket)
	if door == nil {
		return nil
	}
	return func(ctx context.Context, port uint16) (net.Listener, error) {
		ln, err := door.Listen(ctx, port)
		if errors.Is(err, outside.ErrUnpublished) {
			return nil, nil
		}
		return ln, err
	}
}

func (s *server) setLevels() error {
	if !s.admin.SetLevel("", s.opts.LogLevel) {
		return fmt.Errorf("error: invalid log level specified '%s'", s.opts.LogLevel)
	}
	return s.setComponentLevels(s.opts.ComponentLogLevel)
}

func (s *server) resolver() (*dns.Resolver, error) {
	o := &dns.Options{}
	if typed := s.boot.Proto.GetTypedDnsResolverConfig(); typed != nil {
		var err error
		if o, err = cluster.DecodeResolver(typed); err != nil {
			return nil, fmt.Errorf("typed_dns_resolver_config: %w", err)
		}
	}
	o.TCP = o.TCP || s.boot.Proto.GetUseTcpForDnsLookups()
	o.Control = cluster.ControlOf(s.boot.Proto.GetClusterManager().GetUpstreamBindConfig())
	return dns.New(*o), nil
}

// unspoken are protocols that no codec of this build speaks: they are not offered in
// handshakes, so that peers choose HTTP/1.1.
var unspoken = []string{"istio-http/1.0"}

func (s *server) downstreamSocket(ts *corepb.TransportSocket, scope *stats.Scope) (transport.ServerSocket, error) {
	return transport.DecodeServer(ts, transport.Env{Secrets: s.secrets, Stats: scope, Unspoken: unspoken})
}

// logEnv is what access logs use of the proxy.
func (s *server) logEnv() accesslog.Env {
	return accesslog.Env{Files: s.files, Runtime: s.boot.runtime}
}

// loggersFor compiles access logs for a part that names its own Logger interface.
func loggersFor[L any](s *server) func([]*accesslogpb.AccessLog) ([]L, error) {
	return func(cfg []*accesslogpb.AccessLog) ([]L, error) {
		built, err := accesslog.Build(cfg, s.logEnv())
		if err != nil {
			return nil, err
		}
		list := make([]L, len(built))
		for i, b := range built {
			list[i] = any(b).(L) // accesslog.Logger has all methods that any part asks for
		}
		return list, nil
	}
}

// addStatic puts the bootstrap's clusters and listeners in force.
func (s *server) addStatic() error {
	r := s.boot.Proto.GetStaticResources()
	for i, c := range r.GetClusters() {
		if err := s.clusters.AddStatic(c); err != nil {
			return fmt.Errorf("static_resources.clusters[%d]: %w", i, err)
		}
	}
	var list []*listener.Config
	for i, l := range r.GetListeners() {
		c, err := s.listeners.Decode(l)
		if err != nil {
			for _, c := range list {
				s.listeners.Discard(c)
			}
			return fmt.Errorf("static_resources.listeners[%d] %q: %w", i, l.GetName(), err)
		}
		list = append(list, c)
	}
	return s.listeners.Apply(list, nil)
}

// decodeListener is the owner's function for LDS.
func (s *server) decodeListener(name string, body *anypb.Any) (*listener.Config, error) {
	var l listenerpb.Listener
	if err := proto.Unmarshal(body.GetValue(), &l); err != nil {
		return nil, err
	}
	if s.statics[name] {
		return nil, fmt.Errorf("listener '%s' of the bootstrap cannot be changed", name)
	}
	return s.listeners.Decode(&l)
}

// subscribeListeners begins LDS; first is called after the first response, or when the
// fetch timeout passed.
func (s *server) subscribeListeners(first func()) {
	t := xds.Type[*listener.Config]{
		URL: wellknown.ListenerType, Decode: s.decodeListener, Settled: s.listeners.Settled, // so that an ACK says that it serves
		FetchTimeout: xds.FetchTimeout(s.boot.Proto.GetDynamicResources().GetLdsConfig()),
	}
	xds.SubscribeAll(s.lds, t, func(ch xds.Changes[*listener.Config]) error {
		defer first()
		defer s.trimMemory()
		var updated []*listener.Config
		for _, r := range ch.Updated {
			updated = append(updated, r.Value)
		}
		return s.listeners.Apply(updated, ch.Removed)
	})
}

// close ends all parts in the order in which they use each other.
func (s *server) close() {
	if s.admin != nil {
		s.admin.Close()
	}
	if s.listeners != nil {
		s.listeners.Close()
	}
	s.halt()
	s.tasks.Wait()
	if s.clusters != nil {
		s.clusters.Close()
	}
	for _, door := range s.doors {
		door.Close()
	}
	if s.trim != nil {
		s.trim.Stop()
	}
	s.files.Close()
	s.out.close()
}

// logFile is the program's log: a file that can be opened again, or a stream that is
// not ours to close.
type logFile struct {
	path string
	mu   sync.Mutex
	w    io.Writer
	file *os.File
}

func openLog(path string, out io.Writer) (*logFile, error) {
	l := &logFile{path: path, w: out}
	return l, l.reopen()
}

func (l *logFile) reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // collectors of logs run as other users
	if err != nil {
		return fmt.Errorf("log-path: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
	}
	l.file, l.w = f, f
	return nil
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
	}
}

// locality is where the proxy runs.
func locality(l *corepb.Locality) endpoint.Locality {
	return endpoint.Locality{Region: l.GetRegion(), Zone: l.GetZone(), SubZone: l.GetSubZone()}
}
