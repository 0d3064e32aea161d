package config

import (
	"fmt"
	"net/url"

	extensions "istio.io/api/extensions/v1alpha1"
	types "istio.io/api/type/v1beta1"
)

// Rules that the kinds of security, telemetry and extensions share.

// An attached object says by its fields what it applies to.
type attached interface {
	GetSelector() *types.WorkloadSelector
	GetTargetRefs() []*types.PolicyTargetReference
}

const gatewayAPI = "gateway.networking.k8s.io"

// maxTargets bounds targetRefs.
const maxTargets = 16

// attachment checks selector, targetRef and targetRefs, of which one may be set.
func (p place) attachment(o attached) {
	var single *types.PolicyTargetReference
	if of, ok := o.(interface {
		GetTargetRef() *types.PolicyTargetReference
	}); ok {
		single = of.GetTargetRef()
	}
	p.matchLabels(o.GetSelector())
	targets := o.GetTargetRefs()
	switch {
	case o.GetSelector() != nil && single != nil, single != nil && len(targets) > 0:
		p.field("targetRef").errorf("only one of selector, targetRef and targetRefs can be set")
	case o.GetSelector() != nil && len(targets) > 0:
		p.field("targetRefs").errorf("only one of selector and targetRefs can be set")
	}
	if single != nil {
		p.field("targetRef").target(single)
	}
	p.targets(targets)
}

func (p place) matchLabels(s *types.WorkloadSelector) {
	if s != nil {
		p.field("selector").selector(s.MatchLabels, "matchLabels")
	}
}

func (p place) targets(all []*types.PolicyTargetReference) {
	if len(all) > maxTargets {
		p.field("targetRefs").errorf("at most %d, got %d", maxTargets, len(all))
	}
	for i, t := range all {
		p.at("targetRefs", i).target(t)
	}
}

// target checks a reference: to an object of the own namespace, of a kind that stands
// for traffic.
func (p place) target(t *types.PolicyTargetReference) {
	if t.Name == "" {
		p.field("name").errorf("required")
	}
	if t.Namespace != "" {
		p.field("namespace").errorf("objects of other namespaces cannot be referred to")
	}
	groups := map[string]string{"Service": "", string(ServiceEntry): istioNetworking, string(Gateway): gatewayAPI, "GatewayClass": gatewayAPI}
	group, known := groups[t.Kind]
	switch {
	case t.Kind == "":
		p.field("kind").errorf("required")
	case !known:
		p.field("kind").add(Error, didYouMean(t.Kind, sortedKeys(groups)), "must be Service, ServiceEntry, Gateway or GatewayClass, got %q", shorten(t.Kind))
	case t.Group != group && (group != "" || t.Group != "core"):
		p.field("group").errorf("kind %s is of group %q, not %q", t.Kind, group, shorten(t.Group))
	}
}

// notEmpty refuses empty strings in a list.
func (p place) notEmpty(list []string) {
	for i, s := range list {
		if s == "" {
			p.index(i).errorf("must not be empty")
		}
	}
}

// required reports an empty string.
func (p place) required(s string) {
	if s == "" {
		p.errorf("required")
	}
}

// longest bounds the bytes of a value.
func (p place) longest(s string, limit int) {
	if len(s) > limit {
		p.errorf("is longer than %d characters", limit)
	}
}

// trafficPorts checks the ports of selectors of traffic.
func (p place) trafficPorts(ports []*types.PortSelector) {
	seen := map[uint32]bool{}
	for i, s := range ports {
		at := p.at("ports", i).field("number")
		at.wrong(port(int64(s.Number)))
		if seen[s.Number] {
			at.errorf("duplicate port %d", s.Number)
		}
		seen[s.Number] = true
	}
}

// A wasm is what WasmPlugin and the wasm of TrafficExtension have in common.
type wasm interface {
	GetUrl() string
	GetSha256() string
	GetImagePullSecret() string
	GetPluginName() string
	GetVmConfig() *extensions.VmConfig
}

func validateWasm(p place, w wasm) {
	p.field("url").wrong(moduleURL(w.GetUrl()))
	if sum := w.GetSha256(); sum != "" && !sha256Hex(sum) {
		p.field("sha256").errorf("must be 64 of 0–9 and a–f, got %q", shorten(sum))
	}
	p.notBlank("imagePullSecret", "pluginName")
	p.field("imagePullSecret").longest(w.GetImagePullSecret(), 253)
	p.field("pluginName").longest(w.GetPluginName(), 256)
	const maxEnv = 256
	if n := len(w.GetVmConfig().GetEnv()); n > maxEnv {
		p.field("vmConfig.env").errorf("at most %d, got %d", maxEnv, n)
	}
	names := map[string]bool{}
	for i, e := range w.GetVmConfig().GetEnv() {
		at := p.field("vmConfig").at("env", i)
		at.field("name").required(e.Name)
		at.field("name").longest(e.Name, 256)
		at.field("value").longest(e.Value, 2048)
		if names[e.Name] {
			at.field("name").errorf("duplicate name %q", shorten(e.Name))
		}
		names[e.Name] = true
		if e.ValueFrom != extensions.EnvValueSource_INLINE && e.Value != "" {
			at.field("value").errorf("has a meaning for valueFrom INLINE only")
		}
	}
}

// moduleURL checks where a module is; without a scheme it is an image.
func moduleURL(s string) error {
	if s == "" {
		return fmt.Errorf("required")
	}
	u, err := url.ParseRequestURI(s)
	if err != nil {
		u, err = url.ParseRequestURI("http://" + s)
	}
	if err == nil {
		_, err = url.Parse(s)
	}
	if err != nil {
		return fmt.Errorf("%q is not a URL of http, https, file or oci", shorten(s))
	}
	switch u.Scheme {
	case "", "http", "https", "file", "oci":
		return nil
	}
	return fmt.Errorf("scheme %q is not one of http, https, file and oci", shorten(u.Scheme))
}

func sha256Hex(s string) bool {
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 64
}
