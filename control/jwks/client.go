package jwks

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"syscall"
	"time"
)

// extraRoots is where a Secret with further authorities is mounted.
const extraRoots = "/cacerts/extra.pem"

const maxRedirects = 3

// NewClient returns a client that calls no address of the blocks, whatever name leads there
// and wherever it is sent on to. It trusts the machine's authorities and those of
// /cacerts/extra.pem.
func NewClient(blocked []netip.Prefix) *http.Client {
	dialer := &net.Dialer{Timeout: defaultTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		return refuse(address, blocked)
	}}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: proxyUnless(blocked), DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots()},
			MaxIdleConns:    atOnce, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("is sent on too often")
			}
			return nil
		},
	}
}

// HTTPSOnly has a client call nobody in plain text, wherever it is sent on to.
func HTTPSOnly(client *http.Client) *http.Client {
	only := *client
	only.Transport = httpsOnly{client.Transport}
	return &only
}

type httpsOnly struct{ http.RoundTripper }

// RoundTrip is http.RoundTripper's.
func (h httpsOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("keys come over https only, not from %s", r.URL.Redacted())
	}
	return h.RoundTripper.RoundTrip(r)
}

// proxyUnless is the machine's HTTP proxy, which looks names up by itself, so that nothing can
// be blocked behind it.
func proxyUnless(blocked []netip.Prefix) func(*http.Request) (*url.URL, error) {
	if len(blocked) > 0 {
		return nil
	}
	return http.ProxyFromEnvironment
}

func refuse(address string, blocked []netip.Prefix) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(blocked, func(p netip.Prefix) bool { return p.Contains(at.Addr().Unmap().WithZone("")) }) {
		return fmt.Errorf("%s is not to be called for keys", at.Addr())
	}
	return nil
}

// roots are nil, the machine's, where there are no others.
func roots() *x509.CertPool {
	more, err := os.ReadFile(extraRoots)
	if err != nil {
		return nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pool.AppendCertsFromPEM(more)
	return pool
}
