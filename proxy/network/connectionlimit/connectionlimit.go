// Package connectionlimit is the network filter envoy.filters.network.connection_limit: of
// the connections of a filter chain it lets a number through and ends those beyond, after
// a delay where one is configured, so that an eager client does not come back at once.
package connectionlimit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	connectionlimitpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Factory makes the filter known to listeners. Its stats are
// "connection_limit.<stat_prefix>.…".
func Factory(store *stats.Store, values *runtime.Values) network.Factory {
	return network.Factory{
		Name:     "envoy.filters.network.connection_limit",
		TypeURLs: []string{"envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			var c connectionlimitpb.ConnectionLimit
			if err := cfg.UnmarshalTo(&c); err != nil {
				return network.Built{}, err
			}
			f, err := compile(&c, store, values)
			if err != nil {
				return network.Built{}, err
			}
			return network.Built{Filter: f, Close: f.release}, nil
		},
	}
}

// filter counts the connections of one chain.
type filter struct {
	most    uint64
	delay   time.Duration   // before a connection beyond is ended
	enabled *runtime.Switch // nil: always
	open    atomic.Uint64
	counted sync.Map // connections, where enabled may change: the value of each is nothing
	limited *stats.Counter
	active  *stats.Gauge
	release func()
}

func compile(c *connectionlimitpb.ConnectionLimit, store *stats.Store, values *runtime.Values) (*filter, error) {
	if err := xds.Only(c, "stat_prefix", "max_connections", "delay", "runtime_enabled"); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if d := c.GetDelay(); d != nil && !d.IsValid() {
		return nil, fmt.Errorf("delay: %w", d.CheckValid())
	}
	s := store.Scope("connection_limit." + c.GetStatPrefix() + ".")
	f := &filter{
		most: c.GetMaxConnections().GetValue(), delay: c.GetDelay().AsDuration(),
		limited: s.Counter("limited_connections"), active: s.Gauge("active_connections"), release: s.Claim(),
	}
	if c.GetRuntimeEnabled() != nil {
		enabled := values.Switch(c.GetRuntimeEnabled())
		f.enabled = &enabled
	}
	return f, nil
}

// OnConnect takes a place, or ends the connection after the delay.
func (f *filter) OnConnect(c *network.Conn) bool {
	if f.enabled != nil {
		if !f.enabled.On() {
			return true
		}
		f.counted.Store(c, nil)
	}
	f.active.Inc()
	if f.open.Add(1) <= f.most {
		return true
	}
	f.limited.Inc()
	f.open.Add(^uint64(0))
	f.active.Dec()
	f.counted.Delete(c)
	if f.delay > 0 {
		f.hold(c)
	}
	return false
}

// hold keeps a connection whose bytes nobody wants for the delay, or until it ends.
func (f *filter) hold(c *network.Conn) {
	if c.SetReadDeadline(time.Now().Add(f.delay)) != nil {
		return
	}
	var waste [512]byte
	for {
		if _, err := c.Read(waste[:]); err != nil {
			return
		}
	}
}

// OnClose gives the place of a connection back.
func (f *filter) OnClose(c *network.Conn) {
	if f.enabled != nil {
		if _, counted := f.counted.LoadAndDelete(c); !counted {
			return
		}
	}
	f.open.Add(^uint64(0))
	f.active.Dec()
}
