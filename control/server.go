// Package control is the control plane: it reads configuration, keeps the mesh's
// newest Snapshot and serves it to proxies over ADS.
//
//	files, Kubernetes API ─► a config.Store each ─► builder: debounce, mesh.Build ─► Snapshot ─► ads.Push
//
// What runs, and on what inputs, is the table in parts.go; which resources a
// proxy gets for which type URL is the table in generators.go. A Server is made
// with New, which opens its sockets, and runs until its context ends or a part
// fails. Proxies are served from the first Snapshot on, never before: an empty
// answer would take their configuration away.
//
// Files and an API may be given at once. Of an object that both have the file's counts:
// who starts the process has the last word over what others may write; the API's is shown
// as shadowed.
//
// The discovery service in plain text authenticates nobody: the address that it listens on
// decides who can reach it. That on the secure port serves who is known by a token or a
// certificate of the mesh, and certificates are issued there and on unix sockets.
package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/file"
	"github.com/lateen-mesh/lateen/control/kube"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/pages"
)

// Options are the settings of a Server.
type Options struct {
	// Paths are the directories and files of the configuration.
	Paths []string
	// Kubernetes is the API that objects are read from, nil for none.
	Kubernetes *kube.Connection
	// WriteStatus has custom objects of that API say in their status what keeps them out of
	// force.
	WriteStatus bool
	// MeshConfig is the file with the MeshConfig, "" for none. A ConfigMap "istio" in
	// RootNamespace takes its place.
	MeshConfig string
	// Set are "meshConfig.path.to.field=value" settings over the MeshConfig.
	Set []string
	// State is the directory for the last good configuration, "" for none.
	State string

	// Addresses are "host:port" or "unix:path", several with a comma between; "" is off.
	GRPC, HTTP, Monitoring string
	// SecureGRPC is like GRPC over TLS, for proxies that say who they are, and for all who ask
	// for certificates; "" is off, and there is no certificate authority then.
	SecureGRPC string
	Authority  AuthorityOptions
	// HTTPS is the address of the webhooks, in the same form. With a Kubernetes API their
	// certificate is kept in its MutatingWebhookConfigurations, and the server is ready once
	// it is there.
	HTTPS string

	// AutoRegistration is of workloads outside of Kubernetes.
	AutoRegistration AutoRegistration

	// ScopeGateways has Gateways select proxies of their own namespace only.
	ScopeGateways bool
	// Identities says that workloads are given certificates: proxies with an agent take and
	// speak mutual TLS by themselves, and PeerAuthentications are followed.
	Identities bool
	// Origination is how TLS to servers outside is made where rules leave it open.
	Origination mesh.Origination
	// NoDebug serves no debug pages; some of our own tools ask for them.
	NoDebug bool

	// SeveralAuthorizers lets policies of action CUSTOM of one workload name several providers.
	SeveralAuthorizers bool
	Tokens             TokenOptions

	// TraceSampling is the share of requests, in percent, that are traced where the mesh
	// configuration does not say it; nil is 1.
	TraceSampling *float64

	Revision string // of this control plane; "" is default

	Domain        string // DNS domain of the cluster; "" is cluster.local
	ClusterID     string // "" is Kubernetes
	RootNamespace string // "" is istio-system

	// A Snapshot is built Debounce.After after the last change of a burst, Debounce.Max
	// after its first; zero means 100 ms and 10 s.
	Debounce Debounce
	// KeepAlive is the interval and timeout of HTTP/2 pings to proxies; zero is 30 s, 10 s.
	KeepAlive struct{ Interval, Timeout time.Duration }

	Log *logging.Log
}

func (o Options) withDefaults() Options {
	o.Debounce.After = cmp.Or(o.Debounce.After, 100*time.Millisecond)
	o.Debounce.Max = cmp.Or(o.Debounce.Max, 10*time.Second)
	o.KeepAlive.Interval = cmp.Or(o.KeepAlive.Interval, 30*time.Second)
	o.KeepAlive.Timeout = cmp.Or(o.KeepAlive.Timeout, 10*time.Second)
	o.RootNamespace = cmp.Or(o.RootNamespace, config.DefaultRootNamespace)
	return o
}

