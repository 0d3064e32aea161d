package analyze

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
)

// A credential is a certificate that a server names, as far as it can be read.
type credential struct {
	name string
	leaf *x509.Certificate
}

// servedCertificates finds certificates that clients of their servers refuse: for other
// hosts, or out of time; and servers that want certificates of clients and know no
// authority for them.
func servedCertificates(p *pass) {
	for _, o := range of[*networking.Gateway](p.Mesh, gateway) {
		for i, server := range o.spec.Servers {
			switch server.Tls.GetMode() {
			case networking.ServerTLSSettings_SIMPLE, networking.ServerTLSSettings_MUTUAL, networking.ServerTLSSettings_OPTIONAL_MUTUAL:
				p.judgeServer(o, server, indexed("spec.servers", i))
			}
		}
	}
}

func (p *pass) judgeServer(o item[*networking.Gateway], server *networking.Server, at string) {
	all, complete := p.credentials(o, server, at+".tls")
	for _, c := range all {
		if when := outOfTime(c.leaf, time.Now()); when != "" {
			p.report(o.object, at+".tls", CertificateOutOfTime, short(at)+".tls", c.name, when)
		}
	}
	if !complete || len(all) == 0 {
		return
	}
	var files, names []string
	for _, c := range all {
		files, names = append(files, c.name), append(names, namesOf(c.leaf)...)
	}
	for j, h := range server.Hosts {
		_, host, split := strings.Cut(h, "/")
		if !split {
			host = h
		}
		if !slices.ContainsFunc(all, func(c credential) bool { return fits(c.leaf, host) }) {
			field := indexed(at+".hosts", j)
			p.report(o.object, field, CertificateHostMismatch, short(field), strings.Join(files, ", "), host, listed(names))
		}
	}
}

// credentials are what a server shows. complete is whether all of it could be read: the
// pairs that are none have a message of their own.
func (p *pass) credentials(o item[*networking.Gateway], server *networking.Server, at string) (all []credential, complete bool) {
	named := server.Tls.CredentialNames
	if server.Tls.CredentialName != "" {
		named = append([]string{server.Tls.CredentialName}, named...)
	}
	if len(named) == 0 {
		return p.fileCredential(o, server.Tls, at)
	}
	complete = true
	namespace := o.Namespace
	if workloads := p.gatewayPods(o); len(workloads) > 0 {
		namespace = workloads[0].Namespace
	}
	for _, name := range named {
		found := p.get(secret, namespace, strings.TrimPrefix(name, "kubernetes://"))
		if found == nil {
			complete = false
			continue
		}
		s, ok := found.spec.(*corev1.Secret)
		if !ok || !isPair(s.Data) {
			complete = false
			continue
		}
		p.clientCA(o, server.Tls, s, at)
		all = append(all, credential{"secret " + namespace + "/" + s.Name, leafOf(firstOf(s.Data, corev1.TLSCertKey, "cert"))})
	}
	return all, complete
}

// fileCredential reads the files that a server names, where they are those of this machine.
func (p *pass) fileCredential(o item[*networking.Gateway], t *networking.ServerTLSSettings, at string) (all []credential, complete bool) {
	if p.options.ReadFile == nil || t.ServerCertificate == "" {
		return nil, false
	}
	cert, err := p.options.ReadFile(t.ServerCertificate)
	if err != nil {
		return nil, false
	}
	key, err := p.options.ReadFile(t.PrivateKey)
	if err != nil {
		return nil, false
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		p.report(o.object, at, CertificateKeyMismatch, short(at), t.ServerCertificate, t.PrivateKey, err.Error())
		return nil, false
	}
	return []credential{{t.ServerCertificate, leafOf(cert)}}, true
}

// clientCA reports a server that wants certificates of clients and has no authority for them.
func (p *pass) clientCA(o item[*networking.Gateway], t *networking.ServerTLSSettings, s *corev1.Secret, at string) {
	second := s.Name + "-cacert"
	if t.Mode == networking.ServerTLSSettings_SIMPLE || p.lacking[secret] || t.CaCertificates != "" || t.CaCertCredentialName != "" ||
		len(firstOf(s.Data, "ca.crt", "cacert")) > 0 || p.get(secret, s.Namespace, second) != nil {
		return
	}
	p.report(o.object, at, ClientCANotFound, short(at), t.Mode.String(), s.Namespace+"/"+s.Name, second)
}

// leafOf is the first certificate of a PEM text that is known to hold one.
func leafOf(text []byte) *x509.Certificate {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if leaf, err := x509.ParseCertificate(block.Bytes); err == nil {
			return leaf
		}
	}
	return &x509.Certificate{}
}

// namesOf are the hosts that a certificate is for. Clients take the common name where
// there are no others.
func namesOf(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 && c.Subject.CommonName != "" {
		names = []string{c.Subject.CommonName}
	}
	return names
}

// fits reports whether clients take the certificate for a host of a server. Of a host with
// a wildcard the certificate has to have that wildcard; of all hosts nothing is known.
func fits(c *x509.Certificate, host string) bool {
	if host == "*" {
		return true
	}
	names := namesOf(c)
	if strings.HasPrefix(host, "*") {
		return !strings.HasPrefix(host, "*.") || slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, host) })
	}
	named := &x509.Certificate{DNSNames: c.DNSNames, IPAddresses: c.IPAddresses}
	if len(c.DNSNames)+len(c.IPAddresses) == 0 {
		named.DNSNames = names
	}
	return named.VerifyHostname(host) == nil
}

func outOfTime(c *x509.Certificate, now time.Time) string {
	const day = "2006-01-02 15:04 MST"
	switch {
	case c.NotAfter.IsZero():
		return ""
	case now.After(c.NotAfter):
		return "ended on " + c.NotAfter.Format(day)
	case now.Before(c.NotBefore):
		return "begins on " + c.NotBefore.Format(day)
	}
	return ""
}

// listed is a list of names in words, of many the first.
func listed(names []string) string {
	const most = 5
	names = unique(names)
	switch {
	case len(names) == 0:
		return "no name at all"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// firstOf is the value of the first key that has one.
func firstOf(values map[string][]byte, keys ...string) []byte {
	for _, k := range keys {
		if len(values[k]) > 0 {
			return values[k]
		}
	}
	return nil
}

// short is the path of a field as messages have it, within spec.
func short(field string) string { return strings.TrimPrefix(field, "spec.") }
