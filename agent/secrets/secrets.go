// Package secrets serves certificates to the proxy of a pod by SDS, on a Unix socket:
//
//	file-cert:CERT~KEY   a certificate chain and its private key, of files
//	file-root:CERT       authorities that are trusted, of a file; file-root:system are the system's
//	default, ROOTCA      the workload's own, of the directory that a CA provider mounts, else of
//	                     package identity
//
// What changes is sent again. A file that is not there, or does not hold what it should,
// is waited for, and named in the log once. Keys are never logged, and go to this user's
// programs only.
package secrets

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretpb "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/agent/identity"
	"github.com/lateen-mesh/lateen/agent/socket"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Options say where the server is.
type Options struct {
	Socket string // path
	// Credentials is the directory with cert-chain.pem, key.pem and root-cert.pem of the workload.
	Credentials string
	// Workload is where the workload's own come from without files; nil is nowhere.
	Workload *identity.Keeper
	// Every is how often files are looked at; 0 is 5 s.
	Every time.Duration
	// Logger is slog's default if nil.
	Logger *slog.Logger
}

// Bounds of what is served.
const (
	maxFile  = 1 << 20 // bytes
	maxNames = 1000    // of one stream
)

// A Server is an SDS server.
type Server struct {
	secretpb.UnimplementedSecretDiscoveryServiceServer
	o    Options
	log  *slog.Logger
	l    net.Listener
	grpc *grpc.Server

	mu    sync.Mutex
	views map[*view]bool
	moved chan struct{} // closed and replaced when one of them changes
}

// Listen opens the socket.
func Listen(o Options) (*Server, error) {
	l, err := socket.Listen(o.Socket)
	if err != nil {
		return nil, fmt.Errorf("socket of certificates: %w", err)
	}
	s := &Server{o: o, log: cmp.Or(o.Logger, slog.Default()), l: l, views: map[*view]bool{}, moved: make(chan struct{})}
	s.o.Every = cmp.Or(o.Every, 5*time.Second)
	s.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(maxFile), grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(4<<10))
	secretpb.RegisterSecretDiscoveryServiceServer(s.grpc, s)
	return s, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.grpc.Stop)
	defer stop()
	return s.grpc.Serve(s.l)
}

// watch is what one stream was sent.
type watch struct {
	names   []string
	view    *view
	sent    map[string][]byte // by name: the secret
	said    map[string]bool   // by name: that it is not there
	version int
}

