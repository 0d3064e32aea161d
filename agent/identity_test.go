package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretpb "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	meshpb "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/test/fixture"
)

// istiod runs a control plane with a secure port, and gives its address, a token by which
// one machine joins, and the roots.
func (w *world) istiod() (address, token, root string) {
	w.t.Helper()
	log, err := logging.New(logging.Options{Output: &buffer{}, Levels: "info"})
	if err != nil {
		w.t.Fatal(err)
	}
	page := filepath.Join(w.dir, "page")
	s, err := control.New(control.Options{Paths: []string{w.t.TempDir()}, HTTP: "unix:" + page, SecureGRPC: "127.0.0.1:0", Log: log})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", page)
	}}}
	var made struct{ Token, Root string }
	fixture.Eventually(w.t, "a join token", func() error {
		r, err := client.Post("http://control/debug/jointoken?namespace=default&serviceAccount=web", "", nil)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if err := json.NewDecoder(r.Body).Decode(&made); err != nil {
			return err
		}
		if made.Root == "" {
			return fmt.Errorf("no roots yet")
		}
		return nil
	})
	return s.SecureGRPCAddr().String(), made.Token, made.Root
}

func (w *world) file(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// A machine joins with a token, and from then on is known by its certificate, which it renews.
func TestIdentityByIstiod(t *testing.T) {
	w := newWorld(t)
	address, token, root := w.istiod()
	roots := w.file("roots.pem", root)
	w.args = []string{"--token", w.file("token", token+"\n")}
	w.env = []string{"XDS_ROOT_CA=" + roots, "CA_ROOT_CA=" + roots, "SECRET_TTL=4s", "OUTPUT_CERTS=" + filepath.Join(w.dir, "out"),
		fmt.Sprintf(`PROXY_CONFIG={"discoveryAddress": %q, "proxyAdminPort": %d, "statusPort": %d}`, address, w.admin, w.status)}
	w.start("")
	fixture.Eventually(t, "the socket of certificates", func() error {
		_, err := os.Stat(filepath.Join(w.dir, "identity", identitySocket))
		return err
	})
	conn, err := grpc.NewClient("unix:"+filepath.Join(w.dir, "identity", identitySocket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := secretpb.NewSecretDiscoveryServiceClient(conn).StreamSecrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discoverypb.DiscoveryRequest{ResourceNames: []string{"default", "ROOTCA"}}); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(root))
	next := func() *x509.Certificate {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var own, trusted tlspb.Secret
		if len(m.GetResources()) != 2 || m.GetResources()[0].UnmarshalTo(&own) != nil || m.GetResources()[1].UnmarshalTo(&trusted) != nil {
			t.Fatalf("secrets %v", m.GetResources())
		}
		c := own.GetTlsCertificate()
		pair, err := tls.X509KeyPair(c.GetCertificateChain().GetInlineBytes(), c.GetPrivateKey().GetInlineBytes())
		if err != nil {
			t.Fatal(err)
		}
		if got := string(trusted.GetValidationContext().GetTrustedCa().GetInlineBytes()); got != root {
			t.Errorf("roots %s", got)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Error(err)
		}
		return pair.Leaf
	}
	first := next()
	t.Run("EN-055 SX-001 the certificate is the account's that the token is for", func(t *testing.T) {
		if got := first.URIs[0].String(); got != "spiffe://cluster.local/ns/default/sa/web" {
			t.Errorf("it is of %s", got)
		}
	})
	t.Run("EN-043 it is renewed by itself, and pushed", func(t *testing.T) {
		if second := next(); second.SerialNumber.Cmp(first.SerialNumber) == 0 {
			t.Error("the same again")
		}
		text, err := os.ReadFile(filepath.Join(w.dir, "out", chainName))
		if block, _ := pem.Decode(text); block == nil {
			t.Errorf("it is not written: %v", err)
		}
	})
	t.Run("SX-020 by it the control plane knows the proxy", func(t *testing.T) {
		fixture.Eventually(t, "configuration", func() error {
			_, page, err := get(w.status, "/stats/prometheus")
			if err == nil && (!strings.Contains(page, "istio_agent_xds_proxy_connected 1\n") || strings.Contains(page, "istio_agent_xds_proxy_responses 0\n")) {
				err = fmt.Errorf("nothing yet")
			}
			return err
		})
	})
}

func TestWhoIsToldTheToken(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name, address, policy string
		secured               bool
	}{
		{"the secure port", "istiod.istio-system.svc:15012", "NONE", true},
		{"the plain port", "istiod.istio-system.svc:15010", "MUTUAL_TLS", false},
		{"another port", "127.0.0.1:1234", "NONE", false},
		{"another port, as the configuration says", "127.0.0.1:1234", "MUTUAL_TLS", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &agent{f: &proxyFlags{sockets: filepath.Join(dir, "none"), token: filepath.Join(dir, "token")}, pod: &pod{config: &meshpb.ProxyConfig{
				DiscoveryAddress: tt.address, ControlPlaneAuthPolicy: meshpb.AuthenticationPolicy(meshpb.AuthenticationPolicy_value[tt.policy]),
			}}}
			if err := os.WriteFile(a.f.token, []byte("secret\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := a.token()
			if err != nil || (got == "secret") != tt.secured || a.isSecured(tt.address) != tt.secured {
				t.Errorf("token %q, %v", got, err)
			}
		})
	}
	for address, want := range map[string]string{"istiod.example:15012": "istiod.example", "10.0.0.1:15012": "istiod.istio-system.svc", "[::1]:15012": "istiod.istio-system.svc"} {
		if got := hostOf(address); got != want {
			t.Errorf("%s is %s", address, got)
		}
	}
}
