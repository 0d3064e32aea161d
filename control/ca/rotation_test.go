package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lateen-mesh/lateen/spiffe"
)

// kept is an authority whose files are in a file, which several may share.
func kept(t *testing.T, path string, life time.Duration, change func(*Options)) *Authority {
	t.Helper()
	root := func() (Files, error) {
		return NewRoot(RootOptions{TrustDomain: "cluster.local", Now: time.Now(), Life: life})
	}
	return newAuthority(t, nil, func(o *Options) {
		o.Load = func(context.Context, Files) (Files, error) { return KeepFile(path, root) }
		o.Store = func(_ context.Context, change func(Files) (Files, error)) error { return ChangeFile(path, change) }
		o.NewRoot = root
		if change != nil {
			change(o)
		}
	})
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	a := kept(t, path, 0, nil)
	first := a.State().Roots[0].Fingerprint
	oldLeaf, _ := issue(t, a, ecKey(t), 0)
	var second string
	for _, tt := range []struct {
		from, to  Phase
		roots     int
		signs     func() string
		oldIsGood bool
	}{
		{Settled, Trusting, 2, func() string { return first }, true},
		{Trusting, Signing, 2, func() string { return second }, true},
		{Signing, Settled, 1, func() string { return second }, false},
	} {
		t.Run("SX-004 the root that signs and those that are trusted, after "+string(tt.from), func(t *testing.T) {
			for _, wrong := range []Phase{Settled, Trusting, Signing, ""} {
				if wrong != tt.from {
					if err := a.Rotate(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "is in phase") {
						t.Errorf("a step after %q, from %q: %v", wrong, tt.from, err)
					}
				}
			}
			if err := a.Rotate(t.Context(), tt.from); err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
			a = kept(t, path, 0, nil) // after a restart
			s := a.State()
			if s.Phase != tt.to || len(s.Roots) != tt.roots {
				t.Fatalf("%+v", s)
			}
			if tt.from == Settled {
				second = s.Roots[1].Fingerprint
			}
			if _, signer := a.Trust(); signer != tt.signs() || strings.Count(string(a.Bundle()), "BEGIN") != tt.roots {
				t.Errorf("%s signs, want %s; roots %s", signer, tt.signs(), a.Bundle())
			}
			leaf, chain := issue(t, a, ecKey(t), 0)
			if _, err := a.Verify(leaf); err != nil {
				t.Error(err)
			}
			if chain[len(chain)-1] != string(a.Bundle()) {
				t.Error("the answer has other roots")
			}
			if _, err := a.Verify(oldLeaf); (err == nil) != tt.oldIsGood {
				t.Errorf("a certificate of the old root: %v", err)
			}
			text, err := os.ReadFile(path)
			if err != nil || strings.Count(string(text), "PRIVATE KEY-----\n") != map[Phase]int{Settled: 2, Trusting: 4, Signing: 2}[tt.to] {
				t.Errorf("keys in the file: %v", err)
			}
		})
	}
	t.Run("an operator's authority is the operator's", func(t *testing.T) {
		if err := newAuthority(t, newTestRoot(t, RootOptions{}), nil).Rotate(t.Context(), Settled); err == nil {
			t.Error("it is changed")
		}
	})
}

// A root that nears its end is followed by another in time, with the same overlap.
func TestRootRenewal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	const life = 100 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		var proven atomic.Bool
		a := kept(t, path, life, func(o *Options) { o.DefaultLife, o.Proven = time.Hour, proven.Load })
		a.jitter = 0.5
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		first, _ := a.Trust()
		at := func(what string, want Phase, roots int) {
			t.Helper()
			synctest.Wait()
			if s := a.State(); s.Phase != want || len(s.Roots) != roots {
				t.Errorf("SX-004 %s: %+v, want %s", what, s, want)
			}
		}
		time.Sleep(80 * time.Hour)
		at("before the time", Settled, 1)
		time.Sleep(2 * time.Hour)
		at("with a fifth of its life left, and jitter", Trusting, 2)
		if _, signer := a.Trust(); signer == a.State().Roots[1].Fingerprint {
			t.Error("the next root signs at once")
		}
		time.Sleep(3 * time.Hour)
		at("without proof", Trusting, 2)
		proven.Store(true)
		time.Sleep(2 * reload)
		at("with proof", Signing, 2)
		time.Sleep(14 * time.Hour)
		at("while certificates of the old one may be there", Signing, 2)
		time.Sleep(2 * time.Hour)
		at("when the old one has ended", Settled, 1)
		if now, _ := a.Trust(); bytes.Equal(now, first) {
			t.Error("the root is the old one")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What an operator changes in the directory is in force without a restart.
func TestPluggedInChanges(t *testing.T) {
	dir := t.TempDir()
	root := newTestRoot(t, RootOptions{})
	write := func(f Files) {
		t.Helper()
		for name, text := range f {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	one, _ := under(t, root, true)
	two, _ := under(t, root, true)
	write(one)
	synctest.Test(t, func(t *testing.T) {
		a := New(Options{
			Load: func(context.Context, Files) (Files, error) { return ReadDirectory(dir) }, Now: func() time.Time { return one.notBefore(t).Add(time.Hour) },
			TrustDomain: func() (string, []string) { return "cluster.local", nil },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		<-a.Ready()
		_, signer := a.Trust()
		write(two)
		time.Sleep(2 * reload)
		leaf, _ := issue(t, a, ecKey(t), 0)
		if _, now := a.Trust(); now != signer || !leaf[1].Equal(must[[]*x509.Certificate](t)(certificates(two, CertFile))[0]) {
			t.Error("SX-005 the intermediate is the old one, or the root is another")
		}
		other := newTestRoot(t, RootOptions{Now: a.o.Now()})
		write(Files{RootFile: append(bytes.Clone(two[RootFile]), other[RootFile]...)})
		time.Sleep(2 * reload)
		if s := a.State(); len(s.Roots) != 2 || s.Roots[0].Fingerprint != signer || s.Phase != Settled {
			t.Errorf("SX-005 a root that was added: %+v", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (f Files) notBefore(t *testing.T) time.Time {
	return must[[]*x509.Certificate](t)(certificates(f, CertFile))[0].NotBefore
}

func TestPack(t *testing.T) {
	root := newTestRoot(t, RootOptions{})
	if got := unpack(pack(root)); !got.equal(root) {
		t.Errorf("%s", pack(got))
	}
	plain := append(append(bytes.Clone(root[CertFile]), root[KeyFile]...), root[RootFile]...)
	if got := unpack(plain); !got.equal(root) {
		t.Errorf("without names: %s", pack(got))
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte("# ca-cert.pem\n-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if m, err := Parse(unpack(text), time.Unix(0, 0)); err == nil && spiffe.Fingerprint(m.root) == "" {
			t.Error("no root")
		}
	})
}
