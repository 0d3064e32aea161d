package http2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/lateen-mesh/lateen/proxy/http2"
)

// A peer is the other end of a connection: x/net's Framer, which says and hears what it
// is told, not a client or server.
type peer struct {
	*xhttp2.Framer
	t     testing.TB
	c     net.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
	dec   *hpack.Decoder
	bulky bool // WINDOW_UPDATE and SETTINGS are shown as well
}

func newPeer(t testing.TB, c net.Conn) *peer {
	p := &peer{Framer: xhttp2.NewFramer(c, c), t: t, c: c, dec: hpack.NewDecoder(4096, nil)}
	p.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.block)
	return p
}

// atServer connects a peer to a Server.
func atServer(t testing.TB, o http2.ServerOptions, serve func(*http2.ServerStream)) *peer {
	t.Helper()
	down, up := sockets(t)
	_ = up.(*net.TCPConn).SetWriteBuffer(16 << 10) // what a peer does not read is to wait with us, not in the kernel
	serving(t, up, o, serve)
	p := newPeer(t, down)
	p.say(p.raw(http2.Preface))
	p.say(p.WriteSettings())
	return p
}

// atClient connects a Client to a peer.
func atClient(t testing.TB, o http2.ClientOptions, settings ...xhttp2.Setting) (*peer, *http2.Client, *owner) {
	t.Helper()
	down, up := sockets(t)
	c, own := calling(t, down, o)
	p := newPeer(t, up)
	preface := make([]byte, len(http2.Preface))
	if _, err := io.ReadFull(up, preface); err != nil || string(preface) != http2.Preface {
		t.Fatalf("preface %q: %v", preface, err)
	}
	p.say(p.WriteSettings(settings...))
	return p, c, own
}

// say fails the test when writing does, unless the other end has gone.
func (p *peer) say(err error) {
	p.t.Helper()
	if err != nil && !strings.Contains(err.Error(), "reset by peer") && !strings.Contains(err.Error(), "broken pipe") {
		p.t.Fatal(err)
	}
}

func (p *peer) raw(s string) error {
	_, err := io.WriteString(p.c, s)
	return err
}

// fields encodes a header block.
func (p *peer) fields(kv ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(kv); i += 2 {
		p.say(p.enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]}))
	}
	return slices.Clone(p.block.Bytes())
}

// head sends HEADERS, with CONTINUATION when they are long.
func (p *peer) head(id uint32, end bool, kv ...string) {
	b := p.fields(kv...)
	first := b[:min(len(b), 1<<14)]
	b = b[len(first):]
	p.say(p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(b) == 0}))
	for len(b) > 0 {
		part := b[:min(len(b), 1<<14)]
		b = b[len(part):]
		p.say(p.WriteContinuation(id, len(b) == 0, part))
	}
}

// get sends the head of a GET.
func (p *peer) get(id uint32, end bool, kv ...string) {
	p.head(id, end, append([]string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}, kv...)...)
}

func (p *peer) data(id uint32, end bool, s string) { p.say(p.WriteData(id, end, []byte(s))) }

// wait is how long a peer waits for what must come.
const wait = 10 * time.Second

// hear returns the next frame as text; "end" when the connection has ended. SETTINGS and
// WINDOW_UPDATE are not shown, SETTINGS are acknowledged.
func (p *peer) hear() string {
	p.t.Helper()
	for {
		_ = p.c.SetReadDeadline(time.Now().Add(wait))
		f, err := p.ReadFrame()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.t.Fatal("nothing comes")
		}
		if err != nil {
			return "end"
		}
		if s, ok := f.(*xhttp2.SettingsFrame); ok && !s.IsAck() {
			p.say(p.WriteSettingsAck())
		}
		if text := p.text(f); p.bulky || !strings.HasPrefix(text, "SETTINGS") && !strings.HasPrefix(text, "WINDOW_UPDATE") {
			return text
		}
	}
}

// text is a frame as the tests write it.
func (p *peer) text(f xhttp2.Frame) string {
	h := f.Header()
	var b strings.Builder
	b.WriteString(h.Type.String())
	if h.StreamID != 0 {
		fmt.Fprint(&b, " ", h.StreamID)
	}
	switch f := f.(type) {
	case *xhttp2.HeadersFrame:
		fields, err := p.dec.DecodeFull(f.HeaderBlockFragment())
		for _, x := range fields {
			b.WriteString(" " + x.Name + "=" + x.Value)
		}
		if err != nil {
			b.WriteString(" " + err.Error())
		}
		if f.StreamEnded() {
			b.WriteString(" END")
		}
	case *xhttp2.DataFrame:
		fmt.Fprintf(&b, " %.40q", f.Data())
		if f.StreamEnded() {
			b.WriteString(" END")
		}
	case *xhttp2.RSTStreamFrame:
		b.WriteString(" " + f.ErrCode.String())
	case *xhttp2.GoAwayFrame:
		fmt.Fprintf(&b, " last=%d %v", f.LastStreamID, f.ErrCode)
	case *xhttp2.WindowUpdateFrame:
		fmt.Fprintf(&b, " +%d", f.Increment)
	case *xhttp2.SettingsFrame:
		if f.IsAck() {
			b.WriteString(" ACK")
		}
		_ = f.ForeachSetting(func(x xhttp2.Setting) error { fmt.Fprintf(&b, " %v=%d", x.ID, x.Val); return nil })
	case *xhttp2.PingFrame:
		if f.IsAck() {
			b.WriteString(" ACK")
		}
	}
	return b.String()
}

// expect hears frames and compares them.
func (p *peer) expect(want ...string) {
	p.t.Helper()
	for i, w := range want {
		if got := p.hear(); got != w {
			p.t.Fatalf("frame %d\n got %s\nwant %s", i, got, w)
		}
	}
}

// until hears frames until one begins like that, after do.
func (p *peer) until(prefix string, do ...func()) string {
	p.t.Helper()
	for _, f := range do {
		f()
	}
	for {
		switch got := p.hear(); {
		case strings.HasPrefix(got, prefix):
			return got
		case got == "end":
			p.t.Fatalf("the connection has ended without %s", prefix)
		}
	}
}

// pinged makes sure that everything said before was dealt with.
func (p *peer) pinged() {
	p.t.Helper()
	p.say(p.WritePing(false, [8]byte{1}))
	p.expect("PING ACK")
}
