package xds

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Only reports the first field that m sets and fields do not name, by its proto
// name. A decoder lists what it understands, so that nothing that a resource asks
// for is dropped in silence; fields whose effect is nil by choice are listed as well.
// Fields that this build's schema does not know are reported by number.
func Only(m proto.Message, fields ...protoreflect.Name) error {
	r := m.ProtoReflect()
	if unknown := r.GetUnknown(); len(unknown) > 0 {
		return fmt.Errorf("%s: unknown field %s", r.Descriptor().Name(), fieldNumber(unknown))
	}
	var err error
	r.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		for _, known := range fields {
			if f.Name() == known {
				return true
			}
		}
		err = fmt.Errorf("%s: not supported", f.Name())
		return false
	})
	return err
}

func fieldNumber(raw []byte) string {
	n, _, size := protowire.ConsumeTag(raw)
	if size < 0 {
		return "?"
	}
	return fmt.Sprint(int32(n))
}
