package xds

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// TestDetailFitsTheWire: whatever a refused resource holds, its NACK can be sent.
func TestDetailFitsTheWire(t *testing.T) {
	for name, text := range map[string]string{
		"cut within a letter": strings.Repeat("ü", maxDetail),
		"no UTF-8":            "name \xff",
	} {
		if _, err := proto.Marshal(detail(errors.New("x" + text))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
