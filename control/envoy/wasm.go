package envoy

import (
	"maps"
	"net/http"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	wasmfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Types of settings that extensions are asked for in. An agent that cannot get a module puts
// access control in its place, so that is accepted as well.
const (
	wasmType   = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
	accessType = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
	luaType    = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
)

// extended are users' filters of a phase.
func extended(all []ir.Extension, phase ir.ExtensionPhase) []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	for _, x := range all {
		if x.Phase != phase {
			continue
		}
		f := &hcmv3.HttpFilter{Name: x.Name}
		switch x.Kind {
		case ir.RefusingExtension:
			f.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: typed(refusal(http.StatusServiceUnavailable))}
		case ir.LuaExtension:
			f.ConfigType = discovered(luaType)
		default:
			f.ConfigType = discovered(wasmType, accessType)
		}
		out = append(out, f)
	}
	return out
}

// discovered are settings that come by themselves. The proxy waits for them: they may guard
// what is behind it.
func discovered(types ...string) *hcmv3.HttpFilter_ConfigDiscovery {
	return &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{ConfigSource: awaitedADS(), TypeUrls: types}}
}

// refusal answers every request with a status: 503 is what a proxy does whose module has failed.
func refusal(status uint32) *faultv3.HTTPFault {
	return &faultv3.HTTPFault{Abort: &faultv3.FaultAbort{
		ErrorType:  &faultv3.FaultAbort_HttpStatus{HttpStatus: status},
		Percentage: &typev3.FractionalPercent{Numerator: 100, Denominator: typev3.FractionalPercent_HUNDRED},
	}}
}

// Module returns the settings of an extension as proxies ask for them.
func Module(m ir.Module) *corev3.TypedExtensionConfig {
	var config proto.Message = &wasmfilterv3.Wasm{Config: plugin(m)}
	if m.Lua != "" {
		config = &luav3.Lua{DefaultSourceCode: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: m.Lua}}}
	}
	return &corev3.TypedExtensionConfig{Name: m.Name, TypedConfig: typed(config)}
}

func plugin(m ir.Module) *wasmv3.PluginConfig {
	out := &wasmv3.PluginConfig{
		Name: m.Name, RootId: m.Root,
		Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
			Runtime: m.Runtime, Code: code(m),
			EnvironmentVariables: &wasmv3.EnvironmentVariables{HostEnvKeys: m.HostVariables, KeyValues: environment(m)},
		}},
	}
	if m.Configuration != "" {
		out.Configuration = typed(wrapperspb.String(m.Configuration))
	}
	switch m.OnFailure {
	case ir.FailOpen:
		out.FailurePolicy = wasmv3.FailurePolicy_FAIL_OPEN
	case ir.FailReload:
		out.FailurePolicy = wasmv3.FailurePolicy_FAIL_RELOAD
	default:
		out.FailurePolicy = wasmv3.FailurePolicy_FAIL_CLOSED
	}
	return out
}

// environment is the module's, with what the agent wants to know, who takes it out again.
func environment(m ir.Module) map[string]string {
	all := map[string]string{}
	maps.Copy(all, m.Environment)
	if !strings.HasPrefix(m.URL, localFile) {
		all["ISTIO_META_WASM_IMAGE_PULL_POLICY"] = m.PullPolicy
	}
	return all
}

const (
	localFile    = "file://"
	fetchTimeout = 30 * time.Second
	anySum       = "nil" // the original's word for any checksum: Envoy wants one
	noCluster    = "_"   // the agent fetches, not Envoy
)

// code is where the module is: a file, or an address that the agent replaces by a file.
func code(m ir.Module) *corev3.AsyncDataSource {
	if path, ok := strings.CutPrefix(m.URL, localFile); ok {
		return &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{Local: &corev3.DataSource{
			Specifier: &corev3.DataSource_Filename{Filename: "/" + strings.TrimLeft(path, "/")}}}}
	}
	sum := m.SHA256
	if sum == "" {
		sum = anySum
	}
	return &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Remote{Remote: &corev3.RemoteDataSource{
		HttpUri: &corev3.HttpUri{Uri: m.URL, Timeout: durationpb.New(fetchTimeout), HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: noCluster}},
		Sha256:  sum,
	}}}
}
