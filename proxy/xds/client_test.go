package xds_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/wellknown"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clusterNames decodes clusters to their alt_stat_name; "bad…" is refused.
var clusterNames = xds.Type[string]{URL: wellknown.ClusterType, Decode: func(name string, body *anypb.Any) (string, error) {
	var c clusterv3.Cluster
	if err := proto.Unmarshal(body.GetValue(), &c); err != nil {
		return "", err
	}
	if strings.HasPrefix(c.GetAltStatName(), "bad") {
		return "", fmt.Errorf("alt_stat_name: %s", c.GetAltStatName())
	}
	return c.GetAltStatName(), nil
}}

var routeNames = xds.Type[string]{URL: wellknown.RouteType, Decode: func(_ string, body *anypb.Any) (string, error) {
	var r routev3.RouteConfiguration
	err := proto.Unmarshal(body.GetValue(), &r)
	if len(r.GetVirtualHosts()) == 0 {
		return "", errors.Join(err, errors.New("no virtual hosts"))
	}
	return r.GetVirtualHosts()[0].GetName(), err
}}

func cluster(name, alt string) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, AltStatName: alt}
}

func routes(name, vhost string) *routev3.RouteConfiguration {
	r := &routev3.RouteConfiguration{Name: name}
	if vhost != "" {
		r.VirtualHosts = []*routev3.VirtualHost{{Name: vhost}}
	}
	return r
}

// seen gathers what callbacks were told.
type seen struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newSeen() *seen { return &seen{more: make(chan struct{}, 1000)} }

func (s *seen) add(format string, args ...any) {
	s.mu.Lock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
	s.mu.Unlock()
	s.more <- struct{}{}
}

// next waits for the next lines.
func (s *seen) next(t *testing.T, want ...string) {
	t.Helper()
	for range want {
		select {
		case <-s.more:
		case <-time.After(30 * time.Second):
			t.Fatalf("waiting for %q, seen %q", want, s.lines)
		}
	}
	s.mu.Lock()
	got := s.lines[:len(want)]
	s.lines = slices.Clone(s.lines[len(want):])
	s.mu.Unlock()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("callbacks (-want +got):\n%s", diff)
	}
}

func run(t *testing.T, o xds.Options) *xds.Client {
	t.Helper()
	o.Node = &corev3.Node{Id: "router~1.2.3.4~gw.ns~ns.svc"}
	o.Logger = slog.New(slog.DiscardHandler)
	c := xds.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

func watchAll(c *xds.Client, s *seen) { watch(c, s, clusterNames) }

func watch(c *xds.Client, s *seen, kind xds.Type[string]) {
	xds.SubscribeAll(c, kind, func(ch xds.Changes[string]) error {
		var up []string
		for _, r := range ch.Updated {
			up = append(up, r.Name+"="+r.Value)
		}
		s.add("updated %v removed %v", up, ch.Removed)
		return nil
	})
}

func forms(t *testing.T, f func(t *testing.T, delta bool)) {
	t.Run("state of the world", func(t *testing.T) { f(t, false) })
	t.Run("delta", func(t *testing.T) { f(t, true) })
}

func TestWildcard(t *testing.T) {
	forms(t, func(t *testing.T, delta bool) {
		srv := xdstest.New(t)
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "1"), "b": cluster("b", "1")})
		c, s := run(t, xds.Options{Dial: srv.Dial, Delta: delta}), newSeen()
		watchAll(c, s)
		s.next(t, "updated [a=1 b=1] removed []")
		first := srv.Await(t, wellknown.ClusterType, 0, func(r xdstest.Request) bool { return r.Nonce == "" })
		if first.Node != "router~1.2.3.4~gw.ns~ns.svc" {
			t.Errorf("the first request has node %q", first.Node)
		}
		ack := srv.Await(t, wellknown.ClusterType, 1, func(r xdstest.Request) bool { return r.Nonce == "1" })
		if ack.Error != nil || ack.Node != "" || !delta && ack.Version != "v1" {
			t.Errorf("ACK is %+v", ack)
		}
		// What is as before is not told again.
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "1"), "c": cluster("c", "2")})
		s.next(t, "updated [c=2] removed [b]")
	})
}

