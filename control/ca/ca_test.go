package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sleeper = Account{"default", "sleep"}

const sleeperURI = "spiffe://cluster.local/ns/default/sa/sleep"

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newTestRoot(t testing.TB, o RootOptions) Files {
	t.Helper()
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	o.TrustDomain = "cluster.local"
	return must[Files](t)(NewRoot(o))
}

// newAuthority is one that has read its files.
func newAuthority(t testing.TB, f Files, change func(*Options)) *Authority {
	t.Helper()
	o := Options{
		Load:        func(context.Context, Files) (Files, error) { return f, nil },
		TrustDomain: func() (string, []string) { return "cluster.local", []string{"old.domain"} },
	}
	if change != nil {
		change(&o)
	}
	a := New(o)
	if err := a.load(context.Background()); err != nil {
		t.Fatal(err)
	}
	return a
}

// csrFor is a CSR that asks for everything it should not get.
func csrFor(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	raw := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "admin"}, DNSNames: []string{"istiod.istio-system.svc"},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/istio-system/sa/istiod"}},
	}, key))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw})
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

// issue has a certificate made, and reads it.
func issue(t testing.TB, a *Authority, key crypto.Signer, life time.Duration) ([]*x509.Certificate, []string) {
	t.Helper()
	r := must[*Request](t)(ParseRequest(csrFor(t, key)))
	chain := must[[]string](t)(a.Issue(r, sleeper, life))
	all := must[[]*x509.Certificate](t)(certificates(Files{"": []byte(strings.Join(chain[:len(chain)-1], ""))}, ""))
	return all, chain
}

func TestIssue(t *testing.T) {
	a := newAuthority(t, newTestRoot(t, RootOptions{}), nil)
	rsaKey := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	for name, key := range map[string]crypto.Signer{"ECDSA": ecKey(t), "RSA": rsaKey} {
		t.Run("SX-001 SX-002 SX-003 a certificate says who the caller is, whatever its CSR asks, "+name, func(t *testing.T) {
			all, chain := issue(t, a, key, 0)
			leaf := all[0]
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != sleeperURI || len(leaf.DNSNames) != 0 || leaf.Subject.String() != "" {
				t.Errorf("subject %q, names %v %v", leaf.Subject, leaf.URIs, leaf.DNSNames)
			}
			if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment ||
				len(leaf.ExtKeyUsage) != 2 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth || leaf.ExtKeyUsage[1] != x509.ExtKeyUsageClientAuth {
				t.Errorf("usages %v %v", leaf.KeyUsage, leaf.ExtKeyUsage)
			}
			for _, e := range leaf.Extensions {
				if e.Id.String() == "2.5.29.17" && !e.Critical {
					t.Error("the identity of a certificate without a subject is not critical")
				}
			}
			if chain[len(chain)-1] != string(a.Bundle()) || !leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
				t.Error("the last of the chain are not the roots, or the key is another")
			}
			if got, err := a.Verify(all); err != nil || got != sleeper {
				t.Errorf("the certificate is of %v, %v", got, err)
			}
		})
	}
	for _, tt := range []struct{ ask, want time.Duration }{
		{0, 24 * time.Hour}, {-time.Hour, 24 * time.Hour}, {time.Hour, time.Hour}, {1000 * 24 * time.Hour, 90 * 24 * time.Hour}, {seconds(1 << 62), 90 * 24 * time.Hour},
	} {
		t.Run("EN-051 lifetimes are clamped, "+tt.ask.String(), func(t *testing.T) {
			leaf, _ := issue(t, a, ecKey(t), tt.ask)
			if got := leaf[0].NotAfter.Sub(leaf[0].NotBefore); got != tt.want+Skew {
				t.Errorf("life %s, want %s", got-Skew, tt.want)
			}
		})
	}
}

// The authority's clock and that of a peer may be apart.
func TestSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, newTestRoot(t, RootOptions{}), nil)
		leaf, _ := issue(t, a, ecKey(t), time.Hour)
		for _, tt := range []struct {
			apart time.Duration
			ok    bool
		}{{-10 * time.Minute, true}, {-Skew, true}, {-Skew - time.Minute, false}, {10 * time.Minute, true}, {59 * time.Minute, true}, {61 * time.Minute, false}} {
			_, err := leaf[0].Verify(x509.VerifyOptions{Roots: a.material.Load().pool, CurrentTime: time.Now().Add(tt.apart)})
			if (err == nil) != tt.ok {
				t.Errorf("with a clock that is %s apart: %v", tt.apart, err)
			}
		}
		time.Sleep(61 * time.Minute)
		if _, err := a.Verify(leaf); err == nil {
			t.Error("a certificate that has ended still says who a caller is")
		}
	})
}

