package runtime

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/match"
)

// A kind says what a value can be read as, besides its text.
type kind uint8

const (
	isNumber kind = 1 << iota
	isWhole
	isTruth
	isFraction
)

// A value is one value in all the ways in which it can be read.
type value struct {
	text     string
	is       kind
	truth    bool
	number   float64
	whole    uint64
	fraction match.Fraction
}

// maxDepth bounds how deep values may stand in each other.
const maxDepth = 64

// flatten names what is within a value "outer.inner", but for fractions.
func flatten(into map[string]value, prefix string, from *structpb.Struct) error {
	if strings.Count(prefix, ".") > maxDepth {
		return fmt.Errorf("%s: more than %d levels", prefix, maxDepth)
	}
	for key, v := range from.GetFields() {
		inner := v.GetStructValue()
		if inner != nil && len(inner.GetFields()) > 0 && !fractional(inner) {
			if err := flatten(into, prefix+key+".", inner); err != nil {
				return err
			}
			continue
		}
		one, ok := newValue(v)
		if !ok {
			return fmt.Errorf("Invalid runtime entry value for %s", prefix+key) //nolint:staticcheck // Envoy's words
		}
		into[prefix+key] = one
	}
	return nil
}

func fractional(s *structpb.Struct) bool {
	return s.GetFields()["numerator"] != nil || s.GetFields()["denominator"] != nil
}

// newValue takes a value that is no list and nothing unset.
func newValue(v *structpb.Value) (out value, ok bool) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		out.setNumber(k.NumberValue)
		out.text = numberText(k.NumberValue)
	case *structpb.Value_BoolValue:
		out.is, out.truth, out.text = isTruth, k.BoolValue, strconv.FormatBool(k.BoolValue)
	case *structpb.Value_StructValue:
		out.setFraction(k.StructValue)
		out.text = debugText(k.StructValue)
	case *structpb.Value_StringValue:
		out.text = k.StringValue
		if n, err := strconv.ParseFloat(strings.TrimSpace(out.text), 64); err == nil {
			out.setNumber(n)
		} else if truth := strings.ToLower(out.text); truth == "true" || truth == "false" {
			out.is, out.truth = isTruth, truth == "true"
		}
	default:
		return out, false
	}
	return out, true
}

// setNumber: what is no number of things is cut to one.
func (v *value) setNumber(n float64) {
	v.is, v.number = isNumber, n
	if n >= 0 && n < math.MaxUint64 {
		v.is, v.whole = v.is|isWhole, uint64(n)
	}
}

func (v *value) setFraction(s *structpb.Struct) {
	text, err := protojson.Marshal(s)
	var p typev3.FractionalPercent
	if err == nil && (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &p) == nil {
		v.is, v.fraction = isFraction, match.NewFraction(&p)
	}
}

// parse reads what an operator has written: YAML, or else a text.
func parse(text string) value {
	var tree any
	var out value
	ok := false
	if err := yaml.Unmarshal([]byte(text), &tree); err == nil {
		if v, err := structpb.NewValue(tree); err == nil {
			out, ok = newValue(v)
		}
	}
	if !ok {
		out, _ = newValue(structpb.NewStringValue(text))
	}
	out.text = text
	return out
}

// numberText writes a number as Envoy does, which knows a small whole one as a number of
// six digits and has any other as the text that it came in.
func numberText(n float64) string {
	if n == math.Trunc(n) && math.Abs(n) <= math.MaxInt32 {
		return strconv.FormatFloat(n, 'g', 6, 64)
	}
	return strconv.FormatFloat(n, 'f', -1, 64)
}

// debugText writes a fraction as protobufs are written for people to read.
func debugText(s *structpb.Struct) string {
	var b strings.Builder
	b.WriteString("goo.gle/debugonly  \n")
	for _, key := range slices.Sorted(maps.Keys(s.GetFields())) {
		is := "null_value: NULL_VALUE"
		switch k := s.GetFields()[key].GetKind().(type) {
		case *structpb.Value_NumberValue:
			is = "number_value: " + numberText(k.NumberValue)
		case *structpb.Value_StringValue:
			is = "string_value: " + strconv.Quote(k.StringValue)
		case *structpb.Value_BoolValue:
			is = "bool_value: " + strconv.FormatBool(k.BoolValue)
		}
		fmt.Fprintf(&b, "fields {\n  key: %q\n  value {\n    %s\n  }\n}\n", key, is)
	}
	return b.String()
}
