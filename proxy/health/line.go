package health

import (
	"context"
	"errors"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http1"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A line is the connection of an HTTP probe, kept from one check to the next as long as
// both sides allow it.
type line struct {
	s      *session
	h2     bool
	byALPN bool // the handshake decides (use_alpn_protocol)

	conn transport.Conn // nil: to be made
	x    http1.Exchange
	c    *http2.Client
	tls  bool
	idle bool // the HTTP/1 connection is whole after its last exchange
}

var errRoom = errors.New("the host allows no stream")

// secure reports that the connection is TLS.
func (l *line) secure() bool { return l.tls }

// begin starts an exchange, on the connection that is there or on a new one.
func (l *line) begin(ctx context.Context) (http.ClientStream, error) {
	if !l.usable() {
		l.close()
		if err := l.connect(ctx); err != nil {
			return nil, err
		}
	}
	if l.c != nil {
		if x := l.c.Open(); x != nil {
			return x, nil
		}
		return nil, errRoom
	}
	l.idle = false
	l.x.Start(l.conn, l, http1.ExchangeOptions{})
	return &lineStream{Exchange: &l.x}, nil
}

// exchange sends what request makes once the connection is there, with a body, and has the
// answer judged with the first keep bytes of its body; both are the line's again after that.
func (l *line) exchange(ctx context.Context, request func() *http.Request, send []byte, keep int, judge func(*http.Response, []byte) outcome) outcome {
	x, err := l.begin(ctx)
	if err != nil {
		return outcome{cause: network}
	}
	defer x.Release()
	stop := context.AfterFunc(ctx, x.Interrupt)
	defer stop()
	var answer http.Response
	body, err := ask(x, request(), send, &answer, keep)
	if err != nil {
		return outcome{cause: network}
	}
	return judge(&answer, body)
}

func (l *line) usable() bool {
	switch {
	case l.conn == nil:
		return false
	case l.c != nil:
		return l.c.Room() > 0 && !l.c.Draining()
	}
	return l.idle && !stale(l.conn)
}

func (l *line) connect(ctx context.Context) (err error) {
	if l.conn, err = l.s.dial(ctx); err != nil {
		l.conn = nil
		return err
	}
	h2 := l.h2
	t := l.conn.TLS()
	if l.tls = t != nil; l.tls && l.byALPN && t.NegotiatedProtocol != "" {
		h2 = t.NegotiatedProtocol == "h2"
	}
	if h2 {
		l.c = http2.NewClient(l.conn, http2.ClientOptions{}, bystander{})
	}
	return nil
}

func (l *line) close() {
	switch {
	case l.c != nil:
		l.c.Close()
	case l.conn != nil:
		_ = l.conn.Close() // nothing is left to be said
	}
	l.conn, l.c, l.idle = nil, nil, false
}

// lineStream is an HTTP/1 exchange whose memory stays with its line.
type lineStream struct{ *http1.Exchange }

func (x *lineStream) Release()     { x.End() }
func (x *lineStream) Reused() bool { return false }

// Finished is told by the HTTP/1 codec.
func (l *line) Finished(_ *http1.Exchange, reusable bool) { l.idle = reusable }

// Untaken is for those that ask again: a check does not.
func (l *line) Untaken() bool { return false }

// A bystander hears what becomes of an HTTP/2 connection: the next check finds out by
// itself.
type bystander struct{}

func (bystander) Vacated()                                    {}
func (bystander) Finished(*http2.Client, *http2.ClientStream) {}
func (bystander) Changed(*http2.Client)                       {}
func (bystander) Ended(*http2.Client, error)                  {}
