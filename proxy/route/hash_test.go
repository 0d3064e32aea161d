package route

import (
	"testing"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// The numbers are Envoy's: XXH64, chained through the seed where a header comes more than once.
func TestHashOfAHeader(t *testing.T) {
	hash := func(values ...string) (uint64, bool) {
		r := &http.Request{}
		for _, v := range values {
			r.Headers.Add([]byte("x-user"), []byte(v))
		}
		return (&HashPolicy{Header: "x-user"}).header(r)
	}
	if _, ok := hash(); ok {
		t.Error("a missing header has a hash")
	}
	if h, _ := hash("a"); h != 0xd24ec4f1a98c6e5b {
		t.Errorf("one value: %x", h)
	}
	twice, _ := hash("b", "a")
	if again, _ := hash("a", "b"); twice != again {
		t.Error("the order of values matters")
	}
	for _, other := range [][]string{{"a"}, {"b"}, {"a,b"}, {"ab"}} {
		if h, _ := hash(other...); h == twice {
			t.Errorf("%q has the hash of a and b", other)
		}
	}
}
