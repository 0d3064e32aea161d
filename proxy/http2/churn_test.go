package http2_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
)

// TestChurn: exchanges that end at any stage, on both sides and all at once, leave the
// connection as it was: every stream is over, every window whole, and an exchange with
// bodies longer than the windows still arrives byte for byte.
func TestChurn(t *testing.T) {
	small := http2.Options{InitialStreamWindow: 70_000, InitialConnectionWindow: 100_000}
	down, up := sockets(t)
	srv := serving(t, up, http2.ServerOptions{Options: small, PrematureResetMinStreams: -1}, func(s *http2.ServerStream) {
		var r http.Request
		if s.ReadRequest(&r) != nil {
			return
		}
		switch string(r.Headers.Get("do")) {
		case "nothing":
		case "reset":
			s.Reset(http2.CodeRefusedStream)
		case "early":
			_ = s.WriteHead(&http.Response{Status: 200}, true)
		case "half":
			_ = s.WriteHead(&http.Response{Status: 200}, false)
			_ = s.WriteBody(piece, false)
		default:
			echo(s)
		}
	})
	cl, own := calling(t, down, http2.ClientOptions{Options: small})
	var users sync.WaitGroup
	const workers, rounds = 16, 150
	for i := range workers {
		users.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for range rounds {
				churn(cl, r)
			}
		})
	}
	users.Wait()
	for range workers * rounds {
		<-own.finished
	}
	if cl.Active() != 0 {
		t.Error(cl.Active(), "streams")
	}
	await(t, func() bool { return srv.Active() == 0 })
	s := cl.Open()
	defer s.Release()
	body := bytes.Repeat([]byte("0123456789"), 100_000)
	sent := make(chan error)
	go func() {
		sent <- errors.Join(s.WriteHead(get("/"), false), s.WriteBody(body, true), s.Flush())
	}()
	var a http.Response
	if err := s.Await(&a); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(a.Body); err != nil || !bytes.Equal(got, body) {
		t.Fatal(len(got), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// churn is one exchange that goes well or ends somewhere.
func churn(cl *http2.Client, r *rand.Rand) {
	s := cl.Open()
	defer s.Release()
	what := []string{"echo", "echo", "echo", "nothing", "reset", "early", "half"}[r.IntN(7)]
	if r.IntN(20) == 0 {
		return // not even begun
	}
	size := r.IntN(3) * r.IntN(100_000)
	if s.WriteHead(get("/", "do", what), size == 0) != nil {
		return
	}
	if r.IntN(4) == 0 {
		s.SetDeadline(time.Now().Add(time.Duration(r.IntN(3)) * time.Millisecond))
	}
	var pump sync.WaitGroup
	defer pump.Wait()
	if size > 0 {
		pump.Go(func() {
			if s.WriteBody(make([]byte, size), true) == nil {
				_ = s.Flush()
			}
		})
	}
	if r.IntN(5) == 0 {
		pump.Go(s.Interrupt)
	}
	var a http.Response
	if err := s.ReadHead(&a); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.Interrupt()
		}
		return
	}
	if r.IntN(5) == 0 {
		s.Interrupt() // with a body that nobody reads
		return
	}
	for {
		if _, err := a.Body.Next(); err != nil {
			s.Interrupt() // for the pump
			return
		}
	}
}
