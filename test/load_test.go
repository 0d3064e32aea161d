package test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A load is a number of clients that send request after request; each must be
// answered with 200 and in full. They send nothing twice: unlike http.Client, a
// connection that fails under a request is a request lost.
type load struct {
	t      *testing.T
	stop   context.CancelFunc
	ctx    context.Context
	wg     sync.WaitGroup
	served atomic.Int64

	closing atomic.Bool // the gateway goes: a client that finds it closed goes too
}

// A visitor is one client of a load.
type visitor struct {
	what    string
	addr    string
	secure  *tls.Config // nil: plain
	request string
	fresh   bool // a connection for each request
}

// pace keeps a load from being an attack: requests of one client per second, at most.
const pace = 2 * time.Millisecond

func newLoad(t *testing.T) *load {
	l := &load{t: t}
	l.ctx, l.stop = context.WithCancel(context.Background())
	t.Cleanup(l.end)
	return l
}

// end stops the clients after the request that each of them is about.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

func (l *load) add(n int, v visitor) {
	for range n {
		l.wg.Go(func() { l.visit(v) })
	}
}

// visit is the life of one client.
func (l *load) visit(v visitor) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	var c *visit
	defer func() { c.close() }()
	for n := 0; ; n++ {
		if c == nil {
			var err error
			if c, err = v.dial(); l.closing.Load() && errors.Is(err, syscall.ECONNREFUSED) {
				return
			}
			if err != nil {
				l.loss(v, n, err)
				return
			}
		}
		again, err := c.exchange(v.request)
		if err != nil {
			l.loss(v, n, err)
			return
		}
		l.served.Add(1)
		if v.fresh || !again {
			c.close()
			c = nil
		}
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *load) loss(v visitor, n int, err error) {
	l.t.Errorf("%s: request %d lost: %v", v.what, n, err)
}

// A visit is one connection of a client.
type visit struct {
	net.Conn
	r *bufio.Reader
}

func (v visitor) dial() (*visit, error) {
	c, err := net.DialTimeout("tcp", v.addr, answerTime)
	if err != nil {
		return nil, err
	}
	if v.secure != nil {
		s := tls.Client(c, v.secure)
		_ = c.SetDeadline(time.Now().Add(answerTime))
		if err := s.Handshake(); err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("handshake: %w", err)
		}
		c = s
	}
	return &visit{c, bufio.NewReader(c)}, nil
}

// answerTime bounds the wait for one answer.
const answerTime = 10 * time.Second

func (c *visit) close() {
	if c != nil {
		_ = c.Conn.Close()
	}
}

// exchange sends a request and reads the answer to its end; false: the gateway wants
// no more on this connection.
func (c *visit) exchange(request string) (bool, error) {
	_ = c.SetDeadline(time.Now().Add(answerTime))
	if _, err := io.WriteString(c, request); err != nil {
		return false, err
	}
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return false, fmt.Errorf("no answer: %w", err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false, fmt.Errorf("answer breaks off: %w", err)
	}
	if r.StatusCode != http.StatusOK {
		return false, fmt.Errorf("answer is %s: %s", r.Status, body)
	}
	return !r.Close, nil
}

// trusting is a client's TLS for a host of the test CA.
func trusting(roots *x509.CertPool, host string) *tls.Config {
	return &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}
}

// fetchHeader asks once on a connection of its own for a header of the answer.
func fetchHeader(addr, request string, names ...string) ([]string, error) {
	c, err := visitor{addr: addr}.dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	_ = c.SetDeadline(time.Now().Add(answerTime))
	if _, err := io.WriteString(c, request); err != nil {
		return nil, err
	}
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, r.Body)
	var values []string
	for _, name := range names {
		values = append(values, r.Header.Get(name))
	}
	if err == nil && r.StatusCode != http.StatusOK {
		err = errors.New(r.Status)
	}
	return values, err
}
