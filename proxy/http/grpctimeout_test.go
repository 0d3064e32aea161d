package http_test

import (
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
)

func TestTellGRPCTimeout(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Millisecond: "1m", 99_999_999 * time.Millisecond: "99999999m", 100_000 * time.Second: "100000S",
		100_000_000 * time.Second: "1666666M", 100_000_020 * time.Minute: "1666667H",
	} {
		if got := string(http.AppendGRPCTimeout(nil, d)); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

// FuzzGRPCTimeout: a deadline is never negative, and what is told of it is at most that.
func FuzzGRPCTimeout(f *testing.F) {
	for _, s := range []string{"1S", "99999999H", "0n", "1u", "12", "S", "+1S"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		d, ok := http.ParseGRPCTimeout(in)
		if d < 0 || !ok && d != 0 {
			t.Fatalf("%q: %s, %v", in, d, ok)
		}
		if again, ok := http.ParseGRPCTimeout(http.AppendGRPCTimeout(nil, d)); !ok || again > d {
			t.Fatalf("%q: %s, told as %s", in, d, again)
		}
	})
}
