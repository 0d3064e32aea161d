package control_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"istio.io/api/security/v1alpha1"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/ca"
	"github.com/lateen-mesh/lateen/control/kube/kubetest"
	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/wellknown"
)

// secure has a control plane serve the secure port.
func secure(change func(*control.Options)) func(*control.Options) {
	return func(o *control.Options) {
		o.SecureGRPC = "127.0.0.1:0"
		if change != nil {
			change(o)
		}
	}
}

// joinToken is one for a machine of account default of a namespace, with the roots.
func (p *plane) joinToken(namespace string) (token, root string) {
	p.t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", p.page)
	}}
	var got struct{ Token, Root string }
	wait(p.t, func() bool { // until there is an authority
		r, err := (&http.Client{Transport: tr}).Post("http://control/debug/jointoken?namespace="+namespace, "", nil)
		if err != nil {
			p.t.Fatal(err)
		}
		defer r.Body.Close()
		return json.NewDecoder(r.Body).Decode(&got) == nil && got.Token != "" && got.Root != ""
	})
	return got.Token, got.Root
}

// dial opens a connection to the secure port.
func (p *plane) dial(root string, shown *tls.Certificate) *grpc.ClientConn {
	p.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(root)) {
		p.t.Fatalf("no roots: %q", root)
	}
	c := &tls.Config{RootCAs: pool, ServerName: "istiod.istio-system.svc", MinVersion: tls.VersionTLS12}
	if shown != nil {
		c.Certificates = []tls.Certificate{*shown}
	}
	conn, err := grpc.NewClient(p.server.SecureGRPCAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(c)))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

func bearer(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// certificate asks for one.
func (p *plane) certificate(root, token string, shown *tls.Certificate) (*tls.Certificate, error) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		p.t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})
	answer, err := v1alpha1.NewIstioCertificateServiceClient(p.dial(root, shown)).CreateCertificate(bearer(p.t.Context(), token), &v1alpha1.IstioCertificateRequest{Csr: string(text)})
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{PrivateKey: key}
	for rest := []byte(strings.Join(answer.CertChain[:len(answer.CertChain)-1], "")); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c.Certificate = append(c.Certificate, block.Bytes)
	}
	if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
		p.t.Fatal(err)
	}
	return c, nil
}

// subscribe is what becomes of a stream of a node on the secure port.
func (p *plane) subscribe(root, token string, shown *tls.Certificate, node *corepb.Node) error {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(p.dial(root, shown)).DeltaAggregatedResources(bearer(ctx, token))
	if err != nil {
		return err
	}
	_ = stream.Send(&discoverypb.DeltaDiscoveryRequest{Node: node, TypeUrl: wellknown.ClusterType}) // Recv says why not
	_, err = stream.Recv()
	return err
}

func nodeOf(t *testing.T, id, account string) *corepb.Node {
	t.Helper()
	fields := map[string]any{}
	if account != "" {
		fields["SERVICE_ACCOUNT"] = account
	}
	m, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	return &corepb.Node{Id: id, Metadata: m}
}

const webNode = "sidecar~10.0.0.1~web-1.web~web.svc.cluster.local"

