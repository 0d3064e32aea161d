package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Times of a CertificateSigningRequest.
const (
	signTime  = 20 * time.Second
	signLook  = 200 * time.Millisecond
	signLeast = 10 * time.Minute // what the API lets ask for
)

const requestsPath = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

// Sign has a signer of the API sign a CSR in PEM, which is approved here, and returns what it has
// signed. The object is gone afterwards.
func (s *Source) Sign(ctx context.Context, signer string, request []byte, life time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, signTime)
	defer cancel()
	seconds := int32(min(max(life, signLeast), 1<<31*time.Second-time.Second) / time.Second)
	o := &certificatesv1.CertificateSigningRequest{
		TypeMeta:   metav1.TypeMeta{APIVersion: certificatesv1.SchemeGroupVersion.String(), Kind: "CertificateSigningRequest"},
		ObjectMeta: metav1.ObjectMeta{GenerateName: "csr-workload-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: signer, ExpirationSeconds: &seconds,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth, certificatesv1.UsageClientAuth},
		},
	}
	if err := s.client.do(ctx, "POST", requestsPath, o, o); err != nil {
		return nil, fmt.Errorf("a CertificateSigningRequest: %w", err)
	}
	path := requestsPath + "/" + o.Name
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signTime)
		defer cancel()
		if err := s.client.do(ctx, "DELETE", path, nil, nil); err != nil {
			s.log.Warn("a CertificateSigningRequest stays", "name", o.Name, "error", err)
		}
	}()
	o.Status.Conditions = append(o.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Workload", Message: "asked for by a workload of the mesh that is known",
	})
	if err := s.client.do(ctx, "PUT", path+"/approval", o, nil); err != nil {
		return nil, fmt.Errorf("approval of CertificateSigningRequest %s: %w", o.Name, err)
	}
	return s.signed(ctx, path, signer)
}

// signed waits until the signer has signed, or refuses to.
func (s *Source) signed(ctx context.Context, path, signer string) ([]byte, error) {
	again := time.NewTicker(signLook)
	defer again.Stop()
	for {
		var o certificatesv1.CertificateSigningRequest
		if err := s.client.do(ctx, "GET", path, nil, &o); err != nil {
			return nil, err
		}
		for _, c := range o.Status.Conditions {
			if c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed {
				return nil, fmt.Errorf("signer %s: %s: %s", signer, c.Type, c.Message)
			}
		}
		if len(o.Status.Certificate) > 0 {
			return o.Status.Certificate, nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("signer %s has not signed", signer), ctx.Err())
		}
	}
}
