package identity

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/lateen-mesh/lateen/spiffe"
)

// kept is an Identity in a file, from one start of the agent to the next: a proxy that starts
// while the authority is away has a certificate for as long as it is good.
type kept struct{ Chain, Key, Roots, Answered []byte }

// keep writes it as a whole, for its owner only.
func (id *Identity) keep(path string) error {
	text, err := json.Marshal(kept{id.Chain, id.Key, id.Roots, id.answered})
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = os.WriteFile(path+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	return err
}

// readKept is what was kept, nil without.
func readKept(path string, of spiffe.ID) (*Identity, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0 || !info.Mode().IsRegular() || info.Size() > maxAnswer:
		return nil, fmt.Errorf("%s is no file of at most %d bytes for its owner only", path, maxAnswer)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseKept(text, of)
}

var errKept = errors.New("it holds no certificate with its key") // what it says may have bytes of the key

func parseKept(text []byte, of spiffe.ID) (*Identity, error) {
	var k kept
	if json.Unmarshal(text, &k) != nil {
		return nil, errKept
	}
	certificate, err := tls.X509KeyPair(k.Chain, k.Key)
	if err != nil {
		return nil, errKept
	}
	if _, err := roots(k.Roots); err != nil {
		return nil, err
	}
	id := &Identity{Chain: k.Chain, Key: k.Key, Roots: k.Roots, answered: k.Answered, Certificate: certificate}
	switch leaf := certificate.Leaf; {
	case len(leaf.URIs) != 1 || leaf.URIs[0].String() != of.String():
		return nil, fmt.Errorf("the certificate is of %s, not of %s", id.name(), of)
	case !time.Now().Before(leaf.NotAfter):
		return nil, fmt.Errorf("the certificate has ended at %s", leaf.NotAfter.Format(time.RFC3339))
	}
	return id, nil
}
