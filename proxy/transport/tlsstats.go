package transport

import (
	"crypto/tls"
	"errors"
	"strings"
	"sync"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

// tlsStats count handshakes below "ssl.". They come into being with the first one.
type tlsStats struct {
	scope *stats.Scope
	once  sync.Once

	handshake, connectionError, verifyError, verifySAN, verifyNoCert, sessionReused *stats.Counter
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
		s.handshake, s.connectionError, s.sessionReused = c("handshake"), c("connection_error"), c("session_reused")
		s.verifyError, s.verifySAN, s.verifyNoCert = c("fail_verify_error"), c("fail_verify_san"), c("fail_verify_no_cert")
	})
}

func (s *tlsStats) shook(c *tls.Conn) {
	if s == nil {
		return
	}
	s.open()
	s.handshake.Inc()
	state := c.ConnectionState()
	if state.DidResume {
		s.sessionReused.Inc()
	}
	s.scope.Counter("versions." + strings.Replace(tls.VersionName(state.Version), "TLS 1.", "TLSv1.", 1)).Inc()
}

func (s *tlsStats) failed(err error) {
	if s == nil {
		return
	}
	s.open()
	var verify *verifyError
	switch {
	case !errors.As(err, &verify):
		if strings.Contains(err.Error(), "didn't provide a certificate") {
			s.verifyNoCert.Inc()
			return
		}
		s.connectionError.Inc()
	case strings.HasPrefix(verify.detail, sanFailure):
		s.verifySAN.Inc()
	default:
		s.verifyError.Inc()
	}
}
