package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A schema is a node of an OpenAPI v3 schema, as it is written.
type schema map[string]any

// maxDepth of nested messages; deeper is a message that holds itself, which a
// CustomResourceDefinition cannot say.
const maxDepth = 24

// A structure makes schemas of messages.
type structure struct {
	marks markers
	// spellings adds to every field its name in protobuf, where that differs.
	spellings bool
}

// message is the schema of a message as a JSON object. Rules whose message is in
// without are left out: a field may say that they do not hold for what it embeds.
func (s structure) message(md protoreflect.MessageDescriptor, without []string, depth int) (schema, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s holds itself", md.FullName())
	}
	properties := schema{}
	var required []any // schemas of which all must hold
	var names []string // required by name alone
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		node, err := s.field(fd, depth)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fd.Name(), err)
		}
		properties[fd.JSONName()] = node
		if s.respelled(fd) {
			properties[string(fd.Name())] = s.shallow(fd, node)
		}
		switch isRequired := slices.Contains(behaviours(fd), annotations.FieldBehavior_REQUIRED); {
		case isRequired && s.respelled(fd):
			either := []any{schema{"required": []string{fd.JSONName()}}, schema{"required": []string{string(fd.Name())}}}
			required = append(required, schema{"anyOf": either})
		case isRequired:
			names = append(names, fd.JSONName())
		}
	}
	node := schema{"type": "object"}
	if len(properties) > 0 {
		node["properties"] = properties
	}
	if len(names) > 0 {
		node["required"] = names
	}
	s.restrict(node, "anyOf", required)
	s.restrict(node, "oneOf", s.choices(md))
	return node, s.bounds(node, string(md.FullName()), "kubebuilder:validation:", without)
}

// restrict adds schemas of which all must hold and which have key on top: one
// stands in the node itself, several under allOf.
func (s structure) restrict(node schema, key string, all []any) {
	if len(all) == 1 {
		node[key] = all[0].(schema)[key]
		return
	}
	if len(all) > 1 {
		old, _ := node["allOf"].([]any)
		node["allOf"] = append(old, all...)
	}
}

// choices is a schema per oneof of the message: none of its fields or exactly one.
// A second spelling counts as none: it is left to who reads the object.
func (s structure) choices(md protoreflect.MessageDescriptor) (all []any) {
	for i := range md.Oneofs().Len() {
		od := md.Oneofs().Get(i)
		if od.IsSynthetic() {
			continue
		}
		var members []any
		for j := range od.Fields().Len() {
			members = append(members, schema{"required": []string{od.Fields().Get(j).JSONName()}})
		}
		none := schema{"not": schema{"anyOf": slices.Clone(members)}}
		all = append(all, schema{"oneOf": append([]any{none}, members...)})
	}
	return all
}

func (s structure) respelled(fd protoreflect.FieldDescriptor) bool {
	return s.spellings && fd.JSONName() != string(fd.Name())
}

