package envoy

import (
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/control/ir"
)

// TestFormatters: operators of extensions come with their extension, or Envoy refuses the listener.
func TestFormatters(t *testing.T) {
	nested := map[string]any{"a": map[string]any{"b": []any{1.0, "%METADATA(ROUTE:istio:config)%"}}}
	for _, c := range []struct {
		name string
		log  ir.AccessLog
		want string
	}{
		{"none", ir.AccessLog{Text: "%REQ(:METHOD)%"}, ""},
		{"text", ir.AccessLog{Text: "%REQ_WITHOUT_QUERY(:PATH)% %CEL(request.path)%"}, "envoy.formatter.req_without_query envoy.formatter.cel"},
		{"JSON in JSON", ir.AccessLog{JSON: nested}, "envoy.formatter.metadata"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var names []string
			for _, f := range logFormat(c.log).GetFormatters() {
				names = append(names, f.GetName())
				if f.GetTypedConfig() == nil {
					t.Errorf("%s has no configuration", f.GetName())
				}
			}
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
