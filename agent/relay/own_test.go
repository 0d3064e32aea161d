package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/nametable"
	"github.com/lateen-mesh/lateen/wellknown"
)

// control is a control plane that sends name tables and knows drains.
type control struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	identifier string
	tables     chan []byte
	requests   chan *discoverypb.DeltaDiscoveryRequest
	sends      chan *discoverypb.DeltaDiscoveryResponse
	release    chan struct{} // lets a drain be answered
	ends       chan struct{} // ends a stream
	listener   net.Listener
}

func newControl(t *testing.T, identifier string) *control {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &control{identifier: identifier, tables: make(chan []byte), sends: make(chan *discoverypb.DeltaDiscoveryResponse), requests: make(chan *discoverypb.DeltaDiscoveryRequest, 100), release: make(chan struct{}), ends: make(chan struct{}), listener: l}
	s := grpc.NewServer()
	discoverypb.RegisterAggregatedDiscoveryServiceServer(s, c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return c
}

func (c *control) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", c.listener.Addr().String())
}

func (c *control) DeltaAggregatedResources(stream discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	asked := make(chan *discoverypb.DeltaDiscoveryRequest)
	go func() {
		defer close(asked)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			asked <- m
		}
	}()
	who := &corepb.ControlPlane{Identifier: c.identifier}
	var release <-chan struct{}
	for {
		var err error
		select {
		case m, ok := <-asked:
			if !ok {
				return nil
			}
			c.requests <- m
			if m.GetTypeUrl() == wellknown.DrainType {
				release = c.release
			}
		case table := <-c.tables:
			err = stream.Send(&discoverypb.DeltaDiscoveryResponse{TypeUrl: nametable.Type, Nonce: "n", ControlPlane: who, Resources: []*discoverypb.Resource{
				{Name: "names", Version: "1", Resource: &anypb.Any{TypeUrl: nametable.Type, Value: table}}}})
		case m := <-c.sends:
			err = stream.Send(m)
		case <-c.ends:
			return nil
		case <-release:
			release = nil
			err = stream.Send(&discoverypb.DeltaDiscoveryResponse{TypeUrl: wellknown.DrainType, ControlPlane: who})
		}
		if err != nil {
			return err
		}
	}
}

const ours = `{"Lateen": {"drain": true}}`

func TestNames(t *testing.T) {
	c := newControl(t, ours)
	f := newFiles(t)
	got := make(chan nametable.Table, 10)
	names := func(o *Options) { o.Names = func(t nametable.Table) { got <- t } }
	_, log, stop := start(t, f, c.dial, names)
	connect(t, f).subscribe(wellknown.ClusterType)
	t.Run("the proxy's own subscription is first, and says what program it is", func(t *testing.T) {
		if m := <-c.requests; m.GetTypeUrl() != wellknown.ClusterType || m.GetNode().GetId() != "the proxy's own" {
			t.Errorf("subscription %v", m)
		}
		if m := <-c.requests; m.GetTypeUrl() != nametable.Type || m.GetNode() != nil || len(m.GetResourceNamesSubscribe()) != 0 {
			t.Errorf("subscription %v", m)
		}
	})
	table := nametable.Table{"web.default.svc.cluster.local": {Addresses: []string{"10.96.0.7"}}}
	c.tables <- nametable.Marshal(table)
	if first := <-got; fmt.Sprint(first) != fmt.Sprint(table) {
		t.Errorf("table %v, want %v", first, table)
	}
	if m := <-c.requests; m.GetResponseNonce() != "n" || m.GetErrorDetail() != nil {
		t.Errorf("answer %v", m)
	}
	t.Run("a table that cannot be read is refused, the last one stays", func(t *testing.T) {
		c.tables <- []byte{0xff}
		if m := <-c.requests; !strings.Contains(m.GetErrorDetail().GetMessage(), "name table") {
			t.Errorf("answer %v", m)
		}
		if !strings.Contains(log.String(), "name table refused") {
			t.Error(log)
		}
	})
	stop()
	t.Run("the last table is there without control plane", func(t *testing.T) {
		_, _, stop := start(t, f, nobody, names)
		defer stop()
		if again := <-got; fmt.Sprint(again) != fmt.Sprint(table) {
			t.Errorf("table %v, want %v", again, table)
		}
	})
}

