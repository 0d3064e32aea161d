package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/samples/httpbin"
	"github.com/lateen-mesh/lateen/samples/site"
	"github.com/lateen-mesh/lateen/samples/testca"
)

// sampleOptions say where a sample application listens.
type sampleOptions struct {
	listen    []string // plain HTTP
	listenTLS []string
	names     []string // of the certificate
	ca        string   // folder of the test CA that signs it
	title     string
}

// newSampleCommand is `lateen sample`: small applications that stand in for the
// sites and services of examples.
func newSampleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sample",
		Short: "Run a sample application: httpbin, site",
		Long:  "Sample applications stand in for the sites and services of examples, so that these run without the internet.",
		Args:  cobra.ArbitraryArgs,
		RunE:  noCommand,
	}
	cmd.AddCommand(
		newSampleServer("httpbin", "A stand-in for httpbin.org: /ip /headers /get /status/N /delay/S /anything …",
			func(sampleOptions) http.Handler { return httpbin.New() }),
		newSampleServer("site", "A page with a title, a stand-in for a public web site",
			func(o sampleOptions) http.Handler { return site.New(o.title) }),
	)
	return cmd
}

func newSampleServer(name, short string, handler func(sampleOptions) http.Handler) *cobra.Command {
	var o sampleOptions
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serveSample(cmd.Context(), o, handler(o), func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), name+": "+line) })
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.listen, "listen", nil, "ADDR:PORT of plain HTTP, may be repeated")
	f.StringSliceVar(&o.listenTLS, "tls-listen", nil, "ADDR:PORT of HTTPS, may be repeated")
	f.StringSliceVar(&o.names, "tls-name", nil, "names on the certificate")
	f.StringVar(&o.ca, "ca", "", "folder of the test CA (testca.crt, testca.key), made there on first use")
	if name == "site" {
		f.StringVar(&o.title, "title", "Sample", "title of the page")
	}
	return cmd
}

// serveSample serves until ctx ends or a listener fails.
func serveSample(ctx context.Context, o sampleOptions, handler http.Handler, say func(string)) error {
	listeners, err := sampleListeners(o)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Hour, MaxHeaderBytes: 64 << 10,
		ErrorLog: log.New(io.Discard, "", 0), // what a client breaks off is no news of a stand-in
	}
	failed := make(chan error, len(listeners))
	for _, ln := range listeners {
		say("listening on " + ln.Addr().String())
		go func() { failed <- server.Serve(ln) }()
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	_ = server.Close()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func sampleListeners(o sampleOptions) (all []net.Listener, err error) {
	if len(o.listen)+len(o.listenTLS) == 0 {
		return nil, withHint(errors.New("nowhere to listen"), "say --listen ADDR:PORT or --tls-listen ADDR:PORT")
	}
	defer func() {
		if err != nil {
			for _, ln := range all {
				_ = ln.Close()
			}
		}
	}()
	for _, addr := range o.listen {
		ln, err := listenSample(addr)
		if err != nil {
			return all, err
		}
		all = append(all, ln)
	}
	if len(o.listenTLS) == 0 {
		return all, nil
	}
	secure, err := sampleTLS(o)
	if err != nil {
		return all, err
	}
	for _, addr := range o.listenTLS {
		ln, err := listenSample(addr)
		if err != nil {
			return all, err
		}
		all = append(all, tls.NewListener(ln, secure))
	}
	return all, nil
}

func sampleTLS(o sampleOptions) (*tls.Config, error) {
	if len(o.names) == 0 || o.ca == "" {
		return nil, withHint(errors.New("HTTPS needs a certificate"), "say --tls-name NAME and --ca DIR")
	}
	if err := os.MkdirAll(o.ca, 0o700); err != nil {
		return nil, err
	}
	ca, err := testca.Open(o.ca)
	if err != nil {
		return nil, err
	}
	cert, err := ca.Certificate(o.names...)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", strings.Join(o.names, ", "), err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, nil
}

func listenSample(addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, withHint(err, "ports below 1024 need root, or: sysctl net.ipv4.ip_unprivileged_port_start=80")
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, withHint(err, "another program has "+addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, withHint(err, "name an address of this machine, such as 127.0.0.1")
	case err != nil:
		return nil, withHint(err, "for example: --listen 127.0.0.1:8000")
	}
	return ln, nil
}
