package analyze

import (
	"slices"

	networking "istio.io/api/networking/v1alpha3"
)

// envoyFilters finds patches that do nothing, and such that depend on which filters came
// before them without a priority that says so.
func envoyFilters(p *pass) {
	all := of[*networking.EnvoyFilter](p.Mesh, envoyFilter)
	versioned := map[string][]*networking.EnvoyFilter_EnvoyConfigObjectPatch{} // patches for some proxies only, by filter
	for _, o := range all {
		for _, patch := range o.spec.ConfigPatches {
			if patch.Match.GetProxy().GetProxyVersion() != "" {
				versioned[patched(patch)] = append(versioned[patched(patch)], patch)
			}
		}
	}
	for _, o := range all {
		said := map[Code]bool{} // once for each object: it is mended as a whole
		for i, patch := range o.spec.ConfigPatches {
			code := misusedOperation(patch)
			if code == "" && o.spec.Priority == 0 && relative(patch) {
				code = EnvoyFilterUsesRelativeOperation
				if others := versioned[patched(patch)]; slices.ContainsFunc(others, func(x *networking.EnvoyFilter_EnvoyConfigObjectPatch) bool { return x != patch }) {
					code = EnvoyFilterUsesRelativeOperationWithProxyVersion
				}
			}
			if code != "" && !said[code] {
				said[code] = true
				p.report(o.object, indexed("spec.configPatches", i)+".patch.operation", code)
			}
		}
	}
}

// misusedOperation is the code for an operation that has no effect on what it is applied to.
func misusedOperation(patch *networking.EnvoyFilter_EnvoyConfigObjectPatch) Code {
	routes := patch.ApplyTo == networking.EnvoyFilter_ROUTE_CONFIGURATION || patch.ApplyTo == networking.EnvoyFilter_HTTP_ROUTE
	switch patch.Patch.GetOperation() {
	case networking.EnvoyFilter_Patch_ADD:
		if routes {
			return EnvoyFilterUsesAddOperationIncorrectly
		}
	case networking.EnvoyFilter_Patch_REMOVE:
		if routes {
			return EnvoyFilterUsesRemoveOperationIncorrectly
		}
	case networking.EnvoyFilter_Patch_REPLACE:
		switch patch.ApplyTo {
		case networking.EnvoyFilter_HTTP_FILTER, networking.EnvoyFilter_NETWORK_FILTER,
			networking.EnvoyFilter_LISTENER_FILTER, networking.EnvoyFilter_VIRTUAL_HOST: // these two newer than the message's text
		default:
			return EnvoyFilterUsesReplaceOperationIncorrectly
		}
	}
	return ""
}

// relative reports whether a patch's effect depends on what is there when it is applied.
func relative(patch *networking.EnvoyFilter_EnvoyConfigObjectPatch) bool {
	switch patch.Patch.GetOperation() {
	case networking.EnvoyFilter_Patch_INSERT_BEFORE, networking.EnvoyFilter_Patch_INSERT_AFTER,
		networking.EnvoyFilter_Patch_REMOVE, networking.EnvoyFilter_Patch_REPLACE, networking.EnvoyFilter_Patch_MERGE:
		return true
	}
	return false
}

// patched is the name of what a patch is about: that of its value, else of the filter that
// it matches.
func patched(patch *networking.EnvoyFilter_EnvoyConfigObjectPatch) string {
	if name := patch.Patch.GetValue().GetFields()["name"].GetStringValue(); name != "" {
		return name
	}
	filter := patch.Match.GetListener().GetFilterChain().GetFilter()
	if sub := filter.GetSubFilter().GetName(); sub != "" {
		return sub
	}
	return filter.GetName()
}
