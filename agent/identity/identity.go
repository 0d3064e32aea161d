// Package identity keeps the certificate of a workload: it makes the key, has a certificate
// authority sign for it (istio.v1.auth.IstioCertificateService), and does so again long before
// the certificate ends.
//
//	key, CSR ─► certificate authority ─► Identity ─► SDS, OUTPUT_CERTS
//
// The key never leaves the pod. While the authority is away the last certificate is served
// until it ends. Nothing is asked for before somebody wants it.
package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/spiffe"
)

// Options say who the workload is and who signs.
type Options struct {
	// ID is what the CSR names; the authority decides.
	ID spiffe.ID
	// Dial connects to the authority; what it returns is secure already, or a unix socket.
	Dial func(ctx context.Context) (net.Conn, error)
	// Authority is what the authority is called there.
	Authority string
	// Token is the bearer token, read anew for each certificate; "" is none.
	Token func() (string, error)
	// Life is what is asked for; 0 is 24 h.
	Life time.Duration
	// Grace is the share of its life that a certificate has left when it is renewed, and
	// Jitter how much more or less of it at random. 0 is 0.5 and 0.01.
	Grace, Jitter float64
	// RSABits is the size of an RSA key; 0 is an ECDSA key of P-256.
	RSABits int
	// Roots are trusted beside those of the authority, in PEM.
	Roots []byte
	// Output is a directory that gets cert-chain.pem, key.pem and root-cert.pem, "" is none.
	Output string
	// State is the path of a file that keeps the certificate with its key over a restart, "" is
	// none. It is served until a new one is there.
	State string
	// Logger is slog's default if nil.
	Logger *slog.Logger
}

// Times of a Keeper.
const (
	retryFirst   = 100 * time.Millisecond
	retryMost    = 10 * time.Second
	spread       = time.Second // over which proxies ask that all have reason to
	fetchTimeout = 10 * time.Second
	renewLeast   = time.Second // between two certificates
	sayEvery     = time.Minute
)

// An Identity is a certificate with its key, in PEM. It does not change.
type Identity struct {
	Chain, Key, Roots []byte
	Certificate       tls.Certificate

	answered []byte // roots, as the authority has told them with the certificate
}

// A Keeper has the newest Identity. Its methods may be called from any goroutine.
type Keeper struct {
	o   Options
	log *slog.Logger

	wanted chan struct{}
	want   func()

	mu      sync.Mutex
	current *Identity
	trust   *Trust // nil: nobody has told
	reason  error  // why there is none yet
	changed chan struct{}
	stray   chan struct{} // a signal: the certificate leads to a root that does not sign
}

// New returns a Keeper; Run must follow.
func New(o Options) *Keeper {
	o.Life = cmp.Or(o.Life, 24*time.Hour)
	o.Grace, o.Jitter = cmp.Or(o.Grace, 0.5), cmp.Or(o.Jitter, 0.01)
	k := &Keeper{o: o, log: cmp.Or(o.Logger, slog.Default()), wanted: make(chan struct{}), changed: make(chan struct{}), stray: make(chan struct{}, 1), reason: errors.New("it was not asked for before")}
	k.want = sync.OnceFunc(func() { close(k.wanted) })
	if o.State != "" {
		id, err := readKept(o.State, o.ID)
		if err != nil {
			k.log.Warn("the certificate of the last start is of no use", "file", o.State, "reason", err)
		}
		k.current = id
	}
	return k
}

// Current is the newest Identity that has not ended. Without one, which is then asked for, it
// is an error that says why.
func (k *Keeper) Current() (*Identity, error) {
	k.want()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current == nil || !time.Now().Before(k.current.Certificate.Leaf.NotAfter) {
		return nil, fmt.Errorf("no certificate yet: %w", k.reason)
	}
	return k.current, nil
}

// Shown is the certificate to show to others, nil without.
func (k *Keeper) Shown() *tls.Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current == nil || !time.Now().Before(k.current.Certificate.Leaf.NotAfter) {
		return nil
	}
	return &k.current.Certificate
}

// Changed is closed when there is a newer Identity than now.
func (k *Keeper) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

// Run keeps the Identity new until ctx ends, from when somebody first wants it.
func (k *Keeper) Run(ctx context.Context) {
	if k.o.Output != "" {
		k.want()
	}
	select {
	case <-k.wanted:
	case <-ctx.Done():
		return
	}
	said := time.Time{}
	for failures := 0; ; {
		id, err := k.fetch(ctx)
		var wait time.Duration
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = delay(failures)
			failures++
			if now := time.Now(); now.Sub(said) >= sayEvery {
				said = now
				k.log.Warn("no certificate from the authority: it is tried again", "error", err)
			}
		default:
			failures, said, wait = 0, time.Time{}, k.renewal(id)
			k.log.Info("certificate", "of", id.name(), "until", id.Certificate.Leaf.NotAfter.Format(time.RFC3339), "renewed_in", wait.Round(time.Second))
		}
		k.take(id, err)
		if err == nil && k.strays(id) { // of a control plane that does not know yet
			wait = delay(6)
		}
		if !k.pause(ctx, wait) {
			return
		}
	}
}

