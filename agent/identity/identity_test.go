package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/lateen-mesh/lateen/control/ca"
	"github.com/lateen-mesh/lateen/spiffe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sleeper = spiffe.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "sleep"}

const host = "istiod.istio-system.svc"

// An authority is a real one on TLS; clock is how far its clock is from ours.
type authority struct {
	*ca.Authority
	address string
	stop    func()
}

func newAuthority(t *testing.T, clock time.Duration) *authority {
	t.Helper()
	now := func() time.Time { return time.Now().Add(clock) }
	files, err := ca.NewRoot(ca.RootOptions{TrustDomain: "cluster.local", Now: now()})
	if err != nil {
		t.Fatal(err)
	}
	return newAuthorityOf(t, ca.Options{Load: func(context.Context, ca.Files) (ca.Files, error) { return files, nil }, Now: now})
}

func newAuthorityOf(t *testing.T, o ca.Options) *authority {
	t.Helper()
	o.TrustDomain = func() (string, []string) { return "cluster.local", nil }
	a := ca.New(o)
	callers := &ca.Authenticator{Authority: a, Verifiers: []ca.Verifier{func(_ context.Context, token string) (ca.Account, error) {
		if token != "good" {
			return ca.Account{}, errors.New("no")
		}
		return ca.Account{Namespace: "default", Name: "sleep"}, nil
	}}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(a.TLS([]string{host}))))
	ca.NewService(a, callers, prometheus.NewRegistry()).Register(s)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = a.Run(ctx) })
	running.Go(func() { _ = s.Serve(l) })
	<-a.Ready()
	stop := sync.OnceFunc(func() {
		cancel()
		s.Stop()
		running.Wait()
	})
	t.Cleanup(stop)
	return &authority{a, l.Addr().String(), stop}
}

// dial connects as an agent does, with a clock as the authority's: whether the control plane is
// believed is not what is tested here.
func (a *authority) dial(clock time.Duration) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(a.Bundle())
		d := tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
			Time: func() time.Time { return time.Now().Add(clock) }}}
		return d.DialContext(ctx, "tcp", a.address)
	}
}

func keep(t *testing.T, o Options) *Keeper {
	t.Helper()
	if o.Token == nil {
		o.Token = func() (string, error) { return "good", nil }
	}
	o.ID, o.Authority = sleeper, host
	k := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return k
}

