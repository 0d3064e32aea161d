package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultNamespace is where namespaced objects that name none live.
const DefaultNamespace = "default"

// DecodeYAML reads all objects of a YAML or JSON text; name is how messages call
// the text (a file's path). Objects that have an error are not returned; each
// Problem says which object it is about, or has a zero Object when the document
// does not say so. Objects come in order of writing.
func DecodeYAML(name string, text []byte) (objects []*Config, problems []Problem) {
	return DecodeIn(DefaultNamespace, name, text)
}

// DecodeIn is DecodeYAML with another default namespace.
func DecodeIn(namespace, name string, text []byte) (objects []*Config, problems []Problem) {
	objects, _, problems = DecodeGuarded(namespace, name, text)
	return objects, problems
}

// DecodeGuarded is DecodeIn for who puts objects in force: guards take the place of policies
// that are broken and of which no good state is known.
func DecodeGuarded(namespace, name string, text []byte) (objects, guards []*Config, problems []Problem) {
	d := decoder{name: name, namespace: namespace, seen: map[Key]int{}}
	d.read(text)
	return d.objects, d.guards, d.problems
}

// A decoder collects what one text holds.
type decoder struct {
	name      string
	namespace string
	objects   []*Config
	guards    []*Config
	problems  []Problem
	seen      map[Key]int // line of the object with this key
	strict    bool        // judge as Validate does
}

func (d *decoder) read(text []byte) {
	if len(text) > maxText {
		d.problems = append(d.problems, Problem{Source: Source{File: d.name, Line: 1}, Message: fmt.Sprintf("file is larger than %d MiB", maxText>>20)})
		return
	}
	for _, c := range split(text) {
		docs, err := c.parse()
		for _, n := range docs {
			d.document(n, 0)
		}
		if err != nil {
			d.problems = append(d.problems, syntaxProblem(d.name, c, err))
		}
	}
}

func (d *decoder) report(n *yaml.Node, o Key, s Severity, field, message, hint string) {
	d.problems = append(d.problems, Problem{Source: Source{d.name, n.Line}, Object: o,
		Field: field, Message: message, Hint: hint, Severity: s})
}

// A heading is what a document says about itself, as far as it can be read.
type heading struct {
	apiVersion, kind, namespace, name string
	apiVersionAt, kindAt              *yaml.Node
	items                             *yaml.Node
}

func readHeading(n *yaml.Node) heading {
	h := heading{apiVersionAt: n, kindAt: n}
	if v := child(n, "apiVersion"); v != nil {
		h.apiVersion, h.apiVersionAt = v.Value, v
	}
	if v := child(n, "kind"); v != nil {
		h.kind, h.kindAt = v.Value, v
	}
	if meta := child(n, "metadata"); meta != nil {
		if v := child(meta, "name"); v != nil {
			h.name = v.Value
		}
		if v := child(meta, "namespace"); v != nil {
			h.namespace = v.Value
		}
	}
	h.items = child(n, "items")
	return h
}

// key is the object's identity with defaults.
func (h heading) key(schema *kindSchema, namespace string) Key {
	k := Key{Kind: Kind(h.kind), Namespace: h.namespace, Name: h.name}
	if schema != nil && schema.cluster {
		k.Namespace = ""
	} else if k.Namespace == "" && schema != nil {
		k.Namespace = namespace
	}
	return k
}

