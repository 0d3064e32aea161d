package envoy

import (
	"errors"
	"fmt"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// merge puts what src says into dst. Messages are merged field by field, packed ones of
// one type too; lists grow, unless they are to be replaced; entries of maps, durations and
// values that can be null are replaced.
func merge(dst, src protoreflect.Message, replaceLists bool) error {
	var err error
	src.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsList():
			if replaceLists {
				dst.Clear(f)
			}
			list := dst.Mutable(f).List()
			for i := range v.List().Len() {
				list.Append(copied(f, v.List().Get(i)))
			}
		case f.IsMap():
			entries := dst.Mutable(f).Map()
			v.Map().Range(func(k protoreflect.MapKey, e protoreflect.Value) bool {
				entries.Set(k, copied(f.MapValue(), e))
				return true
			})
		case f.Message() == nil || !dst.Has(f) || isWhole(f.Message()):
			dst.Set(f, copied(f, v))
			if f.Message() != nil {
				err = sound(v.Message(), true, 0)
			}
		case f.Message().FullName() == "google.protobuf.Any":
			err = mergeAny(dst.Mutable(f).Message(), v.Message(), replaceLists)
		default:
			err = merge(dst.Mutable(f).Message(), v.Message(), replaceLists)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", f.Name(), err)
		}
		return err == nil
	})
	return err
}

// become makes dst a copy of src, in place.
func become(dst, src proto.Message) {
	if dst != src {
		proto.Reset(dst)
		proto.Merge(dst, src)
	}
}

func copied(f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	if f.Message() == nil {
		return v
	}
	return protoreflect.ValueOfMessage(proto.Clone(v.Message().Interface()).ProtoReflect())
}

// isWhole reports whether a message is one value, whose parts mean nothing alone.
func isWhole(d protoreflect.MessageDescriptor) bool {
	name := d.FullName()
	return name.Parent() == "google.protobuf" && name != "google.protobuf.Struct" && name != "google.protobuf.Any"
}

// mergeAny merges packed messages of one type; one of another type takes the place.
func mergeAny(dst, src protoreflect.Message, replaceLists bool) error {
	into, from := dst.Interface().(*anypb.Any), src.Interface().(*anypb.Any)
	if into.MessageName() != from.MessageName() {
		proto.Reset(into)
		proto.Merge(into, from)
		return sound(src, true, 0)
	}
	m, err := into.UnmarshalNew()
	if err != nil {
		return err
	}
	patch, err := from.UnmarshalNew()
	if err != nil {
		return err
	}
	if err := merge(m.ProtoReflect(), patch.ProtoReflect(), replaceLists); err != nil {
		return err
	}
	if err := valid(m); err != nil {
		return err
	}
	into.Value = typed(m).Value
	return nil
}

// valid checks a message by the rules that Envoy checks it by, but not what is packed in
// it.
func valid(m proto.Message) error {
	v, ok := m.(interface{ Validate() error })
	if !ok {
		return nil
	}
	return v.Validate()
}

// maxPacked is how deep messages may be packed in one another.
const maxPacked = 100

var errDepth = errors.New("too deep")

// sound checks a message with all that is packed in it. Of what a MERGE brings (whole is
// false) only the elements of lists and maps have to be whole.
func sound(m protoreflect.Message, whole bool, depth int) error {
	if whole {
		if err := errors.Join(valid(m.Interface()), wholeFlaw(m.Interface())); err != nil {
			return err
		}
	}
	return soundParts(m, whole, depth)
}

func soundParts(m protoreflect.Message, whole bool, depth int) error {
	if depth > maxPacked {
		return errDepth
	}
	switch x := m.Interface().(type) {
	case *anypb.Any:
		if x.GetTypeUrl() == "" {
			return nil
		}
		inner, err := x.UnmarshalNew()
		if err != nil {
			return err
		}
		return sound(inner.ProtoReflect(), whole, depth+1)
	default:
		if err := partFlaw(x); err != nil {
			return err
		}
	}
	var err error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if err = soundField(f, v, whole, depth); err != nil {
			err = fmt.Errorf("%s: %w", f.Name(), err)
		}
		return err == nil
	})
	return err
}

func soundField(f protoreflect.FieldDescriptor, v protoreflect.Value, whole bool, depth int) error {
	var err error
	switch {
	case f.IsMap() && f.MapValue().Message() != nil:
		v.Map().Range(func(k protoreflect.MapKey, e protoreflect.Value) bool {
			if err = element(e.Message(), whole, depth); err != nil {
				err = fmt.Errorf("[%s]: %w", k, err)
			}
			return err == nil
		})
	case f.IsMap() || f.Message() == nil:
	case f.IsList():
		for i := 0; i < v.List().Len() && err == nil; i++ {
			if err = element(v.List().Get(i).Message(), whole, depth); err != nil {
				err = fmt.Errorf("[%d]: %w", i, err)
			}
		}
	default:
		err = soundParts(v.Message(), whole, depth+1)
	}
	return err
}

// element checks one of a list: with the message that it is in, where that is checked.
func element(m protoreflect.Message, checked bool, depth int) error {
	if checked {
		return soundParts(m, true, depth+1)
	}
	return sound(m, true, depth+1)
}
