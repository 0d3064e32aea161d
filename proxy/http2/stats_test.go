package http2_test

import (
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

func gauges() *http2.Stats {
	return &http2.Stats{OutboundFramesActive: new(stats.Gauge), OutboundControlFramesActive: new(stats.Gauge), PendingSendBytes: new(stats.Gauge), StreamsActive: new(stats.Gauge)}
}

// TestPendingBytes: what waits for a window is counted until it has one.
func TestPendingBytes(t *testing.T) {
	st := gauges()
	p := atServer(t, http2.ServerOptions{Options: http2.Options{Stats: st}}, func(s *http2.ServerStream) {
		var r http.Request
		if s.ReadRequest(&r) == nil && s.WriteHead(&http.Response{Status: 200, ContentLength: -1}, false) == nil {
			_ = s.WriteBody([]byte("more than a window"), true)
		}
	})
	p.say(p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 4}))
	p.get(1, true)
	p.until(`DATA 1 "more"`)
	if n, streams := st.PendingSendBytes.Value(), st.StreamsActive.Value(); n != 14 || streams != 1 {
		t.Errorf("%d bytes of %d streams wait, want 14 of 1", n, streams)
	}
	p.say(p.WriteWindowUpdate(1, 100))
	p.until("DATA 1")
	if n, streams := st.PendingSendBytes.Value(), st.StreamsActive.Value(); n != 0 || streams != 0 {
		t.Errorf("%d bytes of %d streams wait at the end", n, streams)
	}
}

// TestOutboundFrames: frames that nobody reads are counted, and forgotten with the connection.
func TestOutboundFrames(t *testing.T) {
	st := gauges()
	down, up := sockets(t)
	ended := make(chan error, 1)
	go func() {
		o := http2.Options{Stats: st, MaxOutboundFrames: 1 << 30, MaxOutboundControlFrames: 1 << 30}
		ended <- http2.NewServer(transport.NewConn(up), nil, http2.ServerOptions{Options: o}, func(*http2.ServerStream) {}).Serve()
	}()
	p := newPeer(t, down)
	p.say(p.raw(http2.Preface))
	p.say(p.WriteSettings())
	for st.OutboundControlFramesActive.Value() < 100 {
		p.say(p.WritePing(false, [8]byte{}))
	}
	if n := st.OutboundFramesActive.Value(); n < 100 {
		t.Errorf("%d frames wait", n)
	}
	_ = down.Close()
	<-ended
	if n, control := st.OutboundFramesActive.Value(), st.OutboundControlFramesActive.Value(); n != 0 || control != 0 {
		t.Errorf("%d frames, %d control frames are left", n, control)
	}
}
