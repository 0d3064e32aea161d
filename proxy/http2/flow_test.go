package http2_test

import (
	"fmt"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
)

// upload answers after it was told to read the body.
func upload(read <-chan struct{}) func(*http2.ServerStream) {
	return func(s *http2.ServerStream) {
		var r http.Request
		if s.ReadRequest(&r) != nil {
			return
		}
		<-read
		describe(s)
	}
}

// TestReceiveWindows: credit comes back when a body was consumed, half a window at a
// time; what nobody reads gets none, nor does it take any from another stream.
func TestReceiveWindows(t *testing.T) {
	read := make(chan struct{})
	o := http2.ServerOptions{Options: http2.Options{InitialStreamWindow: 65535, InitialConnectionWindow: 100_000}}
	p := atServer(t, o, upload(read))
	p.bulky = true
	p.until("SETTINGS ACK")
	p.get(1, false)
	for range 4 {
		p.data(1, false, strings.Repeat("x", 16000))
	}
	p.say(p.WriteDataPadded(1, false, make([]byte, 1000), make([]byte, 200))) // padding counts, and is consumed at once
	p.pinged()                                                                // nothing was said to that
	close(read)
	p.expect("WINDOW_UPDATE 1 +32969", "WINDOW_UPDATE +65201") // as soon as half a window was read
	p.data(1, true, "")
	p.until("HEADERS 1")
}

// TestWindowBreaches: a peer that sends more than it was granted.
func TestWindowBreaches(t *testing.T) {
	o := http2.ServerOptions{Options: http2.Options{InitialStreamWindow: 65535, InitialConnectionWindow: 100_000}}
	for _, c := range []struct {
		name    string
		streams []uint32
		want    string
	}{
		{"of a stream", []uint32{1, 1, 1, 1, 1}, "RST_STREAM 1 FLOW_CONTROL_ERROR"},
		{"of the connection", []uint32{1, 1, 1, 3, 3, 3, 3}, "GOAWAY last=3 FLOW_CONTROL_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			read := make(chan struct{})
			defer close(read)
			p := atServer(t, o, upload(read))
			p.get(1, false)
			p.get(3, false)
			for _, id := range c.streams {
				p.data(id, false, strings.Repeat("x", 16000))
			}
			p.expect(c.want)
		})
	}
}

// send answers with n bytes.
func send(n int) func(*http2.ServerStream) {
	return func(s *http2.ServerStream) {
		_ = s.WriteHead(&http.Response{Status: 200}, false)
		_ = s.WriteBody(make([]byte, n), true)
		_ = s.Flush()
	}
}

// received sums up DATA until a stream ends or that many bytes came.
func (p *peer) received(id uint32, most int) int {
	p.t.Helper()
	sum := 0
	for sum < most {
		f, err := p.ReadFrame()
		if err != nil {
			p.t.Fatal(err)
		}
		if d, ok := f.(*xhttp2.DataFrame); ok && d.StreamID == id {
			if sum += len(d.Data()); d.StreamEnded() {
				break
			}
		}
	}
	return sum
}

// TestSendWindows: we send what we were granted and no more, whatever changes.
func TestSendWindows(t *testing.T) {
	p := atServer(t, http2.ServerOptions{}, send(100_000))
	p.say(p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10}))
	p.get(1, true)
	if n := p.received(1, 10); n != 10 {
		t.Fatal(n, "bytes of a window of 10")
	}
	p.say(p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 30})) // up, for open streams too
	if n := p.received(1, 20); n != 20 {
		t.Fatal(n)
	}
	p.say(p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 5})) // down: below nothing
	p.pinged()
	p.say(p.WriteWindowUpdate(1, 24)) // a window of -25 becomes -1
	p.pinged()
	p.say(p.WriteWindowUpdate(1, 11))
	if n := p.received(1, 10); n != 10 {
		t.Fatal(n)
	}
	p.say(p.WriteWindowUpdate(1, 1<<20))
	if n := p.received(1, 65535-40); n != 65535-40 { // the connection's window is at its end
		t.Fatal(n)
	}
	p.pinged()
	p.get(3, true)
	p.until("HEADERS 3") // heads need no window
	p.say(p.WriteWindowUpdate(0, 1<<20))
	if n := p.received(1, 1<<20); n != 100_000-65535 {
		t.Fatal(n)
	}
}

// TestBlockedStreamBlocksNoOther: a stream without window waits alone.
func TestBlockedStreamBlocksNoOther(t *testing.T) {
	p := atServer(t, http2.ServerOptions{}, func(s *http2.ServerStream) {
		var r http.Request
		if s.ReadRequest(&r) != nil {
			return
		}
		if r.Headers.Has("long") {
			send(100_000)(s)
		} else {
			send(5)(s)
		}
	})
	p.say(p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10}))
	p.get(1, true, "long", "1")
	p.until("DATA 1")
	for id := uint32(3); id < 103; id += 2 {
		p.get(id, true)
		p.expect(fmt.Sprintf("HEADERS %d :status=200", id), fmt.Sprintf("DATA %d %q END", id, "\x00\x00\x00\x00\x00"))
	}
}
