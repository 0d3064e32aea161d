package samples

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lateen-mesh/lateen/samples/testca"
)

// drainTime bounds how long requests may go on after the application was ended. A page of
// Bookinfo takes up to nine seconds.
const drainTime = 15 * time.Second

// endpoints say where an HTTP application listens.
type endpoints struct {
	plain, secure, names list
	ca                   string
	linger               time.Duration
	abrupt               bool
	asked                *atomic.Int64 // when the last request came, in Unix nanoseconds; nil: not known
	order                []string      // of headers in answers; nil leaves it to net/http
	clearHTTP2           bool          // HTTP/2 without TLS is spoken too
}

// A list is a flag that may be repeated, or hold several values with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

// Set adds values; package flag calls it.
func (l *list) Set(text string) error {
	*l = append(*l, strings.Split(text, ",")...)
	return nil
}

func (e *endpoints) add(f *flag.FlagSet) {
	f.Var(&e.plain, "listen", "`ADDR:PORT` of plain HTTP, may be repeated")
	f.Var(&e.secure, "tls-listen", "`ADDR:PORT` of HTTPS, may be repeated")
	f.Var(&e.names, "tls-name", "`name` on the certificate, may be repeated")
	f.DurationVar(&e.linger, "linger", 0, "`time` without a request that is waited for, up to 10 s, once it is to end: some come from proxies that have not heard of it")
	f.BoolVar(&e.abrupt, "abrupt", false, "end at once and leave requests without answer")
	f.StringVar(&e.ca, "ca", "", "`folder` of the test CA (testca.crt, testca.key), made there on first use")
}

// serve serves until ctx ends or a listener fails. Requests that run then are
// answered, and those that come while it lingers, but not later ones.
func (e *endpoints) serve(ctx context.Context, handler http.Handler, say func(string)) error {
	listeners, err := e.listen()
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Hour, MaxHeaderBytes: 64 << 10,
		ErrorLog: log.New(io.Discard, "", 0), // what a client breaks off is no news of a stand-in
	}
	if e.clearHTTP2 {
		server.Protocols = new(http.Protocols)
		server.Protocols.SetHTTP1(true)
		server.Protocols.SetHTTP2(true)
		server.Protocols.SetUnencryptedHTTP2(true)
	}
	if e.linger > 0 {
		e.asked = &atomic.Int64{}
		server.Handler = noting(e.asked, handler)
	}
	if e.order != nil {
		server.Handler, server.ConnContext = inOrder(server.Handler), withConnection
	}
	failed := make(chan error, len(listeners))
	for _, ln := range listeners {
		say("listening on " + ln.Addr().String())
		go func() { failed <- server.Serve(ln) }()
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = e.drain(context.WithoutCancel(ctx), server, failed)
	}
	_ = server.Close()
	return err
}

// drain ends a server as the flags say. It returns early where a listener fails.
func (e *endpoints) drain(ctx context.Context, server *http.Server, failed <-chan error) error {
	if e.abrupt {
		return nil
	}
	if err := e.wait(failed); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	_ = server.Shutdown(ctx)
	return nil
}

// lingerMost bounds how long an application lingers that is asked all the time.
const lingerMost = 10 * time.Second

// wait returns once nobody has asked for the time that the application lingers.
func (e *endpoints) wait(failed <-chan error) error {
	begun := time.Now()
	over := time.NewTimer(e.linger)
	defer over.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case <-over.C:
		}
		last := begun
		if e.asked != nil {
			last = time.Unix(0, max(begun.UnixNano(), e.asked.Load()))
		}
		left := min(e.linger-time.Since(last), lingerMost-time.Since(begun))
		if left <= 0 {
			return nil
		}
		over.Reset(left)
	}
}

// noting keeps when requests come.
func noting(asked *atomic.Int64, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(time.Now().UnixNano())
		handler.ServeHTTP(w, r)
	})
}

func (e *endpoints) listen() (all []net.Listener, err error) {
	if len(e.plain)+len(e.secure) == 0 {
		return nil, &Error{Err: errors.New("nowhere to listen"), Hint: "say --listen ADDR:PORT or --tls-listen ADDR:PORT"}
	}
	defer func() {
		if err != nil {
			for _, ln := range all {
				_ = ln.Close()
			}
		}
	}()
	for _, addr := range e.plain {
		ln, err := listen(addr)
		if err != nil {
			return all, err
		}
		if e.order != nil {
			ln = ordering{ln, e.order}
		}
		all = append(all, ln)
	}
	if len(e.secure) == 0 {
		return all, nil
	}
	config, err := e.tls()
	if err != nil {
		return all, err
	}
	for _, addr := range e.secure {
		ln, err := listen(addr)
		if err != nil {
			return all, err
		}
		all = append(all, tls.NewListener(ln, config))
	}
	return all, nil
}

func (e *endpoints) tls() (*tls.Config, error) {
	if len(e.names) == 0 || e.ca == "" {
		return nil, &Error{Err: errors.New("HTTPS needs a certificate"), Hint: "say --tls-name NAME and --ca DIR"}
	}
	if err := os.MkdirAll(e.ca, 0o700); err != nil {
		return nil, err
	}
	ca, err := testca.Open(e.ca)
	if err != nil {
		return nil, err
	}
	cert, err := ca.Certificate(e.names...)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", e.names.String(), err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}, nil
}

func listen(addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, &Error{Err: err, Hint: "ports below 1024 need root, or: sysctl net.ipv4.ip_unprivileged_port_start=80"}
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &Error{Err: err, Hint: "another program has " + addr}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, &Error{Err: err, Hint: "name an address of this machine, such as 127.0.0.1"}
	case err != nil:
		return nil, &Error{Err: err, Hint: "for example: --listen 127.0.0.1:8000"}
	}
	return ln, nil
}