// next waits for a newer Identity.
func (k *Keeper) next(t *testing.T) *Identity {
	t.Helper()
	changed := k.Changed()
	_, _ = k.Current() // asks for it
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		_, err := k.Current()
		t.Fatalf("no newer identity: %v", err)
	}
	id, err := k.Current()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestKeeper(t *testing.T) {
	a := newAuthority(t, 0)
	t.Run("EN-055 SX-002 EN-043 a certificate is issued, written, and renewed before its end", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		k := keep(t, Options{Dial: a.dial(0), Life: 2 * time.Second, Output: dir, Roots: a.Bundle()})
		changed := k.Changed()
		first := k.next(t)
		<-changed
		if first.name() != sleeper.String() || string(first.Roots) != string(a.Bundle()) {
			t.Errorf("it is of %s, roots %s", first.name(), first.Roots)
		}
		second := k.next(t)
		if second == first || string(second.Key) == string(first.Key) {
			t.Error("the key is not a new one")
		}
		for name, want := range map[string][]byte{"key.pem": second.Key, "cert-chain.pem": second.Chain, "root-cert.pem": second.Roots} {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", name, info, err)
			}
			if text, _ := os.ReadFile(filepath.Join(dir, name)); len(want) == 0 || len(text) == 0 {
				t.Errorf("%s is empty", name)
			}
		}
	})
	t.Run("EN-043 RSA keys, and roots beside the authority's", func(t *testing.T) {
		other, err := ca.NewRoot(ca.RootOptions{TrustDomain: "other", Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		id := keep(t, Options{Dial: a.dial(0), RSABits: 2048, Roots: other[ca.RootFile]}).next(t)
		if k, ok := id.Certificate.PrivateKey.(*rsa.PrivateKey); !ok || k.N.BitLen() != 2048 {
			t.Errorf("the key is %T", id.Certificate.PrivateKey)
		}
		if want := string(a.Bundle()) + string(other[ca.RootFile]); string(id.Roots) != want {
			t.Errorf("roots %s", id.Roots)
		}
	})
	t.Run("who has no good token is told why there is nothing", func(t *testing.T) {
		k := keep(t, Options{Dial: a.dial(0), Token: func() (string, error) { return "bad", nil }})
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			_, err := k.Current()
			if strings.Contains(err.Error(), "authentication failure") {
				break
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	})
	t.Run("nothing is asked for before somebody wants it", func(t *testing.T) {
		k := keep(t, Options{Dial: func(context.Context) (net.Conn, error) { t.Error("asked"); return nil, errors.New("no") }})
		if k.Shown() != nil {
			t.Error("there is a certificate")
		}
	})
}

// The authority's clock is apart from the agent's: the certificate is good here all the same, and
// renewed in time.
func TestClocks(t *testing.T) {
	for _, clock := range []time.Duration{-10 * time.Minute, 0, 10 * time.Minute} {
		t.Run("SX-002 the authority's clock is "+clock.String()+" apart", func(t *testing.T) {
			a := newAuthority(t, clock)
			k := keep(t, Options{Dial: a.dial(clock), Life: time.Hour})
			id := k.next(t)
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(id.Roots)
			if _, err := id.Certificate.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Error(err)
			}
			if wait := k.renewal(id); wait < 20*time.Minute || wait > 40*time.Minute {
				t.Errorf("renewed in %s", wait)
			}
		})
	}
}

// While the authority is away the last certificate is kept, until it ends.
func TestAway(t *testing.T) {
	root, err := ca.NewRoot(ca.RootOptions{TrustDomain: "t", Now: time.Now().Add(-30 * 365 * 24 * time.Hour), Life: 60 * 365 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		a := ca.New(ca.Options{
			Load:        func(context.Context, ca.Files) (ca.Files, error) { return root, nil },
			TrustDomain: func() (string, []string) { return "t", nil },
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go func() { _ = a.Run(ctx) }()
		<-a.Ready()
		k := New(Options{ID: sleeper, Logger: slog.New(slog.DiscardHandler), Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("connection refused") }})
		go k.Run(ctx)
		if _, err := k.Current(); err == nil {
			t.Error("there is a certificate before there is one")
		}
		id := issued(t, a)
		k.take(id, nil)
		time.Sleep(50 * time.Minute)
		if got, err := k.Current(); err != nil || string(got.Key) != string(id.Key) || k.Shown() == nil {
			t.Errorf("before its end: %v", err)
		}
		time.Sleep(10 * time.Minute)
		if _, err := k.Current(); err == nil || k.Shown() != nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("after its end: %v", err)
		}
	})
}

// issued is an Identity, without a network.
func issued(t *testing.T, a *ca.Authority) *Identity {
	t.Helper()
	key, chain := answer(t, a)
	id, err := newIdentity(chain, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func answer(t *testing.T, a *ca.Authority) (*ecdsa.PrivateKey, []string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := newRequest(key, sleeper)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ca.ParseRequest(text)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.Issue(r, ca.Account{Namespace: "default", Name: "sleep"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return key, chain
}

func TestAnswers(t *testing.T) {
	a := newAuthority(t, 0)
	key, chain := answer(t, a.Authority)
	other, _ := answer(t, a.Authority)
	_, ended := answer(t, newAuthority(t, -48*time.Hour).Authority)
	for _, tt := range []struct {
		name   string
		answer []string
		key    *ecdsa.PrivateKey
		want   string
	}{
		{"good", chain, key, ""},
		{"nothing", nil, key, "answers with 0 certificates"},
		{"without roots", chain[:1], key, "answers with 1 certificates"},
		{"too many", make([]string, maxChain+1), key, "answers with 21 certificates"},
		{"no PEM", []string{"x", "y"}, key, "the authority's certificate"},
		{"roots that are none", []string{chain[0], "x"}, key, "without roots"},
		{"for another key", chain, other, "private key does not match"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := newIdentity(tt.answer, tt.key, nil)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, %v; want %q", id, err, tt.want)
			}
		})
	}
	if _, err := newIdentity(ended, key, nil); err == nil {
		t.Error("a certificate that has ended is taken")
	}
}

func FuzzRoots(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if all, err := roots(text, text); err == nil && len(all) == 0 {
			t.Error("no roots and no error")
		}
	})
}
