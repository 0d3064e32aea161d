package analyze

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reportedConditions are the conditions of the mesh's own that say, when false, that
// something does not work; others on the same objects are other programs'.
func reportedConditions() map[kind][]string {
	route := []string{"Accepted", "ResolvedRefs"}
	return map[kind][]string{
		service:             {"istio.io/WaypointBound"},
		serviceEntry:        {"istio.io/WaypointBound"},
		authorizationPolicy: {"ZtunnelAccepted", "WaypointAccepted"},
		kubernetesGateway:   {"Accepted", "Programmed"},
		httpRoute:           route,
		grpcRoute:           route,
	}
}

// conditions finds what controllers have said of objects that they could not serve.
func conditions(p *pass) {
	for k, names := range reportedConditions() {
		for _, o := range p.list(k) {
			all := slices.Clone(o.status.Conditions)
			for _, parent := range o.status.Parents {
				all = append(all, parent.Conditions...)
			}
			for _, c := range all {
				partly := c.Type == "WaypointAccepted" && c.Reason == "PartiallyInvalid"
				if slices.Contains(names, c.Type) && (c.Status == metav1.ConditionFalse || partly) {
					p.report(o, "status", NegativeConditionStatus, c.Type, c.Reason, c.Message)
				}
			}
		}
	}
}
