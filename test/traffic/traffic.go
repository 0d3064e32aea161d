// Package traffic is what tests load meshes with: clients of several protocols that judge each
// answer, and a rate at which they ask.
package traffic

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A Dial connects, as [net.Dialer.DialContext] does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// A Client asks again and again. What it keeps open from one request to the next is over with
// Close.
type Client struct {
	// Ask is one request; an error says what was wrong with its answer.
	Ask   func(ctx context.Context) error
	Close func()
}

// HTTP is how requests are sent.
type HTTP struct {
	HTTP2 bool
	Once  bool // a connection for each request
	TLS   *tls.Config
	Dial  Dial // nil is from this program itself
}

// sent is the body of requests, which echoing servers answer with.
var sent = []byte(strings.Repeat("mixed ", 50))

// Client asks a server that answers with the body of the request. None is sent twice.
func (o HTTP) Client(url string) Client {
	t := &http.Transport{DisableKeepAlives: o.Once, TLSClientConfig: o.TLS, DialContext: o.Dial, Protocols: new(http.Protocols)}
	t.Protocols.SetHTTP1(!o.HTTP2)
	t.Protocols.SetHTTP2(o.HTTP2)
	t.Protocols.SetUnencryptedHTTP2(o.HTTP2)
	return Client{func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, struct{ io.Reader }{bytes.NewReader(sent)}) // of a type that transports cannot read twice
		if err != nil {
			return err
		}
		req.ContentLength = int64(len(sent))
		resp, err := t.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		switch {
		case err != nil:
			return err
		case resp.StatusCode != http.StatusOK:
			return fmt.Errorf("%s: %s", resp.Status, got)
		case !bytes.Equal(got, sent):
			return fmt.Errorf("%d bytes came back of %d", len(got), len(sent))
		}
		return nil
	}, t.CloseIdleConnections}
}

// Bytes keeps one connection to a server that echoes, on which requests take turns; after an error
// another.
func Bytes(dial Dial, address string) Client {
	var turn sync.Mutex
	var c net.Conn
	return Client{func(ctx context.Context) (err error) {
		turn.Lock()
		defer turn.Unlock()
		if c == nil {
			if c, err = dial(ctx, "tcp", address); err != nil {
				return err
			}
		}
		if err = Echo(ctx, c, c, "some bytes"); err != nil { // what comes later is no answer to the next
			_ = c.Close()
			c = nil
		}
		return err
	}, func() {
		turn.Lock()
		defer turn.Unlock()
		if c != nil {
			_ = c.Close()
		}
	}}
}

// BytesOnce has a connection for each request to a server that echoes, and closes it in order.
func BytesOnce(dial Dial, address string) Client {
	return Client{func(ctx context.Context) error {
		one := Bytes(dial, address)
		defer one.Close()
		return one.Ask(ctx)
	}, func() {}}
}

// Echo sends text on a connection and reads it back.
func Echo(ctx context.Context, c net.Conn, r io.Reader, text string) error {
	if at, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(at)
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("got %q", got)
	}
	return nil
}

// InFlight bounds the requests under way.
const InFlight = 512

// AtRate makes requests until ctx ends, each at its time whatever becomes of the others, and
// returns when all have their answers. What a busy machine misses is left out, not caught up.
// next is called for one request after the other; what it returns makes the request.
func AtRate(ctx context.Context, perSecond int, next func(n int) (ask func())) {
	beat := time.NewTicker(time.Second / time.Duration(perSecond))
	defer beat.Stop()
	slots := make(chan struct{}, InFlight)
	var requests sync.WaitGroup
	defer requests.Wait()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		}
		ask := next(n)
		slots <- struct{}{}
		requests.Go(func() {
			defer func() { <-slots }()
			ask()
		})
	}
}

// Serve echoes what comes on each connection of l until that is closed.
func Serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}
