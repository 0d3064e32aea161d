package mesh

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// setField is a field of a message that is set, with its value.
type setField struct {
	field protoreflect.FieldDescriptor
	value protoreflect.Value
}

// setFields are the fields that a message says, in no particular order.
func setFields(m proto.Message) []setField {
	var list []setField
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		list = append(list, setField{f, v})
		return true
	})
	return list
}
