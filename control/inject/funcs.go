package inject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/control/config"
)

// functions are what templates may call: those that Istio's templates use, by the same names.
func functions() template.FuncMap {
	all := template.FuncMap{
		"annotation": annotation, "isset": isset, "valueOrDefault": func(v, otherwise any) any { return otherwiseOf(otherwise, v) },
		"excludeInboundPort": excludeInboundPort, "includeInboundPorts": portsOf, "applicationPorts": portsOf,
		"kubevirtInterfaces": asIs, "excludeInterfaces": asIs, "appendMultusNetwork": appendNetwork, "formatDuration": formatDuration,
		"toJSON": toJSON, "toJson": toJSON, "structToJSON": toJSON, "fromJSON": fromJSON, "protoToJSON": protoToJSON,
		"toYaml": toYAML, "fromYaml": fromYAML, "toJsonMap": toJSONMap, "mergeMaps": mergeMaps, "strdict": stringDict, "omitNil": omitNil, "omit": omit,
		"env": envOr, "directory": path.Dir, "render": renderText, "proxyImage": proxyImage, "revisionSuffix": revisionSuffix,
	}
	maps.Copy(all, general())
	return all
}

// general are functions that have nothing to do with pods, as users of templates know them.
func general() template.FuncMap {
	return template.FuncMap{
		"default": otherwiseOf, "empty": empty, "coalesce": coalesce, "ternary": ternary, "quote": quote, "toString": toText,
		"int": toInt, "int64": toInt, "add": func(a, b any) int64 { return toInt(a) + toInt(b) },
		"lower": strings.ToLower, "toLower": strings.ToLower, "upper": strings.ToUpper, "trim": strings.TrimSpace,
		"trimSuffix": func(suffix, s string) string { return strings.TrimSuffix(s, suffix) },
		"trimPrefix": func(prefix, s string) string { return strings.TrimPrefix(s, prefix) },
		"hasPrefix":  func(prefix, s string) bool { return strings.HasPrefix(s, prefix) },
		"hasSuffix":  func(suffix, s string) bool { return strings.HasSuffix(s, suffix) },
		"contains":   func(part, s string) bool { return strings.Contains(s, part) },
		"replace":    func(from, to, s string) string { return strings.ReplaceAll(s, from, to) },
		"split":      func(by, s string) []string { return strings.Split(s, by) }, "splitList": func(by, s string) []string { return strings.Split(s, by) },
		"trunc": trunc, "indent": indent, "nindent": func(n int, s string) string { return indent(n, "\n"+s) },
		"join": join, "list": func(all ...any) []any { return all }, "append": func(all []any, v any) []any { return append(slices.Clone(all), v) },
		"compact": compact, "has": has, "first": func(all []any) any { return nth(all, 0) }, "last": func(all []any) any { return nth(all, len(all)-1) },
		"dict": dict, "get": func(m map[string]any, key string) any { return m[key] }, "merge": merge,
		"hasKey": func(m map[string]any, key string) bool { _, ok := m[key]; return ok },
		"set":    func(m map[string]any, key string, v any) map[string]any { return merge(map[string]any{key: v}, m) },
		"keys":   func(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) },
	}
}

func annotation(meta metav1.ObjectMeta, name string, otherwise any) string {
	if v, ok := meta.Annotations[name]; ok {
		return v
	}
	return toText(otherwise)
}

func isset(m map[string]string, key string) bool { _, ok := m[key]; return ok }

// excludeInboundPort is a list of ports with one more, unless it is 0 or there.
func excludeInboundPort(port any, list string) string {
	one := strings.TrimSpace(toText(port))
	if one == "" || one == "0" || slices.Contains(splitList(list), one) {
		return list
	}
	return strings.Join(append(splitList(list), one), ",")
}

// portsOf are the ports that the containers of a pod name.
func portsOf(spec any) string {
	s, ok := spec.(corev1.PodSpec)
	if !ok {
		all, _ := spec.([]corev1.Container)
		s.Containers = all
	}
	var all []string
	for _, c := range s.Containers {
		for _, p := range c.Ports {
			if c.Name != ProxyContainer && p.Protocol != corev1.ProtocolUDP && p.Protocol != corev1.ProtocolSCTP {
				all = append(all, strconv.Itoa(int(p.ContainerPort)))
			}
		}
	}
	return strings.Join(all, ",")
}

func asIs(s string) string { return s }

// appendNetwork adds a network to the annotation that Multus reads: a list of names, or JSON.
func appendNetwork(existing, network string) string {
	existing = strings.TrimSpace(existing)
	var objects []map[string]any
	namespace, name, _ := strings.Cut(network, "/")
	switch {
	case existing == "":
		return network
	case !strings.HasPrefix(existing, "["):
		if slices.Contains(splitList(existing), network) {
			return existing
		}
		return existing + ", " + network
	case json.Unmarshal([]byte(existing), &objects) != nil:
		return existing
	}
	for _, o := range objects {
		if o["name"] == name && o["namespace"] == namespace {
			return existing
		}
	}
	text, err := toJSON(append(objects, map[string]any{"namespace": namespace, "name": name}))
	if err != nil {
		return existing
	}
	return text
}

func formatDuration(d *durationpb.Duration) string { return d.AsDuration().String() }

func toJSON(v any) (string, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSpace(out.String()), nil
}

