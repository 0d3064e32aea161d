package http

// AppendGRPCMessage appends text in the form of a grpc-message: what is not printable
// ASCII, and "%", in per cent and two digits.
func AppendGRPCMessage(dst, text []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range text {
		if c < 0x20 || c > 0x7e || c == '%' {
			dst = append(dst, '%', digits[c>>4], digits[c&15])
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// ParseGRPCStatus reads a grpc-status.
func ParseGRPCStatus(v []byte) (code int, ok bool) {
	for _, d := range v {
		if d < '0' || d > '9' || code > 1000 {
			return 0, false
		}
		code = code*10 + int(d-'0')
	}
	return code, len(v) > 0
}
