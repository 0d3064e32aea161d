package config

import extensions "istio.io/api/extensions/v1alpha1"

// maxLua bounds the bytes of a script.
const maxLua = 64 << 10

func validateTrafficExtension(p place, o *Config) {
	x := o.Spec.(*extensions.TrafficExtension)
	p.attachment(x)
	for i, m := range x.Match {
		p.at("match", i).trafficPorts(m.Ports)
	}
	switch f := x.FilterConfig.(type) {
	case *extensions.TrafficExtension_Wasm:
		validateWasm(p.field("wasm"), f.Wasm)
	case *extensions.TrafficExtension_Lua:
		p.field("lua.inlineCode").required(f.Lua.GetInlineCode())
		p.field("lua.inlineCode").longest(f.Lua.GetInlineCode(), maxLua)
	default:
		p.errorf("one of wasm and lua is required")
	}
}
