package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"istio.io/api/security/v1alpha1"
)

// A world is a certificate service on TLS, on plain TCP and on a unix socket.
type world struct {
	t                   *testing.T
	a                   *Authority
	join                *JoinTokens
	secure, plain, unix string
}

const host = "istiod.istio-system.svc"

func newWorld(t *testing.T, verifiers ...Verifier) *world {
	t.Helper()
	w := &world{t: t, a: newAuthority(t, newTestRoot(t, RootOptions{}), nil), join: NewJoinTokens(nil)}
	service := NewService(w.a, &Authenticator{Authority: w.a, Verifiers: verifiers, Join: w.join}, prometheus.NewRegistry())
	serve := func(network, address string, o ...grpc.ServerOption) string {
		l := must[net.Listener](t)(net.Listen(network, address))
		s := grpc.NewServer(o...)
		service.Register(s)
		var running sync.WaitGroup
		running.Go(func() { _ = s.Serve(l) })
		t.Cleanup(func() {
			s.Stop()
			running.Wait()
		})
		return l.Addr().String()
	}
	w.secure = serve("tcp", "127.0.0.1:0", grpc.Creds(credentials.NewTLS(w.a.TLS([]string{host}))))
	w.plain = serve("tcp", "127.0.0.1:0")
	w.unix = "unix:" + serve("unix", filepath.Join(t.TempDir(), "s"))
	return w
}

// ask asks for a certificate for a new key, in the identity of istiod.
func (w *world) ask(address, token string, shown *tls.Certificate, metadataFields map[string]any) ([]*x509.Certificate, *ecdsa.PrivateKey, error) {
	w.t.Helper()
	creds := insecure.NewCredentials()
	if address == w.secure {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(w.a.Bundle())
		c := &tls.Config{RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12}
		if shown != nil {
			c.Certificates = []tls.Certificate{*shown}
		}
		creds = credentials.NewTLS(c)
	}
	conn := must[*grpc.ClientConn](w.t)(grpc.NewClient(address, grpc.WithTransportCredentials(creds)))
	defer conn.Close()
	ctx := w.t.Context()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	key := ecKey(w.t)
	fields := must[*structpb.Struct](w.t)(structpb.NewStruct(metadataFields))
	answer, err := v1alpha1.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &v1alpha1.IstioCertificateRequest{Csr: string(csrFor(w.t, key)), Metadata: fields})
	if err != nil {
		return nil, nil, err
	}
	all := must[[]*x509.Certificate](w.t)(certificates(Files{"": []byte(answer.GetCertChain()[0])}, ""))
	return all, key, nil
}

// reviewer stands for an API that knows one token.
func reviewer(_ context.Context, token string) (Account, error) {
	switch token {
	case "good":
		return sleeper, nil
	case "away":
		return Account{}, fmt.Errorf("%w: no answer", ErrAway)
	}
	return Account{}, errors.New("secret reason")
}

