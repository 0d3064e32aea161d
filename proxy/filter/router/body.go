package router

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// A replay is what is kept of a request's body so that it can be sent again or
// mirrored. A body that came in one piece is kept where it lies.
type replay struct {
	keep   bool
	limit  int64
	taken  bool   // a byte was read from the client
	single []byte // the whole body
	copied []byte // the body so far, when it came in pieces
	lost   bool   // it outgrew the limit
}

// defaultBodyLimit is per_connection_buffer_limit_bytes by default.
const defaultBodyLimit = 1 << 20

func (b *replay) begin(k *call) {
	b.keep = k.retry.policy != nil || len(k.forward.Mirrors) > 0 || k.forward.Redirects != nil
	b.limit = defaultBodyLimit
	if k.forward.MaxRequestBytes >= 0 {
		b.limit = k.forward.MaxRequestBytes
	}
	b.keep = b.keep && k.s.Request.Upgrade == nil
}

// take keeps a piece; last says that no other follows.
func (b *replay) take(k *call, p []byte, last bool) {
	first := !b.taken
	b.taken = true
	switch {
	case len(p) == 0:
	case first && last:
		b.single = p
	case !b.keep || b.lost:
	case int64(len(b.copied)+len(p)) > b.limit:
		b.lost, b.copied = true, nil
		k.stats.RetryOrShadowAbandoned.Inc()
	default:
		b.copied = append(b.copied, p...)
	}
}

// bytes is the body when it is whole.
func (b *replay) bytes() []byte {
	if b.single != nil {
		return b.single
	}
	return b.copied
}

// whole reports that the body, once it has ended, can be sent again.
func (b *replay) whole() bool { return !b.taken || b.keep && !b.lost }

// again reports that the request as it was sent can be sent again: it has no body, or
// a body that has ended and is here.
func (b *replay) again(k *call) bool {
	body := k.s.Request.Body
	return body.Done() && k.pump.settled() && (b.whole() || b.single != nil)
}

// untouched reports that no byte was read from the client.
func (b *replay) untouched() bool { return !b.taken }

// send writes the head and the body bytes at hand. rest says that more is to come.
func (k *call) send() (rest bool, err error) {
	x, s := k.stream, k.s
	body := s.Request.Body
	if k.body.taken || body.Done() {
		return false, k.resend()
	}
	if err := x.WriteHead(&s.Request, false); err != nil || k.tunnels() {
		return false, err
	}
	for body.Ready() {
		over, err := k.move()
		if over || err != nil {
			return false, err
		}
	}
	return true, x.Flush()
}

// resend writes a request whose body is here or that has none.
func (k *call) resend() error {
	b, trailers := k.body.bytes(), k.s.Request.Body.Trailers()
	over := len(b) == 0 && trailers == nil
	if err := k.stream.WriteHead(&k.s.Request, over); err != nil || over {
		return err
	}
	if len(b) > 0 || trailers == nil {
		if err := k.stream.WriteBody(b, trailers == nil); err != nil || trailers == nil {
			return err
		}
	}
	return k.stream.WriteTrailers(trailers)
}

// move takes one piece of the body from the client to the upstream; over is true
// after the last.
func (k *call) move() (over bool, err error) {
	body := k.s.Request.Body
	p, err := body.Next()
	if err != nil && !errors.Is(err, io.EOF) {
		k.pump.read = err
		return false, errBody
	}
	if err != nil && k.hangsUp() {
		k.pump.read = err
		k.s.Leave()
		return false, errBody
	}
	if err != nil {
		k.body.taken = true
		k.bodyRead()
		if t := body.Trailers(); t != nil {
			return true, k.stream.WriteTrailers(t)
		}
		return true, k.stream.WriteBody(nil, true)
	}
	over = body.Done() && body.Trailers() == nil
	k.body.take(k, p, over)
	if over {
		k.bodyRead()
	}
	return over, k.stream.WriteBody(p, over)
}

// A pump moves the rest of a body while the answer is awaited.
type pump struct {
	done chan struct{} // closed when it has ended; nil before the start
	read error         // why the client's side broke off
}

func (p *pump) started() bool { return p.done != nil }

func (p *pump) running() bool {
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// settled reports that there is no pump any more. One that has read the last piece is
// about to end, unless the upstream does not take the bytes.
func (p *pump) settled() bool {
	if !p.running() {
		return true
	}
	t := time.NewTimer(pumpGrace)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

const pumpGrace = 10 * time.Millisecond

func (p *pump) start(k *call) {
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		k.pumpBody()
	}()
}

// stop ends the pump and waits for its end; the attempt is lost with it.
func (p *pump) stop(k *call) {
	k.s.StopBody()
	k.stream.Interrupt()
	<-p.done
}

// pumpBody is the pump's goroutine. A body that breaks off ends the attempt.
func (k *call) pumpBody() {
	for {
		over, err := k.move()
		switch {
		case errors.Is(err, errBody):
			k.stream.Interrupt()
			return
		case err != nil:
			return // the reader of the answer finds out why
		case over:
			_ = k.stream.Flush() // likewise
			return
		}
		if !k.s.Request.Body.Ready() {
			if k.stream.Flush() != nil {
				return
			}
		}
	}
}

// bodyRead says that the pump has read all of the request: now the time for the answer runs.
// The last bytes are not written yet: once they are the connection may be another request's.
func (k *call) bodyRead() {
	if !k.pump.started() {
		return
	}
	k.requestRead()
	limit := k.timeout
	if k.perTry > 0 {
		limit = k.perTry // which is shorter
	}
	if k.idles() {
		limit = k.perTryIdle
	}
	if limit > 0 {
		k.stream.SetDeadline(time.Now().Add(limit))
	}
}

// paced is the body of an answer in which each piece must come in time.
type paced struct {
	http.Body
	k *call
	x http.ClientStream
}

// Next waits for a piece as long as per_try_idle_timeout, and the whole timeout, allow.
func (p *paced) Next() ([]byte, error) {
	limit, idle := time.Now().Add(p.k.perTryIdle), true
	if d := p.k.deadline; !d.IsZero() && d.Before(limit) {
		limit, idle = d, false
	}
	p.x.SetDeadline(limit)
	b, err := p.Body.Next()
	if idle && errors.Is(err, os.ErrDeadlineExceeded) {
		p.k.stats.RqPerTryIdleTimeout.Inc()
		err = &http.Late{Details: "upstream_per_try_idle_timeout"}
	}
	return b, err
}

var _ http.Ender = (*router)(nil)