// A Server is one control plane.
type Server struct {
	o        Options
	log      *slog.Logger
	store    *config.Store // what files say
	files    *file.Source
	apiStore *config.Store // what a Kubernetes API says
	api      *kube.Source  // nil without
	shadowed atomic.Pointer[[]Problem]
	meshFile *meshFile
	snapshot atomic.Pointer[mesh.Snapshot]
	sharing  sharing
	built    chan struct{} // closed with the first snapshot
	rules    ruleProblems
	flaws    patchFlaws
	barred   barredParts
	refs     references
	look     chan struct{} // wakes tellProblems

	ingresses     ingresses
	registrations *registrations

	tokens     *tokenKeys
	readers    *readers // nil without a Kubernetes API
	departures *departures
	refusals   refusals
	asked      *orders       // of those who wait for what is there to read now
	lastBuilt  time.Time     // the builder's: when the last Snapshot was made,
	lastTook   time.Duration // and how long that took

	injector    *injector
	validator   *validator
	serving     *serving       // nil without webhooks
	webhooks    *kube.Webhooks // nil without webhooks and a Kubernetes API
	hookSockets []net.Listener

	ads         *ads.Server
	metrics     *metrics
	grpc        *grpc.Server
	authority   *authority // nil without a secure port
	http        *http.Server
	grpcSockets []net.Listener
	sockets     []net.Listener // of http
}

// New reads the configuration and opens the sockets. It fails when a path does not
// exist or an address cannot be had; what is wrong inside files is in Status. Run
// must follow.
func New(o Options) (*Server, error) {
	o = o.withDefaults()
	s := &Server{
		o: o, log: o.Log.Scope("control"), store: config.NewStore(), apiStore: config.NewStore(), built: make(chan struct{}), look: make(chan struct{}, 1),
		departures: newDepartures(), asked: newOrders(),
	}
	s.registrations = newRegistrations(o.AutoRegistration, s.log)
	s.ingresses.look = make(chan struct{}, 1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.metrics = newMetrics(registry)
	s.injector = newInjector(o, registry)
	s.validator = newValidator(o, registry)
	s.ads = ads.NewServer(ads.Options{
		Types: types(), Proxy: s.admit, View: s.view, Arrive: s.arrive, Depart: s.registrations.leaves, Health: s.registrations.health, Leave: s.leave, Refused: s.refused,
		Identifier: identifier(), Log: o.Log.Scope("ads"), Metrics: ads.NewMetrics(registry),
	})
	base := []grpc.ServerOption{
		ads.ServerOption(),
		grpc.MaxConcurrentStreams(100_000),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: s.o.KeepAlive.Interval, Timeout: s.o.KeepAlive.Timeout}),
		// Proxies ping as often as they like; cutting them off would cost a reconnect.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	}
	s.grpc = grpc.NewServer(base...)
	s.ads.Register(s.grpc)
	describe(s.grpc)
	s.http = pages.New(s.pages(registry), o.Log.Scope("http"))
	var err error
	if s.tokens, err = newTokenKeys(o.Tokens, o.Log.Scope("jwks")); err != nil {
		return nil, err
	}
	if s.meshFile, err = newMeshFile(o); err != nil {
		return nil, err
	}
	s.files = file.New(s.store, file.Options{Paths: o.Paths, State: o.State, Stdin: os.Stdin, Log: o.Log.Scope("config")})
	if err := s.files.Load(); err != nil {
		return nil, err
	}
	if o.Kubernetes != nil {
		s.api, err = kube.New(s.apiStore, kube.Options{
			Connection: *o.Kubernetes, RootNamespace: o.RootNamespace, State: o.State,
			WriteStatus: o.WriteStatus, Event: s.metrics.event, Log: o.Log.Scope("kube"),
		})
		if err != nil {
			return nil, err
		}
	}
	if s.api != nil {
		s.readers = newReaders(s.api.MayReadSecrets, func() map[mesh.Reader]bool { return readersOf(s.ads.Conns()) }, s.log)
	}
	if o.SecureGRPC != "" {
		if s.authority, err = newAuthority(s, registry, base...); err != nil {
			return nil, err
		}
	}
	if o.HTTPS != "" {
		if s.serving, err = newServing(o.State, servingNames(o.RootNamespace, o.Revision)); err != nil {
			return nil, fmt.Errorf("certificate of the webhooks: %w", err)
		}
		if s.api != nil {
			s.webhooks = s.api.Webhooks(s.serving.bundle, s.injector.revision)
		}
	}
	return s, s.listen()
}

