// Package ca is the mesh's certificate authority: it finds out who a caller is, and signs a
// certificate that says so and nothing else.
//
//	directory, Secret, or made at the first start ─► Files ─► Material ─► Authority
//	bearer token, client certificate, join token ─► Authenticator ─► Account ─┐
//	IstioCertificateService/CreateCertificate: a CSR ─► public key ───────────┴► certificate
//
// The key that signs and the roots that are trusted are apart, so that one root can take
// another's place without a moment in which part of the mesh distrusts the rest: the new one is
// trusted first, signs next, and the old one goes last.
//
// What a CSR asks for is of no account, but for its public key: the identity is that of the
// authenticated caller, lifetimes are clamped, names and usages are the authority's own. Times
// of certificates suffer clocks that are apart by up to [Skew].
package ca

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/spiffe"
)

// Skew is how far a clock of the mesh may be behind that of the authority: certificates are
// dated back by it. A clock that is ahead is why workloads renew long before the end.
const Skew = 15 * time.Minute

// Lifetimes of certificates of workloads, as the original has them.
const (
	defaultLife = 24 * time.Hour
	maxLife     = 90 * 24 * time.Hour
	minLife     = time.Second
)

// reload is how often the source of the material is looked at, and again how soon after a failure.
const (
	reload = time.Minute
	again  = time.Second
)

// Options are the settings of an Authority.
type Options struct {
	// Load reads what the authority works with. now is what it works with, nil at first. It is
	// called again and again; an error leaves what is there in force.
	Load func(ctx context.Context, now Files) (Files, error)
	// TrustDomain is the mesh's own, and those that its workloads may come from, too.
	TrustDomain func() (own string, aliases []string)
	// DefaultLife is for callers that ask for no lifetime, 0 is 24 h; MaxLife is what
	// others get at most, 0 is 90 days.
	DefaultLife, MaxLife time.Duration
	// Store changes what Load reads, as a whole or not at all, and gives ErrForeignRoot where
	// that is an operator's. nil: it is always.
	Store func(ctx context.Context, change func(Files) (Files, error)) error
	// External signs certificates of workloads in place of this authority. nil: nobody does.
	External *External
	// NewRoot makes a root that takes the place of another.
	NewRoot func() (Files, error)
	// Proven says whether all proxies have what is trusted now. nil: nobody knows of any.
	Proven func() bool
	// Changed is told of each new material, and must not block. It may be nil.
	Changed func()
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Log is slog's default if nil.
	Log *slog.Logger
}

// An Authority signs certificates once it is Ready. Its methods may be called from any
// goroutine.
type Authority struct {
	o        Options
	material atomic.Pointer[Material]
	ready    chan struct{}
	jitter   float64    // of the renewal of the root
	loading  sync.Mutex // one at a time reads the source,
	rotating sync.Mutex // and changes it
}

// New returns an Authority; Run must follow.
func New(o Options) *Authority {
	o.MaxLife = cmp.Or(o.MaxLife, maxLife)
	o.DefaultLife = min(cmp.Or(o.DefaultLife, defaultLife), o.MaxLife)
	o.Log = cmp.Or(o.Log, slog.Default())
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Authority{o: o, ready: make(chan struct{}), jitter: mathrand.Float64()}
}

// Ready is closed when the authority can sign.
func (a *Authority) Ready() <-chan struct{} { return a.ready }