func TestHealth(t *testing.T) {
	c := newControl(t, ours)
	f := newFiles(t)
	r, _, _ := start(t, f, c.dial, nil)
	r.Health("it does not answer") // before anybody is there to be told
	connect(t, f).subscribe(wellknown.ClusterType)
	next := func() *discoverypb.DeltaDiscoveryRequest {
		for {
			if m := <-c.requests; m.GetTypeUrl() == wellknown.HealthType {
				return m
			}
		}
	}
	t.Run("SE-020 what is wrong is told after the proxy's own first message", func(t *testing.T) {
		if m := <-c.requests; m.GetTypeUrl() != wellknown.ClusterType {
			t.Errorf("first %v", m)
		}
		if m := next(); m.GetErrorDetail().GetMessage() != "it does not answer" || m.GetNode() != nil {
			t.Errorf("told %v", m)
		}
	})
	t.Run("SE-020 a change is told", func(t *testing.T) {
		r.Health("")
		if m := next(); m.GetErrorDetail() != nil {
			t.Errorf("told %v", m)
		}
	})
	t.Run("SE-020 another stream is told again", func(t *testing.T) {
		c.ends <- struct{}{}
		if m := next(); m.GetErrorDetail() != nil {
			t.Errorf("told %v", m)
		}
	})
}

func TestDrain(t *testing.T) {
	taken := make(chan nametable.Table, 1)
	names := func(o *Options) { o.Names = func(t nametable.Table) { taken <- t } }
	drain := func(ctx context.Context, r *Relay) <-chan error {
		done := make(chan error, 1)
		go func() {
			r.Drain(ctx)
			done <- ctx.Err()
		}()
		return done
	}
	t.Run("it returns when the others know", func(t *testing.T) {
		c := newControl(t, ours)
		f := newFiles(t)
		r, _, _ := start(t, f, c.dial, names)
		connect(t, f).subscribe(wellknown.ClusterType)
		c.tables <- nil
		<-taken
		done := drain(t.Context(), r)
		for m := range c.requests {
			if m.GetTypeUrl() == wellknown.DrainType {
				break
			}
		}
		select {
		case <-done:
			t.Fatal("it returned before the answer")
		default:
		}
		close(c.release)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("the control plane falls silent", func(t *testing.T) {
		c := newControl(t, ours)
		f := newFiles(t)
		r, _, _ := start(t, f, c.dial, names)
		connect(t, f).subscribe(wellknown.ClusterType)
		c.tables <- nil
		<-taken
		ctx, cancel := context.WithCancel(t.Context())
		done := drain(ctx, r)
		for m := range c.requests {
			if m.GetTypeUrl() == wellknown.DrainType {
				break
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("a control plane that does not know drains is not asked", func(t *testing.T) {
		c := newControl(t, `{"Component":"istiod"}`)
		f := newFiles(t)
		r, _, _ := start(t, f, c.dial, names)
		connect(t, f).subscribe(wellknown.ClusterType)
		c.tables <- nil
		<-taken
		if err := <-drain(t.Context(), r); err != nil {
			t.Error(err)
		}
		for len(c.requests) > 0 {
			if m := <-c.requests; m.GetTypeUrl() == wellknown.DrainType {
				t.Errorf("request %v", m)
			}
		}
	})
	t.Run("nobody is there", func(t *testing.T) {
		r, _, _ := start(t, newFiles(t), nobody, nil)
		if err := <-drain(t.Context(), r); err != nil {
			t.Error(err)
		}
	})
}
