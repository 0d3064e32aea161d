package transport

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestVerified: a chain that is known passes without another look at its signatures, and nothing
// passes that would not have passed without.
func TestVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
		leaf := func(a *authority, life time.Duration) []*x509.Certificate {
			block, _ := pem.Decode(a.issue(t, life, "a.test").GetCertificateChain().GetInlineBytes())
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			return []*x509.Certificate{c}
		}
		of := func(c *tlsv3.CertificateValidationContext) *validation {
			v, err := compileValidation(c)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		check := func(name string, v *validation, chain []*x509.Certificate, usage x509.ExtKeyUsage, want string, known int) {
			t.Helper()
			for range 2 {
				err := v.verify(chain, usage, "")
				if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
					t.Errorf("%s: %v, want %q", name, err, want)
				}
			}
			if got := len(v.known.span); got != known {
				t.Errorf("%s: %d chains are known, want %d", name, got, known)
			}
		}
		v := of(roots(ca))
		good := leaf(ca, 10*time.Minute)
		check("the mesh's", v, good, x509.ExtKeyUsageClientAuth, "", 1)
		check("for another use", v, good, x509.ExtKeyUsageServerAuth, "", 2)
		check("for one that it is not for", v, good, x509.ExtKeyUsageCodeSigning, "certificate verification error", 2)
		check("a stranger's", v, leaf(other, time.Hour), x509.ExtKeyUsageClientAuth, "unable to get local issuer", 2)

		forged := *good[0]
		forged.Raw = append([]byte(nil), good[0].Raw...)
		forged.Raw[len(forged.Raw)-1] ^= 1
		forged.Signature = append([]byte(nil), good[0].Signature...)
		forged.Signature[len(forged.Signature)-1] ^= 1
		check("one bit is another", v, []*x509.Certificate{&forged}, x509.ExtKeyUsageClientAuth, "certificate verification error", 2)

		merged := of(&tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{exactSAN(tlsv3.SubjectAltNameMatcher_DNS, "b.test")}}).with(v)
		check("a name is asked for beside it", merged, good, x509.ExtKeyUsageClientAuth, "SAN matcher", 2)
		check("other roots", v.with(of(roots(other))), good, x509.ExtKeyUsageClientAuth, "unable to get local issuer", 0)
		deep := of(&tlsv3.CertificateValidationContext{MaxVerifyDepth: wrapperspb.UInt32(0)}).with(v)
		check("a depth is bounded", deep, good, x509.ExtKeyUsageClientAuth, "certificate chain too long", 2)

		time.Sleep(10*time.Minute + time.Second)
		check("it has expired", v, good, x509.ExtKeyUsageClientAuth, "certificate has expired", 2)
		renewed := leaf(ca, 24*time.Hour) // outlives its authority
		check("a renewed one", v, renewed, x509.ExtKeyUsageClientAuth, "", 3)
		time.Sleep(time.Hour)
		check("its authority has expired", v, renewed, x509.ExtKeyUsageClientAuth, "certificate has expired", 3)

		for i := range maxVerified {
			v.known.keep(chainID{byte(i), byte(i >> 8)}, [][]*x509.Certificate{good})
		}
		if n := len(v.known.span); n > maxVerified {
			t.Errorf("%d chains are known, more than %d", n, maxVerified)
		}
	})
}
