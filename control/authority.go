package control

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/lateen-mesh/lateen/control/ca"
	"github.com/lateen-mesh/lateen/control/jwks"
	"github.com/lateen-mesh/lateen/control/kube"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// AuthorityOptions are the settings of the certificate authority, which there is where
// Options.SecureGRPC is.
type AuthorityOptions struct {
	// Directory has the authority that an operator plugs in, if it has a key; with a Kubernetes
	// API the Secret cacerts may have it, too. Without either a root is made at the first
	// start and kept: in the Secret istio-ca-secret, else in Options.State, else in memory.
	Directory string
	// Root says what root is made; its trust domain is the mesh's.
	Root ca.RootOptions
	// Signer is the name of a signer of the Kubernetes API that signs certificates of workloads
	// in place of the authority; "" is none. Its root is among meshConfig.caCertificates.
	Signer string
	// DefaultLife and MaxLife are of certificates; zero is 24 h, 90 days.
	DefaultLife, MaxLife time.Duration
	// Audiences are for whom tokens that Kubernetes makes must be; nil is istio-ca.
	Audiences []string
	// JWT are issuers of other tokens.
	JWT []ca.JWTRule
	// CertFile and KeyFile are what the secure port shows in place of a certificate of the
	// authority; "" is none.
	CertFile, KeyFile string
	// Hosts are more names of this control plane.
	Hosts []string
	// Now is the authority's clock, time.Now if nil.
	Now func() time.Time
	// AnyNode lets proxies claim to be others than their credentials say.
	AnyNode bool
}

// Where a root is kept that was made here.
const (
	ownAuthorityType = "istio.io/ca-root" // of a Secret
	authorityFile    = "ca.pem"           // in the directory of the state, mode 0600
)

// authority is the part of a Server that issues certificates.
type authority struct {
	*ca.Authority
	o       AuthorityOptions
	server  *Server
	plugged bool                     // an operator's is in force; of load, which runs one at a time
	memory  atomic.Pointer[ca.Files] // where nothing else keeps them
	changed chan struct{}

	mu       sync.Mutex
	gateways map[string]bool // pods whose gateway was connected: "name.namespace"
	callers  *ca.Authenticator
	service  *ca.Service
	roots    *kube.Roots // nil without a Kubernetes API
	grpc     *grpc.Server
	sockets  []net.Listener
}

// newAuthority also registers the certificate service with the server of agents that come by a
// unix socket.
func newAuthority(s *Server, registry prometheus.Registerer, base ...grpc.ServerOption) (*authority, error) {
	a := &authority{o: s.o.Authority, server: s, changed: make(chan struct{}, 1), gateways: map[string]bool{}}
	if a.o.Now == nil {
		a.o.Now = time.Now
	}
	o := ca.Options{
		Load: a.load, Store: a.store, NewRoot: a.newRoot, Proven: s.provenHere, TrustDomain: a.trustDomain, DefaultLife: a.o.DefaultLife, MaxLife: a.o.MaxLife, Now: a.o.Now, Log: s.o.Log.Scope("ca"),
		Changed: func() {
			if a.roots != nil {
				a.roots.Changed()
			}
			select {
			case a.changed <- struct{}{}:
			default:
			}
		},
	}
	if a.o.Signer != "" {
		if s.api == nil {
			return nil, fmt.Errorf("signer %s: there is no Kubernetes API that has it", a.o.Signer)
		}
		o.External = &ca.External{Roots: a.signerRoots, Sign: func(ctx context.Context, request []byte, life time.Duration) ([]byte, error) {
			return s.api.Sign(ctx, a.o.Signer, request, life)
		}}
	}
	a.Authority = ca.New(o)
	if s.api != nil {
		a.roots = s.api.Roots(a.Bundle)
	}
	a.callers = &ca.Authenticator{Authority: a.Authority, Join: ca.NewJoinTokens(a.o.Now)}
	client := jwks.HTTPSOnly(jwks.NewClient(s.o.Tokens.Blocked))
	fetch := func(ctx context.Context, address string, discovery bool) (string, error) {
		return jwks.Fetch(ctx, client, mesh.KeySource{URL: address, Discovery: discovery})
	}
	for _, rule := range a.o.JWT {
		verify, err := ca.NewJWT(rule, fetch, a.o.Now)
		if err != nil {
			return nil, err
		}
		a.callers.Verifiers = append(a.callers.Verifiers, verify)
	}
	if s.api != nil {
		a.callers.Verifiers = append(a.callers.Verifiers, a.review)
	}
	a.service = ca.NewService(a.Authority, a.callers, registry)
	config := a.TLS(a.names())
	if a.o.CertFile != "" || a.o.KeyFile != "" {
		if _, err := a.fromFiles(nil); err != nil {
			return nil, fmt.Errorf("certificate of the secure port: %w", err)
		}
		config.GetCertificate = a.fromFiles
	}
	a.grpc = grpc.NewServer(slices.Concat(base, []grpc.ServerOption{grpc.Creds(credentials.NewTLS(config)), grpc.StreamInterceptor(a.known)})...)
	s.ads.Register(a.grpc)
	describe(a.grpc)
	a.service.Register(a.grpc)
	a.service.Register(s.grpc)
	return a, nil
}