func TestRefusal(t *testing.T) {
	forms(t, func(t *testing.T, delta bool) {
		srv := xdstest.New(t)
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "1"), "b": cluster("b", "1"), "c": cluster("c", "bad 1")})
		c, s := run(t, xds.Options{Dial: srv.Dial, Delta: delta}), newSeen()
		watchAll(c, s)
		s.next(t, "updated [a=1 b=1] removed []")
		isNACK := func(r xdstest.Request) bool { return r.Error != nil }
		nack := srv.Await(t, wellknown.ClusterType, 0, isNACK)
		if want := "Error adding/updating cluster(s) c: alt_stat_name: bad 1"; nack.Error.GetMessage() != want || nack.Version != "" {
			t.Errorf("NACK %q at version %q, want %q", nack.Error.GetMessage(), nack.Version, want)
		}
		n := len(srv.Requests(wellknown.ClusterType))
		// Two bad ones are both named; b keeps what it had, d is in force.
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{
			"a": cluster("a", "1"), "b": cluster("b", "bad 2"), "c": cluster("c", "bad 3"), "d": cluster("d", "1")})
		nack = srv.Await(t, wellknown.ClusterType, n, isNACK)
		if m := nack.Error.GetMessage(); !strings.Contains(m, "b: alt_stat_name: bad 2") || !strings.Contains(m, "c: alt_stat_name: bad 3") {
			t.Errorf("NACK %q names not both", m)
		}
		status := map[string]string{}
		for _, r := range c.View()[0].Resources {
			status[r.Name] = r.Status + " " + r.Error
		}
		want := map[string]string{"a": "ACKED ", "b": "NACKED alt_stat_name: bad 2", "c": "NACKED alt_stat_name: bad 3", "d": "ACKED "}
		if diff := cmp.Diff(want, status); diff != "" {
			t.Errorf("view (-want +got):\n%s", diff)
		}
		n = len(srv.Requests(wellknown.ClusterType))
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "1"), "b": cluster("b", "1"), "d": cluster("d", "1")})
		ack := srv.Await(t, wellknown.ClusterType, n, func(r xdstest.Request) bool { return r.Nonce != "" })
		if ack.Error != nil {
			t.Errorf("after the repair: %v", ack.Error)
		}
	})
}

// TestAgain: what time may cure is refused first, and taken later without another word
// of the server.
func TestAgain(t *testing.T) {
	forms(t, func(t *testing.T, delta bool) {
		srv := xdstest.New(t)
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "1"), "b": cluster("b", "bad")})
		c, s := run(t, xds.Options{Dial: srv.Dial, Delta: delta}), newSeen()
		var free atomic.Bool
		hopeful := clusterNames
		hopeful.Decode = func(name string, body *anypb.Any) (string, error) {
			alt, err := clusterNames.Decode(name, body)
			switch {
			case err == nil:
				return alt, nil
			case free.Load():
				return "cured", nil
			}
			return "", xds.Again(err)
		}
		watch(c, s, hopeful)
		s.next(t, "updated [a=1] removed []")
		nack := srv.Await(t, wellknown.ClusterType, 0, func(r xdstest.Request) bool { return r.Error != nil })
		if m := nack.Error.GetMessage(); !strings.HasSuffix(m, "b: alt_stat_name: bad") {
			t.Errorf("NACK %q", m)
		}
		n := len(srv.Requests(wellknown.ClusterType))
		free.Store(true)
		s.next(t, "updated [b=cured] removed []")
		ack := srv.Await(t, wellknown.ClusterType, n, func(r xdstest.Request) bool { return r.Nonce == nack.Nonce })
		if ack.Error != nil || !delta && ack.Version != "v1" {
			t.Errorf("then %+v", ack)
		}
		for _, r := range c.View()[0].Resources {
			if r.Status != "ACKED" || r.Error != "" {
				t.Errorf("%+v", r)
			}
		}
		// What is gone is not tried again.
		free.Store(false)
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "1"), "c": cluster("c", "bad")})
		s.next(t, "updated [] removed [b]")
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "2")})
		s.next(t, "updated [a=2] removed []")
		free.Store(true)
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "3")})
		s.next(t, "updated [a=3] removed []")
	})
}

