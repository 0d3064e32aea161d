// Package xdstest is a small management server for tests: a real gRPC server on the
// loopback that speaks ADS and SDS in both forms and serves whatever it was given.
//
// It follows the protocol and decides nothing: Set and Remove change the resources and
// push, Requests shows what the client said. It is for tests only.
package xdstest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A Request is what the client said, of either form.
type Request struct {
	Delta       bool
	TypeURL     string
	Node        string // id, "" when not sent
	Version     string // state of the world
	Nonce       string
	Error       *statuspb.Status
	Names       []string // state of the world
	Subscribe   []string // delta
	Unsubscribe []string
	Initial     map[string]string
}

// A Server is a management server.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	secrets
	addr string
	grpc *grpc.Server

	mu       sync.Mutex
	types    map[string]*world
	requests []Request
	watches  map[*watch]string // of open streams, by type URL
	changed  chan struct{}     // closed and replaced with every change
}

type secrets struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	server *Server
}

// world is what the server has of one type.
type world struct {
	version   int
	resources map[string]entry
	held      bool
}

type entry struct {
	version int
	body    *anypb.Any
	ttl     time.Duration // 0: it lives on
}

// New starts a server on a free port of 127.0.0.1; it ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	return At(t, "127.0.0.1:0")
}

// At is New for an address, "host:port" or "unix:path".
func At(t testing.TB, addr string) *Server {
	t.Helper()
	s := &Server{types: map[string]*world{}, watches: map[*watch]string{}, changed: make(chan struct{})}
	s.Start(t, addr)
	t.Cleanup(s.Stop)
	return s
}

// Start serves at addr, after Stop again.
func (s *Server) Start(t testing.TB, addr string) {
	t.Helper()
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.MaxSendMsgSize(64 << 20))
	s.secrets.server = s
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	secretv3.RegisterSecretDiscoveryServiceServer(g, &s.secrets)
	s.mu.Lock()
	s.addr, s.grpc = l.Addr().String(), g
	s.mu.Unlock()
	go func() { _ = g.Serve(l) }()
}

// Stop ends all streams and the listener; resources stay.
func (s *Server) Stop() {
	s.mu.Lock()
	g := s.grpc
	s.mu.Unlock()
	g.Stop()
}

// Addr is the address of the server.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Dial connects to the server.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", s.Addr())
}

// Set adds or replaces a resource and pushes it.
func (s *Server) Set(name string, m proto.Message) {
	body, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	s.change(body.GetTypeUrl(), func(w *world) { w.resources[name] = entry{version: w.version, body: body} })
}

// Beat sends a heartbeat in the place of a resource: its time to live begins anew.
func (s *Server) Beat(url, name string, ttl time.Duration) {
	s.change(url, func(w *world) { w.resources[name] = entry{w.version, nil, ttl} })
}

// SetFor is Set for a resource with a time to live.
func (s *Server) SetFor(name string, m proto.Message, ttl time.Duration) {
	body, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	s.change(body.GetTypeUrl(), func(w *world) { w.resources[name] = entry{w.version, body, ttl} })
}

// SetAll replaces all resources of a type in one push.
func (s *Server) SetAll(url string, all map[string]proto.Message) {
	s.change(url, func(w *world) {
		clear(w.resources)
		for name, m := range all {
			body, err := anypb.New(m)
			if err != nil {
				panic(err)
			}
			w.resources[name] = entry{version: w.version, body: body}
		}
	})
}

// Remove takes resources away and pushes.
func (s *Server) Remove(url string, names ...string) {
	s.change(url, func(w *world) {
		for _, n := range names {
			delete(w.resources, n)
		}
	})
}

// Hold has the server say nothing of a type in the incremental form, or go on.
func (s *Server) Hold(url string, hold bool) {
	s.change(url, func(w *world) { w.held = hold })
}

func (s *Server) change(url string, f func(*world)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.world(url)
	w.version++
	f(w)
	s.wake()
}

// wake ends all waits. The caller holds mu.
func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// world is the state of a type. The caller holds mu.
func (s *Server) world(url string) *world {
	w := s.types[url]
	if w == nil {
		w = &world{resources: map[string]entry{}}
		s.types[url] = w
	}
	return w
}

// Requests are all requests so far of one type.
func (s *Server) Requests(url string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Request
	for _, r := range s.requests {
		if r.TypeURL == url {
			list = append(list, r)
		}
	}
	return list
}

