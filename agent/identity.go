package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	meshpb "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/agent/identity"
	"github.com/lateen-mesh/lateen/spiffe"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Files of a pod by which it is known and knows the control plane, and of one that brings its
// certificates along.
const (
	tokenFile    = "/var/run/secrets/tokens/istio-token" //nolint:gosec // a path, no credential
	meshRootFile = "/var/run/secrets/istio/root-cert.pem"
	identityName = "identity.json" // in the agent's own directory
	chainName    = "cert-chain.pem"
	keyName      = "key.pem"
	rootName     = "root-cert.pem"
	systemRoots  = "SYSTEM" // in place of a path
	maxTokenFile = 64 << 10
)

// startIdentity keeps a certificate of the workload, from when somebody wants it.
func (a *agent) startIdentity(ctx context.Context) error {
	if a.pod.env("FILE_MOUNTED_CERTS") == "true" {
		return nil
	}
	o := identity.Options{
		ID:   spiffe.ID{TrustDomain: cmp.Or(a.pod.env("TRUST_DOMAIN"), "cluster.local"), Namespace: a.pod.input.Namespace, ServiceAccount: cmp.Or(a.pod.env("SERVICE_ACCOUNT"), "default")},
		Dial: a.dialAuthority, Authority: hostOf(a.authorityAddress()), Token: a.authorityToken,
		Roots: []byte(strings.Join(a.pod.config.GetCaCertificatesPem(), "\n")), Output: a.pod.env("OUTPUT_CERTS"),
		State: filepath.Join(a.pod.dir, identityName), Logger: a.log.Scope("ca"),
	}
	if err := a.readLife(&o); err != nil {
		return err
	}
	a.identity = identity.New(o)
	a.tasks.Go(func() { a.identity.Run(ctx) })
	return nil
}

// readLife takes what the environment says of keys and lifetimes.
func (a *agent) readLife(o *identity.Options) error {
	if text := a.pod.env("SECRET_TTL"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return fmt.Errorf("environment variable SECRET_TTL: %q is not a duration", text)
		}
		o.Life = d
	}
	for name, target := range map[string]*float64{"SECRET_GRACE_PERIOD_RATIO": &o.Grace, "SECRET_GRACE_PERIOD_RATIO_JITTER": &o.Jitter} {
		text := a.pod.env(name)
		if text == "" {
			continue
		}
		share, err := strconv.ParseFloat(text, 64)
		if err != nil || !(share >= 0 && share < 1) {
			return fmt.Errorf("environment variable %s: %q is no share between 0 and 1", name, text)
		}
		*target = share
	}
	if text := a.pod.env("WORKLOAD_RSA_KEY_SIZE"); text != "" && a.pod.env("ECC_SIGNATURE_ALGORITHM") == "" {
		bits, err := strconv.Atoi(text)
		if err != nil || bits < 2048 || bits > 8192 {
			return fmt.Errorf("environment variable WORKLOAD_RSA_KEY_SIZE: %q is no number of bits from 2048 to 8192", text)
		}
		o.RSABits = bits
	}
	return nil
}

// authorityAddress is where certificates are signed: with the control plane, unless the
// environment says otherwise.
func (a *agent) authorityAddress() string {
	return cmp.Or(a.pod.env("CA_ADDR"), a.pod.config.GetDiscoveryAddress())
}

// dialAuthority connects to the certificate authority; the engine's is behind its socket.
func (a *agent) dialAuthority(ctx context.Context) (net.Conn, error) {
	if network, _ := a.controlPlane(); network == "unix" {
		return a.dialControl(ctx)
	}
	address := a.authorityAddress()
	d := net.Dialer{Control: a.control}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return a.secured(ctx, c, address, a.pod.env("CA_ROOT_CA"))
}