func fromJSON(text string) (any, error) {
	var v any
	err := json.Unmarshal([]byte(text), &v)
	return whole(v), err
}

func toYAML(v any) (string, error) {
	text, err := yaml.Marshal(v)
	return strings.TrimSuffix(string(text), "\n"), err
}

func fromYAML(text string) (any, error) {
	var v any
	err := yaml.Unmarshal([]byte(text), &v)
	return whole(v), err
}

// protoToJSON is a message in one line. Of a ProxyConfig only what is not the default: the
// agent has those.
func protoToJSON(m proto.Message) (string, error) {
	if pc, ok := m.(*meshconfig.ProxyConfig); ok {
		m = withoutDefaults(pc)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = json.Compact(&out, text)
	return out.String(), err
}

func withoutDefaults(pc *meshconfig.ProxyConfig) *meshconfig.ProxyConfig {
	left, usual := proto.CloneOf(pc).ProtoReflect(), config.DefaultProxyConfig().ProtoReflect()
	usual.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if left.Has(field) && left.Get(field).Equal(value) {
			left.Clear(field)
		}
		return true
	})
	return left.Interface().(*meshconfig.ProxyConfig)
}

// toJSONMap joins maps of strings into one JSON object.
func toJSONMap(all ...map[string]string) (string, error) { return toJSON(mergeMaps(all...)) }

func mergeMaps(all ...map[string]string) map[string]string {
	merged := map[string]string{}
	for _, m := range all {
		maps.Copy(merged, m)
	}
	return merged
}

func stringDict(pairs ...string) map[string]string {
	d := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		d[pairs[i]] = pairs[i+1]
	}
	return d
}

func omitNil(m map[string]any) map[string]any {
	left := maps.Clone(m)
	maps.DeleteFunc(left, func(_ string, v any) bool { return v == nil })
	return left
}

func omit(m map[string]string, keys ...string) map[string]string {
	left := maps.Clone(m)
	maps.DeleteFunc(left, func(key, _ string) bool { return slices.Contains(keys, key) })
	return left
}

// envOr is an environment variable of the control plane that is a setting of its own:
// templates, which users write, see no other.
func envOr(name, otherwise string) string {
	if !strings.HasPrefix(name, "PILOT_") && !strings.HasPrefix(name, "ISTIO_") {
		return otherwise
	}
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// renderText is a text of the values that is a template itself, on what the dot is.
func renderText(text string, dot ...any) (string, error) {
	if len(dot) == 0 || !strings.Contains(text, "{{") {
		return text, nil
	}
	t, err := template.New("values").Funcs(general()).Funcs(template.FuncMap{"valueOrDefault": func(v, o any) any { return otherwiseOf(o, v) }}).Parse(text)
	if err != nil {
		return "", err
	}
	out := &limited{name: "values", left: 4096}
	err = t.Execute(out, dot[0])
	return out.String(), err
}

func revisionSuffix(revision string) string {
	if revision == "" || revision == "default" {
		return ""
	}
	return "-" + revision
}

func empty(v any) bool {
	if v == nil {
		return true
	}
	truth, ok := template.IsTrue(v)
	return ok && !truth
}

// otherwiseOf is v, or otherwise where v is empty or not there.
func otherwiseOf(otherwise any, v ...any) any {
	if len(v) == 0 || empty(v[0]) {
		return otherwise
	}
	return v[0]
}

func coalesce(all ...any) any {
	for _, v := range all {
		if !empty(v) {
			return v
		}
	}
	return nil
}

func ternary(yes, no any, condition bool) any {
	if condition {
		return yes
	}
	return no
}

func toText(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// quote is a value as a text of YAML.
func quote(v any) (string, error) { return toJSON(toText(v)) }

func toInt(v any) int64 {
	n, err := strconv.ParseFloat(toText(v), 64)
	if err != nil {
		return 0
	}
	return int64(n)
}

// trunc keeps n bytes of a text: the first, or with a negative n the last.
func trunc(n int, s string) string {
	switch {
	case n >= 0 && len(s) > n:
		return s[:n]
	case n < 0 && len(s) > -n:
		return s[len(s)+n:]
	}
	return s
}

// indent puts up to 100 blanks before each line but the first: that one stands where the
// template has it.
func indent(n int, s string) string {
	return strings.ReplaceAll(s, "\n", "\n"+strings.Repeat(" ", min(max(n, 0), 100)))
}

func join(by string, all any) string {
	v := reflect.ValueOf(all)
	if v.Kind() != reflect.Slice {
		return toText(all)
	}
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i] = toText(v.Index(i).Interface())
	}
	return strings.Join(parts, by)
}

func compact(all []any) []any { return slices.DeleteFunc(slices.Clone(all), empty) }

func has(v any, all []any) bool {
	return slices.ContainsFunc(all, func(one any) bool { return toText(one) == toText(v) })
}

func nth(all []any, i int) any {
	if i < 0 || i >= len(all) {
		return nil
	}
	return all[i]
}

func dict(pairs ...any) map[string]any {
	d := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		d[toText(pairs[i])] = pairs[i+1]
	}
	return d
}

// merge joins maps into a new one; of a key in several the first counts.
func merge(all ...map[string]any) map[string]any {
	merged := map[string]any{}
	for _, m := range slices.Backward(all) {
		maps.Copy(merged, m)
	}
	return merged
}
