package compile

import (
	"encoding/json"
	"slices"
	"strings"

	extensionspb "istio.io/api/extensions/v1alpha1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

const (
	extWasm = "envoy.filters.http.wasm"
	extLua  = "envoy.filters.http.lua"
)

// extensions are users' filters for the requests of a port, in order: those that
// authenticate, those that authorize, those that count, and the rest. An object's filter
// has its name on the wire, under which its settings are asked for.
func (b *listenerBuilder) extensions(incoming bool, port uint32) []ir.Extension {
	var out []ir.Extension
	all := b.snapshot.Extensions(b.proxy)
	for _, phase := range []extensionspb.TrafficExtension_ExecutionPhase{extensionspb.TrafficExtension_AUTHN,
		extensionspb.TrafficExtension_AUTHZ, extensionspb.TrafficExtension_STATS, extensionspb.TrafficExtension_UNSPECIFIED} {
		for _, x := range all {
			if x.Spec.Phase != phase || !x.Takes(incoming, port) {
				continue
			}
			if kind, ok := extensionKind(b.proxy, x); ok {
				out = append(out, ir.Extension{Name: extensionName(x), Kind: kind, Phase: extensionPhase(phase)})
			}
		}
	}
	return out
}

func extensionPhase(p extensionspb.TrafficExtension_ExecutionPhase) ir.ExtensionPhase {
	switch p {
	case extensionspb.TrafficExtension_AUTHN:
		return ir.AuthNPhase
	case extensionspb.TrafficExtension_AUTHZ:
		return ir.AuthZPhase
	}
	return ir.LastPhase
}

// extensionKind is how a proxy carries out an extension; not ok if it goes without. A module
// that the proxy has no engine for is one that has failed.
func extensionKind(p *mesh.Proxy, x *mesh.Extension) (kind ir.ExtensionKind, ok bool) {
	if x.Spec.GetLua() != nil {
		return ir.LuaExtension, p.Has(extLua)
	}
	w := x.Spec.GetWasm()
	switch {
	case w == nil, w.Type == extensionspb.PluginType_NETWORK:
		return 0, false
	case p.Has(extWasm) && engine(p) != "":
		return ir.WasmExtension, true
	}
	return ir.RefusingExtension, w.FailStrategy != extensionspb.FailStrategy_FAIL_OPEN
}

// engine is what the proxy runs modules with, "" if it has none.
func engine(p *mesh.Proxy) string {
	for _, name := range []string{"v8", "wasmtime", "wamr"} {
		if p.Has("envoy.wasm.runtime." + name) {
			return "envoy.wasm.runtime." + name
		}
	}
	return ""
}

// extensionName is how the original calls the filter of an object.
func extensionName(x *mesh.Extension) string {
	name := "extensions.istio.io/trafficextension/" + x.Namespace + "." + x.Name
	if x.Kind == config.WasmPlugin {
		name += "~istio-translated-wasmplugin"
	}
	return name
}

// Modules returns the settings of the proxy's extensions that go by these names.
//
// Kinds read: WasmPlugin, TrafficExtension.
func Modules(s *mesh.Snapshot, p *mesh.Proxy, names []string) []ir.Module {
	var out []ir.Module
	for _, x := range s.Extensions(p) {
		name := extensionName(x)
		if names != nil && !slices.Contains(names, name) {
			continue
		}
		switch kind, ok := extensionKind(p, x); {
		case !ok:
		case kind == ir.LuaExtension:
			out = append(out, ir.Module{Name: name, Lua: x.Spec.GetLua().GetInlineCode()})
		case kind == ir.WasmExtension:
			out = append(out, module(name, x.Spec.GetWasm(), p))
		}
	}
	return out
}

func module(name string, w *extensionspb.WasmConfig, p *mesh.Proxy) ir.Module {
	m := ir.Module{
		Name: name, URL: moduleURL(w.Url), SHA256: w.Sha256, Root: w.PluginName, Runtime: engine(p),
		PullPolicy: w.ImagePullPolicy.String(),
	}
	if c := w.PluginConfig; c != nil {
		// Keys are sorted, unlike those of protojson; what came as JSON can be JSON again.
		text, _ := json.Marshal(c.AsMap())
		m.Configuration = string(text)
	}
	for _, e := range w.GetVmConfig().GetEnv() {
		if e.ValueFrom == extensionspb.EnvValueSource_HOST {
			m.HostVariables = append(m.HostVariables, e.Name)
			continue
		}
		if m.Environment == nil {
			m.Environment = map[string]string{}
		}
		m.Environment[e.Name] = e.Value
	}
	switch w.FailStrategy {
	case extensionspb.FailStrategy_FAIL_OPEN:
		m.OnFailure = ir.FailOpen
	case extensionspb.FailStrategy_FAIL_RELOAD:
		m.OnFailure = ir.FailReload
	}
	return m
}

// moduleURL has a scheme: one without names an image.
func moduleURL(url string) string {
	if strings.Contains(url, "://") {
		return url
	}
	return "oci://" + url
}

// ExtensionsLeftOut are those for the proxy that it cannot carry out, and what comes of it.
func ExtensionsLeftOut(s *mesh.Snapshot, p *mesh.Proxy) []LeftOut {
	var out []LeftOut
	for _, x := range s.Extensions(p) {
		field := "url"
		if x.Kind == config.TrafficExtension {
			field = "wasm.url"
		}
		kind, ok := extensionKind(p, x)
		switch {
		case ok && kind == ir.RefusingExtension:
			out = append(out, LeftOut{x.Config, field, "the proxy " + p.Name + " does not run WebAssembly: requests are answered 503, since failStrategy is not FAIL_OPEN"})
		case ok:
		case x.Spec.GetLua() != nil:
			out = append(out, LeftOut{x.Config, "lua", "the proxy " + p.Name + " does not run Lua: requests pass by the script"})
		case x.Spec.GetWasm().GetType() == extensionspb.PluginType_NETWORK:
			out = append(out, LeftOut{x.Config, field, "modules for connections are not loaded: of type only HTTP has an effect"})
		default:
			out = append(out, LeftOut{x.Config, field, "the proxy " + p.Name + " does not run WebAssembly: requests pass by the module, as failStrategy says"})
		}
	}
	return out
}