// isSecured is whether an address is spoken to in TLS.
func (a *agent) isSecured(address string) bool {
	_, port, _ := net.SplitHostPort(address)
	return port == "15012" || port != "15010" &&
		(a.pod.config.GetControlPlaneAuthPolicy() == meshpb.AuthenticationPolicy_MUTUAL_TLS || a.pod.env("XDS_ROOT_CA")+a.pod.env("CA_ROOT_CA") != "")
}

// secured speaks TLS on a connection, where the address wants it. The certificate that there is
// is shown: it says who the pod is where it has no token.
func (a *agent) secured(ctx context.Context, c net.Conn, address, rootFile string) (net.Conn, error) {
	if !a.isSecured(address) {
		return c, nil
	}
	config := &tls.Config{ServerName: hostOf(address), MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, GetClientCertificate: a.shown}
	var err error
	if config.RootCAs, err = a.trusted(rootFile); err == nil {
		secure := tls.Client(c, config)
		if err = secure.HandshakeContext(ctx); err == nil {
			return secure, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("TLS to %s: %w", address, err), c.Close())
}

// hostOf is by what name an address must be certified; one that is a number stands for the
// control plane.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if _, number := netip.ParseAddr(host); err != nil || number == nil {
		return "istiod.istio-system.svc"
	}
	return host
}

// trusted are the roots that may certify the control plane; nil are the system's.
func (a *agent) trusted(file string) (*x509.CertPool, error) {
	if file == systemRoots {
		return nil, nil
	}
	own := file == ""
	if dir := a.pod.env("PROV_CERT"); file == "" && dir != "" && exists(filepath.Join(dir, rootName)) {
		file = filepath.Join(dir, rootName)
	}
	text, err := os.ReadFile(cmp.Or(file, meshRootFile))
	if err != nil {
		return nil, fmt.Errorf("roots of the mesh: %w", err)
	}
	pool := x509.NewCertPool()
	if a.identity != nil && own { // newer than the file may be
		pool.AppendCertsFromPEM(a.identity.Roots())
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("roots of the mesh: %s holds no certificate", cmp.Or(file, meshRootFile))
	}
	return pool, nil
}

// shown is the certificate that says who the pod is: its own, or the one that it came with.
func (a *agent) shown(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if a.identity != nil {
		if c := a.identity.Shown(); c != nil {
			return c, nil
		}
	}
	if dir := a.pod.env("PROV_CERT"); dir != "" {
		if c, err := tls.LoadX509KeyPair(filepath.Join(dir, chainName), filepath.Join(dir, keyName)); err == nil && time.Now().Before(c.Leaf.NotAfter) {
			return &c, nil
		}
	}
	return &tls.Certificate{}, nil // none
}

// token is what says to the control plane who the pod is, "" without. A join token is for the
// first certificate, which says so then.
func (a *agent) token() (string, error) {
	network, address := a.controlPlane()
	if network == "unix" || !a.isSecured(address) {
		return "", nil // nobody asks there, or others would read it
	}
	token, err := a.readToken()
	if a.identity != nil && strings.HasPrefix(token, wellknown.JoinTokenPrefix) {
		_, _ = a.identity.Current() // has it asked for, at first
		return "", err
	}
	return token, err
}

// authorityToken is the same for the certificate authority.
func (a *agent) authorityToken() (string, error) {
	if network, _ := a.controlPlane(); network != "unix" && !a.isSecured(a.authorityAddress()) {
		return "", nil
	}
	return a.readToken()
}

func (a *agent) readToken() (string, error) {
	c, _ := a.shown(nil)
	certified := len(c.Certificate) > 0
	if certified && a.pod.env("PROV_CERT") != "" && a.pod.env("USE_TOKEN_FOR_CSR") != "true" {
		return "", nil
	}
	file := cmp.Or(a.f.token, tokenFile)
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil && info.Size() > maxTokenFile {
		err = fmt.Errorf("%s has more than %d bytes", file, maxTokenFile)
	}
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(file)
	token := strings.TrimSpace(string(text))
	if certified && strings.HasPrefix(token, wellknown.JoinTokenPrefix) {
		return "", err
	}
	return token, err
}
