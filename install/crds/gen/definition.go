package main

import (
	"bytes"
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	metav1alpha1 "istio.io/api/meta/v1alpha1"
	"sigs.k8s.io/yaml"

	extensions "istio.io/api/extensions/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	networkingbeta "istio.io/api/networking/v1beta1"
	security "istio.io/api/security/v1beta1"
	telemetry "istio.io/api/telemetry/v1alpha1"
)

// kinds are the specs of Istio's kinds, in the order of the file: by group, then by name.
func kinds() []protoreflect.ProtoMessage {
	return []protoreflect.ProtoMessage{
		&extensions.TrafficExtension{},
		&extensions.WasmPlugin{},
		&networking.DestinationRule{},
		&networking.EnvoyFilter{},
		&networking.Gateway{},
		&networkingbeta.ProxyConfig{},
		&networking.ServiceEntry{},
		&networking.Sidecar{},
		&networking.VirtualService{},
		&networking.WorkloadEntry{},
		&networking.WorkloadGroup{},
		&security.AuthorizationPolicy{},
		&security.PeerAuthentication{},
		&security.RequestAuthentication{},
		&telemetry.Telemetry{},
	}
}

// definition is the CustomResourceDefinition of the kind whose spec is md, as YAML.
func definition(md protoreflect.MessageDescriptor, marks markers, said words) ([]byte, error) {
	tags := tagsOf(md, marks)
	object, err := objectSchema(md, tags, marks, said)
	if err != nil {
		return nil, err
	}
	var versions []any
	var shape any = map[string]any{"openAPIV3Schema": object}
	for i, version := range strings.Split(tags.one("versions"), ",") {
		v := map[string]any{
			"name": version, "served": true, "storage": i == 0,
			"subresources": map[string]any{"status": map[string]any{}},
			"schema":       shape,
		}
		shape = again
		if columns := tags.columns(); len(columns) > 0 {
			v["additionalPrinterColumns"] = columns
		}
		versions = append(versions, v)
	}
	names, group := tags.names(string(md.Name())), tags.one("groupName")
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1",
		"kind":       "CustomResourceDefinition",
		"metadata": map[string]any{
			"name":        fmt.Sprint(names["plural"], ".", group),
			"labels":      pairs(tags.one("labels")),
			"annotations": pairs(tags.one("annotations")),
		},
		"spec": map[string]any{"group": group, "names": names, "scope": tags.one("scope"), "versions": versions},
	})
	return share(text), err
}

// All versions of a kind have one schema, so it is written once, with a YAML
// anchor, and again stands where it is repeated.
const again = "again"

func share(text []byte) []byte {
	if !bytes.Contains(text, []byte(" schema: "+again+"\n")) {
		return text
	}
	text = bytes.ReplaceAll(text, []byte(" schema: "+again+"\n"), []byte(" schema: *schema\n"))
	return bytes.Replace(text, []byte(" schema:\n"), []byte(" schema: &schema\n"), 1)
}

// objectSchema is that of the whole object: spec and status, and words for the
// kind and the fields of its spec.
func objectSchema(md protoreflect.MessageDescriptor, tags tags, marks markers, said words) (schema, error) {
	spec, err := structure{marks, true}.message(md, nil, 0)
	if err != nil {
		return nil, err
	}
	if err := said.describe(spec, md); err != nil {
		return nil, err
	}
	status, err := structure{marks, false}.message((&metav1alpha1.IstioStatus{}).ProtoReflect().Descriptor(), nil, 0)
	if err != nil {
		return nil, err
	}
	status["x-kubernetes-preserve-unknown-fields"] = true // controllers write fields of their own
	object := schema{"type": "object", "description": said[""], "properties": schema{"spec": spec, "status": status}}
	if tags.one("spec") == "required" {
		object["required"] = []string{"spec"}
	}
	return object, nil
}

// tags are the markers that say how a message becomes a resource: NAME:VALUE.
type tags []string

func tagsOf(md protoreflect.MessageDescriptor, marks markers) tags {
	return marks.with(string(md.FullName()), "cue-gen:"+string(md.Name())+":")
}

func (t tags) one(name string) string {
	for _, tag := range t {
		if value, ok := strings.CutPrefix(tag, name+":"); ok {
			return value
		}
	}
	return ""
}

// columns are what `kubectl get` prints beside the name.
func (t tags) columns() (all []any) {
	for _, tag := range t {
		if value, ok := strings.CutPrefix(tag, "printerColumn:"); ok {
			value, _, _ = strings.Cut(value, ",description=")
			column := pairs(value)
			all = append(all, map[string]any{"name": column["name"], "type": column["type"], "jsonPath": column["JSONPath"]})
		}
	}
	return all
}

// names are the resource's: kind, plural, singular, short ones and categories.
func (t tags) names(kind string) map[string]any {
	lower := strings.ToLower(kind)
	names := map[string]any{"kind": kind, "listKind": kind + "List", "singular": lower, "plural": lower + "s"}
	for name, value := range pairs(t.one("resource")) {
		switch name {
		case "plural":
			names[name] = value
		case "categories", "shortNames":
			names[name] = strings.Split(value, ",")
		}
	}
	return names
}

// pairs reads a=b,c=d,e: what has no name belongs to the value before it.
func pairs(text string) map[string]string {
	all := map[string]string{}
	last := ""
	for part := range strings.SplitSeq(text, ",") {
		if name, value, ok := strings.Cut(part, "="); ok {
			all[name], last = value, name
		} else {
			all[last] += "," + part
		}
	}
	return all
}