// pause waits for a time, or for a reason to renew the certificate now; false: ctx has ended.
func (k *Keeper) pause(ctx context.Context, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	stray := k.stray
	for {
		select {
		case <-t.C:
			return true
		case <-stray:
			stray = nil
			t.Reset(min(wait, time.Duration(mathrand.Int64N(int64(spread)))))
		case <-ctx.Done():
			return false
		}
	}
}

// take makes an Identity the current one.
func (k *Keeper) take(id *Identity, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reason = err
	if err == nil {
		k.reason = errors.New("it has ended")
		k.put(id)
	}
}

// put makes an Identity the current one, with the roots that are believed, and writes it where
// it is to be. k.mu is held.
func (k *Keeper) put(id *Identity) {
	next := *id
	believed, err := id.believed(k.trust, k.o.Roots)
	if err == nil {
		next.Roots = believed
	}
	if k.o.Output != "" {
		err = errors.Join(err, next.write(k.o.Output))
	}
	if k.o.State != "" {
		err = errors.Join(err, next.keep(k.o.State))
	}
	if err != nil {
		k.log.Error("the certificate cannot be kept", "error", err)
	}
	k.current = &next
	close(k.changed)
	k.changed = make(chan struct{})
}

// renewal is how long from now the next certificate is asked for. A clock that is apart from
// the authority's has a part in what is left by it, and none in how long the certificate is.
func (k *Keeper) renewal(id *Identity) time.Duration {
	leaf := id.Certificate.Leaf
	left := min(time.Until(leaf.NotAfter), leaf.NotAfter.Sub(leaf.NotBefore))
	share := 1 - k.o.Grace + k.o.Jitter*(2*mathrand.Float64()-1)
	return max(renewLeast, time.Duration(float64(left)*share))
}

// delay is exponential, half of it at random.
func delay(failures int) time.Duration {
	most := retryMost
	if failures < 7 {
		most = min(retryFirst<<failures, retryMost)
	}
	return most/2 + time.Duration(mathrand.Int64N(int64(most/2)))
}

func (k *Keeper) newKey() (crypto.Signer, error) {
	if k.o.RSABits > 0 {
		return rsa.GenerateKey(rand.Reader, k.o.RSABits)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// fetch has a new key signed.
func (k *Keeper) fetch(ctx context.Context) (*Identity, error) {
	key, err := k.newKey()
	if err != nil {
		return nil, err
	}
	csr, err := newRequest(key, k.o.ID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	chain, err := k.ask(ctx, csr)
	if err != nil {
		return nil, err
	}
	return newIdentity(chain, key, k.o.Roots)
}

// newRequest is a CSR in PEM. Authorities of others may go by the identity that it names.
func newRequest(key crypto.Signer, id spiffe.ID) ([]byte, error) {
	raw, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}}, key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw}), err
}

// Bounds of what an authority answers.
const (
	maxAnswer = 1 << 20 // bytes
	maxChain  = 20
)

// newIdentity judges the answer of an authority: the certificate must be of the key.
func newIdentity(answer []string, key crypto.Signer, more []byte) (*Identity, error) {
	if len(answer) < 2 || len(answer) > maxChain {
		return nil, fmt.Errorf("the authority answers with %d certificates: it should be the workload's, and at last the roots", len(answer))
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	id := &Identity{Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})}
	for _, text := range answer[:len(answer)-1] {
		id.Chain = append(bytes.TrimSpace(append(id.Chain, text...)), '\n')
	}
	if id.Certificate, err = tls.X509KeyPair(id.Chain, id.Key); err != nil {
		return nil, fmt.Errorf("the authority's certificate: %w", err)
	}
	if end := id.Certificate.Leaf.NotAfter; !time.Now().Before(end) {
		return nil, fmt.Errorf("the authority's certificate has ended at %s by the clock here", end.Format(time.RFC3339))
	}
	id.answered = []byte(answer[len(answer)-1])
	if id.Roots, err = roots(id.answered, more); err != nil {
		return nil, err
	}
	return id, nil
}

// roots are those of texts, each once.
func roots(texts ...[]byte) ([]byte, error) {
	var all []byte
	seen := map[string]bool{}
	for _, text := range texts {
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			if _, err := x509.ParseCertificate(block.Bytes); err != nil {
				return nil, fmt.Errorf("roots: %w", err)
			}
			if !seen[string(block.Bytes)] {
				seen[string(block.Bytes)] = true
				all = append(all, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the authority answers without roots")
	}
	return all, nil
}

// name is who the certificate is of.
func (id *Identity) name() string {
	if uris := id.Certificate.Leaf.URIs; len(uris) > 0 {
		return uris[0].String()
	}
	return id.Certificate.Leaf.Subject.String()
}

// write puts the files into a directory; who reads them sees each as a whole.
func (id *Identity) write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		text []byte
	}{{"key.pem", id.Key}, {"cert-chain.pem", id.Chain}, {"root-cert.pem", id.Roots}} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path+".new", f.text, 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}
