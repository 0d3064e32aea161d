package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/wellknown"
)

// names are what a sidecar asks for by name, and how much it is told unasked.
type names struct {
	endpoints, routes   []string
	apart               []string // routes whose virtual hosts are resources of their own
	clusters, listeners int
}

// A proxy is a simulated sidecar.
type proxy struct {
	fleet   *fleet
	conn    *grpc.ClientConn
	stream  grpc.ClientStream
	got     map[string]int // resources by type, until ready
	asked   bool
	marker  *wanted // the one that was found last
	ended   chan struct{}
	readied chan time.Time // once: everything asked for has come
	isReady bool
}

// wanted is the marker that all proxies look for.
type wanted struct {
	text    []byte
	arrived chan time.Time
}

// A fleet is all proxies.
type fleet struct {
	known    names
	proxies  []*proxy
	wanted   atomic.Pointer[wanted]
	received atomic.Int64
	failed   chan error
	stop     context.CancelFunc
	ctx      context.Context
}

func newFleet(ctx context.Context, size int) *fleet {
	f := &fleet{failed: make(chan error, size+1)}
	f.ctx, f.stop = context.WithCancel(ctx)
	return f
}

// close ends all streams.
func (f *fleet) close() {
	f.stop()
	for _, p := range f.proxies {
		<-p.ended
		_ = p.conn.Close()
	}
}

func (f *fleet) bytes() int64 { return f.received.Load() }

// expect has all proxies look for a marker.
func (f *fleet) expect(text string) {
	f.wanted.Store(&wanted{text: []byte(text), arrived: make(chan time.Time, len(f.proxies))})
}

// patience bounds how long a change may take.
const patience = 2 * time.Minute

// arrivals are the times in milliseconds after which the proxies had the marker.
func (f *fleet) arrivals(ctx context.Context, began time.Time) ([]float64, error) {
	w := f.wanted.Load()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	var all []float64
	for range f.proxies {
		select {
		case at := <-w.arrived:
			all = append(all, ms(at.Sub(began)))
		case err := <-f.failed:
			return nil, err
		case <-limit.C:
			return nil, fmt.Errorf("%d of %d proxies have it after %s", len(all), len(f.proxies), patience)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return all, nil
}

// raw hands messages over as they are.
type raw struct{}

func (raw) Name() string                    { return "proto" }
func (raw) Marshal(v any) ([]byte, error)   { return v.([]byte), nil }
func (raw) Unmarshal(b []byte, v any) error { *v.(*[]byte) = bytes.Clone(b); return nil }

const method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

// open connects the n-th proxy and asks for clusters and listeners.
func (f *fleet) open(address string, n int) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(256<<20)))
	if err != nil {
		return err
	}
	p := &proxy{fleet: f, conn: conn, got: map[string]int{}, ended: make(chan struct{}), readied: make(chan time.Time, 1)}
	p.stream, err = conn.NewStream(f.ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	node, err := node(n)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	f.proxies = append(f.proxies, p)
	if err := p.send(&discoverypb.DeltaDiscoveryRequest{Node: node, TypeUrl: wellknown.ClusterType}); err != nil {
		return err
	}
	if err := p.send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.ListenerType}); err != nil {
		return err
	}
	go p.run()
	return nil
}

// node is that of the n-th sidecar: all are of one namespace and differ in name and address.
func node(n int) (*corepb.Node, error) {
	ip := fmt.Sprintf("10.200.%d.%d", n/250, n%250+1)
	metadata, err := structpb.NewStruct(map[string]any{
		"NAMESPACE": "bench", "INSTANCE_IPS": ip, "LABELS": map[string]any{"app": "client"}, "WORKLOAD_NAME": "client", "CLUSTER_ID": "Kubernetes",
	})
	if err != nil {
		return nil, err
	}
	return &corepb.Node{Id: fmt.Sprintf("sidecar~%s~client-%d.bench~bench.svc.cluster.local", ip, n), Cluster: "client.bench",
		Metadata: metadata, ClientFeatures: []string{wellknown.HostsFeature}}, nil
}

func (p *proxy) send(r *discoverypb.DeltaDiscoveryRequest) error {
	b, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	return p.stream.SendMsg(b)
}

// run answers what comes until the stream ends.
func (p *proxy) run() {
	defer close(p.ended)
	for {
		var b []byte
		if err := p.stream.RecvMsg(&b); err != nil {
			if p.fleet.ctx.Err() == nil {
				p.fleet.failed <- err
			}
			return
		}
		p.fleet.received.Add(int64(len(b)))
		if err := p.take(b); err != nil {
			p.fleet.failed <- err
			return
		}
	}
}