// names are those by which agents call this control plane.
func (a *authority) names() []string {
	root := a.server.o.RootNamespace
	all := slices.Concat(servingNames(root, a.server.o.Revision), servingNames(root, ""), []string{"istio-pilot." + root + ".svc"}, a.o.Hosts)
	slices.Sort(all)
	return slices.Compact(all)
}

// fromFiles reads the certificate that an operator gives, so that one that is renewed counts.
func (a *authority) fromFiles(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(a.o.CertFile, a.o.KeyFile)
	return &c, err
}

func (a *authority) trustDomain() (string, []string) {
	mc := a.server.snapshot.Load().MeshConfig
	return cmp.Or(mc.GetTrustDomain(), "cluster.local"), mc.GetTrustDomainAliases()
}

// load finds the authority's files. Those of an operator that go missing are missed: no other
// root takes their place by itself.
func (a *authority) load(ctx context.Context, now ca.Files) (ca.Files, error) {
	files, err := a.pluggedIn(ctx)
	if files != nil || err != nil {
		a.plugged = a.plugged || err == nil
		return files, err
	}
	if a.plugged {
		return nil, errors.New("the authority that was plugged in is gone")
	}
	made := func() (ca.Files, error) {
		if now != nil {
			return now, nil // somebody has deleted it
		}
		return a.newRoot()
	}
	switch {
	case a.server.api != nil:
		return a.server.api.KeepSecret(ctx, kube.OwnAuthority, ownAuthorityType, func() (map[string][]byte, error) { return made() })
	case a.server.o.State != "":
		return ca.KeepFile(filepath.Join(a.server.o.State, authorityFile), made)
	}
	if kept := a.memory.Load(); kept != nil {
		return *kept, nil
	}
	files, err = a.newRoot()
	if err == nil {
		a.memory.Store(&files)
	}
	return files, err
}

func (a *authority) newRoot() (ca.Files, error) {
	o := a.o.Root
	o.TrustDomain, _ = a.trustDomain()
	o.Now = a.o.Now()
	return ca.NewRoot(o)
}

// store changes the files of an authority that was made here.
func (a *authority) store(ctx context.Context, change func(ca.Files) (ca.Files, error)) error {
	files, err := a.pluggedIn(ctx)
	switch {
	case err != nil:
		return err
	case files != nil:
		return ca.ErrForeignRoot
	case a.server.api != nil:
		return a.server.api.ChangeSecret(ctx, kube.OwnAuthority, func(now map[string][]byte) (map[string][]byte, error) { return change(now) })
	case a.server.o.State != "":
		return ca.ChangeFile(filepath.Join(a.server.o.State, authorityFile), change)
	}
	files, err = change(*a.memory.Load())
	if err == nil {
		a.memory.Store(&files)
	}
	return err
}

func (a *authority) pluggedIn(ctx context.Context) (ca.Files, error) {
	if a.o.Directory != "" {
		files, err := ca.ReadDirectory(a.o.Directory)
		if files != nil || err != nil {
			return files, err
		}
	}
	if a.server.api == nil {
		return nil, nil
	}
	return a.server.api.ReadSecret(ctx, kube.PluggedAuthority)
}

// signerRoots are those of meshConfig.caCertificates that are the signer's, or anybody's.
func (a *authority) signerRoots() []byte {
	snap := a.server.snapshot.Load()
	var all []byte
	for _, c := range snap.MeshConfig.GetCaCertificates() {
		if of := c.GetCertSigners(); len(of) > 0 && !slices.Contains(of, a.o.Signer) {
			continue
		}
		if text, err := rootsOf(c, snap.Keys); err == nil {
			all = append(all, text...)
		}
	}
	return all
}

