package ads_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/wellknown"
)

func TestLeave(t *testing.T) {
	for _, delta := range []bool{false, true} {
		name := map[bool]string{false: "state of the world", true: "delta"}[delta]
		t.Run(name+": a proxy that is about to end is answered once, when the others know", func(t *testing.T) {
			run(t, []string{"EDS a=1"}, func(x *fixture) {
				c := x.connect(delta)
				c.ask("EDS", "a")
				c.want("EDS a=1")
				c.ack("EDS")
				c.ask(wellknown.DrainType)
				c.quiet()
				x.push(everything, "EDS a=2")
				c.want("EDS a=2") // the stream goes on meanwhile
				close(x.known)
				c.want(wellknown.DrainType)
				c.ack(wellknown.DrainType)
				c.send(request{typ: wellknown.DrainType})
				c.quiet()
				x.push(everything, "EDS a=3")
				c.want("EDS a=3") // and afterwards
			})
		})
		t.Run(name+": responses say who made them", func(t *testing.T) {
			run(t, []string{"EDS a=1"}, func(x *fixture) {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if got := identifierOf(ctx, t, x, delta); got != "me" {
					t.Errorf("identifier %q", got)
				}
			})
		})
	}
	t.Run("a stream that ends before its answer leaves nothing behind", func(t *testing.T) {
		run(t, nil, func(x *fixture) {
			c := x.connect(true)
			c.ask(wellknown.DrainType)
			c.cancel()
			synctest.Wait()
			if n := len(x.server.Conns()); n != 0 {
				t.Errorf("%d streams", n)
			}
		})
	})
}

func identifierOf(ctx context.Context, t *testing.T, x *fixture, delta bool) string {
	t.Helper()
	api, node := discoverypb.NewAggregatedDiscoveryServiceClient(x.conn), (&client{first: true}).node()
	if delta {
		s, err := api.DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&discoverypb.DeltaDiscoveryRequest{Node: node, TypeUrl: url("EDS"), ResourceNamesSubscribe: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m.GetControlPlane().GetIdentifier()
	}
	s, err := api.StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&discoverypb.DiscoveryRequest{Node: node, TypeUrl: url("EDS"), ResourceNames: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	m, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return m.GetControlPlane().GetIdentifier()
}

func TestAwait(t *testing.T) {
	const self = "router~127.0.0.1~gw.istio-system~istio-system.svc.cluster.local" // of every client here
	for _, tc := range []struct {
		name    string
		answer  func(*client)
		but     string
		timeout bool
	}{
		{"an acknowledgement of the endpoints is enough", func(c *client) { c.ack("EDS") }, "", false},
		{"a proxy that says nothing is waited for until the context ends", func(*client) {}, "", true},
		{"the one that leaves is not waited for", func(*client) {}, self, false},
		{"one that goes away is not waited for", func(c *client) { c.cancel() }, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run(t, []string{"EDS a=1"}, func(x *fixture) {
				c, other := x.connect(true), x.connect(true)
				other.ask("LDS") // has no endpoints to forget
				other.want("LDS")
				c.ask("EDS", "a")
				c.want("EDS a=1")
				c.ack("EDS")
				x.push(ads.Change{Kinds: []string{"EndpointSlice"}}, "EDS a=2")
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- x.server.Await(ctx, x.generation, tc.but) }()
				c.want("EDS a=2")
				tc.answer(c)
				if err := <-done; errors.Is(err, context.DeadlineExceeded) != tc.timeout {
					t.Error(fmt.Errorf("await: %w", err))
				}
			})
		})
	}
}