func TestSecurePort(t *testing.T) {
	state := t.TempDir()
	keep := secure(func(o *control.Options) { o.State = state })
	p := start(t, map[string]string{"mesh.yaml": "trustDomain: mesh.example\n"}, keep)
	token, root := p.joinToken("web")
	var own *tls.Certificate
	t.Run("EN-024 SX-001 SX-003 a machine joins by a token, and renews by its certificate", func(t *testing.T) {
		var err error
		if own, err = p.certificate(root, token, nil); err != nil {
			t.Fatal(err)
		}
		if own, err = p.certificate(root, "", own); err != nil {
			t.Fatal(err)
		}
		if got := own.Leaf.URIs[0].String(); got != "spiffe://mesh.example/ns/web/sa/default" {
			t.Errorf("it is %s", got)
		}
		if _, err := p.certificate(root, token, nil); status.Code(err) != codes.Unauthenticated {
			t.Errorf("the token is good again: %v", err)
		}
	})
	unused, _ := p.joinToken("web")
	for _, tt := range []struct {
		name, token, node, account string
		shown                      *tls.Certificate
		want                       codes.Code
	}{
		{"SX-020 configuration is for who is known", "", webNode, "default", own, codes.OK},
		{"SX-020 for nobody else", "", webNode, "", nil, codes.Unauthenticated},
		{"SX-020 SX-023 not for a node of another namespace", "", "sidecar~10.0.0.1~db-1.db~db.svc.cluster.local", "", own, codes.PermissionDenied},
		{"SX-020 SX-023 not for a node of another account", "", webNode, "admin", own, codes.PermissionDenied},
		{"not by a token that is for a certificate", unused, webNode, "", nil, codes.Unauthenticated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := p.subscribe(root, tt.token, tt.shown, nodeOf(t, tt.node, tt.account)); status.Code(err) != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
	t.Run("join tokens are made by POST, for namespaces", func(t *testing.T) {
		if code, _ := p.get("/debug/jointoken?namespace=web"); code != http.StatusMethodNotAllowed {
			t.Errorf("by GET: %d", code)
		}
	})
	if _, err := p.certificate(root, unused, nil); err != nil {
		t.Errorf("a token that was shown for configuration is spent: %v", err)
	}
	p.stop()
	t.Run("SX-004 the root outlives a restart", func(t *testing.T) {
		again := start(t, map[string]string{"mesh.yaml": "trustDomain: mesh.example\n"}, keep)
		if _, now := again.joinToken("web"); now != root {
			t.Error("the roots are others")
		}
		if _, err := again.certificate(root, "", own); err != nil {
			t.Error(err)
		}
	})
}

func TestAuthorityOnKubernetes(t *testing.T) {
	api := kubetest.New(t).Start()
	api.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n")
	api.Know("token", kubetest.Token{User: "system:serviceaccount:web:sleep", Audience: "istio-ca"})
	api.Know("vault's", kubetest.Token{User: "system:serviceaccount:web:sleep", Audience: "vault"})
	p := startOn(t, api, nil, secure(nil))
	_, root := p.joinToken("web")
	t.Run("SX-020 a token of the API is worth the account's certificate and configuration", func(t *testing.T) {
		c, err := p.certificate(root, "token", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Leaf.URIs[0].String(); got != "spiffe://cluster.local/ns/web/sa/sleep" {
			t.Errorf("it is %s", got)
		}
		if err := p.subscribe(root, "token", nil, nodeOf(t, webNode, "sleep")); err != nil {
			t.Error(err)
		}
	})
	t.Run("SX-020 a token for another audience is worth nothing", func(t *testing.T) {
		if _, err := p.certificate(root, "vault's", nil); status.Code(err) != codes.Unauthenticated {
			t.Error(err)
		}
	})
	t.Run("SX-006 namespaces have the roots", func(t *testing.T) {
		want, err := json.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		wait(t, func() bool { return strings.Contains(api.Get("ConfigMap", "web/istio-ca-root-cert"), string(want)) })
	})
	t.Run("SX-004 another control plane signs with the same root", func(t *testing.T) {
		other := startOn(t, api, nil, secure(nil))
		if _, got := other.joinToken("web"); got != root {
			t.Error("the roots are others")
		}
	})
	t.Run("SX-005 the Secret cacerts takes the place of a root that is made", func(t *testing.T) {
		files, err := ca.NewRoot(ca.RootOptions{TrustDomain: "ours", Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(files) // base64, as a Secret has it
		if err != nil {
			t.Fatal(err)
		}
		api.Apply("apiVersion: v1\nkind: Secret\nmetadata: {name: cacerts, namespace: istio-system}\ndata: " + string(text) + "\n")
		other := startOn(t, api, nil, secure(nil))
		if _, got := other.joinToken("web"); got != string(files[ca.RootFile]) {
			t.Error("the roots are others")
		}
		wait(t, func() bool {
			code, body := other.get("/debug/configz")
			return code == http.StatusOK && !strings.Contains(body, "cacerts")
		})
	})
}

func TestPluggedInDirectory(t *testing.T) {
	files, err := ca.NewRoot(ca.RootOptions{TrustDomain: "ours", Now: time.Now(), RSABits: 2048})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, nil, secure(func(o *control.Options) { o.Authority.Directory = dir }))
	token, root := p.joinToken("web")
	if root != string(files[ca.RootFile]) {
		t.Error("SX-005 the roots are others")
	}
	if _, err := p.certificate(root, token, nil); err != nil {
		t.Error(err)
	}
}

// TestReadersOfSecrets: a key is given to who could read the Secret by itself, others are told why
// not in the mesh's status; authorities are given to both (SX-023).
func TestReadersOfSecrets(t *testing.T) {
	issuer, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := issuer.Issue("httpbin.org")
	if err != nil {
		t.Fatal(err)
	}
	api := kubetest.New(t).Start()
	api.Apply(fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: web-cert, namespace: web}\ntype: kubernetes.io/tls\nstringData: {tls.crt: %q, tls.key: %q, ca.crt: %q}\n", cert, key, cert))
	for _, name := range []string{"gateway", "sleep"} {
		api.Know(name, kubetest.Token{User: "system:serviceaccount:web:" + name, Audience: "istio-ca"})
	}
	api.Forbid("system:serviceaccount:web:sleep")
	p := startOn(t, api, nil, secure(nil))
	_, root := p.joinToken("web")
	wanted := []string{"kubernetes://web-cert", "kubernetes://web-cert-cacert"}
	given := func(account string) (names []string) {
		stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(p.dial(root, nil)).StreamAggregatedResources(bearer(t.Context(), account))
		if err != nil {
			t.Fatal(err)
		}
		node := nodeOf(t, "router~10.0.0.1~"+account+"-1.web~web.svc.cluster.local", account)
		if err := stream.Send(&discoverypb.DiscoveryRequest{Node: node, TypeUrl: wellknown.SecretType, ResourceNames: wanted}); err != nil {
			t.Fatal(err)
		}
		wait(t, func() bool { // authorities come first, a key when the API has been asked
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&discoverypb.DiscoveryRequest{TypeUrl: m.TypeUrl, ResourceNames: wanted, VersionInfo: m.VersionInfo, ResponseNonce: m.Nonce}); err != nil {
				t.Fatal(err)
			}
			for _, r := range m.Resources {
				var s tlspb.Secret
				if err := r.UnmarshalTo(&s); err != nil {
					t.Fatal(err)
				}
				names = append(names, s.Name)
			}
			return account == "sleep" || len(names) == 2
		})
		slices.Sort(names)
		return names
	}
	if got := given("gateway"); !slices.Equal(got, wanted) {
		t.Errorf("the gateway is given %q", got)
	}
	if got := given("sleep"); !slices.Equal(got, []string{"kubernetes://web-cert-cacert"}) {
		t.Errorf("who may not read it is given %q", got)
	}
	wait(t, func() bool {
		return strings.Contains(p.log.String(), "system:serviceaccount:web:sleep, the account of proxy sleep-1, may not list secrets of namespace web: no Role allows it")
	})
}
