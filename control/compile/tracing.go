package compile

import (
	"cmp"
	"fmt"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// tracing is how requests are sampled and tagged, nil where the mesh switches it
// off. Without a tracer of the proxy no span is sent, but the decision to sample
// still marks request ids and headers: the proxies of the mesh generate and pass on B3
// headers all the same. A stock Envoy does so with a tracer only, so where its bootstrap
// brings none it gets one whose spans go nowhere.
func tracing(s *mesh.Snapshot, c *meshconfig.ProxyConfig, scope *mesh.Scope, p *mesh.Proxy) *ir.Tracing {
	if !s.MeshConfig.GetEnableTracing() {
		return nil
	}
	t := &ir.Tracing{ClientSampling: 100, RandomSampling: s.TraceSampling, OverallSampling: 100, Tags: tracingTags(p, workloadLabels(scope, p))}
	if own := c.GetTracing().GetSampling(); own > 0 {
		t.RandomSampling = own
	}
	t.MaxPathTag = c.GetTracing().GetMaxPathTagLength()
	if p.Extensions[extZipkin] && c.GetTracing().GetTracer() == nil {
		t.Tracer = &ir.Tracer{Form: ir.Zipkin, Cluster: wellknown.BlackHoleCluster, Path: zipkinPath, Timeout: spanTimeout}
	}
	if own, maxPath := providedTracer(s.MeshConfig, scope, p); own != nil {
		t.Tracer, t.MaxPathTag = own, cmp.Or(maxPath, t.MaxPathTag)
	}
	return t
}

// workloadLabels are the labels under which the registry knows the workload, and
// those that the proxy was started with where it does not know it.
func workloadLabels(scope *mesh.Scope, p *mesh.Proxy) map[string]string {
	if all := scope.Instances(); len(all) > 0 && len(all[0].Endpoint.Labels) > 0 {
		return all[0].Endpoint.Labels
	}
	return p.Labels
}

// tracingTags say what a dry-run policy would have decided, and which workload
// makes the span.
func tracingTags(p *mesh.Proxy, labels map[string]string) []ir.TracingTag {
	var out []ir.TracingTag
	for _, effect := range []string{"allow", "deny"} {
		for _, d := range [][2]string{{"name", "effective_policy_id"}, {"result", "engine_result"}} {
			out = append(out, ir.TracingTag{
				Name:         "istio.authorization.dry_run." + effect + "_policy." + d[0],
				MetadataKey:  "envoy.filters.http.rbac",
				MetadataPath: "istio_dry_run_" + effect + "_shadow_" + d[1],
			})
		}
	}
	meshID, _ := p.Metadata["MESH_ID"].(string)
	for _, l := range [][2]string{
		{"canonical_revision", cmp.Or(labels["service.istio.io/canonical-revision"], "latest")},
		{"canonical_service", cmp.Or(labels["service.istio.io/canonical-name"], "unknown")},
		{"cluster_id", cmp.Or(p.ClusterID, "unknown")},
		{"mesh_id", cmp.Or(meshID, "unknown")},
		{"namespace", cmp.Or(p.Namespace, "default")},
	} {
		out = append(out, ir.TracingTag{Name: fmt.Sprintf("istio.%s", l[0]), Literal: l[1]})
	}
	return out
}
