package proxyless

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/test/ports"
)

// policies are those of a case; what serves them is the workload server.
func policies(kind, name, spec string) string {
	return "apiVersion: security.istio.io/v1\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: default}\nspec: {selector: {matchLabels: {app: server}}, " + spec + "}\n---\n"
}

// TestAccess has a server of gRPC without proxy refuse calls by policies, which change while it runs.
func TestAccess(t *testing.T) {
	p := start(t, nil)
	s, err := xds.NewGRPCServer(xds.BootstrapContentsForTesting(p.program("server")))
	if err != nil {
		t.Fatal(err)
	}
	b := serveWith(t, "v1", s, ports.One())
	p.write("echo.yaml", echo(b))
	c := p.dial(host, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	plain := context.Background()
	bearer := metadata.AppendToOutgoingContext(plain, "authorization", "Bearer x.y.z")
	gold := metadata.AppendToOutgoingContext(plain, "x-tier", "gold")
	const yes, no = codes.OK, codes.PermissionDenied
	for _, x := range []struct {
		name, policies string
		say, shout     codes.Code // of a plain call
		bearer, gold   codes.Code
	}{
		{"PO-018 none", "", yes, yes, yes, yes},
		{"PO-018 PO-034 a path is denied", policies("AuthorizationPolicy", "p", "action: DENY, rules: [{to: [{operation: {paths: [/mesh.Echo/Shout]}}]}]"), yes, no, yes, yes},
		{"PO-018 PO-034 a path is allowed", policies("AuthorizationPolicy", "p", "rules: [{to: [{operation: {paths: [/mesh.Echo/Say]}}]}]"), yes, no, yes, yes},
		{"PO-018 nothing is allowed", policies("AuthorizationPolicy", "p", ""), no, no, no, no},
		{"PO-035 a header", policies("AuthorizationPolicy", "p", `rules: [{when: [{key: "request.headers[x-tier]", values: [gold]}]}]`), no, no, no, yes},
		{"PO-018 DENY goes before ALLOW", policies("AuthorizationPolicy", "a", "rules: [{}]") + policies("AuthorizationPolicy", "p", "action: DENY, rules: [{to: [{operation: {paths: [/mesh.Echo/Shout]}}]}]"), yes, no, yes, yes},
		{"PO-023 who is not known is nobody", policies("AuthorizationPolicy", "p", `rules: [{from: [{source: {principals: ["*"]}}]}]`), no, no, no, no},
		{"PO-025 a token that cannot be checked is none: what asks for one allows nobody", policies("AuthorizationPolicy", "p", `rules: [{from: [{source: {requestPrincipals: ["*"]}}]}]`), no, no, no, no},
		{"PO-025 and what is denied without one is denied", policies("AuthorizationPolicy", "p", `action: DENY, rules: [{from: [{source: {notRequestPrincipals: ["*"]}}], to: [{operation: {paths: [/mesh.Echo/Shout]}}]}]`), yes, no, yes, yes},
		{"PO-005 tokens are refused", policies("RequestAuthentication", "r", `jwtRules: [{issuer: a.test, jwks: '{"keys":[]}'}]`), yes, yes, no, yes},
		{"PO-019 PO-020 nobody is asked", policies("AuthorizationPolicy", "p", `action: CUSTOM, provider: {name: x}, rules: [{to: [{operation: {paths: [/mesh.Echo/Shout]}}]}]`), yes, no, yes, yes},
		{"PO-036 what is tried out, and told", policies("AuthorizationPolicy", "p", "action: AUDIT, rules: [{}]"), yes, yes, yes, yes},
		{"PO-034 a template of paths is unknown to gRPC: it is denied what it may be", policies("AuthorizationPolicy", "p", `action: DENY, rules: [{to: [{operation: {paths: ["/mesh.Echo/{*}"]}}], when: [{key: "request.headers[x-tier]", values: [gold]}]}]`), yes, yes, yes, no},
		{"PO-016 a broken policy", policies("AuthorizationPolicy", "q", `action: DENY, rules: [{to: [{operation: {ports: [x]}}]}]`), no, no, no, no},
	} {
		t.Run(x.name, func(t *testing.T) {
			p.write("policies.yaml", x.policies)
			eventually(t, "the calls end as they should", func() bool {
				code := func(ctx context.Context, method string) codes.Code {
					_, err := c.method(ctx, method, "hello")
					return status.Code(err)
				}
				return code(plain, "Say") == x.say && code(plain, "Shout") == x.shout && code(bearer, "Say") == x.bearer && code(gold, "Say") == x.gold
			})
		})
	}
	p.noneRefused()
}

// TestStrict has a server of gRPC without proxy that takes mutual TLS only, by certificates of its
// bootstrap.
func TestStrict(t *testing.T) {
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	p := startWith(t, nil, func(o *control.Options) { o.Identities = true })
	dir := t.TempDir()
	files := func(name, account string) map[string]string {
		cert, key, err := ca.Issue("echo", "spiffe://cluster.local/ns/default/sa/"+account)
		if err != nil {
			t.Fatal(err)
		}
		paths := map[string]string{"certificate_file": name + ".crt", "private_key_file": name + ".key", "ca_certificate_file": name + ".ca"}
		for field, data := range map[string][]byte{"certificate_file": cert, "private_key_file": key, "ca_certificate_file": ca.PEM()} {
			paths[field] = filepath.Join(dir, paths[field])
			if err := os.WriteFile(paths[field], data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return paths
	}
	var bootstrap map[string]any
	if err := json.Unmarshal(p.program("server"), &bootstrap); err != nil {
		t.Fatal(err)
	}
	bootstrap["certificate_providers"] = map[string]any{"default": map[string]any{"plugin_name": "file_watcher", "config": files("server", "server")}}
	text, err := json.Marshal(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := xdscreds.NewServerCredentials(xdscreds.ServerOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := xds.NewGRPCServer(xds.BootstrapContentsForTesting(text), grpc.Creds(creds))
	if err != nil {
		t.Fatal(err)
	}
	b := serveWith(t, "v1", s, ports.One())
	p.write("echo.yaml", echo(b))
	as := func(account string) credentials.TransportCredentials {
		paths := files(account, account)
		pair, err := tls.LoadX509KeyPair(paths["certificate_file"], paths["private_key_file"])
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca.PEM())
		return credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "echo"})
	}
	direct := func(creds credentials.TransportCredentials) *channel {
		conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", b.port), grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return &channel{ClientConn: conn, t: t}
	}
	plain, anna, paul := direct(insecure.NewCredentials()), direct(as("anna")), direct(as("paul"))
	ctx := context.Background()
	t.Run("PO-002 PERMISSIVE is plain text", func(*testing.T) { plain.untilCode(ctx, codes.OK) })
	p.write("strict.yaml", policies("PeerAuthentication", "p", "mtls: {mode: STRICT}"))
	t.Run("PO-002 STRICT takes no plain text", func(*testing.T) {
		anna.untilCode(ctx, codes.OK)
		plain.untilCode(ctx, codes.Unavailable)
	})
	p.write("policies.yaml", policies("AuthorizationPolicy", "p", `rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/anna]}}]}]`))
	t.Run("PO-022 a principal is allowed, another is not", func(*testing.T) {
		paul.untilCode(ctx, codes.PermissionDenied)
		anna.untilCode(ctx, codes.OK)
	})
}
