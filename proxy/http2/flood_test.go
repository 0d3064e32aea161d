package http2_test

import (
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// TestFloods: the ways to make a server work for nothing, by name. Each ends the
// connection, and a stat of Envoy's name says why.
func TestFloods(t *testing.T) {
	unread := func(p *peer, f func() error) { // the peer does not read: what answers it waits
		for range 200_000 {
			if f() != nil {
				return
			}
		}
	}
	for _, c := range []struct {
		name string
		do   func(p *peer)
		stat func(*http2.Stats) *stats.Counter
		soft bool // the end may come before GOAWAY can be read
	}{
		{"CVE-2019-9511 data dribble: many small windows", func(p *peer) {
			p.get(1, false)
			for range 5000 {
				p.say(p.WriteWindowUpdate(1, 1))
			}
		}, func(s *http2.Stats) *stats.Counter { return s.InboundWindowUpdateFramesFlood }, false},
		{"CVE-2019-9512 ping flood", func(p *peer) { unread(p, func() error { return p.WritePing(false, [8]byte{}) }) },
			func(s *http2.Stats) *stats.Counter { return s.OutboundControlFlood }, true},
		{"CVE-2019-9513 resource loop: PRIORITY", func(p *peer) {
			p.get(1, false)
			for range 300 {
				p.say(p.WritePriority(1, xhttp2.PriorityParam{StreamDep: 3}))
			}
		}, func(s *http2.Stats) *stats.Counter { return s.InboundPriorityFramesFlood }, false},
		{"CVE-2019-9514 reset flood: streams that we must reset", func(p *peer) {
			id := uint32(1)
			unread(p, func() error {
				id += 2
				p.block.Reset()
				return p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: refusedBlock, EndStream: true, EndHeaders: true})
			})
		}, func(s *http2.Stats) *stats.Counter { return s.OutboundControlFlood }, true},
		{"CVE-2019-9515 settings flood", func(p *peer) { unread(p, func() error { return p.WriteSettings() }) },
			func(s *http2.Stats) *stats.Counter { return s.OutboundControlFlood }, true},
		{"CVE-2019-9516 fields without length", func(p *peer) {
			var kv []string
			for range 50 {
				kv = append(kv, "", "")
			}
			p.get(1, true, kv...)
		}, func(s *http2.Stats) *stats.Counter { return s.RxMessagingError }, false},
		{"CVE-2019-9518 empty DATA", func(p *peer) {
			p.get(1, false)
			for range 3 {
				p.data(1, false, "")
			}
		}, func(s *http2.Stats) *stats.Counter { return s.InboundEmptyFramesFlood }, false},
		{"CVE-2019-9518 empty CONTINUATION", func(p *peer) {
			p.say(p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(":method", "GET")}))
			for range 3 {
				p.say(p.WriteContinuation(1, false, nil))
			}
		}, func(s *http2.Stats) *stats.Counter { return s.InboundEmptyFramesFlood }, false},
		{"CVE-2024-27316, CVE-2024-30255 CONTINUATION without end", func(p *peer) {
			p.say(p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(":method", "GET")}))
			field := p.fields("x", string(make([]byte, 0, 1)))
			for range 20_000 {
				if p.WriteContinuation(1, false, field) != nil {
					return
				}
			}
		}, nil, true},
		{"CVE-2023-44487 rapid reset", func(p *peer) {
			for id := uint32(1); id < 1200; id += 2 {
				p.get(id, true, "wait", "1")
				if p.WriteRSTStream(id, xhttp2.ErrCodeCancel) != nil {
					return
				}
			}
		}, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := &http2.Stats{OutboundControlFlood: new(stats.Counter), InboundEmptyFramesFlood: new(stats.Counter), InboundPriorityFramesFlood: new(stats.Counter),
				InboundWindowUpdateFramesFlood: new(stats.Counter), RxMessagingError: new(stats.Counter)}
			p := atServer(t, http2.ServerOptions{Options: http2.Options{Stats: st}}, waits)
			c.do(p)
			last := ""
			for f := ""; f != "end"; f = p.hear() {
				last = f
			}
			if !c.soft && strings.HasPrefix(last, "GOAWAY") {
				t.Error("last words:", last)
			}
			if c.stat != nil && c.stat(st).Value() != 1 {
				t.Error("it was not counted")
			}
		})
	}
}

// refusedBlock is a head that cannot be served but does not end the connection: too many fields.
var refusedBlock = func() (b []byte) {
	for range 101 {
		b = append(b, 0x82) // :method: GET
	}
	return b
}()

// waits answers when the request was read, or the client has left.
func waits(s *http2.ServerStream) {
	var r http.Request
	if s.ReadRequest(&r) != nil {
		return
	}
	if r.Headers.Has("wait") {
		gone := make(leaving)
		s.Attach(gone)
		<-gone
		return
	}
	describe(s)
}

// leaving is closed when the client leaves.
type leaving chan struct{}

func (l leaving) Leave() { close(l) }

// TestResetsBelowTheBound: a client that resets half of its streams after a while, or a
// few at once, keeps its connection.
func TestResetsBelowTheBound(t *testing.T) {
	p := atServer(t, http2.ServerOptions{}, waits)
	for id := uint32(1); id < 400; id += 2 {
		p.get(id, true, "wait", "1")
		p.say(p.WriteRSTStream(id, xhttp2.ErrCodeCancel))
	}
	p.pinged()
}

// TestTooManyStreams: beyond MAX_CONCURRENT_STREAMS, and while reset streams are still at
// work, streams are refused.
func TestTooManyStreams(t *testing.T) {
	hold := make(chan struct{})
	p := atServer(t, http2.ServerOptions{Options: http2.Options{MaxConcurrentStreams: 2}}, func(*http2.ServerStream) { <-hold })
	p.get(1, true)
	p.get(3, true)
	p.get(5, true)
	p.expect("RST_STREAM 5 REFUSED_STREAM")
	p.say(p.WriteRSTStream(1, xhttp2.ErrCodeCancel))
	p.get(7, true) // 1 is still being served
	p.expect("RST_STREAM 7 REFUSED_STREAM")
	close(hold)
	p.expect("RST_STREAM 3 INTERNAL_ERROR")
	p.get(9, true)
	p.expect("RST_STREAM 9 INTERNAL_ERROR")
}

// TestHeaderBomb: a short block that refers to a long field many times costs no memory,
// and its stream is the only one that is lost.
func TestHeaderBomb(t *testing.T) {
	p := atServer(t, http2.ServerOptions{}, describe)
	block := p.fields(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "x", string(make([]byte, 0)), "bomb", longValue)
	for range 16000 - len(block) {
		block = append(block, 0x80|62)
	}
	p.say(p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true}))
	p.expect("RST_STREAM 1 INTERNAL_ERROR")
	p.enc = hpack.NewEncoder(&p.block)
	p.get(3, true)
	p.until("HEADERS 3")
}

var longValue = func() string {
	b := make([]byte, 3900)
	for i := range b {
		b[i] = 'z'
	}
	return string(b)
}()
