package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Secrets are the certificates, keys and roots that sockets use by name: those of the
// bootstrap, and those that SDS delivers. A secret is fetched once however many
// sockets use it, and given up with the last of them. It is safe for concurrent use.
type Secrets struct {
	source func(*corev3.ConfigSource) (*xds.Client, error)

	mu   sync.Mutex
	live map[secretKey]*secret
}

// NewSecrets returns an empty store. source gives the client for an sds_config: the
// ADS client, or one of a server of its own. It is asked while configuration is compiled.
func NewSecrets(source func(*corev3.ConfigSource) (*xds.Client, error)) *Secrets {
	return &Secrets{source: source, live: map[secretKey]*secret{}}
}

// secretKey tells apart secrets of one name from different servers; a nil client
// stands for the bootstrap.
type secretKey struct {
	name   string
	client *xds.Client
}

// A secret is one entry. Its value is replaced whole when an update comes.
type secret struct {
	key    secretKey
	refs   int
	cancel func()
	value  atomic.Pointer[secretValue] // nil before it has come
	ready  chan struct{}               // closed with the first value, or when waiting is over
	once   sync.Once

	follow  sync.Once
	running sync.WaitGroup // whoever follows its files
}

// A secretValue is a decoded Secret. One of the fields is set.
type secretValue struct {
	certificate *tls.Certificate
	validation  *validation
	tickets     []ticketKey
	updated     time.Time
	source      *tlsv3.Secret
	files       []os.FileInfo // that the source names, as they were
}

// AddStatic adds a secret of the bootstrap.
func (s *Secrets) AddStatic(pb *tlsv3.Secret) error {
	v, err := compileSecret(pb)
	if err != nil {
		return fmt.Errorf("secret %s: %w", pb.GetName(), err)
	}
	e := &secret{key: secretKey{name: pb.GetName()}, refs: 1, ready: make(chan struct{}), cancel: func() {}}
	e.set(v)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[e.key] = e
	return nil
}

