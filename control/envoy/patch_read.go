package envoy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/wellknown"
)

// patchable is what a target is made of and what can be done to it.
type patchable struct {
	message    proto.Message
	operations []ir.PatchOperation
}

// patchables is the table of targets.
func patchables() map[ir.PatchTarget]patchable {
	merge := []ir.PatchOperation{ir.PatchMerge, ir.PatchMergeReplace}
	set := append(slices.Clone(merge), ir.PatchAdd, ir.PatchRemove)
	insert := append(slices.Clone(set), ir.PatchBefore, ir.PatchAfter, ir.PatchFirst)
	filters := append(slices.Clone(insert), ir.PatchReplace)
	return map[ir.PatchTarget]patchable{
		ir.PatchListener:       {&listenerv3.Listener{}, set},
		ir.PatchListenerFilter: {&listenerv3.ListenerFilter{}, filters},
		ir.PatchFilterChain:    {&listenerv3.FilterChain{}, set},
		ir.PatchNetworkFilter:  {&listenerv3.Filter{}, filters},
		ir.PatchHTTPFilter:     {&hcmv3.HttpFilter{}, filters},
		ir.PatchRoutes:         {&routev3.RouteConfiguration{}, merge},
		ir.PatchVirtualHost:    {&routev3.VirtualHost{}, append(slices.Clone(set), ir.PatchReplace)},
		ir.PatchRoute:          {&routev3.Route{}, insert},
		ir.PatchCluster:        {&clusterv3.Cluster{}, set},
		ir.PatchExtension:      {&corev3.TypedExtensionConfig{}, append(slices.Clone(merge), ir.PatchAdd)},
		ir.PatchBootstrap:      {&bootstrapv3.Bootstrap{}, merge},
	}
}

// readPatch makes a patch's value. A field that Envoy does not have is left out, which
// unknown tells.
func readPatch(p ir.Patch) (value proto.Message, unknown, err error) {
	of, ok := patchables()[p.Target]
	switch {
	case !ok:
		return nil, nil, fmt.Errorf("applyTo: nothing can be changed in %s", p.Target)
	case p.Target == ir.PatchBootstrap:
		return nil, nil, errors.New("applyTo: BOOTSTRAP has no effect: what a proxy starts with is made where it starts, by its agent")
	case !slices.Contains(of.operations, p.Operation):
		return nil, nil, fmt.Errorf("patch.operation: %s does nothing to %s", p.Operation, p.Target)
	case p.Operation == ir.PatchRemove:
		return nil, nil, nil
	case p.Value == "":
		return nil, nil, fmt.Errorf("patch.value: %s needs one", p.Operation)
	}
	value = of.message.ProtoReflect().New().Interface()
	if strict := protojson.Unmarshal([]byte(p.Value), value); strict != nil {
		value = of.message.ProtoReflect().New().Interface()
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(p.Value), value); err != nil {
			return nil, nil, fmt.Errorf("patch.value: %w", plain(err))
		}
		unknown = fmt.Errorf("patch.value: %w: it is left out", plain(strict))
	}
	whole := p.Operation != ir.PatchMerge && p.Operation != ir.PatchMergeReplace
	if err := sound(value.ProtoReflect(), whole, 0); err != nil {
		return nil, nil, fmt.Errorf("patch.value: %w", err)
	}
	if l, ok := value.(*listenerv3.Listener); ok {
		if err := listenerFlaw(l); err != nil {
			return nil, nil, fmt.Errorf("patch.value: %w", err)
		}
	}
	if whole && !configured(value) {
		return nil, nil, errors.New("patch.value.typed_config: a filter is known by its type")
	}
	if named, ok := value.(interface{ GetName() string }); ok && named.GetName() == "" && p.Operation == ir.PatchAdd &&
		p.Target != ir.PatchFilterChain && p.Target != ir.PatchRoute {
		return nil, nil, errors.New("patch.value.name: what is added needs one")
	}
	return value, unknown, nil
}

var (
	decoderWords = regexp.MustCompile(`^proto:\s*|\(line \d+:\d+\):\s*|\s*\(line \d+:\d+\)`)
	unresolved   = regexp.MustCompile(`unable to resolve "([^"]*)": .*$`)
)

// plain is a decoder's error without the place in a text that nobody has written.
func plain(err error) error {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	text = decoderWords.ReplaceAllString(text, "")
	return errors.New(unresolved.ReplaceAllString(text, "the type $1 is not known"))
}

// configured reports whether a filter has settings, its own or by name, or can do without.
func configured(m proto.Message) bool {
	switch f := m.(type) {
	case *listenerv3.ListenerFilter:
		return f.ConfigType != nil
	case *listenerv3.Filter:
		return f.ConfigType != nil
	case *hcmv3.HttpFilter:
		return f.ConfigType != nil || f.IsOptional
	}
	return true
}

// typeOf is the type of a filter's settings, "" where it has none.
func typeOf(m proto.Message) string {
	f, ok := m.(interface{ GetTypedConfig() *anypb.Any })
	if !ok {
		return ""
	}
	return string(f.GetTypedConfig().MessageName())
}

// sameFilter reports whether two names are of one filter: one may be its old name.
func sameFilter(target ir.PatchTarget, a, b string) bool {
	return a == b || currentName(target, a) == currentName(target, b)
}

func currentName(target ir.PatchTarget, name string) string {
	family := wellknown.HTTPFilters
	switch target {
	case ir.PatchNetworkFilter:
		family = wellknown.NetworkFilters
	case ir.PatchListenerFilter:
		family = wellknown.ListenerFilters
	}
	if now, ok := wellknown.CurrentFilterName(family, name); ok {
		return now
	}
	return name
}
