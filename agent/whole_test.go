package agent

import (
	"testing"

	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/wellknown"
)

func TestWholeStates(t *testing.T) {
	proxies(t, func(t *testing.T, proxy string) {
		w := newWorld(t)
		w.env = []string{"ISTIO_DELTA_XDS=false"}
		w.start(proxy)
		t.Run("EN-045 a proxy that asks for whole states", func(t *testing.T) {
			w.ready()
			w.serves()
			w.control.Await(t, wellknown.ListenerType, 0, func(r xdstest.Request) bool { return !r.Delta })
		})
	})
}
