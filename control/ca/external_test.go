package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/spiffe"
)

// requestFor is a CSR in PEM.
func requestFor(t *testing.T, key crypto.Signer, dns []string, ids ...string) []byte {
	t.Helper()
	template := &x509.CertificateRequest{DNSNames: dns}
	for _, id := range ids {
		template.URIs = append(template.URIs, must[*url.URL](t)(url.Parse(id)))
	}
	raw := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, template, key))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw})
}

func TestExternal(t *testing.T) {
	root := newTestRoot(t, RootOptions{})
	between, _ := under(t, root, true)
	signer := newAuthority(t, between, nil)
	stranger := newAuthority(t, newTestRoot(t, RootOptions{}), nil)
	key := ecKey(t)
	// by signs as an authority outside does.
	by := func(a *Authority, key crypto.Signer, who Account, withRoot bool) []byte {
		r := must[*Request](t)(ParseRequest(csrFor(t, key)))
		chain := must[[]string](t)(a.Issue(r, who, time.Hour))
		if !withRoot {
			chain = chain[:len(chain)-1]
		}
		return []byte(strings.Join(chain, ""))
	}
	good := requestFor(t, key, nil, sleeperURI)
	for _, tt := range []struct {
		name    string
		request []byte
		answer  []byte
		roots   []byte
		err     error
		want    string
	}{
		{"its root is in the mesh configuration", good, by(signer, key, sleeper, false), root[RootFile], nil, ""},
		{"its root comes with the answer", good, by(signer, key, sleeper, true), nil, nil, ""},
		{"its root is not known", good, by(signer, key, sleeper, false), nil, nil, "no root is known of it"},
		{"another root", good, by(stranger, key, sleeper, true), root[RootFile], nil, "unknown authority"},
		{"another's key", good, by(signer, ecKey(t), sleeper, true), nil, nil, "it is for another key"},
		{"another's identity", good, by(signer, key, Account{"default", "admin"}, true), nil, nil, "sa/admin], not for " + sleeperURI},
		{"nothing", good, nil, nil, nil, "it has 0 certificates"},
		{"it refuses", good, nil, nil, errors.New("denied"), "the external authority: denied"},
		{"a CSR for another", requestFor(t, key, nil, "spiffe://cluster.local/ns/istio-system/sa/istiod"), nil, nil, nil, "the CSR asks for"},
		{"a CSR for a name more", requestFor(t, key, []string{"istiod"}, sleeperURI), nil, nil, nil, "the CSR asks for"},
		{"a CSR for two", requestFor(t, key, nil, sleeperURI, sleeperURI), nil, nil, nil, "the CSR asks for"},
		{"a CSR for nobody", requestFor(t, key, nil), nil, nil, nil, "the CSR asks for"},
	} {
		t.Run("SX-007 "+tt.name, func(t *testing.T) {
			asked := false
			a := newAuthority(t, newTestRoot(t, RootOptions{}), func(o *Options) {
				o.External = &External{Roots: func() []byte { return tt.roots }, Sign: func(_ context.Context, request []byte, life time.Duration) ([]byte, error) {
					asked = true
					if string(request) != string(tt.request) || life != time.Hour {
						t.Errorf("it is asked for %s, for %s", request, life)
					}
					return tt.answer, tt.err
				}}
			})
			answer, err := a.issue(t.Context(), must[*Request](t)(ParseRequest(tt.request)), sleeper, time.Hour)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %q", err, tt.want)
				}
				if strings.HasPrefix(tt.want, "the CSR") && asked {
					t.Error("the external authority is asked")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(answer) != 3 || answer[2] != string(root[RootFile]) {
				t.Errorf("%d parts, roots %s", len(answer), answer[len(answer)-1])
			}
		})
	}
	if id := (spiffe.ID{TrustDomain: "cluster.local", Namespace: sleeper.Namespace, ServiceAccount: sleeper.Name}); id.String() != sleeperURI {
		t.Error(id)
	}
}
