package runtime

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/proxy/match"
)

// A Share is a part of the requests (RuntimeFractionalPercent).
type Share struct {
	values    *Values
	key       string
	otherwise match.Fraction
}

// Share compiles a RuntimeFractionalPercent; nil is nothing.
func (v *Values) Share(p *corev3.RuntimeFractionalPercent) Share {
	return v.ShareOf(p.GetRuntimeKey(), match.NewFraction(p.GetDefaultValue()))
}

// ShareOf is the share that a key names, otherwise where it has none.
func (v *Values) ShareOf(key string, otherwise match.Fraction) Share {
	return Share{v, key, otherwise}
}

// Fraction is the share as it is now. A whole number is a percentage.
func (s Share) Fraction() match.Fraction { return s.values.find(s.key).share(s.otherwise) }

func (v value) share(otherwise match.Fraction) match.Fraction {
	switch {
	case v.is&isFraction != 0:
		return v.fraction
	case v.is&isWhole != 0:
		return match.Fraction{Numerator: uint32(min(v.whole, 100)), Denominator: 100}
	}
	return otherwise
}

// Below is the share that a key made of two parts names, otherwise where it has none. It
// allocates nothing for keys of up to 256 bytes.
func (v *Values) Below(prefix, name string, otherwise match.Fraction) match.Fraction {
	if v == nil {
		return otherwise
	}
	var room [256]byte
	key := append(append(room[:0], prefix...), name...)
	return (*v.current.Load())[string(key)].share(otherwise)
}

// Of reports whether a random number falls into the share.
func (s Share) Of(random uint64) bool { return s.Fraction().Of(random) }

// A Switch is on or off (RuntimeFeatureFlag).
type Switch struct {
	values    *Values
	key       string
	otherwise bool
}

// Switch compiles a RuntimeFeatureFlag; nil is off.
func (v *Values) Switch(p *corev3.RuntimeFeatureFlag) Switch {
	return Switch{v, p.GetRuntimeKey(), p.GetDefaultValue().GetValue()}
}

// On reports whether it is on now.
func (s Switch) On() bool {
	if v := s.values.find(s.key); v.is&isTruth != 0 {
		return v.truth
	}
	return s.otherwise
}

// Whole is the number of things that a key has, cut to a whole one; otherwise where it has none.
func (v *Values) Whole(key string, otherwise uint64) uint64 {
	if one := v.find(key); one.is&isWhole != 0 {
		return one.whole
	}
	return otherwise
}

// Number is the number that a key has, otherwise where it has none.
func (v *Values) Number(key string, otherwise float64) float64 {
	if one := v.find(key); one.is&isNumber != 0 {
		return one.number
	}
	return otherwise
}
