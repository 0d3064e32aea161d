package health

import "testing"

func FuzzGRPCAnswer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{1, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := message(b); err == nil && len(m)+5 != len(b) {
			t.Errorf("%d of %d bytes", len(m), len(b))
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add([]byte("a"), []byte("b"), []byte("xaxb"))
	f.Fuzz(func(t *testing.T, a, b, got []byte) {
		if matches([][]byte{a, b}, got) && (len(a)+len(b) > len(got)) {
			t.Error("matched more than there is")
		}
	})
}
