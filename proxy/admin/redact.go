package admin

import (
	"github.com/cncf/xds/go/udpa/annotations"
	udpapb "github.com/cncf/xds/go/udpa/type/v1"
	xdspb "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// redacted stands for what must not be shown; istioctl knows the word.
const redacted = "[redacted]"

// redact hides in m what the schema marks as sensitive (private keys, passwords), also
// within Any and TypedStruct. all hides everything: a field above was sensitive. It
// reports whether m has changed.
func redact(m protoreflect.Message, all bool) (changed bool) {
	switch x := m.Interface().(type) {
	case *anypb.Any:
		return redactAny(x, all)
	case *udpapb.TypedStruct:
		return redactStruct(x.GetTypeUrl(), x.GetValue(), all)
	case *xdspb.TypedStruct:
		return redactStruct(x.GetTypeUrl(), x.GetValue(), all)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		hide := all || sensitive(f)
		switch {
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, e protoreflect.Value) bool {
				changed = redactValue(f.MapValue(), e, hide, func(n protoreflect.Value) { v.Map().Set(k, n) }) || changed
				return true
			})
		case f.IsList():
			for i := range v.List().Len() {
				changed = redactValue(f, v.List().Get(i), hide, func(n protoreflect.Value) { v.List().Set(i, n) }) || changed
			}
		default:
			changed = redactValue(f, v, hide, func(n protoreflect.Value) { m.Set(f, n) }) || changed
		}
		return true
	})
	return changed
}

func sensitive(f protoreflect.FieldDescriptor) bool {
	marked, _ := proto.GetExtension(f.Options(), annotations.E_Sensitive).(bool)
	return marked
}

// redactValue redacts one value: a field's, or an element of one.
func redactValue(f protoreflect.FieldDescriptor, v protoreflect.Value, hide bool, set func(protoreflect.Value)) bool {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return redact(v.Message(), hide)
	case protoreflect.StringKind:
		if hide {
			set(protoreflect.ValueOfString(redacted))
		}
	case protoreflect.BytesKind:
		if hide {
			set(protoreflect.ValueOfBytes([]byte(redacted)))
		}
	default:
		if hide {
			set(f.Default())
		}
	}
	return hide
}

// redactAny: what is in a message of a type that is not linked in is not printed.
func redactAny(a *anypb.Any, all bool) bool {
	inner, err := a.UnmarshalNew()
	if err != nil || !redact(inner.ProtoReflect(), all) {
		return false
	}
	return a.MarshalFrom(inner) == nil
}

// redactStruct redacts the JSON form of a message. One of an unknown type has no
// schema that could mark anything.
func redactStruct(url string, s *structpb.Struct, all bool) bool {
	t, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	if all || err != nil {
		return redact(s.ProtoReflect(), all)
	}
	text, err := protojson.Marshal(s)
	if err != nil {
		return false
	}
	m := t.New()
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, m.Interface()); err != nil || !redact(m, false) {
		return false
	}
	if text, err = protojson.Marshal(m.Interface()); err == nil {
		proto.Reset(s)
		err = protojson.Unmarshal(text, s)
	}
	return err == nil
}
