package ads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

var (
	errTooManyNames = status.Errorf(codes.ResourceExhausted, "more than %d names in one subscription", maxNames)
	errTooManyTypes = status.Errorf(codes.ResourceExhausted, "more than %d types that this server does not have", maxUnknownTypes)
	errClosing      = status.Error(codes.Unavailable, "server is shutting down")
)

// Options are what a Server serves.
type Options struct {
	// Types in their order of delivery, at most 64. CDS before EDS before LDS
	// before RDS is what make-before-break needs.
	Types []Type
	// Proxy reads the node of a stream, whose context says who calls; its error refuses the
	// stream.
	Proxy func(context.Context, *corepb.Node) (*mesh.Proxy, error)
	// View returns the newest view of the mesh for a proxy. It is called from the
	// proxy's goroutine after each Push and must be cheap until it is used.
	View func(*mesh.Proxy) View
	// Arrive is told of each stream that begins, before its first request is answered. Leave
	// is told of a proxy that is about to end, once a stream; the proxy gets its answer when
	// Leave returns. Its context is the stream's. Either may be nil: then nobody can leave.
	Arrive func(*mesh.Proxy)
	Leave  func(context.Context, *mesh.Proxy)
	// Depart is told of the end of each stream of which Arrive was told.
	Depart func(*mesh.Proxy)
	// Health is told what an agent says of the workload beside its proxy, each time that
	// it changes: what is wrong, or "". nil: nobody asks.
	Health func(p *mesh.Proxy, wrong string)
	// Refused is told what a proxy has refused, from the proxy's goroutine; it may Push. nil:
	// nobody asks.
	Refused func(p *mesh.Proxy, typeURL string, refused []Refusal)
	// Identifier is what responses say of who made them, "" for nothing.
	Identifier string
	Log        *slog.Logger
	Metrics    *Metrics
}

// A Server is the discovery service. Its methods may be called from any goroutine.
type Server struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	o Options
	// withSubject are the types that have a Subject, a bit per index.
	withSubject uint64
	work        chan struct{} // held while resources are generated: as many as there are CPUs
	closed      chan struct{}

	mu      sync.Mutex
	conns   map[*conn]struct{}
	count   map[string]int // streams by the version that proxies claim
	next    uint64
	done    bool
	waiting map[chan struct{}]struct{} // of Await and Until: each gets a signal when a proxy has come further
}

// NewServer returns a server; Close ends it.
func NewServer(o Options) *Server {
	if len(o.Types) > 64 {
		panic("ads: more than 64 types")
	}
	s := &Server{
		o:      o,
		work:   make(chan struct{}, runtime.GOMAXPROCS(0)),
		closed: make(chan struct{}),
		conns:  map[*conn]struct{}{},
		count:  map[string]int{},

		waiting: map[chan struct{}]struct{}{},
	}
	for i, t := range o.Types {
		if t.Subject != nil {
			s.withSubject |= 1 << i
		}
	}
	return s
}

// Register adds the service to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discoverypb.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// Close ends all streams and refuses new ones.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.done = true
		close(s.closed)
	}
}

// Push tells every connected proxy that the views have changed. It never blocks:
// a proxy that is still busy gets the change merged with what it has pending.
func (s *Server) Push(change Change) {
	reach, subjects, now := change.reach(s.o.Types), change.Subjects, time.Now()
	if len(subjects) > maxSubjects {
		reach, subjects = reach|s.withSubject, nil
	}
	for _, reason := range reasons(change) {
		s.o.Metrics.triggers.WithLabelValues(reason).Inc()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.pending.add(reach, subjects, s.withSubject, now)
	}
	s.wake()
}

// Conns returns the status of all streams, ordered by ID.
func (s *Server) Conns() []ConnStatus {
	all := []ConnStatus{}
	for _, c := range s.streams() {
		all = append(all, c.status())
	}
	slices.SortFunc(all, func(a, b ConnStatus) int { return strings.Compare(a.ID, b.ID) })
	return all
}

func (s *Server) streams() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.conns))
}

// StreamAggregatedResources is the state-of-the-world form of the protocol.
func (s *Server) StreamAggregatedResources(stream discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.serve(stream, &world{stream: stream, by: s.controlPlane()}, false)
}

