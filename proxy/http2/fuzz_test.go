package http2_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A tape is a connection that plays bytes and records what is written.
type tape struct {
	in []byte

	mu  sync.Mutex
	out bytes.Buffer
}

func (t *tape) Read(p []byte) (int, error) {
	if len(t.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, t.in)
	t.in = t.in[n:]
	return n, nil
}

func (t *tape) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out.Write(p)
}

func (t *tape) Close() error                     { return nil }
func (t *tape) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (t *tape) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (t *tape) SetDeadline(time.Time) error      { return nil }
func (t *tape) SetReadDeadline(time.Time) error  { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }

// frames is what a peer may say, as seeds.
func frames(write func(fr *xhttp2.Framer, head func(kv ...string) []byte)) []byte {
	var b, block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	fr := xhttp2.NewFramer(&b, nil)
	fr.AllowIllegalWrites = true
	_ = fr.WriteSettings()
	write(fr, func(kv ...string) []byte {
		block.Reset()
		for i := 0; i < len(kv); i += 2 {
			_ = enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]})
		}
		return bytes.Clone(block.Bytes())
	})
	return b.Bytes()
}

// wellFormed fails the test unless what was written is frames to the end, and no stream
// is answered twice.
func wellFormed(t *testing.T, out []byte) {
	t.Helper()
	fr := xhttp2.NewFramer(nil, bytes.NewReader(out))
	dec := hpack.NewDecoder(4096, nil)
	fr.ReadMetaHeaders = dec
	ended := map[uint32]bool{}
	for {
		f, err := fr.ReadFrame()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		id := f.Header().StreamID
		if ended[id] && f.Header().Type != xhttp2.FrameRSTStream {
			t.Fatalf("%v after the end of its stream", f)
		}
		switch f := f.(type) {
		case *xhttp2.MetaHeadersFrame:
			ended[id] = f.StreamEnded()
		case *xhttp2.DataFrame:
			ended[id] = f.StreamEnded()
		case *xhttp2.RSTStreamFrame:
			ended[id] = true
		}
	}
}

// FuzzServer: whatever a client says, Serve returns, every stream with it, and what was
// said in return is HTTP/2.
func FuzzServer(f *testing.F) {
	simple := []string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"}
	f.Add(frames(func(fr *xhttp2.Framer, head func(...string) []byte) {
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(simple...), EndHeaders: true})
		_ = fr.WriteData(1, false, []byte("abc"))
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head("x", "y"), EndHeaders: true, EndStream: true})
		_ = fr.WritePing(false, [8]byte{})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: head(append(simple, "content-length", "3")...)})
		_ = fr.WriteContinuation(3, true, head("cookie", "a", "cookie", "b"))
		_ = fr.WriteDataPadded(3, true, []byte("abc"), make([]byte, 9))
		_ = fr.WriteRSTStream(3, 8)
		_ = fr.WriteSettings(xhttp2.Setting{ID: 4, Val: 0}, xhttp2.Setting{ID: 1, Val: 0})
		_ = fr.WriteWindowUpdate(0, 100)
		_ = fr.WritePriority(5, xhttp2.PriorityParam{StreamDep: 3})
		_ = fr.WriteGoAway(0, 0, []byte("bye"))
		_ = fr.WriteRawFrame(0x42, 1, 2, []byte("x"))
	}))
	f.Fuzz(func(t *testing.T, in []byte) {
		tp := &tape{in: append([]byte(http2.Preface), in...)}
		s := http2.NewServer(transport.NewConn(tp), nil, http2.ServerOptions{Options: http2.Options{AllowConnect: true}}, func(s *http2.ServerStream) {
			var r http.Request
			if s.ReadRequest(&r) != nil {
				return
			}
			body, err := readAll(r.Body)
			if err == nil && r.ContentLength >= 0 && int64(len(body)) != r.ContentLength {
				t.Errorf("%d bytes of a body of %d", len(body), r.ContentLength)
			}
			echoHead(s, &r)
		})
		_ = s.Serve()
		tp.mu.Lock()
		defer tp.mu.Unlock()
		wellFormed(t, tp.out.Bytes())
	})
}

// echoHead answers with the request's fields.
func echoHead(s *http2.ServerStream, r *http.Request) {
	a := http.Response{Status: 200, Headers: r.Headers}
	_ = s.WriteHead(&a, false)
	_ = s.WriteTrailers(r.Body.Trailers())
	_ = s.Flush()
}

// FuzzClient: whatever a server says, an exchange ends, and the owner is told.
func FuzzClient(f *testing.F) {
	f.Add(frames(func(fr *xhttp2.Framer, head func(...string) []byte) {
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":status", "103", "link", "x"), EndHeaders: true})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":status", "200", "content-length", "3"), EndHeaders: true})
		_ = fr.WriteData(1, false, []byte("abc"))
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head("grpc-status", "0"), EndHeaders: true, EndStream: true})
		_ = fr.WriteSettings(xhttp2.Setting{ID: 3, Val: 0}, xhttp2.Setting{ID: 4, Val: 0})
		_ = fr.WriteRSTStream(3, 7)
		_ = fr.WriteGoAway(1, 0, []byte("bye"))
		_ = fr.WritePing(true, [8]byte{})
	}))
	f.Fuzz(func(t *testing.T, in []byte) {
		ours, theirs := net.Pipe()
		own := newOwner()
		cl := http2.NewClient(transport.NewConn(ours), http2.ClientOptions{}, own)
		started := make(chan struct{})
		go func() {
			<-started
			_ = theirs.SetWriteDeadline(time.Now().Add(wait))
			_, _ = theirs.Write(in)
			_ = theirs.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		n := 0
		var open []*http2.ClientStream
		for range 2 {
			if s := cl.Open(); s != nil {
				_ = s.WriteHead(get("/"), n == 0)
				_ = s.Flush()
				open = append(open, s)
				n++
			}
		}
		close(started)
		for _, s := range open {
			_ = outcome(s)
			s.Release()
			<-own.finished
		}
		<-own.ended
	})
}