// Run keeps the material up to date until ctx ends, which is no error.
func (a *Authority) Run(ctx context.Context) error {
	said := ""
	for {
		wait := reload
		err := a.load(ctx)
		if err == nil {
			err = a.renewRoot(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			said = ""
		default:
			if err.Error() != said {
				said = err.Error()
				a.o.Log.Warn("the certificate authority cannot be read or kept: what is in force stays", "ready", a.material.Load() != nil, "error", err)
			}
			wait = again
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// Read reads the source at once: somebody else may have changed it.
func (a *Authority) Read(ctx context.Context) error { return a.load(ctx) }

func (a *Authority) load(ctx context.Context) error {
	a.loading.Lock()
	defer a.loading.Unlock()
	var now Files
	before := a.material.Load()
	if before != nil {
		now = before.files
	}
	files, err := a.o.Load(ctx, now)
	if err != nil || before != nil && files.equal(now) {
		return err
	}
	m, err := Parse(files, a.o.Now())
	if err != nil {
		return err
	}
	a.material.Store(m)
	a.o.Log.Info("certificate authority", "signs", m.Certificate.Subject.String(), "until", m.Certificate.NotAfter.Format(time.RFC3339), "roots", len(m.Roots))
	if before == nil {
		close(a.ready)
	}
	if a.o.Changed != nil {
		a.o.Changed()
	}
	return nil
}

var errNotReady = errors.New("the certificate authority is not ready yet")

// Bundle is the roots that the mesh trusts, in PEM; nil before the authority is ready.
func (a *Authority) Bundle() []byte {
	if m := a.material.Load(); m != nil {
		return m.bundle
	}
	return nil
}

// ID is the identity of an account in this mesh.
func (a *Authority) ID(account Account) spiffe.ID {
	own, _ := a.o.TrustDomain()
	return spiffe.ID{TrustDomain: own, Namespace: account.Namespace, ServiceAccount: account.Name}
}

// Issue signs a certificate for the key of a CSR. life is what the caller asks for, 0 the
// default. The answer is in PEM, as the certificate service gives it: the certificate, those
// between it and a root, and at last all roots that are trusted as one.
func (a *Authority) Issue(r *Request, account Account, life time.Duration) ([]string, error) {
	id := a.ID(account)
	if err := id.Validate(); err != nil {
		return nil, err
	}
	leaf, m, err := a.sign(r.key, &x509.Certificate{
		URIs: []*url.URL{id.URL()}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, life)
	if err != nil {
		return nil, err
	}
	chain := []string{string(encode(leaf))}
	for _, c := range m.Chain {
		chain = append(chain, string(encode(c.Raw)))
	}
	return append(chain, string(m.bundle)), nil
}

// sign fills what all certificates have in common into a template and signs it. The key
// usages are those of the original.
func (a *Authority) sign(key crypto.PublicKey, template *x509.Certificate, life time.Duration) ([]byte, *Material, error) {
	m := a.material.Load()
	if m == nil {
		return nil, nil, errNotReady
	}
	if life <= 0 {
		life = a.o.DefaultLife
	}
	now := a.o.Now()
	if !now.Before(m.Certificate.NotAfter) {
		return nil, nil, fmt.Errorf("the certificate of the authority has ended at %s", m.Certificate.NotAfter.Format(time.RFC3339))
	}
	template.NotBefore = now.Add(-Skew)
	template.NotAfter = now.Add(min(max(life, minLife), a.o.MaxLife))
	if template.NotAfter.After(m.Certificate.NotAfter) {
		template.NotAfter = m.Certificate.NotAfter
	}
	var err error
	if template.SerialNumber, err = serial(); err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	template.BasicConstraintsValid = true
	leaf, err := x509.CreateCertificate(rand.Reader, template, m.Certificate, key, m.key)
	return leaf, m, err
}

// serial is a random one of at most 20 octets (RFC 5280, 4.1.2.2).
func serial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// Verify says whose certificate a peer has shown: its own first, then those between it and a
// root. The peer must have proved that it has the key.
func (a *Authority) Verify(shown []*x509.Certificate) (Account, error) {
	m := a.material.Load()
	switch {
	case m == nil:
		return Account{}, errNotReady
	case len(shown) == 0:
		return Account{}, errors.New("no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	for _, c := range m.Chain {
		between.AddCert(c)
	}
	leaf := shown[0]
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: m.pool, Intermediates: between, CurrentTime: a.o.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return Account{}, err
	}
	if len(leaf.URIs) != 1 {
		return Account{}, fmt.Errorf("the certificate has %d URIs, not one", len(leaf.URIs))
	}
	id, err := spiffe.Parse(leaf.URIs[0].String())
	if err != nil {
		return Account{}, err
	}
	if own, aliases := a.o.TrustDomain(); id.TrustDomain != own && !slices.Contains(aliases, id.TrustDomain) {
		return Account{}, fmt.Errorf("trust domain %s is neither the mesh's own nor an alias of it", id.TrustDomain)
	}
	return Account{id.Namespace, id.ServiceAccount}, nil
}

// TLS is how the control plane itself is served: with a certificate for names, which is made
// anew at half of its life and when the authority changes. What certificate a caller shows is
// for Verify to judge: one that has ended must not keep out who has a good token.
func (a *Authority) TLS(names []string) *tls.Config {
	s := &serving{authority: a, names: names}
	return &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2"}, GetCertificate: s.certificate}
}

func encode(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: raw})
}