func TestService(t *testing.T) {
	w := newWorld(t, reviewer)
	identity := func(t *testing.T, address, token string, shown *tls.Certificate) *tls.Certificate {
		t.Helper()
		all, key, err := w.ask(address, token, shown, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(all[0].URIs) != 1 || all[0].URIs[0].String() != sleeperURI || len(all[0].DNSNames) != 0 {
			t.Errorf("the certificate is of %v %v", all[0].URIs, all[0].DNSNames)
		}
		return &tls.Certificate{Certificate: [][]byte{all[0].Raw}, PrivateKey: key}
	}
	var own *tls.Certificate
	t.Run("EN-055 SX-003 a token is worth its owner's certificate, whatever the CSR says", func(t *testing.T) {
		own = identity(t, w.secure, "good", nil)
		identity(t, w.unix, "good", nil)
	})
	t.Run("SX-003 a certificate is worth the next one", func(t *testing.T) {
		own = identity(t, w.secure, "", own)
		identity(t, w.secure, "", own)
	})
	other := newAuthority(t, newTestRoot(t, RootOptions{}), nil)
	leaf, _ := issue(t, other, ecKey(t), 0)
	stranger := &tls.Certificate{Certificate: [][]byte{leaf[0].Raw}, PrivateKey: nil}
	key := ecKey(t)
	leaf, _ = issue(t, other, key, 0)
	stranger.Certificate[0], stranger.PrivateKey = leaf[0].Raw, key
	for _, tt := range []struct {
		name, address, token string
		shown                *tls.Certificate
		fields               map[string]any
		want                 codes.Code
	}{
		{"SX-020 nobody", w.secure, "", nil, nil, codes.Unauthenticated},
		{"SX-020 a token that nobody made", w.secure, "bad", nil, nil, codes.Unauthenticated},
		{"a bad token beside a good certificate", w.secure, "bad", own, nil, codes.Unauthenticated},
		{"a certificate of another authority", w.secure, "", stranger, nil, codes.Unauthenticated},
		{"a good token beside a certificate of another authority", w.secure, "good", stranger, nil, codes.OK},
		{"who made the token does not answer", w.secure, "away", nil, nil, codes.Unavailable},
		{"a good token in plain text", w.plain, "good", nil, nil, codes.Unauthenticated},
		{"in the name of another", w.secure, "good", nil, map[string]any{"ImpersonatedIdentity": "spiffe://cluster.local/ns/a/sa/b"}, codes.PermissionDenied},
		{"a token that is too long", w.unix, strings.Repeat("x", maxToken+1), nil, nil, codes.Unauthenticated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := w.ask(tt.address, tt.token, tt.shown, tt.fields)
			if status.Code(err) != tt.want || strings.Contains(fmt.Sprint(err), "secret") {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
	t.Run("a join token is worth one certificate, which renews itself", func(t *testing.T) {
		token := must[string](t)(w.join.Make(sleeper, time.Hour))
		first := identity(t, w.secure, token, nil)
		for range 2 {
			if _, _, err := w.ask(w.secure, token, nil, nil); status.Code(err) != codes.Unauthenticated {
				t.Errorf("used again: %v", err)
			}
		}
		identity(t, w.secure, "", first)
	})
	t.Run("of many that use a join token at once one gets the certificate", func(t *testing.T) {
		token := must[string](t)(w.join.Make(sleeper, time.Hour))
		results := make(chan error, 8)
		for range cap(results) {
			go func() {
				_, _, err := w.ask(w.secure, token, nil, nil)
				results <- err
			}()
		}
		got := 0
		for range cap(results) {
			if <-results == nil {
				got++
			}
		}
		if got != 1 {
			t.Errorf("%d certificates", got)
		}
	})
}

func TestJoinTokens(t *testing.T) {
	now := time.Now()
	j := NewJoinTokens(func() time.Time { return now })
	token := must[string](t)(j.Make(sleeper, time.Minute))
	if got, _, err := j.redeem(token); err != nil || got != sleeper {
		t.Errorf("%v, %v", got, err)
	}
	if _, _, err := j.redeem(token[:len(token)-1] + "!"); err == nil {
		t.Error("a token that was never made is good")
	}
	now = now.Add(time.Minute)
	if _, _, err := j.redeem(token); err == nil {
		t.Error("a token is good after its end")
	}
	for _, tt := range []struct {
		account Account
		life    time.Duration
	}{{sleeper, 0}, {sleeper, 25 * time.Hour}, {Account{"a/b", "c"}, time.Minute}, {Account{"a", ""}, time.Minute}} {
		if _, err := j.Make(tt.account, tt.life); err == nil {
			t.Errorf("%v for %s was made", tt.account, tt.life)
		}
	}
}

// token signs claims as an issuer does.
func tokenOf(t *testing.T, key *ecdsa.PrivateKey, header string, c map[string]any) string {
	t.Helper()
	body := must[[]byte](t)(json.Marshal(c))
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func jwksOf(t testing.TB, id string, public crypto.PublicKey) string {
	t.Helper()
	point := must[[]byte](t)(public.(*ecdsa.PublicKey).Bytes())
	part := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	return fmt.Sprintf(`{"keys":[{"kty":"oct","k":"AA"},{"kty":"EC","kid":%q,"crv":"P-256","x":%q,"y":%q}]}`, id, part(point[1:33]), part(point[33:]))
}

func TestJWT(t *testing.T) {
	key := ecKey(t)
	now := time.Unix(1_800_000_000, 0)
	clock := func() time.Time { return now }
	verify := must[Verifier](t)(NewJWT(JWTRule{Issuer: "https://issuer", JWKS: jwksOf(t, "k", key.Public())}, nil, clock))
	good := map[string]any{"iss": "https://issuer", "sub": "system:serviceaccount:default:sleep", "aud": []string{"x", "istio-ca"}, "exp": now.Unix() + 600}
	with := func(name string, value any) map[string]any {
		c := map[string]any{name: value}
		for k, v := range good {
			if k != name {
				c[k] = v
			}
		}
		return c
	}
	const header = `{"alg":"ES256","kid":"k"}`
	signed := tokenOf(t, key, header, good)
	for _, tt := range []struct{ name, token, want string }{
		{"good", signed, ""},
		{"one audience", tokenOf(t, key, header, with("aud", "istio-ca")), ""},
		{"without key ID", tokenOf(t, key, `{"alg":"ES256"}`, good), ""},
		{"expired a moment ago", tokenOf(t, key, header, with("exp", now.Unix()-59)), ""},
		{"expired", tokenOf(t, key, header, with("exp", now.Unix()-61)), "Jwt is expired"},
		{"not yet", tokenOf(t, key, header, with("nbf", now.Unix()+61)), "Jwt not yet valid"},
		{"without end", tokenOf(t, key, header, with("exp", 0)), "no end"},
		{"for others", tokenOf(t, key, header, with("aud", "vault")), `for ["vault"]`},
		{"for nobody", tokenOf(t, key, header, with("aud", []string{})), "not for"},
		{"of a person", tokenOf(t, key, header, with("sub", "alice")), `"alice" is no service account`},
		{"of another key", tokenOf(t, ecKey(t), header, good), "none of the issuer's keys"},
		{"of another key ID", tokenOf(t, key, `{"alg":"ES256","kid":"other"}`, good), "none of the issuer's keys"},
		{"unsigned", tokenOf(t, key, `{"alg":"none"}`, good), ErrForeign.Error()},
		{"of a secret", tokenOf(t, key, `{"alg":"HS256"}`, good), "signed with a secret"},
		{"with what nobody knows", tokenOf(t, key, `{"alg":"ES256","crit":["b64"]}`, good), "critical"},
		{"of another issuer", tokenOf(t, key, header, with("iss", "https://other")), ErrForeign.Error()},
		{"changed", strings.Replace(signed, ".", ".e", 1), ErrForeign.Error()},
		{"no token", "hello", ErrForeign.Error()},
	} {
		t.Run("SX-018 SX-020 "+tt.name, func(t *testing.T) {
			got, err := verify(t.Context(), tt.token)
			if tt.want == "" && (err != nil || got != sleeper) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, %v; want %q", got, err, tt.want)
			}
		})
	}
	t.Run("keys are fetched as the issuer says, and again for one that is new", func(t *testing.T) {
		keys, fetches := jwksOf(t, "k", key.Public()), 0
		fetch := func(_ context.Context, address string, discovery bool) (string, error) {
			if address != "https://issuer/.well-known/openid-configuration" || !discovery {
				t.Errorf("keys from %s, %t", address, discovery)
			}
			fetches++
			return keys, nil
		}
		verify := must[Verifier](t)(NewJWT(JWTRule{Issuer: "https://issuer"}, fetch, clock))
		next := ecKey(t)
		token := func(k *ecdsa.PrivateKey, id string) string {
			return tokenOf(t, k, fmt.Sprintf(`{"alg":"ES256","kid":%q}`, id), good)
		}
		for range 3 {
			if _, err := verify(t.Context(), token(key, "k")); err != nil {
				t.Fatal(err)
			}
		}
		keys = jwksOf(t, "next", next.Public())
		for range 3 {
			if _, err := verify(t.Context(), token(next, "next")); err == nil {
				t.Error("keys were fetched again at once")
			}
		}
		now = now.Add(keysAgain)
		if _, err := verify(t.Context(), token(next, "next")); err != nil || fetches != 2 {
			t.Errorf("%v after %d fetches", err, fetches)
		}
	})
	for _, rule := range []JWTRule{{}, {Issuer: "http://issuer"}, {Issuer: "a", JWKSURI: "file:///etc/passwd"}, {Issuer: "a", JWKS: "{}"}, {Issuer: "a", JWKS: "x"},
		{Issuer: "a", JWKS: `{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`}, {Issuer: "a", JWKS: `{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`}} {
		if _, err := NewJWT(rule, nil, nil); err == nil {
			t.Errorf("%+v is good", rule)
		}
	}
}

func FuzzJWT(f *testing.F) {
	verify := must[Verifier](f)(NewJWT(JWTRule{Issuer: "a", JWKS: jwksOf(f, "k", ecKey(f).Public())}, nil, nil))
	f.Add("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhIiwiYXVkIjoiYiJ9.AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		if account, err := verify(t.Context(), text); err == nil {
			t.Errorf("%q is %v", text, account)
		}
	})
}

func FuzzParse(f *testing.F) {
	root := newTestRoot(f, RootOptions{})
	f.Add(root[CertFile], root[KeyFile], root[RootFile], []byte(nil))
	f.Fuzz(func(t *testing.T, cert, key, roots, chain []byte) {
		m, err := Parse(Files{CertFile: cert, KeyFile: key, RootFile: roots, ChainFile: chain}, time.Now())
		if err == nil && (m.Certificate == nil || len(m.Roots) == 0) {
			t.Error("material without a certificate or a root")
		}
	})
}