// take acknowledges a response, and asks by name for what the first ones have named.
func (p *proxy) take(b []byte) error {
	if w := p.fleet.wanted.Load(); w != nil && w != p.marker && bytes.Contains(b, w.text) {
		p.marker = w
		w.arrived <- time.Now()
	}
	url, nonce, count, err := skim(b)
	if err != nil {
		return err
	}
	if err := p.send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: nonce}); err != nil {
		return err
	}
	if p.isReady {
		return nil
	}
	p.got[url] += count
	known := &p.fleet.known
	if !p.asked && p.got[wellknown.ClusterType] >= known.clusters && p.got[wellknown.ListenerType] >= known.listeners {
		p.asked = true
		return errors.Join(p.send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.EndpointType, ResourceNamesSubscribe: known.endpoints}),
			p.send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.RouteType, ResourceNamesSubscribe: known.routes}))
	}
	if url == wellknown.RouteType && len(known.apart) > 0 && p.got[url] >= len(known.routes) {
		if err := p.send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.VirtualHostType, ResourceNamesSubscribe: known.apart}); err != nil {
			return err
		}
	}
	if p.asked && p.got[wellknown.EndpointType] >= len(known.endpoints) && p.got[wellknown.RouteType] >= len(known.routes) &&
		(len(known.apart) == 0 || p.got[wellknown.VirtualHostType] > 0) { // all of them come at once
		p.isReady = true
		p.readied <- time.Now()
	}
	return nil
}

// The fields of DeltaDiscoveryResponse that are looked at.
const (
	resourcesField = 2
	typeURLField   = 4
	nonceField     = 5
)

// skim finds out what a response answers to, without decoding its resources.
func skim(b []byte) (url, nonce string, resources int, err error) {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return "", "", 0, protowire.ParseError(n)
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(field, kind, b)
		if size < 0 {
			return "", "", 0, protowire.ParseError(size)
		}
		value, _ := protowire.ConsumeBytes(b[:size])
		switch field {
		case resourcesField:
			resources++
		case typeURLField:
			url = string(value)
		case nonceField:
			nonce = string(value)
		}
		b = b[size:]
	}
	return url, nonce, resources, nil
}

// connect learns what is to be asked for, measures one proxy alone, then all at once.
func connect(ctx context.Context, s *settings, srv *server, f *figures) (*fleet, error) {
	known, err := learn(ctx, srv.address)
	if err != nil {
		return nil, err
	}
	progress("%d clusters, %d listeners, %d endpoint sets, %d route tables", known.clusters, known.listeners, len(known.endpoints), len(known.routes))
	for range s.changes {
		if err := alone(ctx, srv, known, f); err != nil {
			return nil, err
		}
	}
	all := newFleet(ctx, s.proxies)
	all.known = *known
	cpu, began := srv.cpu(), time.Now()
	for n := range s.proxies {
		if err := all.open(srv.address, n); err != nil {
			all.close()
			return nil, err
		}
	}
	last, err := all.ready(ctx)
	if err != nil {
		all.close()
		return nil, err
	}
	f.add("all proxies connected until all are ready, ms", ms(last.Sub(began)))
	f.add("all proxies connected until all are ready: CPU, s", srv.cpu()-cpu)
	f.add("RSS with all proxies, MiB", srv.rss())
	return all, nil
}

// alone measures a proxy that comes by itself.
func alone(ctx context.Context, srv *server, known *names, f *figures) error {
	one := newFleet(ctx, 1)
	defer one.close()
	one.known = *known
	cpu, began := srv.cpu(), time.Now()
	if err := one.open(srv.address, 1000); err != nil {
		return err
	}
	at, err := one.ready(ctx)
	if err != nil {
		return err
	}
	f.add("one proxy connected until it is ready, ms", ms(at.Sub(began)))
	f.add("one proxy connected until it is ready: CPU, s", srv.cpu()-cpu)
	f.add("one proxy connected until it is ready: bytes", float64(one.bytes()))
	return nil
}

// ready waits until all proxies have everything, and says when the last had.
func (f *fleet) ready(ctx context.Context) (last time.Time, err error) {
	limit := time.NewTimer(5 * patience)
	defer limit.Stop()
	for i, p := range f.proxies {
		select {
		case at := <-p.readied:
			if at.After(last) {
				last = at
			}
		case err := <-f.failed:
			return last, err
		case <-limit.C:
			return last, fmt.Errorf("proxy %d of %d is not ready", i+1, len(f.proxies))
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
	return last, nil
}
