package analyze

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// blockedCIDRs finds control planes that fetch keys for tokens from wherever a
// RequestAuthentication says, their own network included.
func blockedCIDRs(p *pass) {
	var asking []string
	for _, o := range p.list(requestAuthentication) {
		asking = append(asking, o.fullName())
	}
	if len(asking) == 0 {
		return
	}
	for _, o := range of[*appsv1.Deployment](p.Mesh, deployment) {
		if o.labels["app"] == "istiod" && !slices.ContainsFunc(o.spec.Spec.Template.Spec.Containers, restrictsFetching) {
			p.report(o.object, "spec.template.spec", JwksUriFetchUnrestricted, len(asking), shortList(asking))
		}
	}
}

func restrictsFetching(c corev1.Container) bool {
	return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool {
		return e.Name == "BLOCKED_CIDRS_IN_JWKS_URIS" && (e.Value != "" || e.ValueFrom != nil)
	})
}

// shortList names the first of many.
func shortList(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s, and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
