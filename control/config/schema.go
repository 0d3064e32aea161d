package config

import (
	"reflect"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// A form is what kind of YAML may stand in one place.
type form uint8

const (
	anything form = iota // no schema: taken as it is
	record               // a mapping with known field names
	dict                 // a mapping with free keys
	list
	text
	bytesText // base64 in a string
	boolean
	integer
	number
	duration
	enumeration
	intOrText // Kubernetes IntOrString
	quantity  // Kubernetes resource.Quantity
)

// A shape is the schema of one place. It describes proto messages and Go structs
// with json tags alike, so that one walk checks both.
type shape struct {
	form   form
	fields fields       // record
	elem   func() shape // list and dict
	keys   form         // dict: text, integer or boolean
	bits   int          // integer
	signed bool         // integer
	quoted bool         // integer: may stand in quotes, as protobuf's JSON allows
	enum   protoreflect.EnumDescriptor
}

// fields are the names that a record knows.
type fields interface {
	// lookup finds a field by the name written in YAML. oneof is the group of
	// which only one field may be set, "" if none.
	lookup(name string) (s shape, jsonName, oneof string, ok bool)
	names() []string
}

type messageFields struct {
	md protoreflect.MessageDescriptor
}

func (m messageFields) lookup(name string) (shape, string, string, bool) {
	fds := m.md.Fields()
	fd := fds.ByJSONName(name)
	if fd == nil {
		fd = fds.ByTextName(name)
	}
	if fd == nil {
		return shape{}, "", "", false
	}
	oneof := ""
	if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
		oneof = string(o.Name())
	}
	return fieldShape(fd), fd.JSONName(), oneof, true
}

func (m messageFields) names() []string {
	fds := m.md.Fields()
	names := make([]string, fds.Len())
	for i := range names {
		names[i] = fds.Get(i).JSONName()
	}
	return names
}

func fieldShape(fd protoreflect.FieldDescriptor) shape {
	switch {
	case fd.IsMap():
		return shape{form: dict, keys: singular(fd.MapKey()).form, elem: func() shape { return singular(fd.MapValue()) }}
	case fd.IsList():
		return shape{form: list, elem: func() shape { return singular(fd) }}
	}
	return singular(fd)
}

func singular(fd protoreflect.FieldDescriptor) shape {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return shape{form: boolean}
	case protoreflect.StringKind:
		return shape{form: text}
	case protoreflect.BytesKind:
		return shape{form: bytesText}
	case protoreflect.EnumKind:
		return shape{form: enumeration, enum: fd.Enum()}
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return shape{form: integer, bits: 32, signed: true, quoted: true}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return shape{form: integer, bits: 32, quoted: true}
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return shape{form: integer, bits: 64, signed: true, quoted: true}
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return shape{form: integer, bits: 64, quoted: true}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return shape{form: number}
	}
	return messageShape(fd.Message())
}

func messageShape(md protoreflect.MessageDescriptor) shape {
	switch md.FullName() {
	case "google.protobuf.Duration":
		return shape{form: duration}
	case "google.protobuf.Timestamp":
		return shape{form: text}
	case "google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.Any":
		return shape{form: anything}
	case "google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue",
		"google.protobuf.Int32Value", "google.protobuf.UInt32Value", "google.protobuf.Int64Value",
		"google.protobuf.UInt64Value", "google.protobuf.FloatValue", "google.protobuf.DoubleValue":
		return singular(md.Fields().ByName("value"))
	}
	return shape{form: record, fields: messageFields{md}}
}

type structFields struct{ t reflect.Type }

func (s structFields) lookup(name string) (shape, string, string, bool) {
	for f := range s.t.Fields() {
		tag, inline := jsonTag(f)
		if inline {
			if sh, n, o, ok := (structFields{f.Type}).lookup(name); ok {
				return sh, n, o, ok
			}
			continue
		}
		if tag == name {
			return typeShape(f.Type), tag, "", true
		}
	}
	return shape{}, "", "", false
}

func (s structFields) names() []string {
	var names []string
	for f := range s.t.Fields() {
		tag, inline := jsonTag(f)
		if inline {
			names = append(names, structFields{f.Type}.names()...)
		} else if tag != "" {
			names = append(names, tag)
		}
	}
	return names
}

func jsonTag(f reflect.StructField) (name string, inline bool) {
	name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" {
		return "", false
	}
	return name, name == "" && (f.Anonymous || strings.Contains(opts, "inline"))
}

// typeShape is the shape of a Go type of k8s.io/api.
func typeShape(t reflect.Type) shape {
	switch t {
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime](), reflect.TypeFor[metav1.Duration]():
		return shape{form: text}
	case reflect.TypeFor[intstr.IntOrString]():
		return shape{form: intOrText}
	case reflect.TypeFor[resource.Quantity]():
		return shape{form: quantity}
	case reflect.TypeFor[metav1.FieldsV1](), reflect.TypeFor[runtime.RawExtension]():
		return shape{form: anything}
	case reflect.TypeFor[[]byte]():
		return shape{form: bytesText}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeShape(t.Elem())
	case reflect.String:
		return shape{form: text}
	case reflect.Bool:
		return shape{form: boolean}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return shape{form: integer, bits: t.Bits(), signed: true}
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return shape{form: integer, bits: t.Bits()}
	case reflect.Float32, reflect.Float64:
		return shape{form: number}
	case reflect.Slice:
		return shape{form: list, elem: func() shape { return typeShape(t.Elem()) }}
	case reflect.Map:
		return shape{form: dict, keys: text, elem: func() shape { return typeShape(t.Elem()) }}
	case reflect.Struct:
		return shape{form: record, fields: structFields{t}}
	}
	return shape{form: anything}
}

// objectFields are the top-level fields of an Istio object.
type objectFields struct{ spec shape }

func (o objectFields) lookup(name string) (shape, string, string, bool) {
	switch name {
	case "apiVersion", "kind":
		return shape{form: text}, name, "", true
	case "metadata":
		return typeShape(reflect.TypeFor[metav1.ObjectMeta]()), name, "", true
	case "spec":
		return o.spec, name, "", true
	case "status": // written by the server; what users paste back is not read
		return shape{form: anything}, name, "", true
	}
	return shape{}, "", "", false
}

func (objectFields) names() []string {
	return []string{"apiVersion", "kind", "metadata", "spec", "status"}
}
