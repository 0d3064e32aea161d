package connectionlimit

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	connectionlimitpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func build(t *testing.T, store *stats.Store, c *connectionlimitpb.ConnectionLimit) *filter {
	t.Helper()
	c.StatPrefix = "p"
	config, err := anypb.New(c)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Factory(store, nil).New(config, network.Env{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b.Filter.(*filter)
}

func conn(t *testing.T) (*network.Conn, net.Conn) {
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return &network.Conn{Conn: transport.NewConn(near), Info: &streaminfo.Info{}}, far
}

func TestLimit(t *testing.T) {
	store := stats.NewStore()
	f := build(t, store, &connectionlimitpb.ConnectionLimit{MaxConnections: wrapperspb.UInt64(2)})
	c, _ := conn(t)
	for i, want := range []bool{true, true, false, false} {
		if f.OnConnect(c) != want {
			t.Errorf("connection %d", i)
		}
	}
	f.OnClose(c)
	if !f.OnConnect(c) {
		t.Error("a place was free")
	}
	if n := store.Scope("connection_limit.p.").Counter("limited_connections").Value(); n != 2 {
		t.Error(n)
	}
	if n := store.Scope("connection_limit.p.").Gauge("active_connections").Value(); n != 2 {
		t.Error(n)
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := build(t, stats.NewStore(), &connectionlimitpb.ConnectionLimit{MaxConnections: wrapperspb.UInt64(1), Delay: durationpb.New(3 * time.Second)})
		c, far := conn(t)
		f.OnConnect(c)
		begin := time.Now()
		if f.OnConnect(c) || time.Since(begin) != 3*time.Second {
			t.Error("held for", time.Since(begin))
		}
		go func() { _ = far.Close() }()
		begin = time.Now()
		if f.OnConnect(c) || time.Since(begin) != 0 {
			t.Error("a client that has gone is held for", time.Since(begin))
		}
	})
}

func TestSwitchedOff(t *testing.T) {
	off := &corepb.RuntimeFeatureFlag{RuntimeKey: "x", DefaultValue: wrapperspb.Bool(false)}
	f := build(t, stats.NewStore(), &connectionlimitpb.ConnectionLimit{MaxConnections: wrapperspb.UInt64(1), RuntimeEnabled: off})
	c, _ := conn(t)
	for range 3 {
		if !f.OnConnect(c) {
			t.Error("limited")
		}
	}
}
