package control

import (
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ca"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/logging"
)

func TestRootsOf(t *testing.T) {
	files, err := ca.NewRoot(ca.RootOptions{TrustDomain: "other", Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(files[ca.RootFile])
	root := base64.StdEncoding.EncodeToString(block.Bytes)
	const url = "https://spire.other/bundle"
	for _, tt := range []struct{ name, url, fetched, want, wrong string }{
		{"a bundle", url, `{"keys":[{"use":"jwt-svid","kty":"EC"},{"use":"x509-svid","x5c":["` + root + `"]}],"spiffe_sequence":1}`, string(files[ca.RootFile]), ""},
		{"one that was not fetched", url, "", "", ""},
		{"one without authorities", url, `{"keys":[{"use":"jwt-svid"}]}`, "", "holds no PEM block"},
		{"one of two certificates", url, `{"keys":[{"use":"x509-svid","x5c":["",""]}]}`, "", "keys[0].x5c has 2 certificates"},
		{"one that is none", url, `{"keys":7}`, "", "is not a SPIFFE bundle"},
		{"one that is no certificate", url, `{"keys":[{"use":"x509-svid","x5c":["AA=="]}]}`, "", "x509"},
		{"one in plain text", "http://spire.other/bundle", "", "", "is no address of https"},
	} {
		t.Run("MC-022 "+tt.name, func(t *testing.T) {
			c := &meshconfig.MeshConfig_CertificateData{CertificateData: &meshconfig.MeshConfig_CertificateData_SpiffeBundleUrl{SpiffeBundleUrl: tt.url}}
			got, err := rootsOf(c, mesh.Keys{{URL: url}: tt.fetched})
			if got != tt.want || (tt.wrong == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("%q, %v; want %q", got, err, tt.wrong)
			}
			if _, wanted := bundleSources(&meshconfig.MeshConfig{CaCertificates: []*meshconfig.MeshConfig_CertificateData{c}})[mesh.KeySource{URL: url}]; wanted != (tt.url == url) {
				t.Errorf("it is fetched: %t", wanted)
			}
		})
	}
}

func FuzzRootsOfBundle(f *testing.F) {
	f.Add(`{"keys":[{"use":"x509-svid","x5c":["AA=="]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := rootsOfBundle(text); err == nil && got == "" {
			t.Error("no roots and no error")
		}
	})
}

func TestSigner(t *testing.T) {
	root := func() *meshconfig.MeshConfig_CertificateData_Pem {
		files, err := ca.NewRoot(ca.RootOptions{TrustDomain: "other", Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		return &meshconfig.MeshConfig_CertificateData_Pem{Pem: string(files[ca.RootFile])}
	}
	s := &Server{}
	s.snapshot.Store(&mesh.Snapshot{MeshConfig: &meshconfig.MeshConfig{CaCertificates: []*meshconfig.MeshConfig_CertificateData{
		{CertificateData: root()}, {CertificateData: root(), CertSigners: []string{"example.com/mesh"}}, {CertificateData: root(), CertSigners: []string{"example.com/other"}},
	}}})
	a := &authority{o: AuthorityOptions{Signer: "example.com/mesh"}, server: s}
	all := s.snapshot.Load().MeshConfig.GetCaCertificates()
	if got := string(a.signerRoots()); got != all[0].GetPem()+all[1].GetPem() {
		t.Errorf("MC-022 SX-007 roots %s", got)
	}
	log, err := logging.New(logging.Options{Output: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{SecureGRPC: "127.0.0.1:0", Authority: a.o, Log: log}); err == nil || !strings.Contains(err.Error(), "there is no Kubernetes API that has it") {
		t.Errorf("SX-007 without an API: %v", err)
	}
}
