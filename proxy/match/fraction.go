package match

import typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

// A Fraction is a compiled FractionalPercent.
type Fraction struct{ Numerator, Denominator uint32 }

// Of reports whether a random number falls into the fraction.
func (f Fraction) Of(random uint64) bool { return random%uint64(f.Denominator) < uint64(f.Numerator) }

// NewFraction compiles a FractionalPercent; nil is none.
func NewFraction(p *typev3.FractionalPercent) Fraction {
	f := Fraction{p.GetNumerator(), 100}
	switch p.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		f.Denominator = 10_000
	case typev3.FractionalPercent_MILLION:
		f.Denominator = 1_000_000
	}
	return f
}