// review asks Kubernetes whose a token is.
func (a *authority) review(ctx context.Context, token string) (ca.Account, error) {
	audiences := a.o.Audiences
	if len(audiences) == 0 {
		audiences = []string{ca.TokenAudience}
	}
	user, err := a.server.api.ReviewToken(ctx, token, audiences)
	switch {
	case err != nil:
		return ca.Account{}, fmt.Errorf("%w: %w", ca.ErrAway, err)
	case user == "":
		return ca.Account{}, errors.New("the API does not know the token, or not for this audience, or not any more")
	}
	return ca.ParseAccount(user)
}

// runAuthority keeps the authority; the mesh's trust domain is known with the first snapshot.
func (s *Server) runAuthority(ctx context.Context) error {
	a := s.authority
	select {
	case <-s.built:
	case <-ctx.Done():
		return nil
	}
	var roots sync.WaitGroup
	defer roots.Wait()
	if a.roots != nil {
		roots.Go(func() { _ = a.roots.Run(ctx) })
	}
	return a.Run(ctx)
}

// serveAuthority answers on the secure port once there is a certificate to show.
func (s *Server) serveAuthority(ctx context.Context) error {
	select {
	case <-s.authority.Ready():
	case <-ctx.Done():
		return nil
	}
	return s.serveGRPC(ctx, s.authority.grpc, s.authority.sockets)
}

// known has a stream be of a caller who is known, and of the node that the caller may be.
func (a *authority) known(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if !isDiscovery(info.FullMethod) {
		return handle(server, stream)
	}
	account, err := a.callers.Account(stream.Context())
	if err != nil {
		a.server.log.Warn("stream refused", "error", err)
		return err
	}
	return handle(server, &knownStream{ServerStream: stream, of: a, account: account})
}

// isDiscovery is whether a method gives configuration.
func isDiscovery(method string) bool {
	return path.Dir(method) == "/envoy.service.discovery.v3.AggregatedDiscoveryService"
}

// A knownStream lets the first node through that is the account's.
type knownStream struct {
	grpc.ServerStream
	of      *authority
	account ca.Account
	node    bool // was seen
}

// RecvMsg receives a request.
func (k *knownStream) RecvMsg(m any) error {
	if err := k.ServerStream.RecvMsg(m); err != nil || k.node || k.of.o.AnyNode {
		return err
	}
	r, ok := m.(interface{ GetNode() *corepb.Node })
	if !ok || r.GetNode() == nil {
		return nil // refused by who reads it
	}
	k.node = true
	p, err := mesh.ParseProxy(r.GetNode())
	if err != nil {
		return nil //nolint:nilerr // refused, with the reason, by who reads it
	}
	if account := r.GetNode().GetMetadata().GetFields()["SERVICE_ACCOUNT"].GetStringValue(); p.Namespace != k.account.Namespace || account != "" && account != k.account.Name {
		k.of.server.log.Warn("stream refused: the node is not its own", "node", r.GetNode().GetId(), "namespace", k.account.Namespace, "account", k.account.Name)
		return status.Error(codes.PermissionDenied, "the node is not of the account that the credentials are of")
	}
	return nil
}

// joinToken makes a token by which one machine gets the first certificate of an account.
func (s *Server) joinToken(r *http.Request) (any, error) {
	switch {
	case s.authority == nil:
		return nil, pageError{http.StatusNotFound, "there is no certificate authority"}
	case r.Method != http.MethodPost:
		return nil, pageError{http.StatusMethodNotAllowed, "a token is made with POST"}
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); !ok || local.Network() != "unix" {
		return nil, pageError{http.StatusForbidden, "tokens are made for callers on a unix socket"}
	}
	life, err := time.ParseDuration(cmp.Or(r.FormValue("ttl"), "15m"))
	if err != nil {
		return nil, pageError{http.StatusBadRequest, "ttl: " + err.Error()}
	}
	token, err := s.authority.callers.Join.Make(ca.Account{Namespace: r.FormValue("namespace"), Name: cmp.Or(r.FormValue("serviceAccount"), "default")}, life)
	if err != nil {
		return nil, pageError{http.StatusBadRequest, err.Error()}
	}
	return map[string]string{"token": token, "root": string(s.authority.Bundle())}, nil
}
