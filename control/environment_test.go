package control_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/wellknown"
)

// What variables of istiod's environment can set.
func TestTuning(t *testing.T) {
	for name, d := range map[string]control.Debounce{
		"EN-049 a burst is over after a while without changes": {After: time.Millisecond, Max: time.Hour},
		"EN-049 a burst that does not end is cut off":          {After: time.Hour, Max: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, map[string]string{"gateway.yaml": gateway, "routes.yaml": routes}, func(o *control.Options) { o.Debounce = d })
			c := p.connect(wellknown.RouteType, nil, "http.80")
			c.until(`"inlineString":"one"`, true)
			p.write("routes.yaml", strings.Replace(routes, "one", "two", 1))
			c.until(`"inlineString":"two"`, true)
		})
	}
	t.Run("EN-049 Gateways are for their own namespace", func(t *testing.T) {
		files := map[string]string{"gateway.yaml": gateway, "routes.yaml": routes} // in default; the proxy is in istio-system
		c := start(t, files, nil).connect(wellknown.RouteType, nil, "http.80")
		has(t, "RDS", text(t, c.next("")), `"inlineString":"one"`)
		c = start(t, files, func(o *control.Options) { o.ScopeGateways = true }).connect(wellknown.RouteType, nil, "http.80")
		has(t, "RDS", text(t, c.next("")), "blackhole")
	})
	t.Run("EN-052 no debug pages", func(t *testing.T) {
		p := start(t, map[string]string{"gateway.yaml": gateway}, func(o *control.Options) { o.NoDebug = true })
		if code, _ := p.get("/debug/configz"); code != http.StatusNotFound {
			t.Errorf("/debug/configz answers %d", code)
		}
		if code, _ := p.get("/version"); code != http.StatusOK {
			t.Errorf("/version answers %d", code)
		}
	})
}