// DeltaAggregatedResources is the incremental form of the protocol.
func (s *Server) DeltaAggregatedResources(stream discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serve(stream, &delta{stream: stream, by: s.controlPlane()}, true)
}

func (s *Server) serve(stream grpc.ServerStream, w wire, delta bool) error {
	first, err := w.recv()
	if err != nil {
		return err
	}
	proxy, err := s.identify(stream.Context(), first.node)
	if err != nil {
		return err
	}
	proxy.HostsApart = delta && slices.Contains(first.node.GetClientFeatures(), wellknown.HostsFeature)
	c := &conn{
		Server: s, wire: w, delta: delta, proxy: proxy, since: time.Now(),
		envoy:   first.node.GetUserAgentName() == "envoy",
		pending: pending{wake: make(chan struct{}, 1)},
		watches: map[string]*watch{},
		left:    make(chan struct{}, 1),
	}
	if p, ok := peer.FromContext(stream.Context()); ok {
		c.address = p.Addr.String()
	}
	if !s.add(c) {
		return errClosing
	}
	defer s.remove(c)
	if s.o.Arrive != nil {
		s.o.Arrive(proxy)
	}
	if s.o.Depart != nil {
		defer s.o.Depart(proxy)
	}
	return c.run(stream.Context(), first)
}

func (s *Server) identify(ctx context.Context, node *corepb.Node) (*mesh.Proxy, error) {
	if node == nil {
		return nil, status.Error(codes.InvalidArgument, "the first request of a stream must name its node")
	}
	proxy, err := s.o.Proxy(ctx, node)
	if err != nil {
		s.o.Log.Warn("stream refused", "node", node.GetId(), "error", err)
		return nil, status.Error(codes.InvalidArgument, fmt.Sprintf("node: %v", err))
	}
	return proxy, nil
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return false
	}
	s.next++
	c.id = c.proxy.Name + "." + c.proxy.Namespace + "-" + strconv.FormatUint(s.next, 10)
	c.log = s.o.Log.With("proxy", c.id)
	s.conns[c] = struct{}{}
	s.counted(c.proxy.IstioVersion, 1)
	c.log.Info("connected", "node", c.proxy.ID, "address", c.address, "delta", c.delta)
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.counted(c.proxy.IstioVersion, -1)
	s.wake()
	c.log.Info("disconnected")
}

// counted keeps the number of streams of a version. Its series goes with the last
// stream: versions are what proxies say, and there must not be ever more of them. s.mu
// is held.
func (s *Server) counted(version string, more int) {
	s.count[version] += more
	if s.count[version] == 0 {
		delete(s.count, version)
		s.o.Metrics.connected.DeleteLabelValues(version)
		return
	}
	s.o.Metrics.connected.WithLabelValues(version).Set(float64(s.count[version]))
}

// maxSubjects bounds what is remembered of changes for a proxy that is busy; beyond them
// everything is compared.
const maxSubjects = 1000

// pending is the one push that waits for a stream.
type pending struct {
	wake chan struct{} // holds one signal

	mu       sync.Mutex
	types    uint64
	subjects map[string]bool
	since    time.Time // of the oldest change in it
}

// add merges a change into what waits; withSubject are the types that the subjects are of.
func (p *pending) add(types uint64, subjects []string, withSubject uint64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = now
	}
	p.types |= types
	if len(subjects)+len(p.subjects) > maxSubjects {
		p.types, p.subjects = p.types|withSubject, nil
	} else if len(subjects) > 0 && p.types&withSubject != withSubject {
		if p.subjects == nil {
			p.subjects = map[string]bool{}
		}
		for _, s := range subjects {
			p.subjects[s] = true
		}
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pending) take() (types uint64, subjects map[string]bool, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	types, subjects, since = p.types, p.subjects, p.since
	p.types, p.subjects, p.since = 0, nil, time.Time{}
	return types, subjects, since
}

// isEnd reports whether a stream ended in an orderly way or by its peer.
func isEnd(err error) bool {
	return err == nil || errors.Is(err, errEOF) || status.Code(err) == codes.Canceled || status.Code(err) == codes.Unavailable
}
