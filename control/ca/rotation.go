package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lateen-mesh/lateen/spiffe"
)

// Names of Files while one root takes another's place.
const (
	NextCertFile = "next-cert.pem" // the root that is trusted already, and signs next
	NextKeyFile  = "next-key.pem"  // its key
	OldFile      = "old-cert.pem"  // the root that signed before, and is trusted still
)

// A Phase is how far one root has taken another's place. Files say themselves which it is, so
// that whoever reads them next goes on where somebody has stopped.
type Phase string

// The phases, in their order; Settled follows Signing.
const (
	Settled  Phase = "settled"  // one root signs, and no other is about to
	Trusting Phase = "trusting" // the next root is trusted, the present one signs
	Signing  Phase = "signing"  // the next root signs, the one before is trusted still
)

// Phase is that of the files.
func (f Files) Phase() Phase {
	switch {
	case len(f[NextKeyFile]) > 0:
		return Trusting
	case len(f[OldFile]) > 0:
		return Signing
	}
	return Settled
}

// next are the files of the phase that follows. made is a new root.
func (f Files) next(made func() (Files, error)) (Files, error) {
	out := maps.Clone(f)
	switch f.Phase() {
	case Settled:
		root, err := made()
		if err != nil {
			return nil, err
		}
		if len(out[RootFile]) == 0 {
			out[RootFile] = f[CertFile]
		}
		out[NextCertFile], out[NextKeyFile] = root[CertFile], root[KeyFile]
		out[RootFile] = slices.Concat(bytes.TrimRight(out[RootFile], "\n"), []byte("\n"), root[CertFile])
	case Trusting:
		out[OldFile], out[CertFile], out[KeyFile] = f[CertFile], f[NextCertFile], f[NextKeyFile]
		for _, name := range []string{NextCertFile, NextKeyFile, ChainFile} { // a root needs no way up to another
			delete(out, name)
		}
	case Signing:
		out[RootFile] = without(f[RootFile], f[OldFile])
		delete(out, OldFile)
	}
	return out, nil
}

// without takes the certificates of some from all.
func without(all, some []byte) (left []byte) {
	gone := map[string]bool{}
	for block, rest := pem.Decode(some); block != nil; block, rest = pem.Decode(rest) {
		gone[string(block.Bytes)] = true
	}
	for block, rest := pem.Decode(all); block != nil; block, rest = pem.Decode(rest) {
		if !gone[string(block.Bytes)] {
			left = append(left, pem.EncodeToMemory(block)...)
		}
	}
	return left
}

// ErrForeignRoot means that an authority is an operator's, who alone changes it.
var ErrForeignRoot = errors.New("the authority is plugged in: who has put it there changes it there")

// Rotate takes the step that follows a phase. It is an error where the files are in another
// phase: somebody else has taken the step, or the one before was not.
func (a *Authority) Rotate(ctx context.Context, from Phase) error {
	if a.o.Store == nil {
		return ErrForeignRoot
	}
	a.rotating.Lock()
	defer a.rotating.Unlock()
	err := a.o.Store(ctx, func(f Files) (Files, error) {
		if f.Phase() != from {
			return nil, fmt.Errorf("the rotation of the root is in phase %q, not %q", f.Phase(), from)
		}
		next, err := f.next(a.o.NewRoot)
		if err != nil {
			return nil, err
		}
		_, err = Parse(next, a.o.Now())
		return next, err
	})
	if err != nil {
		return err
	}
	a.o.Log.Info("rotation of the root", "after", from)
	return a.load(ctx)
}

// A Root is one that the mesh trusts.
type Root struct {
	Fingerprint string    `json:"fingerprint"` // see spiffe.Fingerprint
	Until       time.Time `json:"until"`
	Signs       bool      `json:"signs,omitempty"` // certificates of workloads lead to it
}

// A State is what an authority works with, for people.
type State struct {
	Phase  Phase  `json:"phase"`
	Digest string `json:"digest"` // the same of all control planes that work with the same
	Roots  []Root `json:"roots"`
}

// State is nil before the authority is ready.
func (a *Authority) State() *State {
	m := a.material.Load()
	if m == nil {
		return nil
	}
	s := &State{Phase: m.files.Phase(), Digest: m.digest()}
	for _, c := range m.Roots {
		s.Roots = append(s.Roots, Root{spiffe.Fingerprint(c), c.NotAfter.UTC(), c.Equal(m.root)})
	}
	return s
}

// digest stands for what signs and what is trusted.
func (m *Material) digest() string {
	sum := sha256.Sum256(append(slices.Clone(m.Certificate.Raw), m.bundle...))
	return hex.EncodeToString(sum[:8])
}

// Trust is the roots that the mesh trusts, in PEM, and the fingerprint of that to which
// certificates lead that are issued now; nothing before the authority is ready.
func (a *Authority) Trust() (roots []byte, signer string) {
	m := a.material.Load()
	if m == nil {
		return nil, ""
	}
	return m.bundle, spiffe.Fingerprint(m.root)
}

// renewalShare is the share of a root's life that is left when its successor is made, as the
// original has it (CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE).
const renewalShare = 0.2

// renewRoot takes the step that is due because the root nears its end. A rotation that an
// operator has begun and left is left, too, until then.
func (a *Authority) renewRoot(ctx context.Context) error {
	m := a.material.Load()
	if m == nil || a.o.Store == nil || !m.Certificate.Equal(m.root) || !m.due(a.o.Now(), a.o.DefaultLife, a.jitter, a.o.Proven) {
		return nil
	}
	err := a.Rotate(ctx, m.files.Phase())
	if errors.Is(err, ErrForeignRoot) {
		return nil
	}
	return err
}

// due is whether the next step is. jitter, from 0 to 1, is where in a tenth of the time that is
// left somebody begins. certificate is how long those of workloads live, about: whoever is away
// for that long has none any more.
func (m *Material) due(now time.Time, certificate time.Duration, jitter float64, proven func() bool) bool {
	root := m.Certificate
	share := time.Duration(float64(root.NotAfter.Sub(root.NotBefore)) * renewalShare)
	nears := now.After(root.NotAfter.Add(-share).Add(time.Duration(float64(share) * jitter / 10)))
	switch m.files.Phase() {
	case Settled:
		return nears
	case Trusting:
		next, err := certificates(m.files, NextCertFile)
		if err != nil || len(next) == 0 || !nears {
			return false
		}
		made := next[0].NotBefore.Add(Skew)
		return !now.Before(made.Add(min(certificate, root.NotAfter.Sub(made)/2))) && (proven == nil || proven())
	case Signing:
		old, err := certificates(m.files, OldFile)
		return err == nil && len(old) > 0 && now.After(old[0].NotAfter)
	}
	return false
}