// StreamSecrets serves the names of the last request, now and whenever a file changes.
func (s *Server) StreamSecrets(stream secretpb.SecretDiscoveryService_StreamSecretsServer) error {
	asks, failed := make(chan *discoverypb.DiscoveryRequest), make(chan error, 1)
	ctx := stream.Context()
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case asks <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	tick := time.NewTicker(s.o.Every)
	defer tick.Stop()
	view, leave := s.join()
	defer leave()
	w := &watch{view: view, sent: map[string][]byte{}, said: map[string]bool{}}
	var changed <-chan struct{}
	for {
		if s.o.Workload != nil {
			changed = s.o.Workload.Changed() // before anything is read: what comes then is not missed
		}
		if err := s.send(stream, w); err != nil {
			return err
		}
		select {
		case m := <-asks:
			if m.GetErrorDetail() != nil {
				s.log.Warn("the proxy refuses a certificate", "name", strings.Join(w.names, ","), "error", m.GetErrorDetail().GetMessage())
			}
			if len(m.GetResourceNames()) > maxNames {
				return status.Errorf(codes.ResourceExhausted, "more than %d names", maxNames)
			}
			s.asked(view, m)
			if !slices.Equal(w.names, m.GetResourceNames()) {
				w.names = m.GetResourceNames()
				clear(w.sent)
			}
		case <-tick.C:
		case <-changed:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send sends what is there, if something of it is new.
func (s *Server) send(stream secretpb.SecretDiscoveryService_StreamSecretsServer, w *watch) error {
	var all []*anypb.Any
	secrets := map[string]*tlspb.Secret{}
	fresh := false
	for _, name := range w.names {
		secret, err := s.load(name)
		if err != nil {
			if !w.said[name] {
				w.said[name] = true
				level := slog.LevelWarn
				if s.o.Workload != nil && (name == ownCertificate || name == ownRoots) {
					level = slog.LevelDebug // of every start; who has it signed says what keeps it
				}
				s.log.Log(stream.Context(), level, "a certificate is waited for", "name", name, "reason", err)
			}
			continue
		}
		body, err := anypb.New(secret)
		if err != nil {
			return err
		}
		delete(w.said, name)
		fresh = fresh || !bytes.Equal(w.sent[name], body.GetValue())
		w.sent[name] = body.GetValue()
		all, secrets[name] = append(all, body), secret
	}
	if !fresh {
		return nil
	}
	w.version++
	version := strconv.Itoa(w.version)
	s.change(func() { w.view.sent, w.view.nonce = secrets, version })
	return stream.Send(&discoverypb.DiscoveryResponse{TypeUrl: wellknown.SecretType, VersionInfo: version, Nonce: version, Resources: all})
}

var errUnknown = errors.New("this agent serves certificates of files only; there is no such file")

// load reads a secret's files.
func (s *Server) load(name string) (*tlspb.Secret, error) {
	switch files, ok := strings.CutPrefix(name, "file-cert:"); {
	case ok:
		chain, key, _ := strings.Cut(files, "~")
		return pair(name, chain, key)
	case name == ownCertificate:
		secret, err := pair(name, filepath.Join(s.o.Credentials, "cert-chain.pem"), filepath.Join(s.o.Credentials, "key.pem"))
		return s.orIssued(secret, err, func(id *identity.Identity) *tlspb.Secret { return certificate(name, id.Chain, id.Key) })
	case name == ownRoots:
		secret, err := root(name, filepath.Join(s.o.Credentials, "root-cert.pem"))
		return s.orIssued(secret, err, func(id *identity.Identity) *tlspb.Secret { return authorities(name, id.Roots) })
	}
	switch file, ok := strings.CutPrefix(name, "file-root:"); {
	case ok && file == "system":
		return root(name, systemRoots())
	case ok:
		return root(name, file)
	}
	return nil, errUnknown
}

// systemRoots is the file of the authorities that this system trusts: $SSL_CERT_FILE, as for
// OpenSSL and Go, or the first that there is of the places of Debian, Red Hat, SUSE and Alpine.
func systemRoots() string {
	files := []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem"}
	if named := os.Getenv("SSL_CERT_FILE"); named != "" {
		return named
	}
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file
		}
	}
	return files[0]
}

// orIssued is what a file has, or, where there is no file, what was issued.
func (s *Server) orIssued(secret *tlspb.Secret, err error, issued func(*identity.Identity) *tlspb.Secret) (*tlspb.Secret, error) {
	if s.o.Workload == nil || !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	id, err := s.o.Workload.Current()
	if err != nil {
		return nil, err
	}
	return issued(id), nil
}

func certificate(name string, chain, key []byte) *tlspb.Secret {
	return &tlspb.Secret{Name: name, Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{
		CertificateChain: inline(chain), PrivateKey: inline(key)}}}
}

func authorities(name string, text []byte) *tlspb.Secret {
	return &tlspb.Secret{Name: name, Type: &tlspb.Secret_ValidationContext{ValidationContext: &tlspb.CertificateValidationContext{TrustedCa: inline(text)}}}
}

func pair(name, chainFile, keyFile string) (*tlspb.Secret, error) {
	chain, err := readPEM(chainFile, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	key, err := readPEM(keyFile, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	return certificate(name, chain, key), nil
}

func root(name, file string) (*tlspb.Secret, error) {
	text, err := readPEM(file, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	return authorities(name, text), nil
}

func inline(text []byte) *corepb.DataSource {
	return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: text}}
}

// readPEM reads a file that begins with a block of a kind. Nothing else is handed out: names
// come from the control plane.
func readPEM(path, kind string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, maxFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || !strings.HasSuffix(block.Type, kind) {
		return nil, fmt.Errorf("%s does not begin with a PEM block %s", path, kind)
	}
	return text, nil
}
