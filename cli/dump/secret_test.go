package dump_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/cli/dump"
)

var (
	begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	end   = begin.Add(24 * time.Hour)
)

// certificate is one that is valid for a day, in PEM and as JSON has it in a dump.
func certificate(t *testing.T, serial int64) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: begin, NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// secrets is a dump with those; each is the text of a member.
func secrets(t *testing.T, members ...string) *dump.Dump {
	t.Helper()
	d, err := dump.Parse(fmt.Appendf(nil, `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump", %s}]}`, strings.Join(members, ", ")))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func secret(name, what string) string {
	return fmt.Sprintf(`{"name": %q, "secret": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", %s}}`, name, what)
}

func trusts(pems string) string {
	return fmt.Sprintf(`"validation_context": {"trusted_ca": {"inline_string": %s}}`, strconv.Quote(pems))
}

func TestSecrets(t *testing.T) {
	leaf, one, two := certificate(t, 0x0a), certificate(t, 0x0b), certificate(t, 0x0c)
	d := secrets(t,
		`"dynamic_warming_secrets": [`+secret("kubernetes://later", `"tls_certificate": {}`)+`]`,
		`"dynamic_active_secrets": [`+
			secret("default", `"tls_certificate": {"certificate_chain": {"inline_string": `+strconv.Quote(leaf+one)+`}}`)+","+
			secret("ROOTCA", trusts(one+two))+`]`)
	for name, c := range map[string]struct {
		now  time.Time
		want string
	}{
		"CL-030 while they are valid": {begin, `
RESOURCE NAME          TYPE           STATUS      VALID CERT     SERIAL NUMBER     NOT AFTER                NOT BEFORE
default                Cert Chain     ACTIVE      true           0a                2026-01-02T00:00:00Z     2026-01-01T00:00:00Z
ROOTCA                 CA             ACTIVE      true           0b                2026-01-02T00:00:00Z     2026-01-01T00:00:00Z
ROOTCA                 CA             ACTIVE      true           0c                2026-01-02T00:00:00Z     2026-01-01T00:00:00Z
kubernetes://later     Cert Chain     WARMING     false
`},
		"CL-030 when they are not": {end, `
RESOURCE NAME          TYPE           STATUS      VALID CERT     SERIAL NUMBER     NOT AFTER                NOT BEFORE
default                Cert Chain     ACTIVE      false          0a                2026-01-02T00:00:00Z     2026-01-01T00:00:00Z
ROOTCA                 CA             ACTIVE      false          0b                2026-01-02T00:00:00Z     2026-01-01T00:00:00Z
ROOTCA                 CA             ACTIVE      false          0c                2026-01-02T00:00:00Z     2026-01-01T00:00:00Z
kubernetes://later     Cert Chain     WARMING     false
`},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := d.Secrets(c.now)
			if err != nil {
				t.Fatal(err)
			}
			sameTable(t, l, c.want)
		})
	}
}

// TestTrustDomains: a workload may trust others for other trust domains.
func TestTrustDomains(t *testing.T) {
	root := certificate(t, 0x0d)
	d := secrets(t, `"dynamic_active_secrets": [`+secret("ROOTCA", `"validation_context": {"custom_validator_config": {"name": "envoy.tls.cert_validator.spiffe", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
		"trust_domains": [{"name": "cluster.local", "trust_bundle": {"inline_string": `+strconv.Quote(root)+`}}]}}}`)+`]`)
	l, err := d.Secrets(begin)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := l.Write(&out, "short"); err != nil {
		t.Fatal(err)
	}
	same(t, "short", out.Bytes(), []byte(`RESOURCE NAME     TYPE     STATUS     VALID CERT     SERIAL NUMBER     NOT AFTER                NOT BEFORE               TRUST DOMAIN
ROOTCA            CA       ACTIVE     true           0d                2026-01-02T00:00:00Z     2026-01-01T00:00:00Z     cluster.local
`))
}

// TestRoots: two proxies trust the same, in whatever order, or they do not.
func TestRoots(t *testing.T) {
	one, two := certificate(t, 1), certificate(t, 2)
	roots := func(pems string) string {
		t.Helper()
		text, err := secrets(t, `"dynamic_active_secrets": [`+secret("ROOTCA", trusts(pems))+`]`).Roots()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if roots(one+two) != roots(two+one+two) {
		t.Error("the same roots in another order differ")
	}
	if roots(one) == roots(one+two) || roots(one) == roots(two) {
		t.Error("other roots are the same")
	}
	if _, err := secrets(t, `"dynamic_active_secrets": []`).Roots(); err == nil {
		t.Error("a proxy without roots has some")
	}
}

func TestBadCertificate(t *testing.T) {
	d := secrets(t, `"dynamic_active_secrets": [`+secret("default", trusts("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))+`]`)
	if _, err := d.Secrets(begin); err == nil || !strings.Contains(err.Error(), "secret default") {
		t.Errorf("error %v", err)
	}
}
