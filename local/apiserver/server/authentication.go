package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/serviceaccount"

	"github.com/lateen-mesh/lateen/local/apiserver/pki"
)

// issuer names who signs tokens of service accounts, and is the API's own audience,
// both as clusters have it.
const issuer = "https://kubernetes.default.svc.cluster.local"

// newAuthenticator knows three callers: who came by a trusted connection (our own
// parts), who shows a certificate of our authority, and who brings the token of a
// service account. Nobody else has a name here, and so gets 401.
func newAuthenticator(keys *pki.Keys, client kubernetes.Interface) (authenticator.Request, error) {
	public, err := serviceaccount.StaticPublicKeysGetter([]any{keys.ServiceAccount.Public()})
	if err != nil {
		return nil, fmt.Errorf("service accounts: %w", err)
	}
	tokens := serviceaccount.JWTTokenAuthenticator([]string{issuer}, public, authenticator.Audiences{issuer},
		serviceaccount.NewValidator(accounts{client}))
	verify := x509request.DefaultVerifyOptions()
	verify.Roots = keys.Authority
	verify.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return union.New(
		authenticator.RequestFunc(authenticateTrusted),
		x509request.New(verify, x509request.CommonNameUserConversion),
		bearertoken.New(tokens),
	), nil
}

// trustedKey marks the context of requests that came by a trusted connection.
type trustedKey struct{}

func authenticateTrusted(r *http.Request) (*authenticator.Response, bool, error) {
	name, ok := r.Context().Value(trustedKey{}).(string)
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: &user.DefaultInfo{
		Name: name, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated},
	}}, true, nil
}

// accounts looks up what a token is bound to, so that a token ends with its pod,
// secret or account.
type accounts struct{ client kubernetes.Interface }

func (a accounts) GetServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	return a.client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (a accounts) GetPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return a.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (a accounts) GetSecret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return a.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (a accounts) GetNode(ctx context.Context, name string) (*corev1.Node, error) {
	return a.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
}
