package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Objects that a Kubernetes API server holds come decoded, or as the JSON of their
// spec; they are judged by the rules that files are judged by, but for fields that
// this version does not know: a server may be newer, and has taken them.

// A Resource says where a Kubernetes API server keeps the objects of a kind.
type Resource struct {
	Kind     Kind
	Group    string
	Versions []string // that are read, the preferred first; all have one schema
	Custom   bool     // defined by a CustomResourceDefinition: read with FromSpec, others with FromObject
	Cluster  bool     // the objects are in no namespace

	Spec   proto.Message // of a custom kind, an example of the spec, not to be written to
	Object reflect.Type  // of other kinds, the struct of k8s.io/api
}

// Plural is the kind's name in the paths of an API, and in that of its definition.
func (r Resource) Plural() string {
	name := strings.ToLower(string(r.Kind))
	stem, y := strings.CutSuffix(name, "y")
	switch {
	case y && !strings.HasSuffix(stem, "a"):
		return stem + "ies"
	case strings.HasSuffix(name, "s"):
		return name + "es"
	}
	return name + "s"
}

// Resources are all kinds that the mesh reads, in the order of Kinds.
func Resources() []Resource {
	var all []Resource
	for _, k := range kinds() {
		all = append(all, Resource{Kind: k.kind, Group: k.group, Versions: k.versions, Custom: k.message != nil, Cluster: k.cluster, Spec: k.message, Object: k.object})
	}
	return all
}

// FromObject makes the Config of an object of k8s.io/api (*corev1.Service, …) that an
// API server holds. It is nil when a problem is an error. The object belongs to the
// Config afterwards.
func FromObject(kind Kind, object metav1.Object) (*Config, []Problem) {
	schema := schemaOf(kind)
	if schema == nil || schema.message != nil {
		return nil, []Problem{{Object: Key{kind, object.GetNamespace(), object.GetName()}, Message: "is not a kind of Kubernetes itself"}}
	}
	fillDefaults(object)
	return accept(schema, &Config{
		Key:        Key{kind, object.GetNamespace(), object.GetName()},
		APIVersion: schema.apiVersions()[0], Labels: object.GetLabels(), Annotations: object.GetAnnotations(),
		CreationTime: object.GetCreationTimestamp().Time, Spec: object,
	}, nil)
}

// FromSpec makes the Config of a custom object that an API server holds, of its
// metadata and the JSON of its spec. When a problem is an error it is nil, or for a policy
// its guard.
func FromSpec(kind Kind, apiVersion string, meta metav1.Object, spec []byte) (*Config, []Problem) {
	schema, key := schemaOf(kind), Key{kind, meta.GetNamespace(), meta.GetName()}
	if schema == nil || schema.message == nil {
		return nil, []Problem{{Object: key, Message: "is not a kind of the mesh"}}
	}
	o := &Config{
		Key: key, APIVersion: apiVersion, Labels: meta.GetLabels(), Annotations: meta.GetAnnotations(),
		CreationTime: meta.GetCreationTimestamp().Time,
	}
	var w walker
	body, problems := o.read(schema, &w, spec)
	if !HasErrors(problems) {
		o.Spec = body
		accepted, found := accept(schema, o, w.blank)
		if problems = append(problems, found...); accepted != nil {
			return accepted, problems
		}
	}
	return guard(schema, *o, w.json, problems), problems
}

// read reads the JSON of a custom object's spec; the walker has what of it could be read.
func (c *Config) read(schema *kindSchema, w *walker, spec []byte) (proto.Message, []Problem) {
	message := schema.message.ProtoReflect().New().Interface()
	if len(spec) == 0 {
		return message, nil
	}
	n, err := jsonTree(spec)
	if err != nil {
		return nil, []Problem{{Object: c.Key, Message: err.Error()}}
	}
	w.lenient = true
	w.value(n, messageShape(message.ProtoReflect().Descriptor()))
	if !w.failed && len(w.json) > 0 {
		if err := protojson.Unmarshal(w.json, message); err != nil {
			return nil, []Problem{{Object: c.Key, Message: err.Error()}}
		}
	}
	for i := range w.problems {
		w.problems[i].Object, w.problems[i].Source = c.Key, Source{}
	}
	return message, w.problems
}

// accept validates an object of an API server.
func accept(schema *kindSchema, o *Config, blank map[string]bool) (*Config, []Problem) {
	found := check(schema, o, blank)
	for i := range found {
		found[i].Object, found[i].Field = o.Key, shortField(o.Kind, found[i].Field)
	}
	if HasErrors(found) {
		return nil, found
	}
	return o, found
}

func schemaOf(kind Kind) *kindSchema {
	for _, k := range kinds() {
		if k.kind == kind {
			return &k
		}
	}
	return nil
}

// jsonTree reads JSON as the tree that YAML of the same meaning would give. The YAML
// parser itself has limits that JSON has not, of keys and of characters.
func jsonTree(text []byte) (*yaml.Node, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	n, err := jsonValue(d, 0)
	if err != nil {
		return nil, fmt.Errorf("JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("JSON: text after the value")
	}
	return n, nil
}

func jsonValue(d *json.Decoder, depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d levels deep", maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	scalar := &yaml.Node{Kind: yaml.ScalarNode, Line: 1}
	switch v := token.(type) {
	case json.Delim:
		return jsonMembers(d, v, depth)
	case string:
		scalar.Tag, scalar.Value, scalar.Style = "!!str", v, yaml.DoubleQuotedStyle
	case json.Number:
		scalar.Tag, scalar.Value = "!!int", v.String()
		if strings.ContainsAny(scalar.Value, ".eE") {
			scalar.Tag = "!!float"
		}
	case bool:
		scalar.Tag, scalar.Value = "!!bool", fmt.Sprint(v)
	default:
		scalar.Tag, scalar.Value = "!!null", "null"
	}
	return scalar, nil
}

// jsonMembers reads what follows "{" or "[" up to the end of the object or list. The
// names of an object are strings, so that both are a row of values.
func jsonMembers(d *json.Decoder, open json.Delim, depth int) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: 1}
	if open == '{' {
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
	}
	for d.More() {
		value, err := jsonValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, value)
	}
	_, err := d.Token() // the closing one
	return n, err
}