func (d *decoder) document(n *yaml.Node, depth int) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		d.report(n, Key{}, Error, "", "a document must be a mapping with apiVersion and kind, got a "+nodeName(n), "")
		return
	}
	h := readHeading(n)
	switch {
	case h.items != nil && h.items.Kind == yaml.SequenceNode && strings.HasSuffix(h.kind, "List") && depth < 8:
		for _, item := range h.items.Content {
			d.document(item, depth+1)
		}
		return
	case d.strict && h.kind == "" && h.apiVersion == "": // values of a chart, a patch: nothing to judge
		return
	case h.kind == "":
		d.report(n, Key{}, Error, "kind", "required", "")
		return
	case h.apiVersion == "":
		d.report(n, h.key(nil, ""), Error, "apiVersion", "required", "")
		return
	}
	known := len(d.problems)
	switch v := judge(h.apiVersion, h.kind); {
	case v.schema != nil:
		d.object(n, h, v.schema)
		if d.strict {
			writtenNamespace(d.problems[known:], h)
		}
	case v.ignored && d.strict:
		d.problems = append(d.problems, judgeUnread(d.name, n, h)...)
	case v.ignored:
		d.report(n, h.key(nil, ""), Warning, "", "ignored: this version does not read kind "+h.kind+" of "+h.apiVersion, "")
	default:
		at := h.kindAt
		if v.field == "apiVersion" {
			at = h.apiVersionAt
		}
		d.report(at, h.key(nil, ""), Error, v.field, v.message, v.hint)
		if schema := schemaOf(Kind(h.kind)); schema != nil && schema.group != "" && strings.HasPrefix(h.apiVersion, schema.group+"/") {
			w := walker{}
			w.value(n, schema.shape())
			d.guard(n, h, schema, w.json, append(d.problems[known:], w.problems...))
		}
	}
}

// guard puts what stands for a broken object beside the objects. read is what could be read of it.
func (d *decoder) guard(n *yaml.Node, h heading, schema *kindSchema, read []byte, found []Problem) {
	if d.strict {
		return
	}
	var whole struct {
		Metadata struct{ Annotations map[string]string }
		Spec     json.RawMessage
	}
	if json.Unmarshal(read, &whole) != nil {
		whole.Spec, found = nil, []Problem{{}}
	}
	o := Config{Key: h.key(schema, d.namespace), APIVersion: h.apiVersion, Annotations: whole.Metadata.Annotations, Source: Source{d.name, n.Line}}
	if o.Name == "" {
		o.Name = o.Source.String()
	}
	if g := guard(schema, o, whole.Spec, found); g != nil {
		d.guards = append(d.guards, g)
	}
}

// object decodes, defaults and validates one object.
func (d *decoder) object(n *yaml.Node, h heading, schema *kindSchema) {
	key := h.key(schema, d.namespace)
	w := walker{secret: schema.kind == Secret, strict: d.strict}
	w.value(n, schema.shape())
	d.adopt(key, w.problems)
	if w.failed {
		d.guard(n, h, schema, w.json, w.problems)
		return
	}
	o, err := build(w.json, schema, d.namespace)
	if err != nil {
		message := err.Error()
		if w.secret { // the text may quote a value
			message = "cannot be decoded"
		}
		d.report(n, key, Error, "", message, "")
		return
	}
	o.Source = Source{File: d.name, Line: n.Line}
	found := check(schema, o, w.blank)
	if d.strict {
		found = append(found, advice(o)...)
	}
	for i := range found {
		found[i].Source.Line = lineOf(n, found[i].Field)
	}
	slices.SortStableFunc(found, func(a, b Problem) int { return a.Source.Line - b.Source.Line })
	d.adopt(o.Key, found)
	if HasErrors(found) {
		d.guard(n, h, schema, w.json, found)
		return
	}
	if first, taken := d.seen[o.Key]; taken && !d.strict {
		d.report(n, o.Key, Error, "", fmt.Sprintf("defined twice in this file (first on line %d): the first one is used", first), "")
		return
	}
	d.seen[o.Key] = n.Line
	d.objects = append(d.objects, o)
}

func (d *decoder) adopt(key Key, problems []Problem) {
	for _, p := range problems {
		p.Source.File, p.Object, p.Field = d.name, key, shortField(key.Kind, p.Field)
		d.problems = append(d.problems, p)
	}
}

// shortField leaves out "spec." for Istio kinds, whose messages would all begin with it.
func shortField(k Kind, field string) string {
	for _, s := range kinds() {
		if s.kind == k && s.message != nil {
			return strings.TrimPrefix(field, "spec.")
		}
	}
	return field
}