// under makes a certificate of an authority of its own key.
func under(t *testing.T, parent Files, isCA bool) (Files, *ecdsa.PrivateKey) {
	t.Helper()
	p := must[*Material](t)(Parse(parent, time.Now()))
	key := ecKey(t)
	raw := must[[]byte](t)(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: must[*big.Int](t)(serial()), Subject: pkix.Name{Organization: []string{"between"}}, IsCA: isCA, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}, p.Certificate, key.Public(), p.key))
	secret := must[[]byte](t)(x509.MarshalECPrivateKey(key))
	return Files{CertFile: encode(raw), KeyFile: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}), RootFile: p.bundle, ChainFile: append(encode(raw), parent[ChainFile]...)}, key
}

func TestMaterial(t *testing.T) {
	root := newTestRoot(t, RootOptions{})
	between, _ := under(t, root, true)
	lowest, _ := under(t, between, true)
	t.Run("SX-005 an authority below a root, through another, signs, and shows the way up", func(t *testing.T) {
		a := newAuthority(t, lowest, nil)
		all, chain := issue(t, a, ecKey(t), 0)
		if len(all) != 3 || len(chain) != 4 || chain[3] != string(root[RootFile]) {
			t.Fatalf("%d certificates, %d parts", len(all), len(chain))
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM([]byte(chain[3]))
		up := x509.NewCertPool()
		up.AddCert(all[1])
		up.AddCert(all[2])
		if _, err := all[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: up}); err != nil {
			t.Error(err)
		}
		if got := all[0].NotAfter; got.After(all[1].NotAfter) {
			t.Errorf("a certificate outlives the authority's: %s", got)
		}
		if got, err := a.Verify(all); err != nil || got != sleeper {
			t.Errorf("a client with a chain is %v, %v", got, err)
		}
		if got, err := newAuthority(t, root, nil).Verify(all); err != nil || got != sleeper {
			t.Errorf("to the root itself, the client with its chain is %v, %v", got, err)
		}
	})
	t.Run("SX-005 a Secret of type kubernetes.io/tls", func(t *testing.T) {
		m, err := Parse(Files{"tls.crt": between[ChainFile], "tls.key": between[KeyFile], "ca.crt": between[RootFile]}, time.Now())
		if err != nil || len(m.Chain) != 1 || len(m.Roots) != 1 {
			t.Errorf("%+v, %v", m, err)
		}
	})
	t.Run("one root signs, two are trusted", func(t *testing.T) {
		next := newTestRoot(t, RootOptions{})
		both := Files{CertFile: root[CertFile], KeyFile: root[KeyFile], RootFile: append(append([]byte{}, next[RootFile]...), root[RootFile]...)}
		a := newAuthority(t, both, nil)
		leaf, _ := issue(t, newAuthority(t, next, nil), ecKey(t), 0)
		if got, err := a.Verify(leaf); err != nil || got != sleeper {
			t.Errorf("a certificate of the next root is %v, %v", got, err)
		}
		if _, chain := issue(t, a, ecKey(t), 0); strings.Count(chain[1], "BEGIN") != 2 {
			t.Errorf("roots that callers are told: %s", chain[1])
		}
	})
	leafFiles, _ := under(t, root, false)
	other := newTestRoot(t, RootOptions{})
	over := func(f Files, name string, text []byte) Files {
		out := Files{name: text}
		for k, v := range f {
			if k != name {
				out[k] = v
			}
		}
		return out
	}
	old := newTestRoot(t, RootOptions{Now: time.Now().Add(-time.Hour), Life: time.Minute})
	for _, tt := range []struct {
		name string
		f    Files
		want string
	}{
		{"nothing", Files{}, "ca-cert.pem holds no certificate"},
		{"no PEM", over(root, CertFile, []byte("x")), "ca-cert.pem holds no PEM block CERTIFICATE"},
		{"a broken certificate", over(root, RootFile, encode([]byte("x"))), "root-cert.pem, certificate 1"},
		{"no key", over(root, KeyFile, nil), "ca-key.pem: holds no PEM block of a private key"},
		{"a broken key", over(root, KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})), "ca-key.pem: the private key cannot be read"},
		{"another's key", over(root, KeyFile, other[KeyFile]), "ca-key.pem is not the key of ca-cert.pem"},
		{"no authority", leafFiles, "ca-cert.pem may not sign"},
		{"another's root", over(between, RootFile, other[RootFile]), "ca-cert.pem does not lead to a root of root-cert.pem"},
		{"one that has ended", old, "expired"},
		{"too much", over(root, ChainFile, make([]byte, maxFile+1)), "at most 262144 are read"},
	} {
		t.Run(tt.name+" is refused", func(t *testing.T) {
			if _, err := Parse(tt.f, time.Now()); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca", "authority.pem")
	made := 0
	load := func(context.Context, Files) (Files, error) {
		return KeepFile(path, func() (Files, error) { made++; return newTestRoot(t, RootOptions{RSABits: 2048}), nil })
	}
	t.Run("SX-004 the root of the first start is that of all later ones, in a file for its owner", func(t *testing.T) {
		first := newAuthority(t, nil, func(o *Options) { o.Load = load })
		second := newAuthority(t, nil, func(o *Options) { o.Load = load })
		if made != 1 || string(first.Bundle()) != string(second.Bundle()) {
			t.Errorf("%d roots were made", made)
		}
		info := must[os.FileInfo](t)(os.Stat(path))
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode %s", info.Mode())
		}
		root := first.material.Load().Roots[0]
		if got := root.NotAfter.Sub(root.NotBefore); got != rootLife+Skew || root.Subject.String() != "O=cluster.local" {
			t.Errorf("root %s for %s", root.Subject, got)
		}
	})
	if err := os.WriteFile(path, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("a broken file is not made anew", func(t *testing.T) {
		if err := New(Options{Load: load}).load(t.Context()); err == nil || made != 1 {
			t.Errorf("%v, %d roots were made", err, made)
		}
	})
}

// What the source has is followed; while it fails, what was there stays.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type answer struct {
			files Files
			err   error
		}
		var source atomic.Pointer[answer]
		source.Store(&answer{err: errors.New("away")})
		var changed atomic.Int32
		a := New(Options{
			Load:        func(context.Context, Files) (Files, error) { return source.Load().files, source.Load().err },
			TrustDomain: func() (string, []string) { return "cluster.local", nil }, Changed: func() { changed.Add(1) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(10 * again)
		if r := must[*Request](t)(ParseRequest(csrFor(t, ecKey(t)))); a.Bundle() != nil {
			t.Error("there are roots before there is an authority")
		} else if _, err := a.Issue(r, sleeper, 0); !errors.Is(err, errNotReady) {
			t.Errorf("issued before there is an authority: %v", err)
		}
		first, next := newTestRoot(t, RootOptions{}), newTestRoot(t, RootOptions{})
		source.Store(&answer{files: first})
		<-a.Ready()
		config := a.TLS([]string{"istiod"})
		one := must[*tlsCertificate](t)(config.GetCertificate(nil))
		if again := must[*tlsCertificate](t)(config.GetCertificate(nil)); again != one || one.Leaf.VerifyHostname("istiod") != nil {
			t.Error("each caller is shown a new certificate, or one of another name")
		}
		time.Sleep(13 * time.Hour)
		two := must[*tlsCertificate](t)(config.GetCertificate(nil))
		source.Store(&answer{next, errors.New("away")})
		time.Sleep(2 * reload)
		if string(a.Bundle()) != string(first[RootFile]) || changed.Load() != 1 {
			t.Error("what was there did not stay")
		}
		source.Store(&answer{files: next})
		time.Sleep(2 * reload)
		three := must[*tlsCertificate](t)(config.GetCertificate(nil))
		if string(a.Bundle()) != string(next[RootFile]) || changed.Load() != 2 || two == one || three == two {
			t.Errorf("roots %s, %d changes", a.Bundle(), changed.Load())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestVerify(t *testing.T) {
	root := newTestRoot(t, RootOptions{})
	a := newAuthority(t, root, nil)
	make1 := func(f Files, domain string) []*x509.Certificate {
		leaf, _ := issue(t, newAuthority(t, f, func(o *Options) { o.TrustDomain = func() (string, []string) { return domain, nil } }), ecKey(t), 0)
		return leaf
	}
	server := must[*tlsCertificate](t)(a.TLS([]string{"istiod"}).GetCertificate(nil))
	for _, tt := range []struct {
		name  string
		shown []*x509.Certificate
		want  string
	}{
		{"its own", make1(root, "cluster.local"), ""},
		{"SX-022 of an alias of the trust domain", make1(root, "old.domain"), ""},
		{"of another trust domain", make1(root, "other"), "neither the mesh's own nor an alias"},
		{"of another authority", make1(newTestRoot(t, RootOptions{}), "cluster.local"), "unknown authority"},
		{"of the control plane, for servers", []*x509.Certificate{server.Leaf}, "incompatible key usage"},
		{"none", nil, "no certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := a.Verify(tt.shown)
			if tt.want == "" && (err != nil || got != sleeper) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, %v; want %q", got, err, tt.want)
			}
		})
	}
}
