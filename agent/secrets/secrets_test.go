package secrets

import (
	"context"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretpb "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lateen-mesh/lateen/agent/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, path, kind, content string) string {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(content)})
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestServer(t *testing.T) {
	dir, err := os.MkdirTemp("", "sds") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }
	chain, key, ca := write(t, at("c.pem"), "CERTIFICATE", "chain"), write(t, at("k.pem"), "EC PRIVATE KEY", "key"), write(t, at("ca.pem"), "CERTIFICATE", "ca")
	s, err := Listen(Options{Socket: at("socket"), Credentials: dir, Every: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	conn, err := grpc.NewClient("unix:"+at("socket"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ask := func(t *testing.T, names ...string) (next func() *tlspb.Secret) {
		t.Helper()
		stream, err := secretpb.NewSecretDiscoveryServiceClient(conn).StreamSecrets(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&discoverypb.DiscoveryRequest{ResourceNames: names}); err != nil {
			t.Fatal(err)
		}
		return func() *tlspb.Secret {
			t.Helper()
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&discoverypb.DiscoveryRequest{ResourceNames: names, VersionInfo: m.GetVersionInfo(), ResponseNonce: m.GetNonce()}); err != nil {
				t.Fatal(err)
			}
			secret := &tlspb.Secret{}
			if err := m.GetResources()[0].UnmarshalTo(secret); err != nil {
				t.Fatal(err)
			}
			return secret
		}
	}
	t.Run("a certificate of files, and again when it changes", func(t *testing.T) {
		next := ask(t, "file-cert:"+at("c.pem")+"~"+at("k.pem"))
		got := next().GetTlsCertificate()
		if string(got.GetCertificateChain().GetInlineBytes()) != chain || string(got.GetPrivateKey().GetInlineBytes()) != key {
			t.Errorf("certificate %v", got.GetCertificateChain())
		}
		renewed := write(t, at("c.pem"), "CERTIFICATE", "renewed")
		if got := next().GetTlsCertificate(); string(got.GetCertificateChain().GetInlineBytes()) != renewed {
			t.Errorf("certificate %v", got.GetCertificateChain())
		}
	})
	t.Run("authorities", func(t *testing.T) {
		got := ask(t, "file-root:"+at("ca.pem"))()
		if string(got.GetValidationContext().GetTrustedCa().GetInlineBytes()) != ca || got.GetName() != "file-root:"+at("ca.pem") {
			t.Errorf("secret %v", got)
		}
	})
	t.Run("DR-044 the system's authorities", func(t *testing.T) {
		t.Setenv("SSL_CERT_FILE", at("ca.pem"))
		if got := ask(t, "file-root:system")(); string(got.GetValidationContext().GetTrustedCa().GetInlineBytes()) != ca || got.GetName() != "file-root:system" {
			t.Errorf("secret %v", got)
		}
	})
	t.Run("EN-036 the workload's own, once somebody mounts it", func(t *testing.T) {
		next := ask(t, "ROOTCA")
		root := write(t, at("root-cert.pem"), "CERTIFICATE", "root")
		if got := next(); string(got.GetValidationContext().GetTrustedCa().GetInlineBytes()) != root {
			t.Errorf("secret %v", got)
		}
	})
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	s := &Server{o: Options{Credentials: dir}}
	text := filepath.Join(dir, "passwd")
	if err := os.WriteFile(text, []byte("root:x:0:0"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", "c")
	for _, tt := range []struct{ name, want string }{
		{"default", "no such file"},
		{"kubernetes://secret", "serves certificates of files only"},
		{"file-root:" + text, "does not begin with a PEM block CERTIFICATE"},
		{"file-root:" + dir, "is no file of at most"},
		{"file-root:/dev/zero", "is no file of at most"},
		{"file-cert:" + filepath.Join(dir, "cert.pem") + "~" + filepath.Join(dir, "cert.pem"), "does not begin with a PEM block PRIVATE KEY"},
		{"file-cert:" + filepath.Join(dir, "cert.pem"), "no such file"},
	} {
		if got, err := s.load(tt.name); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestFilesGoBeforeWhatIsIssued(t *testing.T) {
	dir := t.TempDir()
	s := &Server{o: Options{Credentials: dir, Workload: identity.New(identity.Options{})}}
	for _, name := range []string{"default", "ROOTCA"} {
		if _, err := s.load(name); err == nil || !strings.Contains(err.Error(), "no certificate yet") {
			t.Errorf("%s without files: %v", name, err)
		}
	}
	write(t, filepath.Join(dir, "cert-chain.pem"), "CERTIFICATE", "chain")
	write(t, filepath.Join(dir, "key.pem"), "EC PRIVATE KEY", "key")
	write(t, filepath.Join(dir, "root-cert.pem"), "CERTIFICATE", "root")
	for _, name := range []string{"default", "ROOTCA"} {
		if secret, err := s.load(name); err != nil || secret.GetName() != name {
			t.Errorf("EN-036 %s with files: %v", name, err)
		}
	}
}
