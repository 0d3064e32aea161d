package identity

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/lateen-mesh/lateen/spiffe"
)

// maxRoots bounds how many roots a Trust has.
const maxRoots = 1000

// A Trust is what the control plane says of the roots of the mesh. It does not change.
type Trust struct {
	roots  []*x509.Certificate
	text   []byte            // the roots in PEM
	signer *x509.Certificate // of roots; nil: nobody says
}

// NewTrust reads roots in PEM. signer is the fingerprint of the one that certificates lead to
// that are issued now, "" for none.
func NewTrust(texts []string, signer string) (*Trust, error) {
	t := &Trust{}
	for _, text := range texts {
		some, err := parse([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("roots: %w", err)
		}
		t.roots = append(t.roots, some...)
		if len(t.roots) > maxRoots {
			return nil, fmt.Errorf("more than %d roots", maxRoots)
		}
	}
	for _, c := range t.roots {
		t.text = append(t.text, encode(c)...)
		if spiffe.Fingerprint(c) == signer {
			t.signer = c
		}
	}
	switch {
	case len(t.roots) == 0:
		return nil, errors.New("there are no roots")
	case signer != "" && t.signer == nil:
		return nil, fmt.Errorf("the root %.16s that signs is none of those that are trusted", signer)
	}
	return t, nil
}

func parse(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func encode(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// CheckRoots is an error that names a root of the mesh that is none of those in PEM.
func (t *Trust) CheckRoots(text []byte) error {
	there, err := parse(text)
	if err != nil {
		return err
	}
	for _, c := range t.roots {
		if !slices.ContainsFunc(there, c.Equal) {
			return fmt.Errorf("the proxy does not trust the root %.16s", spiffe.Fingerprint(c))
		}
	}
	return nil
}

// CheckChain is an error where a certificate, with those between it and a root, leads to a root
// of the mesh that does not sign any more. One of another authority is none of its concern.
func (t *Trust) CheckChain(text []byte) error {
	chain, err := parse(text)
	if err != nil || t.signer == nil || len(chain) == 0 || leads(chain, t.signer) {
		return err
	}
	for _, c := range t.roots {
		if leads(chain, c) {
			return fmt.Errorf("the certificate of the proxy leads to the root %.16s, not to %.16s, which signs now", spiffe.Fingerprint(c), spiffe.Fingerprint(t.signer))
		}
	}
	return nil
}

// leads is whether a root is at the top of a chain. Times are not looked at: clocks may be
// apart.
func leads(chain []*x509.Certificate, root *x509.Certificate) bool {
	top := chain[len(chain)-1]
	return top.Equal(root) || top.CheckSignatureFrom(root) == nil
}

// believed are the roots for others: those of the mesh, and those of the authority's answer that
// the certificate leads to. Where nobody tells of the mesh, all of the answer.
func (id *Identity) believed(t *Trust, more []byte) ([]byte, error) {
	if t == nil {
		return roots(id.answered, more)
	}
	chain, err := parse(id.Chain)
	if err != nil {
		return nil, err
	}
	answered, err := parse(id.answered)
	if err != nil {
		return nil, err
	}
	all := slices.Clone(t.text)
	for _, c := range answered {
		if leads(chain, c) {
			all = append(all, encode(c)...)
		}
	}
	return roots(all, more)
}

// Trust takes what the control plane says of the roots: they are among those of the Identity
// from now on, and a certificate that leads to one that does not sign any more is renewed.
func (k *Keeper) Trust(t *Trust) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trust = t
	if k.current == nil {
		return
	}
	k.put(k.current)
	if t.CheckChain(k.current.Chain) != nil {
		select {
		case k.stray <- struct{}{}:
		default:
		}
	}
}

// strays is whether a certificate leads to a root that does not sign any more.
func (k *Keeper) strays(id *Identity) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trust != nil && k.trust.CheckChain(id.Chain) != nil
}

// Roots are those that are believed, in PEM; nil before they are known.
func (k *Keeper) Roots() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.current != nil:
		return k.current.Roots
	case k.trust != nil:
		return k.trust.text
	}
	return nil
}
