package analyze

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"istio.io/api/label"
	apitype "istio.io/api/type/v1beta1"
	"k8s.io/apimachinery/pkg/util/version"
)

// A selecting spec is one that chooses workloads by their labels, or objects by name.
type selecting interface {
	proto.Message
	GetSelector() *apitype.WorkloadSelector
	GetTargetRef() *apitype.PolicyTargetReference
	GetTargetRefs() []*apitype.PolicyTargetReference
}

// ineffectiveSelectors finds policies that select, by labels, pods of a Kubernetes Gateway:
// those take policies that name the Gateway.
func ineffectiveSelectors(p *pass) {
	for _, k := range []kind{authorizationPolicy, requestAuthentication, telemetryPolicy, wasmPlugin} {
		for _, o := range of[selecting](p.Mesh, k) {
			if o.spec.GetSelector() == nil || o.spec.GetTargetRef() != nil || len(o.spec.GetTargetRefs()) > 0 {
				continue
			}
			for _, w := range p.pods() {
				if name := w.labels[label.IoK8sNetworkingGatewayGatewayName.Name]; name != "" && w.Namespace == o.Namespace && selects(o.spec.GetSelector().GetMatchLabels(), w.labels) {
					p.report(o.object, "spec.selector", IneffectiveSelector, name)
				}
			}
		}
	}
}

// bundleVersion is the annotation in which the Gateway API says its version.
const bundleVersion = "gateway.networking.k8s.io/bundle-version"

// leastVersions are the versions of the Gateway API since which a kind is as it is read.
func leastVersions() map[string]string {
	return map[string]string{
		"grpcroutes.gateway.networking.k8s.io":         "1.1.0",
		"backendtlspolicies.gateway.networking.k8s.io": "1.4.0",
		"tlsroutes.gateway.networking.k8s.io":          "1.5.0",
	}
}

// gatewayAPIVersions finds kinds of the Gateway API in a version that is too old.
func gatewayAPIVersions(p *pass) {
	least := leastVersions()
	for _, o := range p.list(customResource) {
		text := strings.TrimPrefix(o.annotations[bundleVersion], "v")
		released, _, _ := strings.Cut(text, "-") // a candidate has what its release has
		have, err := version.ParseSemantic(released)
		if err != nil || least[o.Name] == "" {
			continue
		}
		if have.LessThan(version.MustParseSemantic(least[o.Name])) {
			p.report(o, annotationField(bundleVersion), GatewayAPICRDVersionBelowMinimum, o.Name, text, least[o.Name])
		}
	}
}