// TestSettled: the ACK of a response waits for what the response needs, a NACK does not.
func TestSettled(t *testing.T) {
	forms(t, func(t *testing.T, delta bool) {
		srv := xdstest.New(t)
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "1")})
		srv.SetAll(wellknown.RouteType, map[string]proto.Message{"r": routes("r", "one")})
		c, s := run(t, xds.Options{Dial: srv.Dial, Delta: delta}), newSeen()
		gates := make(chan chan struct{}, 10)
		kind := clusterNames
		kind.Settled = func() <-chan struct{} {
			gate := make(chan struct{})
			gates <- gate
			return gate
		}
		watch(c, s, kind)
		s.next(t, "updated [a=1] removed []")
		first := <-gates
		xds.Subscribe(c, routeNames, "r", func(string, bool) { s.add("routes") })
		s.next(t, "routes") // other types go on
		acks := func() (n int) {
			for _, r := range srv.Requests(wellknown.ClusterType) {
				if r.Nonce != "" {
					n++
				}
			}
			return n
		}
		if n := acks(); n != 0 {
			t.Errorf("%d answers before the clusters are warm", n)
		}
		close(first)
		ack := srv.Await(t, wellknown.ClusterType, 0, func(r xdstest.Request) bool { return r.Nonce == "1" })
		if ack.Error != nil {
			t.Error(ack.Error)
		}
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "1"), "b": cluster("b", "bad")})
		s.next(t, "updated [] removed []")
		<-gates // never closed
		srv.Await(t, wellknown.ClusterType, 0, func(r xdstest.Request) bool { return r.Error != nil })
		t.Run("not for ever", func(t *testing.T) {
			srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "2")})
			s.next(t, "updated [a=2] removed []")
			<-gates // never closed
			srv.Await(t, wellknown.ClusterType, 0, func(r xdstest.Request) bool { return r.Nonce == "3" })
		})
	})
}

func TestByName(t *testing.T) {
	forms(t, func(t *testing.T, delta bool) {
		srv := xdstest.New(t)
		srv.Set("http.80", routes("http.80", "one"))
		c, s := run(t, xds.Options{Dial: srv.Dial, Delta: delta}), newSeen()
		tell := func(who string) func(string, bool) {
			return func(v string, present bool) { s.add("%s %s %v", who, v, present) }
		}
		cancel := xds.Subscribe(c, routeNames, "http.80", tell("first"))
		s.next(t, "first one true")
		// A second owner of the name is served from what is there.
		xds.Subscribe(c, routeNames, "http.80", tell("second"))
		s.next(t, "second one true")
		srv.Set("http.80", routes("http.80", "two"))
		s.next(t, "first two true", "second two true")
		// A refused version is told to nobody.
		srv.Set("http.80", routes("http.80", ""))
		nack := srv.Await(t, wellknown.RouteType, 0, func(r xdstest.Request) bool { return r.Error != nil })
		if want := "http.80: no virtual hosts"; nack.Error.GetMessage() != want {
			t.Errorf("NACK %q, want %q", nack.Error.GetMessage(), want)
		}
		cancel()
		srv.Set("http.80", routes("http.80", "three"))
		s.next(t, "second three true")
		n := len(srv.Requests(wellknown.RouteType))
		xds.Subscribe(c, routeNames, "http.81", tell("third"))
		srv.Await(t, wellknown.RouteType, n, func(r xdstest.Request) bool {
			return slices.Contains(r.Subscribe, "http.81") || slices.Equal(r.Names, []string{"http.80", "http.81"})
		})
		srv.Set("http.81", routes("http.81", "one"))
		s.next(t, "third one true")
		if delta {
			srv.Remove(wellknown.RouteType, "http.81")
			s.next(t, "third  false")
		}
	})
}

func TestUnsubscribe(t *testing.T) {
	forms(t, func(t *testing.T, delta bool) {
		srv := xdstest.New(t)
		c := run(t, xds.Options{Dial: srv.Dial, Delta: delta})
		xds.Subscribe(c, routeNames, "a", func(string, bool) {})
		cancel := xds.Subscribe(c, routeNames, "b", func(string, bool) {})
		srv.Await(t, wellknown.RouteType, 0, func(r xdstest.Request) bool { return len(r.Names)+len(r.Subscribe) > 0 })
		n := len(srv.Requests(wellknown.RouteType))
		cancel()
		srv.Await(t, wellknown.RouteType, n, func(r xdstest.Request) bool {
			return slices.Equal(r.Unsubscribe, []string{"b"}) || !delta && slices.Equal(r.Names, []string{"a"})
		})
	})
}

