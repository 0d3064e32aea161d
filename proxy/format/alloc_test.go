//go:build !race

package format_test

import (
	"testing"

	"github.com/lateen-mesh/lateen/proxy/format"
)

// Under the race detector the random numbers of %UNIQUE_ID% allocate.
func TestAppendAllocatesNothing(t *testing.T) {
	asText, err := format.Parse(defaultText + "%QUERY_PARAM(b)% %DYNAMIC_METADATA(f:s)% %GRPC_STATUS% %START_TIME(%s.%3f %c)% %UNIQUE_ID% %RESPONSE_TX_DURATION%")
	if err != nil {
		t.Fatal(err)
	}
	asJSON := newJSON(t, `{"jsonFormat":{"a":"%REQ(X-RAW)%","b":"x %REQ(X-BAD)%","c":["%DURATION%"],"d":{"e":"%UPSTREAM_HOST_NAME%"}}}`)
	rec, buf := httpRecord(), make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		buf = asText.Append(buf[:0], rec)
		buf = asJSON.Append(buf, rec)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