// Await returns the first request of a type, from the n-th on, that ok accepts; the
// test fails when none comes for a long time.
func (s *Server) Await(t testing.TB, url string, n int, ok func(Request) bool) Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		list := s.Requests(url)
		for i := n; i < len(list); i++ {
			if ok(list[i]) {
				return list[i]
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("no such request of %s; there were %v", url, list)
		}
	}
}

// Settle waits until every open stream that watches a type, at least one, has answered
// (ACK or NACK) what the server has now.
func (s *Server) Settle(t testing.TB, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		s.mu.Lock()
		changed, settled := s.changed, s.settled(url)
		s.mu.Unlock()
		if settled {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s is not settled; there were %v", url, s.Requests(url))
		}
	}
}

func (s *Server) settled(url string) bool {
	watched := false
	for w, of := range s.watches {
		if of != url {
			continue
		}
		if watched = true; w.sent != s.world(url).version || w.answered != w.nonce || w.forced {
			return false
		}
	}
	return watched
}

// note keeps a request and what it answers.
func (s *Server) note(w *watch, r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	if r.Nonce == strconv.Itoa(w.nonce) {
		w.answered = w.nonce
	}
	s.wake()
}

func (s *Server) open(watches map[string]*watch, url string) *watch {
	w := &watch{forced: true, has: map[string]int{}}
	watches[url] = w
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches[w] = url
	return w
}

func (s *Server) shut(watches map[string]*watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range watches {
		delete(s.watches, w)
	}
}

// StreamAggregatedResources serves the state of the world.
func (s *Server) StreamAggregatedResources(x discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.serveWorld(x)
}

// DeltaAggregatedResources serves changes.
func (s *Server) DeltaAggregatedResources(x discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serveDelta(x)
}

func (s *secrets) StreamSecrets(x secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	return s.server.serveWorld(x)
}

func (s *secrets) DeltaSecrets(x secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	return s.server.serveDelta(x)
}

// watch is what one stream has of one type.
type watch struct {
	nonce, sent int
	answered    int // nonce of the last ACK or NACK
	names       []string
	all         bool
	has         map[string]int // versions
	forced      bool
}

type worldStream interface {
	Send(*discoveryv3.DiscoveryResponse) error
	Recv() (*discoveryv3.DiscoveryRequest, error)
	Context() context.Context
}

func (s *Server) serveWorld(x worldStream) error {
	in := receive(x.Context(), x.Recv)
	watches := map[string]*watch{}
	defer s.shut(watches)
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		for url, w := range watches {
			if r := s.worldResponse(url, w); r != nil {
				if err := x.Send(r); err != nil {
					return err
				}
			}
		}
		select {
		case <-x.Context().Done():
			return nil
		case <-changed:
		case r := <-in:
			w := watches[r.GetTypeUrl()]
			if w == nil {
				w = s.open(watches, r.GetTypeUrl())
			}
			s.note(w, Request{TypeURL: r.GetTypeUrl(), Node: r.GetNode().GetId(), Version: r.GetVersionInfo(), Nonce: r.GetResponseNonce(), Error: r.GetErrorDetail(), Names: r.GetResourceNames()})
			if r.GetResponseNonce() != "" && r.GetResponseNonce() != strconv.Itoa(w.nonce) {
				continue // stale
			}
			s.mu.Lock()
			w.forced = w.forced || !slices.Equal(w.names, r.GetResourceNames())
			w.names = r.GetResourceNames()
			s.mu.Unlock()
		}
	}
}

func (s *Server) worldResponse(url string, w *watch) *discoveryv3.DiscoveryResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.world(url)
	if have.version == w.sent && !w.forced {
		return nil
	}
	w.forced, w.sent = false, have.version
	w.nonce++
	r := &discoveryv3.DiscoveryResponse{TypeUrl: url, VersionInfo: fmt.Sprint("v", have.version), Nonce: strconv.Itoa(w.nonce)}
	for _, name := range slices.Sorted(maps.Keys(have.resources)) {
		if len(w.names) == 0 || slices.Contains(w.names, name) {
			r.Resources = append(r.Resources, enveloped(name, have.resources[name]))
		}
	}
	return r
}

// enveloped is a resource of the state of the world, in an envelope where it has a time to live.
func enveloped(name string, e entry) *anypb.Any {
	if e.ttl == 0 {
		return e.body
	}
	body, err := anypb.New(&discoveryv3.Resource{Name: name, Resource: e.body, Ttl: durationpb.New(e.ttl)})
	if err != nil {
		panic(err)
	}
	return body
}