func TestReconnect(t *testing.T) {
	forms(t, func(t *testing.T, delta bool) {
		srv := xdstest.New(t)
		srv.Set("a", cluster("a", "1"))
		srv.Set("http.80", routes("http.80", "one"))
		c, s := run(t, xds.Options{Dial: srv.Dial, Delta: delta}), newSeen()
		watchAll(c, s)
		s.next(t, "updated [a=1] removed []")
		xds.Subscribe(c, routeNames, "http.80", func(v string, present bool) { s.add("route %s %v", v, present) })
		s.next(t, "route one true")
		n := len(srv.Requests(wellknown.ClusterType))
		addr := srv.Addr()
		srv.Stop()
		srv.Set("b", cluster("b", "1"))
		srv.Start(t, addr)
		s.next(t, "updated [b=1] removed []")
		again := srv.Await(t, wellknown.ClusterType, n, func(r xdstest.Request) bool { return r.Nonce == "" })
		if again.Node == "" {
			t.Error("the first request of the new stream has no node")
		}
		if delta && again.Initial["a"] != "1" {
			t.Errorf("initial_resource_versions are %v", again.Initial)
		}
		if !delta && again.Version != "v1" {
			t.Errorf("version_info is %q", again.Version)
		}
		srv.Set("http.80", routes("http.80", "two"))
		s.next(t, "route two true")
	})
}

func TestFetchTimeout(t *testing.T) {
	srv := xdstest.New(t)
	c, s := run(t, xds.Options{Dial: srv.Dial}), newSeen()
	hurried := routeNames
	hurried.FetchTimeout = time.Millisecond
	xds.Subscribe(c, hurried, "http.80", func(v string, present bool) { s.add("route %q %v", v, present) })
	s.next(t, `route "" false`)
	srv.Set("http.80", routes("http.80", "late"))
	s.next(t, `route "late" true`)
}

// An owner subscribes to what a resource names from within its callback.
func TestSubscribeInCallback(t *testing.T) {
	forms(t, func(t *testing.T, delta bool) {
		srv := xdstest.New(t)
		for _, n := range []string{"a", "b"} {
			srv.Set(n, routes(n, "of "+n))
		}
		srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", ""), "b": cluster("b", "")})
		c, s := run(t, xds.Options{Dial: srv.Dial, Delta: delta}), newSeen()
		xds.SubscribeAll(c, clusterNames, func(ch xds.Changes[string]) error {
			for _, r := range ch.Updated {
				xds.Subscribe(c, routeNames, r.Name, func(v string, _ bool) { s.add("%s", v) })
			}
			return nil
		})
		s.next(t, "of a", "of b")
		var asked int
		for _, r := range srv.Requests(wellknown.RouteType) {
			if r.Nonce == "" {
				asked++
			}
		}
		if asked != 1 {
			t.Errorf("two subscriptions of one callback took %d requests", asked)
		}
	})
}

func TestFromConfig(t *testing.T) {
	envoyGRPC := func(name string) []*corev3.GrpcService {
		return []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: name}}}}
	}
	for _, c := range []struct {
		name  string
		in    *corev3.ApiConfigSource
		delta bool
		err   string
	}{
		{"sotw", &corev3.ApiConfigSource{ApiType: corev3.ApiConfigSource_GRPC, GrpcServices: envoyGRPC("xds-grpc")}, false, ""},
		{"delta", &corev3.ApiConfigSource{ApiType: corev3.ApiConfigSource_DELTA_GRPC, GrpcServices: envoyGRPC("xds-grpc")}, true, ""},
		{"rest", &corev3.ApiConfigSource{ApiType: corev3.ApiConfigSource_REST}, false, "api_type: REST is not supported"},
		{"no service", &corev3.ApiConfigSource{ApiType: corev3.ApiConfigSource_GRPC}, false, "grpc_services: one is needed"},
		{"v2", &corev3.ApiConfigSource{ApiType: corev3.ApiConfigSource_GRPC, TransportApiVersion: corev3.ApiVersion_V2, GrpcServices: envoyGRPC("x")}, false, "transport_api_version: V2 is not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked string
			o, err := xds.FromConfig(c.in, func(name string) xds.Dial { asked = name; return nil })
			if c.err != "" {
				if err == nil || err.Error() != c.err {
					t.Fatalf("error %v, want %s", err, c.err)
				}
				return
			}
			if err != nil || o.Delta != c.delta || asked != "xds-grpc" || o.Authority != "xds-grpc" {
				t.Fatalf("got %+v for cluster %q, %v", o, asked, err)
			}
		})
	}
}
