package istiostats

import (
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// NetworkFactory returns the factory of the filter for TCP connections.
func NetworkFactory(d Deps) network.Factory {
	return network.Factory{Name: "envoy.filters.network.istio_stats", TypeURLs: []string{TypeURL}, New: func(cfg *anypb.Any, env network.Env) (network.Built, error) {
		c, err := compile(cfg)
		if err != nil {
			return network.Built{}, err
		}
		return network.Built{Filter: &connections{environment: newEnvironment(d, c, env.Direction)}}, nil
	}}
}

// connections is the network filter: it counts connections when their peers are known, or
// at their first report, and their bytes as they flow.
type connections struct {
	*environment
	open sync.Map // *network.Conn → *connection
}

// A connection is what has been counted of one.
type connection struct {
	filter *connections
	mu     sync.Mutex
	info   streaminfo.Info // as it was when the connection had got upstream
	bytes  func() (received, sent uint64)
	timer  *time.Timer
	ended  bool

	opened         bool
	received, sent uint64 // counted so far
}

// OnConnect begins to look at the connection.
func (f *connections) OnConnect(c *network.Conn) bool {
	x := &connection{filter: f}
	f.open.Store(c, x)
	before := c.Relaying
	c.Relaying = func(progress func() (received, sent uint64)) {
		if before != nil {
			before(progress)
		}
		c.Look(func(i *streaminfo.Info) { x.begin(i, progress) })
	}
	return true
}

// begin has the bytes counted from time to time.
func (x *connection) begin(i *streaminfo.Info, progress func() (received, sent uint64)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.info, x.bytes = *i, progress
	x.timer = time.AfterFunc(x.filter.config.every, x.tick)
}

func (x *connection) tick() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended {
		return
	}
	received, sent := x.bytes()
	x.report(&x.info, received, sent)
	x.timer.Reset(x.filter.config.every)
}

// OnClose counts the rest.
func (f *connections) OnClose(c *network.Conn) {
	v, ok := f.open.LoadAndDelete(c)
	if !ok {
		return
	}
	x := v.(*connection)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended = true
	if x.timer != nil {
		x.timer.Stop()
	}
	x.report(c.Info, c.Info.BytesReceived, c.Info.BytesSent).counters[tcpClosed].Inc()
}

// report counts what has not been counted yet. x.mu is held.
func (x *connection) report(i *streaminfo.Info, received, sent uint64) *series {
	e := x.filter.environment
	n := e.find(e.key(i, nil))
	if !x.opened {
		x.opened = true
		n.counters[tcpOpened].Inc()
	}
	n.counters[tcpReceived].Add(received - min(x.received, received))
	n.counters[tcpSent].Add(sent - min(x.sent, sent))
	x.received, x.sent = max(x.received, received), max(x.sent, sent)
	if x.ended {
		e.countCustom(n, i, nil)
	}
	return n
}