type deltaStream interface {
	Send(*discoveryv3.DeltaDiscoveryResponse) error
	Recv() (*discoveryv3.DeltaDiscoveryRequest, error)
	Context() context.Context
}

func (s *Server) serveDelta(x deltaStream) error {
	in := receive(x.Context(), x.Recv)
	watches := map[string]*watch{}
	defer s.shut(watches)
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		for url, w := range watches {
			if r := s.deltaResponse(url, w); r != nil {
				if err := x.Send(r); err != nil {
					return err
				}
			}
		}
		select {
		case <-x.Context().Done():
			return nil
		case <-changed:
		case r := <-in:
			w := watches[r.GetTypeUrl()]
			if w == nil {
				w = s.open(watches, r.GetTypeUrl())
				w.all = len(r.GetResourceNamesSubscribe()) == 0
				for name, v := range r.GetInitialResourceVersions() {
					w.has[name], _ = strconv.Atoi(v)
				}
			}
			s.note(w, Request{Delta: true, TypeURL: r.GetTypeUrl(), Node: r.GetNode().GetId(), Nonce: r.GetResponseNonce(), Error: r.GetErrorDetail(),
				Subscribe: r.GetResourceNamesSubscribe(), Unsubscribe: r.GetResourceNamesUnsubscribe(), Initial: r.GetInitialResourceVersions()})
			w.names = append(w.names, r.GetResourceNamesSubscribe()...)
			w.names = slices.DeleteFunc(w.names, func(n string) bool { return slices.Contains(r.GetResourceNamesUnsubscribe(), n) })
		}
	}
}

func (s *Server) deltaResponse(url string, w *watch) *discoveryv3.DeltaDiscoveryResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.world(url)
	if have.held {
		return nil
	}
	r := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, SystemVersionInfo: fmt.Sprint("v", have.version)}
	wanted := w.names
	if w.all {
		wanted = slices.Sorted(maps.Keys(have.resources))
	}
	for _, name := range slices.Clone(wanted) {
		e, there := have.resources[name]
		if url == virtualHostType && !there {
			w.answerAbsent(name, have, r)
			continue
		}
		if v, had := w.has[name]; there && (!had || v != e.version) {
			w.has[name] = e.version
			x := &discoveryv3.Resource{Name: name, Version: strconv.Itoa(e.version), Resource: e.body}
			if e.ttl > 0 {
				x.Ttl = durationpb.New(e.ttl)
			}
			r.Resources = append(r.Resources, x)
		}
	}
	for name := range w.has {
		if _, there := have.resources[name]; !there && !strings.HasPrefix(name, "-") {
			delete(w.has, name)
			r.RemovedResources = append(r.RemovedResources, name)
		}
	}
	w.sent = have.version
	if len(r.Resources)+len(r.RemovedResources) == 0 && !w.forced {
		return nil
	}
	w.forced = false
	w.nonce++
	r.Nonce = strconv.Itoa(w.nonce)
	return r
}

const virtualHostType = "type.googleapis.com/envoy.config.route.v3.VirtualHost"

// answerAbsent is VHDS: a name without "/" stands for all below it that is not asked for one
// by one (here: those that begin with "_"), another one that nobody has is told by itself.
func (w *watch) answerAbsent(name string, have *world, r *discoveryv3.DeltaDiscoveryResponse) {
	if strings.Contains(name, "/") {
		if _, told := w.has["-"+name]; !told {
			w.has["-"+name] = 0
			r.Resources = append(r.Resources, &discoveryv3.Resource{Name: name, Aliases: []string{name}})
		}
		return
	}
	for _, below := range slices.Sorted(maps.Keys(have.resources)) {
		e := have.resources[below]
		if v, had := w.has[below]; strings.HasPrefix(below, name+"/_") && (!had || v != e.version) {
			w.has[below] = e.version
			r.Resources = append(r.Resources, &discoveryv3.Resource{Name: below, Version: strconv.Itoa(e.version), Resource: e.body})
		}
	}
}

// receive turns Recv into a channel, which ends with the stream.
func receive[T any](ctx context.Context, recv func() (T, error)) <-chan T {
	c := make(chan T)
	go func() {
		for {
			m, err := recv()
			if err != nil {
				return
			}
			select {
			case c <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	return c
}
