package kube

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MayReadSecrets is why a service account may not list the Secrets of a namespace, "" if it may.
// An error is that the API cannot be asked, or may not be by us.
func (s *Source) MayReadSecrets(ctx context.Context, account, namespace string) (string, error) {
	review := authorizationv1.SubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: authorizationv1.SchemeGroupVersion.String(), Kind: "SubjectAccessReview"},
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: account, Groups: accountGroups(account),
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "list", Resource: "secrets"},
		},
	}
	var answer authorizationv1.SubjectAccessReview
	if err := s.client.do(ctx, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review, &answer); err != nil {
		return "", fmt.Errorf("review of what %s may read: %w", account, err)
	}
	st := answer.Status
	if st.Allowed {
		return "", nil
	}
	return cmp.Or(st.Reason, st.EvaluationError, "no Role allows it"), nil
}

// accountGroups are those that Kubernetes has every service account in.
func accountGroups(account string) []string {
	groups := []string{"system:serviceaccounts", "system:authenticated"}
	if parts := strings.Split(account, ":"); len(parts) == 4 {
		groups = append(groups, "system:serviceaccounts:"+parts[2])
	}
	return groups
}
