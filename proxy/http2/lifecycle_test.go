package http2_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// TestGracefulEnd: GOAWAY in two steps; what the client opened between them is served,
// what it opens later is not, and Serve returns after the last stream.
func TestGracefulEnd(t *testing.T) {
	down, up := sockets(t)
	release := make(chan struct{})
	s := http2.NewServer(transport.NewConn(up), nil, http2.ServerOptions{}, func(st *http2.ServerStream) {
		<-release
		describe(st)
	})
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	p := newPeer(t, down)
	p.say(p.raw(http2.Preface))
	p.say(p.WriteSettings())
	p.get(1, true)
	p.pinged()
	s.GoAway()
	p.expect("GOAWAY last=2147483647 NO_ERROR")
	p.get(3, true)
	p.pinged()
	s.Shutdown()
	s.Shutdown() // again: nothing
	p.expect("GOAWAY last=3 NO_ERROR")
	p.get(5, true, "new", "1")
	p.pinged()
	if n := s.Active(); n != 2 {
		t.Error(n, "streams")
	}
	close(release)
	p.until("HEADERS")
	p.until("HEADERS")
	p.expect("end")
	_ = down.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestShutdownIdle: an idle connection ends at once.
func TestShutdownIdle(t *testing.T) {
	down, up := sockets(t)
	s := http2.NewServer(transport.NewConn(up), nil, http2.ServerOptions{}, describe)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	p := newPeer(t, down)
	p.say(p.raw(http2.Preface))
	p.say(p.WriteSettings())
	p.pinged()
	s.Shutdown()
	p.expect("GOAWAY last=0 NO_ERROR", "end")
	_ = down.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestClientLeaves: whoever serves is told, by what way ever the client leaves, and what
// blocks ends.
func TestClientLeaves(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(p *peer)
	}{
		{"reset", func(p *peer) { p.say(p.WriteRSTStream(1, xhttp2.ErrCodeCancel)) }},
		{"end", func(p *peer) { _ = p.c.Close() }},
		{"breach", func(p *peer) { p.data(7, true, "x") }},
		{"breach on the stream", func(p *peer) { p.say(p.WriteWindowUpdate(1, 1<<31-1)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			results := make(chan string, 1)
			p := atServer(t, http2.ServerOptions{}, func(s *http2.ServerStream) {
				var r http.Request
				if s.ReadRequest(&r) != nil {
					return
				}
				left := make(leaving)
				s.Attach(left)
				_ = s.WriteHead(&http.Response{Status: 200}, false)
				_ = s.Flush()
				_, err := r.Body.Next()
				<-left
				again := make(leaving)
				s.Attach(again) // who comes later is told as well
				<-again
				results <- fmt.Sprint(err != nil, s.BodyError() != nil, s.WriteBody([]byte("x"), true) != nil, s.Finished())
			})
			p.get(1, false)
			p.until("HEADERS 1")
			c.do(p)
			if got := <-results; got != "true true true false" {
				t.Error(got)
			}
		})
	}
}

// TestStopBody ends a read from another goroutine, and the answer goes on.
func TestStopBody(t *testing.T) {
	p := atServer(t, http2.ServerOptions{}, func(s *http2.ServerStream) {
		var r http.Request
		if s.ReadRequest(&r) != nil {
			return
		}
		read := make(chan error)
		go func() { _, err := r.Body.Next(); read <- err }()
		s.StopBody()
		if err := <-read; err == nil || errors.Is(err, io.EOF) {
			t.Error(err)
		}
		describe2(s, "stopped")
	})
	p.get(1, false)
	p.expect("HEADERS 1 :status=200 got=stopped END", "RST_STREAM 1 NO_ERROR")
}

// TestServerReset: a stream is reset with the code that is asked for.
func TestServerReset(t *testing.T) {
	p := atServer(t, http2.ServerOptions{}, func(s *http2.ServerStream) { s.Reset(http2.CodeRefusedStream) })
	p.get(1, true)
	p.expect("RST_STREAM 1 REFUSED_STREAM")
}

// TestHEAD: the answer to HEAD has no body, whatever is written.
func TestHEAD(t *testing.T) {
	p := atServer(t, http2.ServerOptions{}, send(10))
	p.head(1, true, ":method", "HEAD", ":scheme", "http", ":authority", "a", ":path", "/")
	p.expect("HEADERS 1 :status=200", `DATA 1 "" END`)
}

// TestInform: 1xx heads come before the answer.
func TestInform(t *testing.T) {
	p := atServer(t, http2.ServerOptions{}, func(s *http2.ServerStream) {
		_ = s.WriteHead(&http.Response{Status: 100}, true)
		if s.Answered() {
			t.Error("100 is no answer")
		}
		describe2(s, "x")
	})
	p.get(1, true)
	p.expect("HEADERS 1 :status=100", "HEADERS 1 :status=200 got=x END")
}

func describe2(s *http2.ServerStream, text string) {
	a := http.Response{Status: 200}
	a.Headers.Add([]byte("got"), []byte(text))
	_ = s.WriteHead(&a, true)
	_ = s.Flush()
}

// bubble is a Client and a peer over a pipe, in a synctest bubble.
func bubble(t *testing.T, o http2.Options) (*peer, *http2.Client, *owner) {
	t.Helper()
	ours, theirs := net.Pipe()
	own := newOwner()
	cl := http2.NewClient(transport.NewConn(ours), http2.ClientOptions{Options: o}, own)
	p := newPeer(t, theirs)
	if _, err := io.ReadFull(theirs, make([]byte, len(http2.Preface))); err != nil {
		t.Fatal(err)
	}
	return p, cl, own
}

// TestKeepAlive: a silent peer is asked, and left when it does not answer.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, own := bubble(t, http2.Options{KeepAlive: time.Minute, KeepAliveTimeout: 5 * time.Second})
		start := time.Now()
		frames := make(chan string)
		go func() {
			for {
				f, err := p.ReadFrame()
				if err != nil {
					close(frames)
					return
				}
				if ping, ok := f.(*xhttp2.PingFrame); ok {
					frames <- fmt.Sprint(time.Since(start))
					if time.Since(start) < 90*time.Second {
						p.say(p.WritePing(true, ping.Data))
					}
				}
			}
		}()
		p.say(p.WriteSettings())
		if a, b := <-frames, <-frames; a != "1m0s" || b != "2m0s" {
			t.Error(a, b)
		}
		<-frames // the end
		err := <-own.ended
		if err == nil || time.Since(start) != 125*time.Second {
			t.Error(time.Since(start), err)
		}
		_ = p.c.Close()
	})
}

