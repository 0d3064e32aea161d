package analyze

import (
	networking "istio.io/api/networking/v1alpha3"
	telemetry "istio.io/api/telemetry/v1alpha1"
)

// An exclusive kind is one of which a workload has a single object in force: that which
// selects it, else the namespace's without selector.
type exclusive struct {
	field    string // of the selector
	overlap  Code   // several select one pod
	several  Code   // several of a namespace select by nothing
	selector func(*object) map[string]string
}

// sidecars finds Sidecars for no workload, and such of which only one can be in force.
func sidecars(p *pass) {
	selector := func(o *object) map[string]string {
		spec, _ := o.spec.(*networking.Sidecar)
		return spec.GetWorkloadSelector().GetLabels()
	}
	p.exclusive(p.list(sidecar), exclusive{"spec.workloadSelector.labels", ConflictingSidecarWorkloadSelectors,
		MultipleSidecarsWithoutWorkloadSelectors, selector})
	for _, o := range p.list(sidecar) {
		if len(selector(o)) == 0 {
			if ambientNamespace(p.get(namespace, "", o.Namespace)) {
				p.report(o, "", IneffectivePolicy, "namespace is in ambient mode, the policy has no impact")
			}
			continue
		}
		for _, w := range p.pods() {
			if w.Namespace == o.Namespace && selects(selector(o), w.labels) && ambientPod(w.object) {
				p.report(o, "spec.workloadSelector", IneffectivePolicy, "selected workload is in ambient mode, the policy has no impact")
				break
			}
		}
	}
}

// telemetries finds Telemetries for no workload, and such of which only one can be in force.
func telemetries(p *pass) {
	var all []*object
	for _, o := range of[*telemetry.Telemetry](p.Mesh, telemetryPolicy) {
		if len(o.spec.TargetRefs) == 0 && o.spec.TargetRef == nil {
			all = append(all, o.object)
		}
	}
	p.exclusive(all, exclusive{"spec.selector.matchLabels", ConflictingTelemetryWorkloadSelectors,
		MultipleTelemetriesWithoutWorkloadSelectors, func(o *object) map[string]string {
			return o.spec.(*telemetry.Telemetry).Selector.GetMatchLabels()
		}})
}

func (p *pass) exclusive(all []*object, e exclusive) {
	unselective := map[string][]*object{}
	byPod := map[*object][]*object{}
	pods := p.pods()
	for _, o := range all {
		selector := e.selector(o)
		if len(selector) == 0 {
			unselective[o.Namespace] = append(unselective[o.Namespace], o)
			continue
		}
		found := false
		for _, w := range pods {
			if w.Namespace == o.Namespace && selects(selector, w.labels) {
				found = true
				byPod[w.object] = append(byPod[w.object], o)
			}
		}
		if !found {
			p.report(o, e.field, ReferencedResourceNotFound, "selector", written(selector))
		}
	}
	for ns, several := range unselective {
		for _, o := range several {
			if len(several) > 1 {
				p.report(o, "", e.several, names(several), ns)
			}
		}
	}
	for w, several := range byPod {
		for _, o := range several {
			if len(several) > 1 {
				p.report(o, e.field, e.overlap, names(several), o.Namespace, w.Name)
			}
		}
	}
}

func names(all []*object) []string {
	var list []string
	for _, o := range all {
		list = append(list, o.Name)
	}
	return unique(list)
}

// telemetryProviders finds access logs that go nowhere.
func telemetryProviders(p *pass) {
	if len(p.meshConfig.GetDefaultProviders().GetAccessLogging()) > 0 {
		return
	}
	for _, o := range of[*telemetry.Telemetry](p.Mesh, telemetryPolicy) {
		for i, l := range o.spec.AccessLogging {
			if len(l.Providers) == 0 && !l.Disabled.GetValue() {
				p.report(o.object, indexed("spec.accessLogging", i), InvalidTelemetryProvider, o.Name, o.Namespace)
			}
		}
	}
}
