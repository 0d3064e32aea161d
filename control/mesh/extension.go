package mesh

import (
	"cmp"
	"slices"

	extensionspb "istio.io/api/extensions/v1alpha1"
	typev1beta1 "istio.io/api/type/v1beta1"

	"github.com/lateen-mesh/lateen/control/config"
)

// An Extension is a TrafficExtension, or a WasmPlugin in the form of one.
type Extension struct {
	*config.Config
	Spec *extensionspb.TrafficExtension
}

// Extensions returns those that are for the proxy, of the root namespace and of its own, in
// the order in which filters of one phase stand: by priority, the higher first, then by age,
// name and namespace.
func (s *Snapshot) Extensions(p *Proxy) []*Extension {
	var list []*Extension
	for _, x := range s.index.extensions {
		if (x.Namespace == s.RootNamespace() || x.Namespace == p.Namespace) && x.selects(p) {
			list = append(list, x)
		}
	}
	return list
}

func (s *Snapshot) indexExtensions() {
	var all []*Extension
	for _, c := range s.Config.List(config.TrafficExtension) {
		all = append(all, &Extension{c, c.Spec.(*extensionspb.TrafficExtension)})
	}
	for _, c := range s.Config.List(config.WasmPlugin) {
		all = append(all, &Extension{c, extensionOf(c.Spec.(*extensionspb.WasmPlugin))})
	}
	slices.SortStableFunc(all, func(a, b *Extension) int {
		return cmp.Or(cmp.Compare(b.Spec.GetPriority().GetValue(), a.Spec.GetPriority().GetValue()),
			a.CreationTime.Compare(b.CreationTime), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace))
	})
	s.index.extensions = all
}

// extensionOf is a WasmPlugin in the newer form, which has the same fields.
func extensionOf(w *extensionspb.WasmPlugin) *extensionspb.TrafficExtension {
	x := &extensionspb.TrafficExtension{
		Selector: w.Selector, TargetRefs: w.TargetRefs, Priority: w.Priority,
		Phase: extensionspb.TrafficExtension_ExecutionPhase(w.Phase),
		FilterConfig: &extensionspb.TrafficExtension_Wasm{Wasm: &extensionspb.WasmConfig{
			Url: w.Url, Sha256: w.Sha256, ImagePullPolicy: w.ImagePullPolicy, ImagePullSecret: w.ImagePullSecret,
			VerificationKey: w.VerificationKey, PluginConfig: w.PluginConfig, PluginName: w.PluginName,
			FailStrategy: w.FailStrategy, VmConfig: w.VmConfig, Type: w.Type,
		}},
	}
	if w.TargetRef != nil {
		x.TargetRefs = append([]*typev1beta1.PolicyTargetReference{w.TargetRef}, x.TargetRefs...)
	}
	for _, m := range w.Match {
		x.Match = append(x.Match, &extensionspb.TrafficSelector{Mode: m.Mode, Ports: m.Ports})
	}
	return x
}

func (x *Extension) selects(p *Proxy) bool {
	if refs := x.Spec.TargetRefs; len(refs) > 0 {
		return slices.ContainsFunc(refs, func(r *typev1beta1.PolicyTargetReference) bool { return p.isTarget(r, x.Namespace) })
	}
	return Selects(x.Spec.GetSelector().GetMatchLabels(), p.Labels)
}

// Takes reports whether the extension is for the traffic of a port: incoming, or that of
// others which the proxy's workload calls or, at a gateway, passes on.
func (x *Extension) Takes(incoming bool, port uint32) bool {
	mode := typev1beta1.WorkloadMode_CLIENT
	if incoming {
		mode = typev1beta1.WorkloadMode_SERVER
	}
	return len(x.Spec.Match) == 0 || slices.ContainsFunc(x.Spec.Match, func(m *extensionspb.TrafficSelector) bool {
		inMode := m.GetMode() == mode || m.GetMode() == typev1beta1.WorkloadMode_UNDEFINED || m.GetMode() == typev1beta1.WorkloadMode_CLIENT_AND_SERVER
		return inMode && (len(m.Ports) == 0 || slices.ContainsFunc(m.Ports, func(p *typev1beta1.PortSelector) bool { return p.Number == 0 || p.Number == port }))
	})
}