// build makes the Config of checked JSON.
func build(text []byte, schema *kindSchema, namespace string) (*Config, error) {
	if schema.message != nil {
		return buildIstio(text, schema, namespace)
	}
	object := reflect.New(schema.object).Interface()
	if err := json.Unmarshal(text, object); err != nil {
		return nil, err
	}
	meta, ok := object.(metav1.Object)
	if !ok {
		return nil, errors.New("has no metadata")
	}
	var head metav1.TypeMeta
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, err
	}
	if schema.cluster {
		meta.SetNamespace("")
	} else if meta.GetNamespace() == "" {
		meta.SetNamespace(namespace)
	}
	fillDefaults(object)
	return &Config{
		Key:        Key{schema.kind, meta.GetNamespace(), meta.GetName()},
		APIVersion: head.APIVersion, Labels: meta.GetLabels(), Annotations: meta.GetAnnotations(),
		CreationTime: meta.GetCreationTimestamp().Time, Spec: object,
	}, nil
}

func buildIstio(text []byte, schema *kindSchema, namespace string) (*Config, error) {
	var head struct {
		APIVersion string
		Metadata   metav1.ObjectMeta
		Spec       json.RawMessage
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, err
	}
	spec := schema.message.ProtoReflect().New().Interface()
	if len(head.Spec) > 0 {
		if err := protojson.Unmarshal(head.Spec, spec); err != nil {
			return nil, err
		}
	}
	if head.Metadata.Namespace == "" {
		head.Metadata.Namespace = namespace
	}
	return &Config{
		Key:        Key{schema.kind, head.Metadata.Namespace, head.Metadata.Name},
		APIVersion: head.APIVersion, Labels: head.Metadata.Labels, Annotations: head.Metadata.Annotations,
		CreationTime: head.Metadata.CreationTimestamp.Time, Spec: spec,
	}, nil
}

// fillDefaults sets what the Kubernetes API server would.
func fillDefaults(object any) {
	switch o := object.(type) {
	case *corev1.Service:
		if o.Spec.Type == "" {
			o.Spec.Type = corev1.ServiceTypeClusterIP
		}
		for i := range o.Spec.Ports {
			p := &o.Spec.Ports[i]
			if p.Protocol == "" {
				p.Protocol = corev1.ProtocolTCP
			}
			if p.TargetPort.IntVal == 0 && p.TargetPort.StrVal == "" {
				p.TargetPort.IntVal = p.Port
			}
		}
	case *corev1.Secret:
		if o.Type == "" {
			o.Type = corev1.SecretTypeOpaque
		}
		if len(o.StringData) > 0 && o.Data == nil {
			o.Data = map[string][]byte{}
		}
		for k, v := range o.StringData {
			o.Data[k] = []byte(v)
		}
		o.StringData = nil
	}
}

// decodeMessage reads a text that is one message without heading. Unknown fields
// are warnings. Of what is set, message is changed; other fields keep their values.
func decodeMessage(name string, text []byte, message proto.Message) (problems []Problem) {
	var root *yaml.Node
	for _, c := range split(text) {
		docs, err := c.parse()
		if err != nil {
			return []Problem{syntaxProblem(name, c, err)}
		}
		for _, n := range docs {
			if root != nil {
				return []Problem{{Source: Source{name, n.Line}, Message: "only one document is expected"}}
			}
			root = n
		}
	}
	if root == nil {
		return nil
	}
	w := walker{unknown: Warning}
	w.value(root, messageShape(message.ProtoReflect().Descriptor()))
	for i := range w.problems {
		w.problems[i].Source.File = name
	}
	if w.failed {
		return w.problems
	}
	fresh := message.ProtoReflect().New()
	var written any
	err := protojson.Unmarshal(w.json, fresh.Interface())
	if err == nil {
		err = json.Unmarshal(w.json, &written)
	}
	if err != nil {
		return append(w.problems, Problem{Source: Source{name, root.Line}, Message: err.Error()})
	}
	overlay(message.ProtoReflect(), fresh, written)
	return w.problems
}

// child is the value of a key of a mapping, nil if there is none. Of duplicates
// the last one counts.
func child(n *yaml.Node, key string) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := len(n.Content) - 2; i >= 0; i -= 2 {
		if n.Content[i].Value == key {
			v := n.Content[i+1]
			for v.Kind == yaml.AliasNode {
				v = v.Alias
			}
			return v
		}
	}
	return nil
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }

// sortedKeys makes messages about maps come in a stable order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