// shallow is the schema of a field's second spelling: the type is checked, below
// it anything goes. The server would keep a copy of every schema otherwise, and
// copies of copies below. Where Istio's own schema has both spellings, so have we.
func (s structure) shallow(fd protoreflect.FieldDescriptor, full schema) schema {
	if len(s.marks.with(string(fd.FullName()), "kubebuilder:altName=")) > 0 {
		return full
	}
	open := schema{"x-kubernetes-preserve-unknown-fields": true}
	switch full["type"] {
	case "array":
		return schema{"type": "array", "items": open}
	case "object":
		return schema{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	case nil:
		return open
	}
	return schema{"type": full["type"]}
}

func behaviours(fd protoreflect.FieldDescriptor) []annotations.FieldBehavior {
	found, _ := proto.GetExtension(fd.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return found
}

// field is the schema of a field: a map, a list or one value, with its bounds.
func (s structure) field(fd protoreflect.FieldDescriptor, depth int) (schema, error) {
	name := string(fd.FullName())
	var node schema
	var err error
	switch {
	case fd.IsMap():
		node, err = s.collection("object", "additionalProperties", fd.MapValue(), name, "protoc-gen-crd:map-value-validation:", depth)
	case fd.IsList():
		node, err = s.collection("array", "items", fd, name, "protoc-gen-crd:list-value-validation:", depth)
	default:
		node, err = s.value(fd, name, depth)
	}
	if err != nil {
		return nil, err
	}
	if kind := s.marks.with(name, "listType="); len(kind) > 0 {
		node["x-kubernetes-list-type"] = kind[0]
		node["x-kubernetes-list-map-keys"] = s.marks.with(name, "listMapKey=")
	}
	return node, s.bounds(node, name, "kubebuilder:validation:", nil)
}

// collection is a map or a list: its elements stand under key and have bounds of
// their own, marked with prefix.
func (s structure) collection(kind, key string, element protoreflect.FieldDescriptor, name, prefix string, depth int) (schema, error) {
	value, err := s.value(element, name, depth)
	if err != nil {
		return nil, err
	}
	return schema{"type": kind, key: value}, s.bounds(value, name, prefix, nil)
}

// value is the schema of a single value; name is that of the field it stands in.
func (s structure) value(fd protoreflect.FieldDescriptor, name string, depth int) (schema, error) {
	if len(s.marks.with(name, "protoc-gen-crd:validation:XIntOrString")) > 0 {
		return schema{"anyOf": []any{schema{"type": "integer"}, schema{"type": "string"}}, "x-kubernetes-int-or-string": true}, nil
	}
	switch fd.Kind() {
	case protoreflect.MessageKind:
		if full := string(fd.Message().FullName()); strings.HasPrefix(full, "google.protobuf.") {
			return s.wellKnown(fd.Message(), name)
		}
		return s.message(fd.Message(), ignored(s.marks, name), depth+1)
	case protoreflect.EnumKind:
		var names []string
		for i := range fd.Enum().Values().Len() {
			names = append(names, string(fd.Enum().Values().Get(i).Name()))
		}
		return schema{"type": "string", "enum": names}, nil
	}
	return scalar(fd.Kind())
}

// ignored are the messages of rules that a field says do not hold for what it embeds.
func ignored(marks markers, name string) (without []string) {
	for _, list := range marks.with(name, "protoc-gen-crd:validation:IgnoreSubValidation:") {
		for part := range strings.SplitSeq(strings.Trim(list, "[]"), ",") {
			without = append(without, strings.Trim(strings.TrimSpace(part), `"`))
		}
	}
	return without
}

func (s structure) wellKnown(md protoreflect.MessageDescriptor, name string) (schema, error) {
	switch md.Name() {
	case "Duration":
		node := schema{"type": "string"}
		if !slices.Contains(s.marks.with(name, "protoc-gen-crd:duration-validation:"), "none") {
			node["x-kubernetes-validations"] = []any{rule{"must be a valid duration greater than 1ms", "duration(self) >= duration('1ms')"}}
		}
		return node, nil
	case "Timestamp":
		return schema{"type": "string", "format": "date-time"}, nil
	case "Struct":
		return schema{"type": "object", "x-kubernetes-preserve-unknown-fields": true}, nil
	case "Value":
		return schema{"x-kubernetes-preserve-unknown-fields": true}, nil
	}
	if value := md.Fields().ByName("value"); value != nil && strings.HasSuffix(string(md.Name()), "Value") {
		node, err := scalar(value.Kind())
		if err == nil {
			node["nullable"] = true // a wrapper is there to tell unset from zero
		}
		return node, err
	}
	return nil, fmt.Errorf("no schema for %s", md.FullName())
}

func scalar(kind protoreflect.Kind) (schema, error) {
	switch kind {
	case protoreflect.BoolKind:
		return schema{"type": "boolean"}, nil
	case protoreflect.StringKind:
		return schema{"type": "string"}, nil
	case protoreflect.BytesKind:
		return schema{"type": "string", "format": "byte"}, nil
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return schema{"type": "integer", "format": "int32"}, nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return schema{"type": "integer", "minimum": 0, "maximum": int64(1<<32 - 1)}, nil
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return schema{"type": "integer", "format": "int64"}, nil
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return schema{"type": "integer", "minimum": 0}, nil
	case protoreflect.DoubleKind:
		return schema{"type": "number", "format": "double"}, nil
	case protoreflect.FloatKind:
		return schema{"type": "number", "format": "float"}, nil
	}
	return nil, errors.New("no schema for a " + kind.String())
}
