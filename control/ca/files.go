package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Files are an authority in PEM, by the names that the original gives them in a directory, or
// in the Secrets cacerts and istio-ca-secret.
type Files map[string][]byte

// Names of Files. A Secret of type kubernetes.io/tls has other names for the first three.
const (
	CertFile  = "ca-cert.pem"    // whose key signs
	KeyFile   = "ca-key.pem"     // that key
	RootFile  = "root-cert.pem"  // all that are trusted
	ChainFile = "cert-chain.pem" // from ca-cert.pem up to a root
)

const (
	certificateType = "CERTIFICATE"
	maxFile         = 256 << 10 // bytes
	maxRoots        = 100
	maxChain        = 10
	minRSA, maxRSA  = 2048, 8192 // bits
)

func (f Files) equal(other Files) bool { return maps.EqualFunc(f, other, bytes.Equal) }

// named gives the files of a Secret of type kubernetes.io/tls their usual names.
func (f Files) named() Files {
	if f[KeyFile] != nil || f["tls.key"] == nil {
		return f
	}
	return Files{CertFile: f["tls.crt"], KeyFile: f["tls.key"], RootFile: f["ca.crt"], ChainFile: f["tls.crt"]}
}

// Material is what an Authority works with. It does not change.
type Material struct {
	Certificate *x509.Certificate   // whose key signs
	Chain       []*x509.Certificate // from Certificate to below a root; empty where it is a root itself
	Roots       []*x509.Certificate // that the mesh trusts; Certificate's own is among them
	key         crypto.Signer
	root        *x509.Certificate // that Certificate leads to
	bundle      []byte            // the roots
	pool        *x509.CertPool
	files       Files
}

// Parse reads and judges files: the key must be the certificate's, and that one may sign and
// leads to one of the roots at the time now.
func Parse(all Files, now time.Time) (*Material, error) {
	f := all.named()
	own, err := certificates(f, CertFile)
	if err != nil {
		return nil, err
	}
	if len(own) == 0 {
		return nil, fmt.Errorf("%s holds no certificate", CertFile)
	}
	m := &Material{Certificate: own[0], pool: x509.NewCertPool(), files: all}
	if m.key, err = parseKey(f[KeyFile]); err != nil {
		return nil, fmt.Errorf("%s: %w", KeyFile, err)
	}
	if public, ok := m.key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(m.Certificate.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", KeyFile, CertFile)
	}
	if !m.Certificate.IsCA || m.Certificate.KeyUsage != 0 && m.Certificate.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("%s may not sign certificates", CertFile)
	}
	if m.Roots, err = certificates(f, RootFile); err != nil {
		return nil, err
	}
	if len(m.Roots) == 0 {
		m.Roots = own[:1]
	}
	chain, err := certificates(f, ChainFile)
	if err != nil {
		return nil, err
	}
	if len(m.Roots) > maxRoots || len(chain) > maxChain {
		return nil, fmt.Errorf("%d roots and a chain of %d: at most %d and %d are read", len(m.Roots), len(chain), maxRoots, maxChain)
	}
	return m, m.link(chain, now)
}

// link finds the way from the certificate to a root.
func (m *Material) link(chain []*x509.Certificate, now time.Time) error {
	for _, c := range m.Roots {
		m.pool.AddCert(c)
		m.bundle = append(m.bundle, encode(c.Raw)...)
	}
	between := x509.NewCertPool()
	for _, c := range chain {
		between.AddCert(c)
	}
	ways, err := m.Certificate.Verify(x509.VerifyOptions{Roots: m.pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("%s does not lead to a root of %s: %w", CertFile, RootFile, err)
	}
	top := len(ways[0]) - 1
	m.Chain, m.root = slices.Clone(ways[0][:top]), ways[0][top]
	return nil
}

// certificates are those of a file, which may be absent.
func certificates(f Files, name string) ([]*x509.Certificate, error) {
	text := f[name]
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", name, len(text), maxFile)
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != certificateType {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s, certificate %d: %w", name, len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 && len(bytes.TrimSpace(text)) > 0 {
		return nil, fmt.Errorf("%s holds no PEM block %s", name, certificateType)
	}
	return all, nil
}

var errNoKey = errors.New("holds no PEM block of a private key")

func parseKey(text []byte) (crypto.Signer, error) {
	if len(text) > maxFile {
		return nil, errNoKey
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		default: // parameters of a curve
			continue
		}
		if err != nil {
			return nil, errors.New("the private key cannot be read") // what x509 says may have bytes of it
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, errors.New("the private key is of a kind that does not sign")
		}
		return signer, checkKey(signer.Public())
	}
	return nil, errNoKey
}

// checkKey refuses public keys that are weak, or that proxies cannot use.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return fmt.Errorf("an ECDSA key of curve %s: P-256 and P-384 are possible", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("an RSA key of %d bits: %d to %d are possible", n, minRSA, maxRSA)
		}
		if k.E < 3 || k.E%2 == 0 {
			return errors.New("an RSA key with a bad exponent")
		}
	default:
		return fmt.Errorf("a key of kind %T: ECDSA and RSA are possible", key)
	}
	return nil
}

// ReadDirectory reads the authority that an operator has put into a directory; nil without
// ca-key.pem or tls.key there.
func ReadDirectory(dir string) (Files, error) {
	f := Files{}
	for _, name := range []string{CertFile, KeyFile, RootFile, ChainFile, "tls.crt", "tls.key", "ca.crt"} {
		text, err := readFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f[name] = text
	}
	if f[KeyFile] == nil && f["tls.key"] == nil {
		return nil, nil
	}
	return f, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}

// KeepFile reads the authority that is kept in one file. Where there is none, what made returns
// is kept there, for its owner only.
func KeepFile(path string, made func() (Files, error)) (Files, error) {
	text, err := readFile(path)
	if err == nil {
		return unpack(text), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := made()
	if err != nil {
		return nil, err
	}
	return f, writeFile(path, f)
}

// ChangeFile changes the authority that is kept in a file.
func ChangeFile(path string, change func(Files) (Files, error)) error {
	text, err := readFile(path)
	if err != nil {
		return err
	}
	f, err := change(unpack(text))
	if err != nil {
		return err
	}
	return writeFile(path, f)
}

// writeFile has the file be the one or the other after a crash, never half of either.
func writeFile(path string, f Files) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	next, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = next.Write(pack(f))
	if err = errors.Join(err, next.Sync(), next.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// partPrefix begins the line with the name of what follows, in the one file.
const partPrefix = "# "

func pack(f Files) []byte {
	var out bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(f)) {
		fmt.Fprintf(&out, "%s%s\n%s\n", partPrefix, name, bytes.TrimRight(f[name], "\n"))
	}
	return out.Bytes()
}

// unpack also takes a text without names: the first certificate is the authority's own, others
// are roots.
func unpack(text []byte) Files {
	f, name := Files{}, ""
	for line := range bytes.Lines(text) {
		if named, ok := bytes.CutPrefix(line, []byte(partPrefix)); ok {
			name = string(bytes.TrimSpace(named))
		} else if name != "" {
			f[name] = append(f[name], line...)
		}
	}
	if name != "" {
		return f
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		name := RootFile
		switch {
		case block.Type != certificateType:
			name = KeyFile
		case f[CertFile] == nil:
			name = CertFile
		}
		f[name] = append(f[name], pem.EncodeToMemory(block)...)
	}
	return f
}
