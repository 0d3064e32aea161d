package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lateen-mesh/lateen/control/ca"
	"github.com/lateen-mesh/lateen/spiffe"
)

// rotating is an authority that changes its root.
func rotating(t *testing.T) *authority {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	root := func() (ca.Files, error) {
		return ca.NewRoot(ca.RootOptions{TrustDomain: "cluster.local", Now: time.Now()})
	}
	return newAuthorityOf(t, ca.Options{
		Load: func(context.Context, ca.Files) (ca.Files, error) { return ca.KeepFile(path, root) },
		Store: func(_ context.Context, change func(ca.Files) (ca.Files, error)) error {
			return ca.ChangeFile(path, change)
		}, NewRoot: root,
	})
}

func (a *authority) trust(t *testing.T) *Trust {
	t.Helper()
	roots, signer := a.Trust()
	trust, err := NewTrust([]string{string(roots)}, signer)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// One root takes another's place: what the workload believes and shows at each step.
func TestRotation(t *testing.T) {
	a := rotating(t)
	k := keep(t, Options{Dial: a.dial(0)})
	id := k.next(t)
	first := a.State().Roots[0].Fingerprint
	for _, step := range []struct {
		after  ca.Phase
		roots  int
		signer func() string
	}{
		{ca.Settled, 2, func() string { return first }},
		{ca.Trusting, 2, func() string { return a.State().Roots[1].Fingerprint }},
		{ca.Signing, 1, func() string { return a.State().Roots[0].Fingerprint }},
	} {
		t.Run("SX-002 SX-004 after "+string(step.after), func(t *testing.T) {
			if err := a.Rotate(t.Context(), step.after); err != nil {
				t.Fatal(err)
			}
			trust := a.trust(t)
			if stays := trust.CheckChain(id.Chain) == nil; stays != (step.after != ca.Trusting) {
				t.Errorf("a proof without renewal: %t", stays)
			}
			changed := k.Changed()
			k.Trust(trust)
			for {
				<-changed
				changed = k.Changed()
				var err error
				if id, err = k.Current(); err != nil {
					t.Fatal(err)
				}
				if trust.CheckChain(id.Chain) == nil {
					break
				}
			}
			if err := trust.CheckRoots(id.Roots); err != nil || strings.Count(string(id.Roots), "BEGIN") != step.roots {
				t.Errorf("%v; roots %s", err, id.Roots)
			}
			chain, err := parse(id.Chain)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range trust.roots {
				if leads(chain, c) != (spiffe.Fingerprint(c) == step.signer()) {
					t.Errorf("the certificate leads to %s", spiffe.Fingerprint(c))
				}
			}
		})
	}
}

func TestTrust(t *testing.T) {
	a, other := newAuthority(t, 0), newAuthority(t, 0)
	mine, theirs := issued(t, a.Authority), issued(t, other.Authority)
	both, signer := string(a.Bundle())+string(other.Bundle()), ""
	_, signer = a.Authority.Trust()
	trust, err := NewTrust([]string{both}, signer)
	if err != nil {
		t.Fatal(err)
	}
	if err := trust.CheckRoots(a.Bundle()); err == nil || !strings.Contains(err.Error(), "does not trust the root") {
		t.Errorf("a root is missing: %v", err)
	}
	if err := trust.CheckChain(theirs.Chain); err == nil || !strings.Contains(err.Error(), "which signs now") {
		t.Errorf("a certificate of the root that does not sign: %v", err)
	}
	t.Run("certificates of an authority that the mesh does not speak of stay", func(t *testing.T) {
		only := a.trust(t)
		if err := only.CheckChain(theirs.Chain); err != nil {
			t.Error(err)
		}
		k := New(Options{ID: sleeper})
		k.take(theirs, nil)
		k.Trust(only)
		id, err := k.Current()
		if err != nil || only.CheckRoots(id.Roots) != nil || strings.Count(string(id.Roots), "BEGIN") != 2 {
			t.Errorf("%v; roots %s", err, id.Roots)
		}
	})
	if err := trust.CheckChain(mine.Chain); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		roots  []string
		signer string
		want   string
	}{
		{nil, "", "there are no roots"},
		{[]string{"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"}, "", "roots: x509"},
		{[]string{both}, "0123", "the root 0123 that signs is none of"},
	} {
		if _, err := NewTrust(tt.roots, tt.signer); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

// The authority is away from just before a certificate is renewed until just before it ends, and
// the agent is started again and again meanwhile: there is a certificate all the time.
func TestAwayAndRestarted(t *testing.T) {
	state := filepath.Join(t.TempDir(), "proxy", "identity.json")
	synctest.Test(t, func(t *testing.T) {
		a := ca.New(ca.Options{
			Load: func(context.Context, ca.Files) (ca.Files, error) {
				return ca.NewRoot(ca.RootOptions{TrustDomain: "cluster.local", Now: time.Now()})
			},
			TrustDomain: func() (string, []string) { return "cluster.local", nil },
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = a.Run(ctx) }()
		<-a.Ready()
		first := issued(t, a)
		cancel()
		o := Options{ID: sleeper, State: state, Logger: slog.New(slog.DiscardHandler), Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("connection refused") }}
		k := New(o)
		k.take(first, nil)
		for range 11 {
			ctx, cancel := context.WithCancel(t.Context())
			k := New(o)
			done := make(chan struct{})
			go func() { defer close(done); k.Run(ctx) }()
			for range 5 {
				id, err := k.Current()
				if err != nil || string(id.Key) != string(first.Key) || string(id.Roots) != string(first.Roots) {
					t.Fatalf("EN-055 SX-002 after %s of its hour: %v", time.Since(first.Certificate.Leaf.NotBefore.Add(ca.Skew)), err)
				}
				pool := x509.NewCertPool()
				pool.AppendCertsFromPEM(id.Roots)
				if _, err := k.Shown().Leaf.Verify(x509.VerifyOptions{Roots: pool}); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Minute)
			}
			cancel()
			<-done
		}
		time.Sleep(5 * time.Minute)
		if _, err := New(o).Current(); err == nil {
			t.Error("one that has ended is served")
		}
		if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	})
}

func TestKept(t *testing.T) {
	a := newAuthority(t, 0)
	id := issued(t, a.Authority)
	path := filepath.Join(t.TempDir(), "identity.json")
	if err := id.keep(path); err != nil {
		t.Fatal(err)
	}
	if got, err := readKept(path, sleeper); err != nil || string(got.Chain) != string(id.Chain) {
		t.Error(err)
	}
	if _, err := readKept(path, spiffe.ID{TrustDomain: "cluster.local", Namespace: "other", ServiceAccount: "sleep"}); err == nil || !strings.Contains(err.Error(), "is of spiffe://cluster.local/ns/default/sa/sleep, not of") {
		t.Errorf("of another: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readKept(path, sleeper); err == nil {
		t.Error("a file that others can read is taken")
	}
	if got, err := readKept(path+".no", sleeper); got != nil || err != nil {
		t.Error(err)
	}
}

func FuzzKept(f *testing.F) {
	f.Add([]byte(`{"Chain":"AA==","Key":"AA==","Roots":"AA=="}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if id, err := parseKept(text, sleeper); err == nil && id.Certificate.Leaf == nil {
			t.Error("no certificate and no error")
		}
	})
}
