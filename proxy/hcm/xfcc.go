package hcm

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/url"
	"strings"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// xfcc says what becomes of x-forwarded-client-cert.
type xfcc struct {
	mode                           hcmv3.HttpConnectionManager_ForwardClientCertDetails
	subject, cert, chain, dns, uri bool
}

func (m *manager) compileXFCC(c *hcmv3.HttpConnectionManager) error {
	d := c.GetSetCurrentClientCertDetails()
	if err := onlyIn("set_current_client_cert_details", d, "subject", "cert", "chain", "dns", "uri"); err != nil {
		return err
	}
	if c.GetForwardClientCertDetails() > hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY {
		return errors.New("forward_client_cert_details: not supported")
	}
	m.xfcc = xfcc{mode: c.GetForwardClientCertDetails(), subject: d.GetSubject().GetValue(), cert: d.GetCert(), chain: d.GetChain(),
		dns: d.GetDns(), uri: d.GetUri()}
	return nil
}

// apply removes, keeps, appends to or sets the header. Only a client that showed a
// certificate is believed, unless the mode is ALWAYS_FORWARD_ONLY.
func (x *xfcc) apply(c *client, s *http.Stream) {
	const name = "x-forwarded-client-cert"
	h := &s.Request.Headers
	mode := x.mode
	if mode == hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY {
		return
	}
	if mode == hcmv3.HttpConnectionManager_SANITIZE || !c.mutual {
		h.Remove(name)
		return
	}
	switch mode {
	case hcmv3.HttpConnectionManager_APPEND_FORWARD:
		own := c.clientCert()
		if before := h.Get(name); len(before) > 0 {
			b := append(append(s.Scratch(), before...), ',')
			h.Set(name, s.Keep(append(b, own...)))
			return
		}
		h.Set(name, own)
	case hcmv3.HttpConnectionManager_SANITIZE_SET:
		h.Set(name, c.clientCert())
	}
}

// clientCert is the element for the connection's client, made once.
func (c *client) clientCert() []byte {
	c.certOnce.Do(func() { c.cert = []byte(c.m.xfcc.element(c.nc.TLS(), c.nc.Info.LocalURISANs)) })
	return c.cert
}

// element describes a client's certificate.
func (x *xfcc) element(t *tls.ConnectionState, local []string) string {
	leaf := t.PeerCertificates[0]
	var parts []string
	if len(local) > 0 {
		parts = append(parts, "By="+local[0])
	}
	sum := sha256.Sum256(leaf.Raw)
	parts = append(parts, "Hash="+hex.EncodeToString(sum[:]))
	if x.cert {
		parts = append(parts, `Cert="`+escapedPEM(leaf.Raw)+`"`)
	}
	if x.chain {
		var all strings.Builder
		for _, c := range t.PeerCertificates {
			all.WriteString(escapedPEM(c.Raw))
		}
		parts = append(parts, `Chain="`+all.String()+`"`)
	}
	if x.subject {
		parts = append(parts, `Subject="`+transport.Visible(leaf.Subject.String())+`"`)
	}
	if x.uri {
		for _, u := range leaf.URIs {
			parts = append(parts, "URI="+u.String())
		}
		if len(leaf.URIs) == 0 {
			parts = append(parts, "URI=")
		}
	}
	if x.dns {
		for _, d := range leaf.DNSNames {
			parts = append(parts, "DNS="+transport.Visible(d))
		}
	}
	return strings.Join(parts, ";")
}

// escapedPEM is a certificate with all escaped that has a meaning in the header or in URLs.
func escapedPEM(der []byte) string {
	text := url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return strings.ReplaceAll(text, "+", "%20")
}
