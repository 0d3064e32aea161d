package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

// tlsStats count handshakes below "ssl.". They come into being with the first one.
type tlsStats struct {
	scope *stats.Scope
	once  sync.Once

	handshake, connectionError, noCertificate, sessionReused   *stats.Counter
	verifyError, verifySAN, verifyNoCert, verifyHash           *stats.Counter
	stapleRequests, stapleResponses, stapleOmitted, stapleFail *stats.Counter
	usageInvalid                                               *stats.Counter
}

// newTLSStats returns the stats below scope; without a scope nothing is counted.
func newTLSStats(scope *stats.Scope) *tlsStats {
	if scope == nil {
		return nil
	}
	return &tlsStats{scope: scope.Scope("ssl")}
}

func (s *tlsStats) open() {
	s.once.Do(func() {
		c := s.scope.Counter
		s.handshake, s.connectionError, s.sessionReused, s.noCertificate = c("handshake"), c("connection_error"), c("session_reused"), c("no_certificate")
		s.verifyError, s.verifySAN, s.verifyNoCert, s.verifyHash = c("fail_verify_error"), c("fail_verify_san"), c("fail_verify_no_cert"), c("fail_verify_cert_hash")
		s.stapleRequests, s.stapleResponses = c("ocsp_staple_requests"), c("ocsp_staple_responses")
		s.stapleOmitted, s.stapleFail, s.usageInvalid = c("ocsp_staple_omitted"), c("ocsp_staple_failed"), c("was_key_usage_invalid")
	})
}

// shook counts a handshake that has come to its end.
func (s *tlsStats) shook(state *tls.ConnectionState) {
	if s == nil {
		return
	}
	s.open()
	s.handshake.Inc()
	if state.DidResume {
		s.sessionReused.Inc()
	}
	s.scope.Counter("versions." + strings.Replace(tls.VersionName(state.Version), "TLS 1.", "TLSv1.", 1)).Inc()
	s.scope.Counter("ciphers." + CipherName(state.CipherSuite)).Inc()
	if state.CurveID != 0 {
		s.scope.Counter("curves." + curveName(state.CurveID)).Inc()
	}
	if len(state.PeerCertificates) == 0 {
		s.noCertificate.Inc()
	} else if name := signatureOf(state); name != "" && !state.DidResume {
		s.scope.Counter("sigalgs." + name).Inc()
	}
}

func curveName(id tls.CurveID) string {
	for name, have := range curves {
		if have == id {
			return name
		}
	}
	return id.String()
}

// signatureOf is the algorithm by which the peer has proven its key: crypto/tls does not
// tell, but both sides take the first that fits the key.
func signatureOf(state *tls.ConnectionState) string {
	switch key := state.PeerCertificates[0].PublicKey.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return "ecdsa_secp256r1_sha256"
		case 384:
			return "ecdsa_secp384r1_sha384"
		case 521:
			return "ecdsa_secp521r1_sha512"
		}
	case *rsa.PublicKey:
		return "rsa_pss_rsae_sha256"
	case ed25519.PublicKey:
		return "ed25519"
	}
	return ""
}

// failed counts a handshake that has not.
func (s *tlsStats) failed(err error) {
	if s == nil {
		return
	}
	s.open()
	verify, ok := errors.AsType[*verifyError](err)
	switch {
	case !ok && strings.Contains(err.Error(), "didn't provide a certificate"):
		s.verifyNoCert.Inc()
	case !ok && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)):
		// the peer has gone, or time has: no error of TLS
	case !ok:
		s.connectionError.Inc()
	case strings.HasPrefix(verify.detail, sanFailure), strings.HasPrefix(verify.detail, hostFailure):
		s.verifySAN.Inc()
	case verify.detail == pinFailure:
		s.verifyHash.Inc()
	default:
		s.verifyError.Inc()
	}
}

// asked, stapled, unstapled and stapleFailed count what became of a wish for a staple.
func (s *tlsStats) asked() {
	if s != nil {
		s.open()
		s.stapleRequests.Inc()
	}
}

func (s *tlsStats) stapled() {
	if s != nil {
		s.open()
		s.stapleResponses.Inc()
	}
}

func (s *tlsStats) unstapled() {
	if s != nil {
		s.open()
		s.stapleOmitted.Inc()
	}
}

func (s *tlsStats) stapleFailed() {
	if s != nil {
		s.open()
		s.stapleFail.Inc()
	}
}

// expires shows when the certificates end, those of SDS by the names of their secrets.
func (s *tlsStats) expires(v *version, certs []tls.Certificate) {
	if s == nil {
		return
	}
	own := len(certs)
	for _, c := range v.certificates {
		if c != nil {
			own--
		}
	}
	for i := range certs {
		name := unnamed
		if i >= own {
			name = v.names[i-own]
		}
		s.scope.Gauge("certificate." + name + ".expiration_unix_time_seconds").Set(certs[i].Leaf.NotAfter.Unix())
	}
}

// unnamed is the name of certificates that are not a secret's: with the digest of nothing.
const unnamed = "unnamed_cert_e3b0c442"