// listen opens every socket before anything runs, so that a port in use is found
// at once.
func (s *Server) listen() error {
	for _, a := range []struct{ flag, address string }{
		{"grpcAddr", s.o.GRPC}, {"httpAddr", s.o.HTTP}, {"monitoringAddr", s.o.Monitoring}, {"httpsAddr", s.o.HTTPS}, {"secureGRPCAddr", s.o.SecureGRPC},
	} {
		for address := range strings.SplitSeq(a.address, ",") {
			if address == "" {
				continue
			}
			l, err := listen(address)
			if err != nil {
				s.closeSockets()
				return fmt.Errorf("--%s: %w", a.flag, err)
			}
			switch a.flag {
			case "grpcAddr":
				s.grpcSockets = append(s.grpcSockets, l)
			case "secureGRPCAddr":
				s.authority.sockets = append(s.authority.sockets, l)
			case "httpsAddr":
				s.hookSockets = append(s.hookSockets, l)
			default:
				s.sockets = append(s.sockets, l)
			}
		}
	}
	return nil
}

func (s *Server) closeSockets() {
	for _, l := range slices.Concat(s.grpcSockets, s.sockets, s.hookSockets) {
		_ = l.Close()
	}
	if s.authority != nil {
		for _, l := range s.authority.sockets {
			_ = l.Close()
		}
	}
}

// GRPCAddr is the first address that proxies connect to, nil when that is off.
func (s *Server) GRPCAddr() net.Addr {
	if len(s.grpcSockets) == 0 {
		return nil
	}
	return s.grpcSockets[0].Addr()
}

// SecureGRPCAddr is the first address of the secure port, nil when that is off.
func (s *Server) SecureGRPCAddr() net.Addr {
	if s.authority == nil || len(s.authority.sockets) == 0 {
		return nil
	}
	return s.authority.sockets[0].Addr()
}

// HTTPSAddr is the first address of the webhooks, nil when they are off.
func (s *Server) HTTPSAddr() net.Addr {
	if len(s.hookSockets) == 0 {
		return nil
	}
	return s.hookSockets[0].Addr()
}

// HTTPAddrs are the addresses of the HTTP pages.
func (s *Server) HTTPAddrs() []net.Addr {
	var all []net.Addr
	for _, l := range s.sockets {
		all = append(all, l.Addr())
	}
	return all
}

// Run serves until the context ends, which is no error, or a part fails.
func (s *Server) Run(ctx context.Context) error {
	defer s.closeSockets()
	defer s.departures.stop()
	defer s.registrations.stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := s.parts()
	failed := make(chan error, len(parts))
	running := 0
	for _, p := range parts {
		if !p.on {
			continue
		}
		running++
		go func() {
			err := p.run(ctx)
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("%s: %w", p.name, err)
			} else if ctx.Err() != nil {
				err = nil
			}
			failed <- err
		}()
	}
	var errs []error
	for range running { // the first part to end ends all
		errs = append(errs, <-failed)
		cancel()
	}
	return errors.Join(errs...)
}
