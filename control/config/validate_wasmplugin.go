package config

import extensions "istio.io/api/extensions/v1alpha1"

func validateWasmPlugin(p place, o *Config) {
	w := o.Spec.(*extensions.WasmPlugin)
	p.attachment(w)
	validateWasm(p, w)
	for i, m := range w.Match {
		p.at("match", i).trafficPorts(m.Ports)
	}
}
