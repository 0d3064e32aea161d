package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"time"
)

// dialError gives a failed connect the reason that Envoy gives.
func dialError(err error) *Error {
	e := &Error{Err: err}
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		e.Timeout = true
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EADDRNOTAVAIL):
		errors.As(err, &errno)
		e.Reason = "immediate connect error: " + sentence(errno)
	case errors.As(err, &errno):
		e.Reason = "delayed connect error: " + sentence(errno)
	}
	return e
}

// sentence is strerror's text: Go's, with a capital.
func sentence(errno syscall.Errno) string {
	t := errno.Error()
	return strings.ToUpper(t[:1]) + t[1:]
}

// verifyError is a certificate that we refuse; detail is Envoy's word for why.
type verifyError struct {
	detail string
	err    error
}

func (e *verifyError) Error() string { return e.detail + ": " + e.err.Error() }
func (e *verifyError) Unwrap() error { return e.err }

// Codes of BoringSSL's error queue: the library, then the reason or errno.
const (
	systemLibrary = 2 << 24
	sslLibrary    = 16 << 24
)

// handshakeError gives a failed handshake the reason that Envoy gives, as far as
// crypto/tls tells the cause.
func handshakeError(err error) *Error {
	e := &Error{Err: err}
	var verify *verifyError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		e.Timeout = true
	case errors.As(err, &errno):
		e.Reason = fmt.Sprintf("TLS_error:|%d:system library:OPENSSL_internal:%s:TLS_error_end", systemLibrary|int(errno), sentence(errno))
	case errors.As(err, &verify):
		e.Reason = tlsReason(125, "CERTIFICATE_VERIFY_FAILED", verify.detail)
	case errors.As(err, &unknown), errors.As(err, &invalid):
		e.Reason = tlsReason(125, "CERTIFICATE_VERIFY_FAILED", "")
	case errors.As(err, &record):
		e.Reason = recordReason(record.RecordHeader)
	default:
		if code, ok := remoteAlert(err); ok {
			e.Reason = tlsReason(1000+int(code), alertName(code), "")
		} else if strings.Contains(err.Error(), "client didn't provide a certificate") {
			e.Reason = tlsReason(192, "PEER_DID_NOT_RETURN_A_CERTIFICATE", "peer did not provide required client certificate")
		} else if strings.Contains(err.Error(), "protocol version") || strings.Contains(err.Error(), "unsupported versions") {
			e.Reason = tlsReason(240, "UNSUPPORTED_PROTOCOL", "")
		}
	}
	return e
}

// recordReason says what the first bytes of something are that is no TLS record.
func recordReason(head [5]byte) string {
	switch string(head[:4]) {
	case "GET ", "POST", "HEAD", "PUT ":
		return tlsReason(156, "HTTP_REQUEST", "")
	case "CONN":
		return tlsReason(155, "HTTPS_PROXY_REQUEST", "")
	}
	if head[1] == 3 && int(head[3])<<8|int(head[4]) > maxRecord {
		return tlsReason(146, "ENCRYPTED_LENGTH_TOO_LONG", "")
	}
	return tlsReason(247, "WRONG_VERSION_NUMBER", "")
}

// maxRecord is the length of an encrypted record at most.
const maxRecord = 1<<14 + 2048

// wrongVersion is the alert for something that is no TLS record, as BoringSSL sends it.
const wrongVersion = "\x15\x03\x01\x00\x02\x02\x46"

// protest answers what is no TLS with an alert, which crypto/tls does not do.
func protest(r *records, err error) {
	record, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok || record.Conn == nil || !strings.Contains(recordReason(record.RecordHeader), "WRONG_VERSION_NUMBER") {
		return
	}
	_ = r.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = r.Conn.Write([]byte(wrongVersion)) // the peer may be gone
}

func tlsReason(reason int, name, detail string) string {
	if detail != "" {
		name += ":" + detail
	}
	return fmt.Sprintf("TLS_error:|%d:SSL routines:OPENSSL_internal:%s:TLS_error_end", sslLibrary|reason, name)
}

// remoteAlert is the alert that the peer sent: crypto/tls wraps it, a number of an
// unexported type, in a net.OpError "remote error".
func remoteAlert(err error) (uint8, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return uint8(v.Uint()), true
}

// Visible is a name of a certificate as it may stand in logs and headers: whoever made
// the certificate may have put control characters in, which RFC 2253 has escaped.
func Visible(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; c < ' ' || c == 0x7f {
			fmt.Fprintf(&b, `\%02X`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// alertNames are OpenSSL's names of the alerts that peers send in handshakes.
var alertNames = map[uint8]string{
	10: "SSLV3_ALERT_UNEXPECTED_MESSAGE", 20: "SSLV3_ALERT_BAD_RECORD_MAC", 40: "SSLV3_ALERT_HANDSHAKE_FAILURE",
	42: "SSLV3_ALERT_BAD_CERTIFICATE", 43: "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", 44: "SSLV3_ALERT_CERTIFICATE_REVOKED",
	45: "SSLV3_ALERT_CERTIFICATE_EXPIRED", 46: "SSLV3_ALERT_CERTIFICATE_UNKNOWN", 47: "SSLV3_ALERT_ILLEGAL_PARAMETER",
	48: "TLSV1_ALERT_UNKNOWN_CA", 49: "TLSV1_ALERT_ACCESS_DENIED", 50: "TLSV1_ALERT_DECODE_ERROR", 51: "TLSV1_ALERT_DECRYPT_ERROR",
	70: "TLSV1_ALERT_PROTOCOL_VERSION", 71: "TLSV1_ALERT_INSUFFICIENT_SECURITY", 80: "TLSV1_ALERT_INTERNAL_ERROR",
	90: "TLSV1_ALERT_USER_CANCELLED", 100: "TLSV1_ALERT_NO_RENEGOTIATION", 109: "MISSING_EXTENSION",
	110: "TLSV1_ALERT_UNSUPPORTED_EXTENSION", 112: "TLSV1_ALERT_UNRECOGNIZED_NAME", 113: "TLSV1_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE",
	115: "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY", 116: "TLSV1_ALERT_CERTIFICATE_REQUIRED", 120: "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
}

func alertName(code uint8) string {
	if n := alertNames[code]; n != "" {
		return n
	}
	return fmt.Sprintf("ALERT_%d", code)
}
