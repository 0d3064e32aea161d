package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// What the certificate authority needs of an API: whose a token is, and where its own key is
// kept.

// Secrets of the root namespace with the key of an authority: one that an operator gives the
// mesh, and one that the mesh made. They are none of the mesh's objects.
const (
	PluggedAuthority = "cacerts"
	OwnAuthority     = "istio-ca-secret"
)

// ReviewToken is the user whose token it is, if it is made for one of the audiences; "" if the
// API does not know it, or it has ended. An error is that the API cannot be asked.
func (s *Source) ReviewToken(ctx context.Context, token string, audiences []string) (string, error) {
	review := authenticationv1.TokenReview{
		TypeMeta: metav1.TypeMeta{APIVersion: authenticationv1.SchemeGroupVersion.String(), Kind: "TokenReview"},
		Spec:     authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences},
	}
	var answer authenticationv1.TokenReview
	if err := s.client.do(ctx, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", review, &answer); err != nil {
		return "", fmt.Errorf("review of a token: %w", err)
	}
	st := answer.Status
	// An API that knows no audiences answers none: its tokens are for itself.
	if !st.Authenticated || st.Error != "" || !slices.ContainsFunc(st.Audiences, func(a string) bool { return slices.Contains(audiences, a) }) {
		return "", nil
	}
	return st.User.Username, nil
}

// ReadSecret is the content of a Secret of the root namespace, nil if there is none.
func (s *Source) ReadSecret(ctx context.Context, name string) (map[string][]byte, error) {
	var o corev1.Secret
	err := s.client.do(ctx, "GET", s.secrets()+"/"+name, nil, &o)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the Secret %s/%s: %w", s.options.RootNamespace, name, err)
	}
	if o.Data == nil {
		o.Data = map[string][]byte{}
	}
	return o.Data, nil
}

// KeepSecret is the content of a Secret of the root namespace. Where there is none, what made
// returns is kept there, unless another control plane was first: then it is the other's.
func (s *Source) KeepSecret(ctx context.Context, name string, kind corev1.SecretType, made func() (map[string][]byte, error)) (map[string][]byte, error) {
	data, err := s.ReadSecret(ctx, name)
	if data != nil || err != nil {
		return data, err
	}
	if data, err = made(); err != nil {
		return nil, err
	}
	o := corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: s.options.RootNamespace, Name: name}, Type: kind, Data: maps.Clone(data),
	}
	switch err = s.client.do(ctx, "POST", s.secrets(), o, nil); {
	case apierrors.IsAlreadyExists(err):
		return s.ReadSecret(ctx, name)
	case err != nil:
		return nil, fmt.Errorf("the Secret %s/%s: %w", o.Namespace, name, err)
	}
	return data, nil
}

// ChangeSecret changes the content of a Secret of the root namespace. Where somebody else has
// changed it meanwhile it is an error.
func (s *Source) ChangeSecret(ctx context.Context, name string, change func(map[string][]byte) (map[string][]byte, error)) error {
	var o corev1.Secret
	err := s.client.do(ctx, "GET", s.secrets()+"/"+name, nil, &o)
	if err != nil {
		return fmt.Errorf("the Secret %s/%s: %w", s.options.RootNamespace, name, err)
	}
	if o.Data, err = change(o.Data); err != nil {
		return err
	}
	o.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	if err := s.client.do(ctx, "PUT", s.secrets()+"/"+name, o, nil); err != nil { // with the resourceVersion that was read
		return fmt.Errorf("the Secret %s/%s: %w", s.options.RootNamespace, name, err)
	}
	return nil
}

func (s *Source) secrets() string {
	return "/api/v1/namespaces/" + s.options.RootNamespace + "/secrets"
}

// do makes one request in JSON; from and into may be nil.
func (c *client) do(ctx context.Context, verb, path string, from, into any) error {
	plain, err := c.plain()
	if err != nil {
		return err
	}
	r := plain.Verb(verb).AbsPath(path).SetHeader("Accept", runtime.ContentTypeJSON)
	if from != nil {
		body, err := json.Marshal(from)
		if err != nil {
			return err
		}
		r = r.SetHeader("Content-Type", runtime.ContentTypeJSON).Body(body)
	}
	text, err := r.Do(ctx).Raw()
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(text, into)
}
