package kube

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/logging"
)

// TestSign has a signer of the API sign a CSR: the object is made, approved, and gone in the end.
func TestSign(t *testing.T) {
	for _, tt := range []struct {
		name string
		as   func(*certificatesv1.CertificateSigningRequest)
		want string
	}{
		{"signed", func(o *certificatesv1.CertificateSigningRequest) { o.Status.Certificate = []byte("chain") }, ""},
		{"refused", func(o *certificatesv1.CertificateSigningRequest) {
			o.Status.Conditions = append(o.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateFailed, Message: "not for you"})
		}, "signer example.com/mesh: Failed: not for you"},
	} {
		t.Run("SX-007 "+tt.name, func(t *testing.T) {
			var mu sync.Mutex
			var o *certificatesv1.CertificateSigningRequest
			var steps []string
			dir, err := os.MkdirTemp("", "sign")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			l, err := net.Listen("unix", filepath.Join(dir, "s"))
			if err != nil {
				t.Fatal(err)
			}
			api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				steps = append(steps, r.Method+" "+strings.TrimPrefix(r.URL.Path, requestsPath))
				switch r.Method {
				case http.MethodPost, http.MethodPut:
					o = &certificatesv1.CertificateSigningRequest{}
					if err := json.NewDecoder(r.Body).Decode(o); err != nil {
						t.Error(err)
					}
					o.Name = "csr-1"
					if r.Method == http.MethodPut && (len(o.Status.Conditions) != 1 || o.Status.Conditions[0].Type != certificatesv1.CertificateApproved) {
						t.Errorf("approval: %+v", o.Status)
					}
				case http.MethodGet:
					tt.as(o)
				}
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(o)
			}))
			api.Listener.Close()
			api.Listener = l
			api.Start()
			defer api.Close()
			log, err := logging.New(logging.Options{Output: t.Output()})
			if err != nil {
				t.Fatal(err)
			}
			s, err := New(config.NewStore(), Options{Connection: Connection{Socket: filepath.Join(dir, "s")}, RootNamespace: "istio-system", Log: log.Scope("kube")})
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Sign(t.Context(), "example.com/mesh", []byte("request"), time.Hour)
			if tt.want == "" && (err != nil || string(got) != "chain") || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%s, %v; want %q", got, err, tt.want)
			}
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(steps, ", "); got != "POST , PUT /csr-1/approval, GET /csr-1, DELETE /csr-1" {
				t.Errorf("steps %s", got)
			}
			if o.Spec.SignerName != "example.com/mesh" || string(o.Spec.Request) != "request" || *o.Spec.ExpirationSeconds != 3600 || len(o.Spec.Usages) != 4 {
				t.Errorf("%+v", o.Spec)
			}
		})
	}
}
