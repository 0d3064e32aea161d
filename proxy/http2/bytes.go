package http2

import "unsafe"

// stringOf and bytesOf are views without a copy: the bytes must not change, nor those
// of a string be written.
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) } //nolint:gosec // see above

func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) } //nolint:gosec // see above

// classes of bytes, as Envoy's codec judges them.
const (
	tokenByte     uint8 = 1 << iota // of a field's name, in lower case
	upperToken                      // of a method as well
	valueByte                       // of a field's value
	pathByte                        // of :path
	authorityByte                   // of :authority and host
	schemeByte                      // of :scheme
)

var classes = func() (t [256]uint8) {
	set := func(chars string, class uint8) {
		for i := range len(chars) {
			t[chars[i]] |= class
		}
	}
	const digits, lower, upper = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	set("!#$%&'*+-.^_`|~"+digits+lower, tokenByte|upperToken)
	set(upper, upperToken)
	set(digits+lower+upper+"!$%&'()*+,-.:;=[]_~", authorityByte)
	set(digits+lower+upper+"+-.", schemeByte)
	for c := range 256 {
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= valueByte
		}
		if c > ' ' && c != 0x7f {
			t[c] |= pathByte
		}
	}
	return t
}()

// all reports that each byte of b is of a class.
func all(b []byte, class uint8) bool {
	for _, c := range b {
		if classes[c]&class == 0 {
			return false
		}
	}
	return true
}
