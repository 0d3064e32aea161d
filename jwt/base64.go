package jwt

// alphabet has the value of each character of base64url (RFC 4648, section 5), -1 for all
// others.
var alphabet = func() (t [256]int8) {
	const order = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range t {
		t[i] = -1
	}
	for i := range len(order) {
		t[order[i]] = int8(i)
	}
	return t
}()

// decode reads base64url as liberally as Envoy does: white space counts for nothing, bits
// that are left over may be anything, and the padding, which may be dots, is there in full or
// not at all.
func decode(text string) (out []byte, ok bool) {
	out = make([]byte, 0, len(text)*3/4)
	var bits uint32
	have, at := 0, 0
	for ; at < len(text) && !pads(text[at]); at++ {
		c := text[at]
		if blank(c) {
			continue
		}
		v := alphabet[c]
		if v < 0 {
			return nil, false
		}
		bits = bits<<6 | uint32(v)
		if have++; have == 4 {
			out = append(out, byte(bits>>16), byte(bits>>8), byte(bits))
			bits, have = 0, 0
		}
	}
	missing := 0
	switch have {
	case 1:
		return nil, false
	case 2:
		out, missing = append(out, byte(bits>>4)), 2
	case 3:
		out, missing = append(out, byte(bits>>10), byte(bits>>2)), 1
	}
	padding := 0
	for ; at < len(text); at++ {
		switch {
		case pads(text[at]):
			padding++
		case !blank(text[at]):
			return nil, false
		}
	}
	return out, padding == 0 || padding == missing
}

func pads(c byte) bool { return c == '=' || c == '.' }

func blank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
