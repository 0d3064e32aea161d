package compile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/samples/testca"
)

// pair makes a self-signed certificate and its key.
func pair(t *testing.T, notAfter time.Time) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"test"},
		NotBefore: notAfter.Add(-24 * time.Hour), NotAfter: notAfter, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// revoked makes a list that revokes nothing.
func revoked(t *testing.T) []byte {
	t.Helper()
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	list, err := ca.Revoke()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func secretObj(name string, data map[string][]byte) *config.Config {
	return &config.Config{Key: config.Key{Kind: config.Secret, Namespace: "gw", Name: name}, Spec: &corev1.Secret{Data: data}}
}

func TestSecret(t *testing.T) {
	later := time.Now().Add(time.Hour)
	cert, key := pair(t, later)
	cert2, key2 := pair(t, later)
	crl := revoked(t)
	objects := []*config.Config{
		secretObj("tls", map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": cert2, "ca.crl": crl, "tls.ocsp-staple": []byte("staple")}),
		secretObj("generic", map[string][]byte{"cert": cert, "key": key, "cacert": cert2, "crl": crl}),
		secretObj("separate", map[string][]byte{"cert": cert, "key": key}),
		secretObj("separate-cacert", map[string][]byte{"ca.crt": cert2}),
		secretObj("mismatch", map[string][]byte{"tls.crt": cert, "tls.key": key2}),
		secretObj("nokey", map[string][]byte{"tls.crt": cert}),
		secretObj("nocert", map[string][]byte{"key": key}),
		secretObj("garbage", map[string][]byte{"tls.crt": []byte("hunter2"), "tls.key": key}),
		secretObj("garbagekey", map[string][]byte{"tls.crt": cert, "tls.key": []byte("hunter2")}),
		secretObj("badca", map[string][]byte{"ca.crt": []byte("hunter2")}),
		secretObj("badcrl", map[string][]byte{"ca.crt": cert2, "ca.crl": []byte("hunter2")}),
		secretObj("halfcrl", map[string][]byte{"cacert": cert2, "crl": bytes.Replace(crl, []byte("MI"), []byte("AB"), 1)}),
		secretObj("nocrl", map[string][]byte{"cacert": cert2, "crl": cert}),
		secretObj("other", map[string][]byte{"password": []byte("hunter2")}),
		secretObj("huge", map[string][]byte{"tls.crt": bytes.Repeat([]byte("x"), maxPEM+1), "tls.key": key}),
		{Key: config.Key{Kind: config.Secret, Namespace: "gw", Name: "text"}, Spec: &corev1.Secret{StringData: map[string]string{"tls.crt": string(cert), "tls.key": string(key)}}},
		{Key: config.Key{Kind: config.ConfigMap, Namespace: "gw", Name: "roots"}, Spec: &corev1.ConfigMap{Data: map[string]string{"ca.crt": string(cert2)}}},
	}
	s := mesh.Build(config.NewSet(1, objects), mesh.Options{})
	own := &mesh.Proxy{Name: "ingress", Namespace: "gw"}
	stranger := &mesh.Proxy{Name: "thief", Namespace: "default"}
	for _, tc := range []struct {
		name  string
		proxy *mesh.Proxy
		ask   string
		want  ir.Secret // zero: an error
		err   string
	}{
		{"SX-009 kubernetes.io/tls", own, "kubernetes://tls", ir.Secret{Certificate: cert, Key: key, OCSPStaple: []byte("staple")}, ""},
		{"SX-009 kubernetes.io/tls, authorities", own, "kubernetes://tls-cacert", ir.Secret{CA: cert2, CRL: crl}, ""},
		{"SX-009 generic", own, "kubernetes://generic", ir.Secret{Certificate: cert, Key: key}, ""},
		{"SX-009 generic, authorities", own, "kubernetes://generic-cacert", ir.Secret{CA: cert2, CRL: crl}, ""},
		{"SX-009 authorities in a Secret of their own", own, "kubernetes://separate-cacert", ir.Secret{CA: cert2}, ""},
		{"entries written as text", own, "kubernetes://text", ir.Secret{Certificate: cert, Key: key}, ""},
		{"with a namespace", own, "kubernetes://gw/tls", ir.Secret{Certificate: cert, Key: key, OCSPStaple: []byte("staple")}, ""},
		{"Gateway API name", own, "kubernetes-gateway://gw/separate", ir.Secret{Certificate: cert, Key: key}, ""},
		{"ConfigMap with authorities", own, "configmap://gw/roots", ir.Secret{CA: cert2}, ""},
		{"ConfigMap asked as authorities", own, "configmap://roots-cacert", ir.Secret{CA: cert2}, ""},

		{"GW-014 missing", own, "kubernetes://absent", ir.Secret{}, "Secret gw/absent: not found"},
		{"GW-014 certificate and key do not belong together", own, "kubernetes://mismatch", ir.Secret{}, "Secret gw/mismatch: tls.crt and tls.key do not make a key pair"},
		{"no key", own, "kubernetes://nokey", ir.Secret{}, "Secret gw/nokey: tls.key is missing"},
		{"no certificate", own, "kubernetes://nocert", ir.Secret{}, "Secret gw/nocert: cert is missing"},
		{"not PEM", own, "kubernetes://garbage", ir.Secret{}, "Secret gw/garbage: tls.crt is not PEM"},
		{"key not PEM", own, "kubernetes://garbagekey", ir.Secret{}, "Secret gw/garbagekey: tls.key is not PEM"},
		{"authorities not PEM", own, "kubernetes://badca-cacert", ir.Secret{}, "Secret gw/badca: ca.crt: holds no certificate in PEM form"},
		{"GW-018 a list of revoked ones that is not PEM", own, "kubernetes://badcrl-cacert", ir.Secret{}, "Secret gw/badcrl: ca.crl: holds no X509 CRL in PEM form"},
		{"GW-018 one that is damaged", own, "kubernetes://halfcrl-cacert", ir.Secret{}, "Secret gw/halfcrl: crl: x509: malformed crl"},
		{"GW-018 something else in its place", own, "kubernetes://nocrl-cacert", ir.Secret{}, "Secret gw/nocrl: crl: holds no X509 CRL in PEM form"},
		{"none of the layouts", own, "kubernetes://other", ir.Secret{}, "Secret gw/other: has neither tls.crt and tls.key nor cert and key"},
		{"no authorities", own, "kubernetes://separate2-cacert", ir.Secret{}, "Secret gw/separate2-cacert: not found, nor is separate2"},
		{"too large", own, "kubernetes://huge", ir.Secret{}, "Secret gw/huge: tls.crt or tls.key is larger than 1048576 bytes"},
		{"GW-014 only for proxies of the Secret's namespace", stranger, "kubernetes://gw/tls", ir.Secret{}, "may use secrets of its own namespace only"},
		{"own namespace by default", stranger, "kubernetes://tls", ir.Secret{}, "Secret default/tls: not found"},
		{"ConfigMap missing", own, "configmap://absent", ir.Secret{}, "ConfigMap gw/absent: not found"},
		{"Gateway API name without namespace", own, "kubernetes-gateway://tls", ir.Secret{}, "want kubernetes-gateway://namespace/name"},
		{"of the workload's identity", own, "default", ir.Secret{}, "not a name that the control plane serves"},
		{"too many parts", own, "kubernetes://a/b/c", ir.Secret{}, "want kubernetes://namespace/name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Secret(s, tc.proxy, tc.ask)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				if strings.Contains(err.Error(), "hunter2") {
					t.Error("the error shows what is in the secret")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			tc.want.Name = tc.ask
			if !bytes.Equal(got.Certificate, tc.want.Certificate) || !bytes.Equal(got.Key, tc.want.Key) || got.Name != tc.want.Name ||
				!bytes.Equal(got.CA, tc.want.CA) || !bytes.Equal(got.CRL, tc.want.CRL) || !bytes.Equal(got.OCSPStaple, tc.want.OCSPStaple) {
				t.Error("got other material than the object holds")
			}
			if err := envoy.Secret(*got).Validate(); err != nil {
				t.Error(err)
			}
			for _, text := range []string{fmt.Sprint(*got), fmt.Sprintf("%+v", got), fmt.Sprintf("%#v", *got)} {
				if strings.Contains(text, "PRIVATE") || len(text) > 200 {
					t.Errorf("printing shows material: %.60s", text)
				}
			}
		})
	}
}

func TestSecretExpired(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name     string
		notAfter time.Time // valid for one day before
		want     string
	}{
		{"valid", now.Add(time.Hour), ""},
		{"expired", now.Add(-time.Hour), "certificate expired on 2026-01-01T23:00:00Z"},
		{"not yet valid", now.Add(48 * time.Hour), "certificate is not valid before 2026-01-03T00:00:00Z"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cert, key := pair(t, tc.notAfter)
			err := SecretExpired(&ir.Secret{Name: "kubernetes://x", Certificate: cert, Key: key}, now)
			if got := fmt.Sprint(err); tc.want == "" && err != nil || !strings.Contains(got, tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if err := SecretExpired(&ir.Secret{CA: []byte("x")}, now); err != nil {
		t.Errorf("authorities only: %v", err)
	}
}

func FuzzSecretName(f *testing.F) {
	for _, name := range []string{"kubernetes://a", "kubernetes://a/b-cacert", "kubernetes-gateway://a/b", "configmap://a/b", "default", "kubernetes:///", "kubernetes://a/"} {
		f.Add(name)
	}
	s := mesh.Build(config.NewSet(1, nil), mesh.Options{})
	f.Fuzz(func(t *testing.T, name string) {
		if got, err := Secret(s, &mesh.Proxy{Namespace: "gw"}, name); err == nil {
			t.Errorf("%q: got %v out of nothing", name, got)
		}
	})
}

func FuzzClusterName(f *testing.F) {
	for _, name := range []string{"outbound|80|v1|host", "outbound_.80_._.host", "inbound|80||", "outbound|x||h", "outbound|99999||h", "|||"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		host, subset, port, ok := parseClusterName(name)
		if !ok {
			return
		}
		naming := clusterName
		if isSNICluster(name) {
			naming = sniCluster
		}
		again, againSubset, againPort, ok := parseClusterName(naming(host, subset, port))
		if !ok || again != host || againSubset != subset || againPort != port {
			t.Errorf("%q is read as %q %q %d, which spells %q", name, host, subset, port, naming(host, subset, port))
		}
	})
}