// TestIdleKeepAlive: after a silence the peer is asked when an exchange begins.
func TestIdleKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, cl, own := bubble(t, http2.Options{IdleKeepAlive: time.Minute, KeepAliveTimeout: 5 * time.Second})
		pings := make(chan time.Time, 9)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				f, err := p.ReadFrame()
				if err != nil {
					return
				}
				if _, ok := f.(*xhttp2.PingFrame); ok {
					pings <- time.Now()
				}
			}
		}()
		p.say(p.WriteSettings())
		synctest.Wait()
		call := func() {
			s := cl.Open()
			_ = s.WriteHead(get("/"), true)
			_ = s.Flush()
			synctest.Wait()
			s.Release()
		}
		call()
		if len(pings) != 0 {
			t.Error("the connection was not idle")
		}
		time.Sleep(2 * time.Minute)
		call()
		if len(pings) != 1 {
			t.Error("the connection was idle")
		}
		if err := <-own.ended; err == nil {
			t.Error("nobody has answered")
		}
		<-ended
		_ = p.c.Close()
	})
}

// TestRest: a connection at rest works on when it is used again.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := http2.NewServer(transport.NewConn(ours), nil, http2.ServerOptions{}, describe)
		ended := make(chan error)
		go func() { ended <- s.Serve() }()
		p := newPeer(t, theirs)
		heads := make(chan string, 9)
		go func() {
			defer close(heads)
			for {
				f, err := p.ReadFrame()
				if err != nil {
					return
				}
				if f.Header().Type == xhttp2.FrameHeaders {
					heads <- p.text(f)
				}
			}
		}()
		p.say(p.raw(http2.Preface))
		p.say(p.WriteSettings())
		for id := uint32(1); id < 7; id += 2 {
			p.get(id, true)
			if got, want := <-heads, fmt.Sprintf("HEADERS %d :status=200 got=GET http a / END", id); got != want {
				t.Error(got)
			}
			time.Sleep(time.Minute)
		}
		_ = theirs.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for range heads {
			t.Error("more was said")
		}
	})
}

// TestSlowReader: a client that asks for much and reads nothing costs bounded memory and
// keeps nobody else waiting; when it leaves, all that it asked for ends.
func TestSlowReader(t *testing.T) {
	down, up := sockets(t)
	s := serving(t, up, http2.ServerOptions{}, func(s *http2.ServerStream) {
		_ = s.WriteHead(&http.Response{Status: 200}, false)
		for s.WriteBody(piece, false) == nil { // until the client leaves
		}
	})
	p := newPeer(t, down)
	p.say(p.raw(http2.Preface))
	p.say(p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1}))
	p.say(p.WriteWindowUpdate(0, 1<<31-1-65535))
	for id := uint32(1); id < 201; id += 2 {
		p.get(id, true)
	}
	before := heap()
	await(t, func() bool { return s.Active() == 100 })
	// All of them wait for the socket now, or will in a moment: what they hold is the
	// connection's buffer, once.
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("%d bytes for a client that does not read", grown)
	}
	_ = down.Close()
	await(t, func() bool { return s.Active() == 0 })
}

var piece = make([]byte, 16<<10)

// heap is the memory in use.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// await looks again until it is so.
func await(t *testing.T, is func() bool) {
	t.Helper()
	for start := time.Now(); !is(); runtime.Gosched() {
		if time.Since(start) > wait {
			t.Fatal("it never is")
		}
	}
}
