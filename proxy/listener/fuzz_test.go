package listener

import "testing"

// early has parse see the bytes one by one, as they may come: once it has decided it
// stays with that, and then it has not asked for more.
func early[T comparable](t *testing.T, in []byte, parse func([]byte) (T, sight)) (T, sight) {
	t.Helper()
	whole, last := parse(in)
	for n := range len(in) {
		got, s := parse(in[:n])
		if s != more && (s != last || got != whole) {
			t.Fatalf("%q: %v, %v after %d bytes; %v, %v after all", in, got, s, n, whole, last)
		}
	}
	return whole, last
}

func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nGET", "PROXY UNKNOWN\r\n", "PROXY TCP6 ::1 ::2 1 65536\r\n",
		signatureV2 + "\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02rest", signatureV2 + "\x20\x00\x00\x00", "GET / HTTP/1.1\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		h, s := early(t, in, parseProxyHeader)
		if s == present && (h.size <= 0 || h.size > len(in) || h.from.IsValid() != h.to.IsValid()) {
			t.Fatalf("%q: %+v", in, h)
		}
	})
}

func FuzzRequestLine(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\n", "GET / HTTP/1.0\n", preface, "PRI * HTTP/2.0\r\n\r\nSN", "\x16\x03\x01", "A B C\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if protocol, s := early(t, in, parseRequestLine); (protocol != "") != (s == present) {
			t.Fatalf("%q: %q, %v", in, protocol, s)
		}
	})
}