// acquire returns the secret that cfg names and subscribes to it if it is new. The
// caller releases it.
func (s *Secrets) acquire(cfg *tlsv3.SdsSecretConfig) (*secret, error) {
	key := secretKey{name: cfg.GetName()}
	if cfg.GetSdsConfig() != nil {
		client, err := s.source(cfg.GetSdsConfig())
		if err != nil {
			return nil, fmt.Errorf("sds_config: %w", err)
		}
		key.client = client
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.live[key]; e != nil {
		e.refs++
		return e, nil
	}
	if key.client == nil {
		return nil, fmt.Errorf("unknown static secret: %s", key.name)
	}
	e := &secret{key: key, refs: 1, ready: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	unsubscribe := xds.Subscribe(key.client, secretType(xds.FetchTimeout(cfg.GetSdsConfig())), key.name, func(v *secretValue, present bool) {
		if present {
			e.set(v)
			if len(v.files) > 0 {
				e.follow.Do(func() { e.running.Go(func() { e.followFiles(ctx) }) })
			}
		} else {
			e.giveUp()
		}
	})
	e.cancel = func() { unsubscribe(); stop(); e.running.Wait() }
	s.live[key] = e
	return e, nil
}

func (s *Secrets) release(e *secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.refs--; e.refs == 0 {
		delete(s.live, e.key)
		e.cancel()
	}
}

func (e *secret) set(v *secretValue) {
	e.value.Store(v)
	e.giveUp()
}

// giveUp ends the wait: sockets without the secret refuse connections until it comes.
func (e *secret) giveUp() { e.once.Do(func() { close(e.ready) }) }

func secretType(timeout time.Duration) xds.Type[*secretValue] {
	return xds.Type[*secretValue]{URL: wellknown.SecretType, FetchTimeout: timeout, Decode: decodeSecret}
}

func decodeSecret(name string, body *anypb.Any) (*secretValue, error) {
	var pb tlsv3.Secret
	if err := proto.Unmarshal(body.GetValue(), &pb); err != nil {
		return nil, err
	}
	return compileSecret(&pb)
}

func compileSecret(pb *tlsv3.Secret) (*secretValue, error) {
	v := &secretValue{updated: time.Now(), source: pb, files: filesOf(pb)}
	var err error
	switch t := pb.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		if v.certificate, err = compileCertificate(t.TlsCertificate); err != nil {
			return nil, fmt.Errorf("tls_certificate: %w", err)
		}
	case *tlsv3.Secret_ValidationContext:
		if v.validation, err = compileValidation(t.ValidationContext); err != nil {
			return nil, fmt.Errorf("validation_context: %w", err)
		}
	case *tlsv3.Secret_SessionTicketKeys:
		if v.tickets, err = compileTicketKeys(t.SessionTicketKeys); err != nil {
			return nil, fmt.Errorf("session_ticket_keys.%w", err)
		}
	case *tlsv3.Secret_GenericSecret:
		return nil, errors.New("generic_secret: not supported")
	default:
		return nil, errors.New("type: none is set")
	}
	return v, nil
}

// compileCertificate loads a chain and its key; a key that does not fit is an error.
func compileCertificate(c *tlsv3.TlsCertificate) (*tls.Certificate, error) {
	if err := xds.Only(c, "certificate_chain", "private_key", "ocsp_staple", "watched_directory"); err != nil {
		return nil, err
	}
	chain, from, err := read(c.GetCertificateChain())
	if err != nil {
		return nil, fmt.Errorf("failed to load certificate chain: %w", err)
	}
	key, keyFrom, err := read(c.GetPrivateKey())
	if err != nil {
		return nil, fmt.Errorf("failed to load private key: %w", err)
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("failed to load certificate chain from %s and private key from %s: %w", from, keyFrom, err)
	}
	if cert.OCSPStaple, _, err = read(c.GetOcspStaple()); err != nil {
		return nil, fmt.Errorf("ocsp_staple: %w", err)
	}
	if _, err = newShown(&cert, nil); err != nil {
		return nil, fmt.Errorf("ocsp_staple: %w", err)
	}
	return &cert, nil
}

// A SecretView is one secret for admin pages: never its key.
type SecretView struct {
	Name         string
	Dynamic      bool // by SDS
	Ready        bool
	Updated      time.Time
	Certificates []*x509.Certificate // a chain, or the roots that are trusted
	Validation   bool                // roots rather than a chain
	Source       *tlsv3.Secret       // as it was given, without keys; nil as long as it is not ready
}

// View returns the secrets in use, by name.
func (s *Secrets) View() []SecretView {
	s.mu.Lock()
	defer s.mu.Unlock()
	var views []SecretView
	for k, e := range s.live {
		w := SecretView{Name: k.name, Dynamic: k.client != nil}
		if v := e.value.Load(); v != nil {
			w.Ready, w.Updated, w.Validation = true, v.updated, v.validation != nil
			w.Certificates, w.Source = v.certificates(), withoutKeys(v.source)
		}
		views = append(views, w)
	}
	sort.Slice(views, func(i, j int) bool { return views[i].Name < views[j].Name })
	return views
}

// certificates are those of a chain, or the roots.
func (v *secretValue) certificates() []*x509.Certificate {
	var all [][]byte
	if v.certificate != nil {
		all = v.certificate.Certificate
	}
	text, _, _ := read(v.source.GetValidationContext().GetTrustedCa()) // was read before
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		all = append(all, block.Bytes)
	}
	var list []*x509.Certificate
	for _, der := range all {
		if x, err := x509.ParseCertificate(der); err == nil {
			list = append(list, x)
		}
	}
	return list
}

// redacted stands for what must not be shown; istioctl knows the word.
var redacted = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte("[redacted]")}}

// withoutKeys is a secret as it may be shown.
func withoutKeys(source *tlsv3.Secret) *tlsv3.Secret {
	shown := proto.CloneOf(source)
	switch t := shown.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		t.TlsCertificate.PrivateKey, t.TlsCertificate.Password, t.TlsCertificate.PrivateKeyProvider = redacted, nil, nil
	case *tlsv3.Secret_SessionTicketKeys:
		for i := range t.SessionTicketKeys.GetKeys() {
			t.SessionTicketKeys.Keys[i] = redacted
		}
	case *tlsv3.Secret_GenericSecret:
		t.GenericSecret.Reset()
	}
	return shown
}
